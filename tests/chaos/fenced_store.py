"""A resource outside tenure that compares fences: what a handler's user is told to build, in thirty lines.

Owns: one file per key with the highest fence that ever wrote it. Invariant: a write under a lower fence than the
highest is refused, whoever asks, in whatever process; the instant of a write is read while the key is locked, so that
instants and decisions have the same order. Called by the chaos handlers; standard library only, as programs use it too.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

_DIGITS = 20
"""A fence has 63 bits; a fixed width makes every write the same bytes long, so that none can be seen half."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write, and when, in seconds of the monotonic clock."""

    accepted: bool
    at: float


class FencedStore:
    """A folder of keys. Safe for many processes and threads at once; a writer may be killed at any instant."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, fence: int) -> Written:
        """Write under a fence: accepted if no higher one has written this key."""
        # The lock belongs to the open file, so that threads of one process exclude each other too.
        descriptor = os.open(self._folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            highest = int(os.pread(descriptor, _DIGITS, 0) or b"0")
            accepted = fence >= highest
            if fence > highest:
                os.pwrite(descriptor, b"%0*d" % (_DIGITS, fence), 0)
            return Written(accepted, time.monotonic())
        finally:
            os.close(descriptor)
