"""`tenure up` as a user has it: a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenure.cli.embedded.processes import descendants, identity_of

READY_S = 90.0


class Up:
    """A running ``tenure up``."""

    def __init__(self, data: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self.data = data
        self.output = data.with_suffix(".out")
        self._said_before = self.output.stat().st_size if self.output.exists() else 0
        command = [*prefix, sys.executable, "-m", "tenure.cli", "up", "--data", str(data), *arguments]
        # As a user without settings has it, but on the programs that the tests were told to run on.
        kept = ("TENURE_PG_BIN", "TENURE_ETCD_BIN")
        env = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_") or name in kept}
        with self.output.open("ab") as output:
            # Its own session: what would be Ctrl-C is sent to it alone, and nothing leaks to the test's terminal.
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)

    @property
    def env(self) -> dict[str, str]:
        """What ``tenure.env`` says."""
        lines = (self.data / "tenure.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def is_ready(self) -> bool:
        """Return whether both answers are there: the file for tools, then the words for people."""
        said = self.output.read_bytes()[self._said_before :]
        return (self.data / "tenure.env").exists() and b"tenure is ready" in said

    def wait_until_ready(self) -> None:
        """Wait for ``tenure.env`` and for the line that says so."""
        deadline = time.monotonic() + READY_S
        while not self.is_ready():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)

    def members(self) -> dict[int, str]:
        """Every process below it, with its identity."""
        return {pid: identity_of(pid) for pid in descendants(self.process.pid)}

    def finish(self, number: int, timeout_s: float = 60.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def still_running(members: dict[int, str], timeout_s: float = 15.0) -> list[int]:
    """Return those that have not ended within the time."""
    deadline = time.monotonic() + timeout_s
    while left := [pid for pid, identity in members.items() if identity and identity_of(pid) == identity]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start ``tenure up`` on free ports: ``start_up(*arguments, data=…)``."""
    started: list[Up] = []

    def start(*arguments: str, data: Path | None = None, grpc: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()) -> Up:
        up = Up(data or tmp_path / "data", "--grpc", grpc, "--http", "127.0.0.1:0", *arguments, prefix=prefix)
        started.append(up)
        return up

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGKILL)
            up.process.wait(10)
