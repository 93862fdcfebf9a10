"""Waiting for real processes, by what they do rather than by the clock."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path


def is_running(pid: int) -> bool:
    """Say whether a process is there and no zombie (whoever adopts it may be slow to reap it)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_gone(pid: int, timeout_s: float = 20.0) -> None:
    """Wait for the end of any process, child or not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(timeout_s * 1000) or not is_running(pid), f"process {pid} still runs"
    finally:
        os.close(handle)


def kill_quietly(pid: int) -> None:
    """Kill what a failed test may have left."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
