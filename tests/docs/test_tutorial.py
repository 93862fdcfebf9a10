"""docs/TUTORIAL.md, followed literally: its files written, its commands run in one shell, its outputs compared.

In a checkout of its own, into which it installs tenure. The comment before a block says what it is: ``install`` (in the
first terminal, in the checkout), ``file``, ``terminal`` (in the first terminal, runs until the end), ``step`` (in the
second terminal, a lasting shell), ``output`` (of the step before: each of its words is in what was really said). The
only change: ``tenure up`` gets free ports.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "TUTORIAL.md"
BLOCKS = re.findall(
    r"^<!-- (\w+)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
MADE = (".git", ".*cache*", ".dev", ".hypothesis", ".tenure", ".venv", "__pycache__", "bench-results", "build", "dist",
        "node_modules", "shop", "*.egg-info")  # fmt: skip
"""What is in the repository's folder and not in the repository."""
INSTALL_S = 600.0
READY_S = 120.0
STEP_S = 120.0
DONE = "the step has ended with"
_VOLATILE = re.compile(
    r"[0-9a-f]{8}-|^[0-9a-f]{16}$|\d+(\.\d+)?m?s\b|^─+$|^\d{2,}$|^worker\d|^vm:|…|^\d+/\d+$|^ago$|^\d+[hm]\d+m?$|^\d\d:\d\d|^\d{4}-"
)
"""Ids, leases, durations, numbers, rules of tables, times."""


def environment() -> dict[str, str]:
    """Return that of a reader, who has none of the programs that these tests have."""
    without = ("TENURE_", "PYTEST_", "PYTHON", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    mine = str(Path(sys.executable).parent)
    folders = [folder for folder in own.get("PATH", os.defpath).split(os.pathsep) if folder != mine]
    return {**own, "PATH": os.pathsep.join(folders), "COLUMNS": "160"}


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
def checkout(tmp_path: Path) -> Path:
    """A reader's checkout: what the repository has, and nothing of what was made in it."""
    made = tmp_path / "tenure"
    shutil.copytree(ROOT, made, ignore=shutil.ignore_patterns(*MADE))
    return made


@pytest.mark.timeout(1_500)
def test_the_tutorial(checkout: Path) -> None:
    first = ""
    """What was typed into the first terminal."""
    folder = checkout / "shop"
    up: subprocess.Popen[Any] | None = None
    shell: Shell | None = None
    said = ""
    steps = 0
    try:
        for role, name, text in BLOCKS:
            match role:
                case "install":
                    first = text
                    _install(text, checkout)
                    shell = Shell(folder)
                case "file":
                    (folder / name).write_text(text, encoding="utf-8")
                case "terminal":
                    up = _up(first, text, checkout, folder)
                case "step":
                    assert shell is not None
                    said = shell.run(text)
                    sys.stdout.write(f"$ {text}{said}\n")
                    steps += 1
                case "output":
                    missing = words(text) - words(said)
                    assert not missing, f"not said: {sorted(missing)}\n--- said\n{said}"
                case _:
                    pytest.fail(f"a block of no role: {role}")
    except AssertionError:
        for log in sorted(folder.rglob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}\n")
        raise
    finally:
        if shell is not None:
            shell.end()
        if up is not None:
            up.send_signal(signal.SIGINT)
            try:
                up.wait(60)
            finally:
                up.kill()
    assert steps >= 10


def _install(text: str, checkout: Path) -> None:
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def _up(first: str, text: str, checkout: Path, folder: Path) -> subprocess.Popen[Any]:
    """Type into the first terminal what was typed before, which changes nothing a second time, and this."""
    command = f"{first}\nexec {text.strip()} --grpc 127.0.0.1:0 --http 127.0.0.1:0"
    with (folder / "up.log").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", command],
            cwd=checkout,
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
