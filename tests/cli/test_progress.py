"""What goes on is drawn where stderr is a terminal, and nowhere else; stdout never has any of it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest
from tests.fixtures.deployment import DeploymentFactory

from tenure.client import Client

BAR = """
from tenure.cli.progress import Bar
with Bar("jobs", 3) as bar:
    bar.advance()
    bar.to(3)
print("done")
"""
COUNT = BAR.replace('"jobs", 3', '"jobs"')
BUSY = """
from tenure.cli.progress import Busy
with Busy("applying migrations"):
    pass
print("done")
"""


def on_a_terminal(command: list[str], env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run a command whose stderr is a terminal; return its stdout and what the terminal got."""
    ours, theirs = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=100,
            env={**environment(), "TERM": "xterm", "COLUMNS": "100", **(env or {})},
        )  # fmt: skip
    finally:
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    return done.stdout.decode(), b"".join(got).decode()


def environment() -> dict[str, str]:
    ignored = ("TENURE_", "NO_COLOR", "TTY_", "FORCE_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ignored)}


@pytest.mark.parametrize(("program", "words"), [(BAR, "3/3"), (COUNT, "jobs"), (BUSY, "applying migrations")])
def test_it_is_drawn_on_a_terminal_and_gone_afterwards(program: str, words: str) -> None:
    said, drawn = on_a_terminal([sys.executable, "-c", program])
    assert said == "done\n"
    assert words in drawn
    assert drawn.rstrip("\r\n").endswith("\x1b[2K"), "the line is cleared"


@pytest.mark.parametrize("program", [BAR, COUNT, BUSY])
def test_nothing_is_drawn_elsewhere(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60, env=environment()
    )
    assert (done.stdout, done.stderr) == (b"done\n", b"")


@pytest.mark.timeout(170)
def test_waiting_for_many_jobs_shows_how_many_have_ended(deployment: DeploymentFactory) -> None:
    made = deployment()
    with Client(made.coordinator_addresses) as client:
        jobs = [client.submit("sleep", {"seconds": seconds}).id for seconds in (0.1, 0.5, 1.0)]
        seen: list[str] = []
        command = [sys.executable, "-m", "tenure.cli", "jobs", "wait", *jobs, "-o", "name"]
        said, drawn = on_a_terminal(command, made.env)
        assert said.split() == jobs
        assert "0/3" in drawn and "3/3" in drawn
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, env={**environment(), **made.env})
        assert (done.stdout.decode().split(), done.stderr) == (jobs, b"")
        assert [job.id for job in client.wait_many(jobs, 60, on_ended=lambda job: seen.append(job.id))] == jobs
        assert sorted(seen) == sorted(jobs)
