"""Where and on what a benchmark ran: what a reader needs to judge or to repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("tenure", "grpcio", "protobuf", "psycopg", "pydantic")


def machine(data: Path) -> dict[str, Any]:
    """Describe the machine; ``data`` is where the stores keep their files."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
        "file_system": _file_system(data),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the releases of Python and of the packages that matter; the stores say theirs themselves."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> dict[str, Any]:
    """Return the commit of the sources and whether files differ from it; empty outside of a git checkout."""
    folder = Path(__file__).resolve().parent
    head = _git(folder, "rev-parse", "HEAD")
    return {"commit": head, "changed": bool(_git(folder, "status", "--porcelain"))} if head else {}


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _file_system(path: Path) -> str:
    mounted = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    for folder in (path.resolve(), *path.resolve().parents):
        if str(folder) in mounted:
            return mounted[str(folder)]
    return ""
