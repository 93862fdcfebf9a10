"""Under which identity Postgres runs: it refuses to be root.

As an ordinary user it runs as that user. As root it runs in a user namespace that maps root to nobody, so that its
files stay root's and no other user gains access; where namespaces are forbidden (most containers, a chroot) it runs as
nobody by ``setpriv``, and the data folder is handed over to nobody. Where nobody may not even enter the folders (a
checkout below /root) it keeps one capability of root's, to pass by their permissions.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tenure.cli.embedded.processes import EmbeddedError

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Identity:
    """A way to run a program: what to put in front of it, and whether it must own its files as nobody."""

    prefix: tuple[str, ...] = ()
    as_nobody: bool = False

    def hand_over(self, *paths: Path) -> None:
        """Give paths (and what is below them) to the user that the program runs as."""
        if not self.as_nobody:
            return
        for path in paths:
            os.chown(path, NOBODY, NOBODY)
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    os.chown(os.path.join(folder, name), NOBODY, NOBODY, follow_symlinks=False)


NAMESPACE = Identity(("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"))
SETPRIV = Identity(
    ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=INT", "--"), as_nobody=True
)

# PostgreSQL asks access(2) for its own programs, which only heeds capabilities under this securebit.
_ONE_CAPABILITY = [f"--{kind}=-all,+dac_override" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
SETPRIV_OVERRIDE = Identity(
    (*SETPRIV.prefix[:-1], "--securebits=+no_setuid_fixup", *_ONE_CAPABILITY, "--"), as_nobody=True
)


def choose(folder: Path, program: Path) -> Identity:
    """Choose the identity under which ``program`` can work on ``folder``.

    Raises:
        EmbeddedError: the folder is another user's, or root can be shed in no way here.
    """
    owner = folder.stat().st_uid if folder.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise EmbeddedError(
                f"{folder} belongs to another user (uid {owner})",
                hint="run as that user, or choose another data directory",
            )
        return Identity()
    if owner != NOBODY and _works(NAMESPACE, program):
        return NAMESPACE
    for identity in (SETPRIV, SETPRIV_OVERRIDE):
        if _works(identity, program) and _may_enter(identity, folder.parent):
            return identity
    raise EmbeddedError(
        f"Postgres refuses to run as root, and neither unshare nor setpriv can run {program} as another user here",
        hint="run as an ordinary user, or keep the data directory and .venv where every user may enter",
    )


@functools.cache
def _works(identity: Identity, program: Path) -> bool:
    if shutil.which(identity.prefix[0]) is None:
        return False
    try:
        answer = subprocess.run([*identity.prefix, program, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    # It prints a version even when it cannot read itself, and fails later; then it says so here.
    return answer.returncode == 0 and not answer.stderr


def _may_enter(identity: Identity, folder: Path) -> bool:
    answer = subprocess.run([*identity.prefix, "test", "-x", folder], capture_output=True, timeout=30, check=False)
    return answer.returncode == 0
