"""The one place that reads clocks and sleeps; everything else is handed a ``Clock``.

Deadlines are monotonic and count suspend; wall time is for people only (due times are judged by Postgres).
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

wall_ns = time.time_ns
"""The time of day as spans of traces have it."""
elapsed_s = time.perf_counter
"""For how long something took, which nothing is decided by: the difference of two of these."""


class Clock(Protocol):
    """What the rest of tenure may know about time."""

    def monotonic(self) -> float:
        """Seconds that never go back and count a suspended machine."""
        ...

    def wall(self) -> datetime:
        """The time of day in UTC, for display."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        # A guest may stop either clock over a suspend: the one that has moved further is believed (RELIABILITY H5).
        self._offset = self._boottime() - time.monotonic()
        self._lead = 0.0

    @staticmethod
    def _boottime() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def monotonic(self) -> float:
        """Monotonic seconds: the larger elapsed of CLOCK_MONOTONIC and CLOCK_BOOTTIME."""
        now = time.monotonic()
        ahead = self._boottime() - now - self._offset
        if ahead > self._lead:
            self._lead = ahead
        return now + self._lead

    def wall(self) -> datetime:
        """Now, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)
