"""docs/TUTORIAL.md, followed literally: its files written, its commands run in one shell, its outputs compared.

The comment before a block says what it is: ``file``, ``terminal`` (runs until the end), ``step`` (in a lasting shell),
``output`` (of the step before: each of its words is in what was really said), ``install`` (not run here: the test's
own environment stands for it). The only change: ``tenure up`` gets free ports.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "TUTORIAL.md"
BLOCKS = re.findall(
    r"^<!-- (\w+)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
READY_S = 120.0
STEP_S = 120.0
DONE = "the step has ended with"
_VOLATILE = re.compile(
    r"[0-9a-f]{8}-|^[0-9a-f]{16}$|\d+(\.\d+)?m?s\b|^─+$|^\d{2,}$|^worker\d|^vm:|…|^\d+/\d+$|^ago$|^\d+[hm]\d+m?$|^\d\d:\d\d|^\d{4}-"
)
"""Ids, leases, durations, numbers, rules of tables, times."""


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TENURE_", "PYTEST_"))}
    return {**own, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}", "COLUMNS": "160"}


class Shell:
    """One shell, as the reader's second terminal."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def run(self, commands: str) -> str:
        """Run the commands; return what they said. The last one must succeed, and so must each before it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        script = f"set -e\n{commands}\nset +e\necho {DONE} $?\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        told = b""
        deadline = time.monotonic() + STEP_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while DONE.encode() not in told:
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{commands}\n--- said until now\n{told.decode()}"
                for _ in selector.select(left_s):
                    chunk = self._process.stdout.read()
                    assert chunk != b"", f"a command failed\n{commands}\n--- said\n{told.decode()}"
                    told += chunk or b""
        return told.decode().partition(DONE)[0]

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A reader's folder, with everything that runs in it ended after the test."""
    made = tmp_path / "shop"
    (made / ".venv" / "bin").mkdir(parents=True)
    (made / ".venv" / "bin" / "activate").write_text("")
    yield made


@pytest.mark.timeout(600)
def test_the_tutorial(folder: Path) -> None:
    up: subprocess.Popen[Any] | None = None
    shell = Shell(folder)
    said = ""
    steps = 0
    try:
        for role, name, text in BLOCKS:
            match role:
                case "file":
                    (folder / name).write_text(text, encoding="utf-8")
                case "terminal":
                    up = _up(text, folder)
                case "step":
                    said = shell.run(text)
                    sys.stdout.write(f"$ {text}{said}\n")
                    steps += 1
                case "output":
                    missing = words(text) - words(said)
                    assert not missing, f"not said: {sorted(missing)}\n--- said\n{said}"
                case _:
                    assert role == "install"
    except AssertionError:
        for log in sorted(folder.rglob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}\n")
        raise
    finally:
        shell.end()
        if up is not None:
            up.send_signal(signal.SIGINT)
            try:
                up.wait(60)
            finally:
                up.kill()
    assert steps >= 10


def _up(text: str, folder: Path) -> subprocess.Popen[Any]:
    command = f"exec {text.strip()} --grpc 127.0.0.1:0 --http 127.0.0.1:0"
    with (folder / "up.log").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + READY_S
    while not (folder / ".tenure" / "up" / "tenure.env").exists():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "up.log").read_text()
        time.sleep(0.2)
    return process


def words(text: str) -> set[str]:
    """Return what is the same from run to run: no ids, times or numbers of fences."""
    found = {word.strip(",") for word in text.split()}
    return {word for word in found if word and not _VOLATILE.search(word)}


def test_every_block_has_a_role() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCKS) == len(re.findall(r"^```\w", text, re.MULTILINE))
    assert {role for role, _, _ in BLOCKS} == {"install", "file", "terminal", "step", "output"}
