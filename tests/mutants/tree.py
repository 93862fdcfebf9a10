"""A copy of the checkout in a folder of its own, whose ``tenure.*`` is the copied code, so that it can be mutated.

Owns the copy and the environment that makes Python find it first; the checkout itself is never written. Nothing is
installed: the copy has its own ``.dev`` folder of links, which comes before the editable install on the path, in
every process that a test starts too, since they inherit the environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.mutants import Edit

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", ".dev", ".tenure", ".hypothesis", ".mypy_cache", ".ruff_cache", "node_modules", "build")
IMPORT_TIMEOUT_S = 60.0

_WHERE_FROM = """
import importlib, os, sys
for name in sys.argv[1:]:
    print(os.path.realpath(importlib.import_module(name).__path__[0]))
"""


class Broken(Exception):
    """The copy cannot be used: its code does not import, or is not the copied one."""


class Tree:
    """A copy of ``source`` (the checkout, or another copy of it) at ``path``, which must not exist."""

    def __init__(self, path: Path, source: Path = ROOT) -> None:
        self.path = path
        shutil.copytree(source, path, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        links = path / ".dev" / "tenure"
        links.mkdir(parents=True)
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))
        self._packages: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
        for name, folder in self._packages.items():
            (links / name.removeprefix("tenure.")).symlink_to(path / folder)

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that are to run the copied code."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        # Stores of the machine, not of an engine of containers: a mutant's run must not wait for one.
        return {"TENURE_TEST_BACKEND": "local", **inherited, "PYTHONPATH": str(self.path / ".dev")}

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits. Raises ``ValueError`` where an old text is not there exactly once."""
        for edit in edits:
            file = self.path / edit.file
            file.write_text(edit.applied_to(file.read_text(encoding="utf-8")), encoding="utf-8")

    def check_imports(self) -> None:
        """Make sure that every package comes from the copy.

        Raises:
            Broken: one does not import, or comes from elsewhere.
        """
        command = [sys.executable, "-c", _WHERE_FROM, *self._packages]
        done = subprocess.run(
            command, cwd=self.path, env=self.env, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise Broken(done.stderr.strip().splitlines()[-1])
        strangers = [line for line in done.stdout.splitlines() if not line.startswith(os.path.realpath(self.path))]
        if strangers:
            raise Broken(f"imported from elsewhere: {strangers}")
