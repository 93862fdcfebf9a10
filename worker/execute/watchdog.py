"""Until when each process group may live: the rule by which the fork server ends handlers whose worker cannot.

The watchdog is a process, not a coroutine: it is the fork server itself (``forkserver_main``), which is the parent of
every handler process. So it needs no registration that could come too late (a deadline arrives with the request to
fork), no pid that it kills can have been recycled (only it reaps them), and it goes on while the worker is stopped.
Invariant: a group whose deadline passed without being extended is killed; an extension may shorten.

Deadlines cross processes, so they are instants of CLOCK_BOOTTIME, the one monotonic clock that all processes of a
machine share and that counts suspend; ``model.clock`` instants have an origin per process. Pure but for ``boottime``.
"""

from __future__ import annotations

import math
import time

GRACE_S = 0.2
"""Between the end of trust and the kill: the time for SIGTERM. At the smallest TTL (2 s) it is exactly the kill share
of the margin (``model.trust``), so the kill comes before the lease can expire."""


def boottime() -> float:
    """Return the seconds since boot, the same in every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def shared_instant(deadline: float, now: float) -> float | None:
    """Turn a deadline of this process' clock (``now`` is its present) into the instant at which to kill.

    None for a claim that never ends; the distant past, which kills at once, for one that is known to be gone.
    """
    return None if deadline == math.inf else boottime() + (deadline - now) + GRACE_S


class Watchdog:
    """The deadlines of process groups, by key. An unguarded group (None) lives until it is released."""

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}

    def guard(self, key: int, deadline: float | None) -> None:
        """Watch a group from now on."""
        if deadline is not None:
            self._deadlines[key] = deadline

    def extend(self, key: int, deadline: float) -> None:
        """Move the deadline of a watched group; others are left alone."""
        if key in self._deadlines:
            self._deadlines[key] = deadline

    def release(self, key: int) -> None:
        """Watch a group no longer."""
        self._deadlines.pop(key, None)

    def next_deadline(self) -> float | None:
        """Return the earliest deadline."""
        return min(self._deadlines.values(), default=None)

    def expired(self, now: float) -> list[int]:
        """Return, and release, the groups whose deadline has passed."""
        due = [key for key, deadline in self._deadlines.items() if deadline <= now]
        for key in due:
            del self._deadlines[key]
        return due
