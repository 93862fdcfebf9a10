"""Child processes: what a pause promises."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tenure.cli.embedded.processes import spawn, wait_until_stopped

BUSY = """
import os, threading, time
counts = [0] * 8
def count(number):
    while True:
        counts[number] += 1
        os.pwrite(1, b"%d" % counts[number], 0)
for number in range(8):
    threading.Thread(target=count, args=[number], daemon=True).start()
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_nothing_of_a_paused_process_goes_on(tmp_path: Path) -> None:
    child = spawn("busy", [sys.executable, "-c", BUSY], log=tmp_path / "log", env=dict(os.environ))
    try:
        for _ in range(20):
            child.pause()
            before = _times(child.pid)
            assert wait_until_stopped([child.pid], 0.0)
            assert _times(child.pid) == before
            child.resume()
        deadline = time.monotonic() + 10
        while wait_until_stopped([child.pid], 0.0):
            assert time.monotonic() < deadline
    finally:
        child.kill()
    assert wait_until_stopped([child.pid], 0.0)  # what is gone stands still


def _times(pid: int) -> list[str]:
    return sorted(
        " ".join(stat.read_text().rpartition(")")[2].split()[11:13])
        for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    )
