"""How much at once: halved where it took too long, and kept at what worked.

What was halved because of one item that takes too long by itself grows back as fast as it shrank: that item was the
cause. Else more is tried only now and then, since each try that fails costs a statement's whole time.
"""

from __future__ import annotations

GROWS_AFTER = 20
"""So many times in a row an amount has to work before twice as much is tried, after that had taken too long."""


class Amount:
    """How many items are taken at once, at most."""

    def __init__(self, most: int) -> None:
        self.now = self._most = self._good = most
        self._times = 0

    def worked(self, items: int) -> None:
        """Say that so many were not too many; fewer than there might have been say nothing of more."""
        if items < self.now:
            return
        self._times += 1
        if self.now < self._good or self._times == GROWS_AFTER:
            self.now = min(self._most, 2 * self.now)
            self._good = max(self._good, self.now)
            self._times = 0

    def took_too_long(self, items: int) -> None:
        """Say that so many were too many; of one alone, that it was this one."""
        self._times = 0
        if items == 1:
            self._good = self._most
        else:
            self.now = self._good = max(1, min(self.now, items) // 2)
