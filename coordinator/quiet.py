"""Spans of history that need not be looked through for a while: nothing of them expires before then.

Owned by whoever looks through history for a term of leadership, who forgets it all where policies or holds change. A
span in which something is kept though it has expired, by a hold or for an unfinished job, is looked through again
after a time that doubles as long as nothing goes: what keeps it says nothing when it lets go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tenure.model.clock import Clock
from tenure.model.retention import Span

ALONE_MOST_S = 7 * 86_400.0
"""For how long a span is left alone at most: what nobody thought of is found then."""


@dataclass(slots=True)
class Look:
    """What a look through a span has found."""

    next_s: float = math.inf
    """In how many seconds the next of it expires."""
    kept: bool = False
    """Something has expired and stays for now."""
    gone: int = 0

    def add(self, next_s: float | None, *, kept: bool) -> None:
        """Add what was found in a window of it."""
        self.next_s = min(self.next_s, math.inf if next_s is None else next_s)
        self.kept = self.kept or kept


class Quiet:
    """Remembers, by the beginning of a span, until when it is left alone."""

    def __init__(self, clock: Clock, *, again_s: float, most_s: float) -> None:
        """``again_s``, ``most_s``: when to look again at a span in which something is kept: at first, and at last."""
        self._clock = clock
        self._again_s = again_s
        self._most_s = most_s
        self._until: dict[datetime | None, float] = {}
        self._waits_s: dict[datetime | None, float] = {}

    def forget(self) -> None:
        """Look at all of them again: what is set has changed."""
        self._until.clear()
        self._waits_s.clear()

    def due(self, spans: Iterable[Span]) -> list[Span]:
        """Return those of all spans that there are that are to be looked through; forget others that were."""
        found = list(spans)
        there = {span.from_at for span in found}
        for kept in (self._until, self._waits_s):
            for gone in kept.keys() - there:
                del kept[gone]
        return [one for one in found if self._until.get(one.from_at, -math.inf) <= self._clock.monotonic()]

    def looked(self, span: Span, made_before: datetime, look: Look) -> None:
        """Say what was found in a span, of which all that was made before an instant was looked at."""
        if span.until_at is None or span.until_at > made_before:
            return  # more may end in it, or was not looked at
        wait_s = look.next_s
        if look.kept:
            again_s = self._again_s if look.gone else self._waits_s.get(span.from_at, self._again_s)
            self._waits_s[span.from_at] = min(2 * again_s, self._most_s)
            wait_s = min(wait_s, again_s)
        self._until[span.from_at] = self._clock.monotonic() + min(wait_s, ALONE_MOST_S)
