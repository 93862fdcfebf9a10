"""A worker that is stopped or killed: its process and command handlers die, by the deadline or at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.worker_execute.processes import is_running, kill_quietly, wait_until_gone

ROOT = Path(__file__).parents[2]
Start = Callable[[str, float], tuple["subprocess.Popen[str]", list[int]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[tuple[subprocess.Popen[str], list[int]]] = []

    def begin(kind: str, ttl_s: float) -> tuple[subprocess.Popen[str], list[int]]:
        note = tmp_path / f"pid-{kind}"
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.worker_execute.doomed_worker", str(note), kind, str(ttl_s)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        names = [note, note.with_name(note.name + ".child")] if kind == "program" else [note]
        deadline = time.monotonic() + 60
        while not all(name.exists() and name.read_text().strip() for name in names):
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pids = [int(name.read_text()) for name in names]
        started.append((worker, pids))
        return worker, pids

    yield begin
    for worker, pids in started:
        worker.kill()
        worker.wait()
        for pid in pids:
            kill_quietly(pid)


@pytest.mark.parametrize("kind", ["stubborn", "program"])
def test_killed_worker(start: Start, kind: str) -> None:
    worker, pids = start(kind, 600.0)
    worker.kill()
    for pid in pids:
        wait_until_gone(pid)


@pytest.mark.parametrize("kind", ["stubborn", "program"])
def test_stopped_worker(start: Start, kind: str) -> None:
    worker, pids = start(kind, 1.5)
    # Longer than its trust lasts unless renewed: the deadline is being moved on.
    time.sleep(2.5)
    assert all(is_running(pid) for pid in pids)
    stopped_at = time.monotonic()
    os.killpg(worker.pid, signal.SIGSTOP)
    for pid in pids:
        wait_until_gone(pid)
    assert time.monotonic() - stopped_at < 15
    os.killpg(worker.pid, signal.SIGCONT)
    # Back again it learns what happened, and gives the job back rather than counting an error.
    output, _ = worker.communicate(timeout=30)
    assert output.strip() == "released"


def test_interrupting_the_workers_group_spares_the_handlers(start: Start) -> None:
    """Ctrl-C reaches the whole foreground group of a terminal; the handlers are the worker's to stop."""
    worker, pids = start("stubborn", 600.0)
    os.killpg(os.getpgid(worker.pid), signal.SIGWINCH)
    assert os.getpgid(pids[0]) != os.getpgid(worker.pid)
    assert os.getsid(pids[0]) == pids[0]
    worker.terminate()
    worker.wait(30)
    wait_until_gone(pids[0])
