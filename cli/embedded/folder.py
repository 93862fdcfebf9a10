"""A data folder of an embedded server: held by one process at a time, with notes that survive it.

Invariant: at most one process runs a server on the folder (a file lock, released by the kernel when its holder
dies), and a server whose parent was killed is stopped before the next one starts. Notes are small JSON files,
replaced atomically, readable by the owner alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tenure.cli.embedded.processes import Child, EmbeddedError, identity_of, send, wait_until_gone

LINGER_S = 3.0
"""How long an orphan may take to end by itself: the kernel has told it to when its parent died."""


class Folder:
    """One data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    def hold(self, wait_s: float = 0.0) -> None:
        """Make the folder where missing and lock it for this process; a no-op when it is held.

        Raises:
            EmbeddedError: another living process holds it, or it cannot be written.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise EmbeddedError(f"cannot use {self.path}: {error.strerror}") from error
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    lock.seek(0)
                    holder = lock.read().strip() or "unknown"
                    lock.close()
                    raise EmbeddedError(
                        f"{self.path} is in use by another process (pid {holder})",
                        hint="stop it, or choose another data directory",
                    ) from error
                time.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def notes(self, name: str) -> dict[str, Any]:
        """Read a note; empty where there is none or it is damaged."""
        try:
            found = json.loads((self.path / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, name: str, values: Mapping[str, object]) -> None:
        """Replace a note."""
        write_private(self.path / f"{name}.json", json.dumps(values) + "\n")

    def note_child(self, child: Child) -> None:
        """Remember a child, so that whoever comes next can stop it if this process cannot."""
        self.note(f"{child.name}.run", {"pid": child.pid, "identity": child.identity})

    def forget_child(self, name: str) -> None:
        """A child has ended."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / f"{name}.run.json").unlink()

    def stop_orphan(self, name: str, steps: Sequence[tuple[int, float]]) -> None:
        """Stop a server that an earlier holder left behind: wait for it, then signal it step by step.

        Raises:
            EmbeddedError: it cannot be stopped.
        """
        run = self.notes(f"{name}.run")
        pid, identity = int(run.get("pid", 0)), str(run.get("identity", ""))
        if not pid or not identity or identity_of(pid) != identity:
            return
        if wait_until_gone([pid], LINGER_S):
            return
        for number, grace_s in steps:
            if identity_of(pid) == identity and send(pid, number) and wait_until_gone([pid], grace_s):
                return
        if identity_of(pid) == identity:
            raise EmbeddedError(f"an earlier {name} (pid {pid}) still runs on {self.path} and cannot be stopped")


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only the owner may read it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
