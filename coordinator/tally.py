"""Tally: what this coordinator did of late, counted in memory by lane: the figures of an overview.

Invariants: what is kept is bounded, however many lanes there are and however long this runs; counting costs a batch of
jobs one pass over it, at most. It forgets with the process, and others count for themselves: ``overview`` adds up.
Totals for ever, for Prometheus, are ``metrics``' affair; ``counted`` tells both. Like those it is one for the process.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from tenure.model.clock import Clock, SystemClock
from tenure.model.states import JobState

FINE_S = 5
"""The last minute is told to this."""
MINUTE_S = 60
MINUTES = 60
MAX_LANES = 200
"""Of one span; what comes in further lanes is counted without its lane."""
NO_LANE = 0
"""Where what is counted has none that is known."""


class What(StrEnum):
    """What is counted: the fields of ``Figures`` in the proto."""

    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    RETURNED = "returned"
    LOST = "lost"


Counts = Counter[tuple[int, What]]
"""By lane."""
_ENDS: Mapping[str, What] = {
    JobState.COMPLETED: What.COMPLETED,
    JobState.FAILED: What.FAILED,
    JobState.CANCELED: What.CANCELED,
}


class _Spans:
    """Counts in spans of equal length, of which the last few are kept."""

    def __init__(self, length_s: int, most: int) -> None:
        self._length_s = length_s
        self._spans: deque[tuple[int, Counts, set[int]]] = deque(maxlen=most)

    def add(self, at_s: float, what: What, lanes: Mapping[int, int]) -> None:
        number = int(at_s // self._length_s)
        if not self._spans or self._spans[-1][0] < number:  # a clock that was set back counts on where it was
            self._spans.append((number, Counter(), set()))
        _, counts, known = self._spans[-1]
        for lane, jobs in lanes.items():
            if lane not in known and len(known) >= MAX_LANES:
                lane = NO_LANE
            known.add(lane)
            counts[lane, what] += jobs

    def since(self, at_s: float, spans: int) -> Counts:
        """Add up the last spans, the one that is not over among them."""
        first = int(at_s // self._length_s) - spans + 1
        total: Counts = Counter()
        for number, counts, _ in self._spans:
            if number >= first:
                total.update(counts)
        return total

    def each(self, at_s: float, spans: int) -> list[Counter[What]]:
        """Return the last spans one by one, oldest first, all lanes together."""
        first = int(at_s // self._length_s) - spans + 1
        found: list[Counter[What]] = [Counter() for _ in range(spans)]
        for number, counts, _ in self._spans:
            if 0 <= number - first < spans:
                for (_, what), jobs in counts.items():
                    found[number - first][what] += jobs
        return found


class Tally:
    """Counts. Not for several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fine = _Spans(FINE_S, MINUTE_S // FINE_S)
        self._minutes = _Spans(MINUTE_S, MINUTES)
        self.since: datetime = clock.wall()

    def count_in_lanes(self, what: What, lanes: Iterable[int]) -> None:
        """Count a job for each lane given."""
        if counted := Counter(lanes):
            self._add(what, counted)

    def submitted(self, jobs: Mapping[int, int]) -> None:
        """Count new jobs, given by lane."""
        self._add(What.SUBMITTED, jobs)

    def ended(self, jobs: Mapping[tuple[str, int], int]) -> None:
        """Count ends, given by the state that the jobs are in now and their lane: of jobs, else of attempts."""
        for (state, lane), ends in jobs.items():
            self._add(_ENDS.get(state, What.RETURNED), {lane: ends})

    def last_minute(self) -> Counts:
        """Return what was counted in the last 55 to 60 seconds."""
        return self._fine.since(self._now(), MINUTE_S // FINE_S)

    def last_hour(self) -> Counts:
        """Return what was counted in the last 59 to 60 minutes."""
        return self._minutes.since(self._now(), MINUTES)

    def minutes(self) -> list[Counter[What]]:
        """Return the last sixty minutes of the clock, oldest first; the last one is not over."""
        return self._minutes.each(self._now(), MINUTES)

    def _add(self, what: What, lanes: Mapping[int, int]) -> None:
        now = self._now()
        self._fine.add(now, what, lanes)
        self._minutes.add(now, what, lanes)

    def _now(self) -> float:
        return self._clock.wall().timestamp()


TALLY = Tally(SystemClock())
