"""Installs peers and tools by pip and npm into folders of their own, and finds them there the next time.

Invariant: a folder with a stamp holds exactly what ``versions.toml`` names; one without is begun anew.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(".dev/peers")
INSTALL_S = 600.0
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


class NotInstalledError(Exception):
    """Something cannot be had here; the message says why."""


def python(name: str) -> Path:
    """Return the Python of the environment that holds what ``[python]`` lists under a name.

    Raises:
        NotInstalledError: pip failed.
    """
    packages = _packages("python", name)
    folder = _folder(name)
    if _is_stale(folder, packages):
        _run([sys.executable, "-m", "venv", "--clear", folder])
        _run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        _stamp(folder, packages)
    return folder / "bin" / "python"


def node(name: str) -> Path:
    """Return the Node whose folder holds what ``[node]`` lists under a name.

    Raises:
        NotInstalledError: npm is missing or failed.
    """
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    runtime = f"node-linux-{architecture}"
    packages = [package.replace("node@", f"{runtime}@") if package.startswith("node@") else package
                for package in _packages("node", name)]  # fmt: skip
    folder = _folder(name)
    if _is_stale(folder, packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text("{}\n")  # else npm looks for one in the folders above
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *packages])
        _stamp(folder, packages)
    return folder / "node_modules" / runtime / "bin" / "node"


def _packages(language: str, name: str) -> list[str]:
    listed = tomllib.loads(Path(__file__).with_name("versions.toml").read_text())[language][name]
    return [str(package) for package in listed]


def _folder(name: str) -> Path:
    return FOLDER.resolve() / name


def _is_stale(folder: Path, packages: Sequence[str]) -> bool:
    stamp = folder / "stamp.json"
    return not stamp.exists() or json.loads(stamp.read_text()) != list(packages)


def _stamp(folder: Path, packages: Sequence[str]) -> None:
    (folder / "stamp.json").write_text(json.dumps(list(packages)))


def _run(command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotInstalledError(f"{command[0]}: {exc}") from exc
    if done.returncode:
        raise NotInstalledError(f"{Path(command[0]).name} said: {(done.stderr or done.stdout).strip()[-500:]}")
