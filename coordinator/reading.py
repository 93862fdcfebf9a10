"""What was read of the lanes and is not given away yet: ready jobs, in the order in which each lane is served.

A reading costs Postgres a walk past all that left the head of the lane since the last vacuum, so each goes further than
there is room for and the next rounds live on the rest. A hint like all of dispatch: what has become of such a job since
is found by who starts it. Invariant: of a lane nothing is handed out ahead of what was not read, as of the reading; and
none is lived on past the next poll, nor for long past a hint.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tenure.coordinator.allowance import Allowance
from tenure.coordinator.flight import Flight
from tenure.model.clock import Clock
from tenure.model.dispatch import Candidate, Lane, Order
from tenure.store.postgres.database import Database

LANES_PER_READ = 128
MIN_PER_LANE = 4
AHEAD = 4
"""Rounds that one reading is to last for."""
MOST_AHEAD = 2_000
LASTS_S = 0.05
"""So long a reading of which jobs are left outlives a hint: new ones come after those, or are more urgent and wait."""


@dataclass(slots=True)
class _Rest:
    """What is left of the reading of one lane."""

    jobs: list[Candidate]
    """In order. Some may be in flight since."""
    end: Order | None
    """Where the reading stopped; None: at the end of the lane."""
    read_at: float
    shown: int = 0
    """How many of them were handed out for the round."""


class Found(NamedTuple):
    """What the lanes have, for one round."""

    candidates: list[Candidate]
    """Those that are free, in order within each lane."""
    cut: dict[int, Order | None]
    """Where each lane stops, see ``model.dispatch.windows``."""
    ended: list[int]
    """Lanes that have no more than this."""
    met: bool
    """Whether there were jobs that are not to be offered, which the next reading passes over."""


class Reader:
    """Reads lanes, during one term."""

    def __init__(self, database: Database, clock: Clock, flight: Flight, allowance: Allowance) -> None:
        self._database = database
        self._clock = clock
        self._flight = flight
        self._allowance = allowance
        self._rests: dict[int, _Rest] = {}
        self._barred: set[int] = set()
        """Lanes of which nothing that was read last can be offered: the next reading goes as far as any. A few at a
        time would take longer than they are passed over for, and what is behind them would never be reached."""
        self.strays = asyncio.Event()
        """Set when jobs of paused routes were met in the lanes above these."""

    def forget_all(self) -> None:
        """Read every lane anew."""
        self._rests.clear()
        self._barred.clear()

    def forget(self, lanes: Iterable[int]) -> set[int]:
        """Have lanes read anew; return those that are to be named again, a little later."""
        lately = self._clock.monotonic() - LASTS_S
        kept = set()
        for lane in lanes:
            rest = self._rests.get(lane)
            if rest is None:
                continue
            if rest.read_at > lately and rest.jobs:
                kept.add(lane)
            else:
                del self._rests[lane]
        return kept

    async def read(self, lanes: Sequence[Lane], units: Mapping[str, int], room: int) -> Found:
        """Return the first free jobs of the lanes: of each as many as it may be given."""
        share = -(-room // len(lanes)) + MIN_PER_LANE
        wanted = {lane.id: min([share, *(units.get(name, share) for name in lane.limits)]) for lane in lanes}
        found = Found([], {}, [], False)
        short = [lane for lane, most in wanted.items() if not self._lasts(lane, most)]
        passed = self._flight.passed_over(set(short))
        met = False
        for start in range(0, len(short), LANES_PER_READ):
            page = {lane: wanted[lane] for lane in short[start : start + LANES_PER_READ]}
            met |= await self._fetch(page, passed)
        for lane, most in wanted.items():
            rest = self._rests[lane]
            mine = rest.jobs[:most]
            rest.shown = len(mine)
            end = rest.end if len(mine) == len(rest.jobs) else mine[-1].order
            if end is None:
                found.ended.append(lane)
            elif most < share and len(mine) == most:
                end = None  # all that its limits admit is there: nothing after it can start, or is in anybody's way
            found.cut[lane] = end
            found.candidates.extend(mine)
        return found._replace(met=met)

    def left(self, lane: int) -> int | None:
        """Return the rank of a lane's next job, of those that were read last; None where it has no more."""
        rest = self._rests[lane]
        if rest.jobs:
            return rest.jobs[0].rank
        return rest.end[0] if rest.end is not None else None

    def take(self, given: Iterable[Candidate]) -> None:
        """Drop jobs that are given away: each is handed out once a reading, or it would be again when it has run."""
        ids = {one.id for one in given}
        for rest in self._rests.values():
            if rest.shown:
                rest.jobs[: rest.shown] = [one for one in rest.jobs[: rest.shown] if one.id not in ids]
                rest.shown = 0

    def _lasts(self, lane: int, most: int) -> bool:
        """Drop what came into flight since the lane was read; say whether enough is left for a round."""
        rest = self._rests.get(lane)
        if rest is None:
            return False
        free: list[Candidate] = []
        seen = 0
        while len(free) < most and seen < len(rest.jobs):
            free += self._free_of(rest.jobs[seen : seen + most])
            seen += most
        rest.jobs = free + rest.jobs[seen:]
        return rest.end is None or len(free) >= most

    async def _fetch(self, wanted: Mapping[int, int], passed_over: Mapping[int, Sequence[str]]) -> bool:
        """Read some lanes, further than wanted; return whether jobs were met that are not to be offered."""
        asked = {lane: self._further(lane, most) for lane, most in wanted.items()}
        passed = ",".join(job for lane in asked for job in passed_over.get(lane, ()))
        params = {"lanes": list(asked), "wanted": list(asked.values()), "passed": f"{{{passed}}}"}
        now = self._clock.monotonic()
        rows = list(map(Candidate._make, await self._database.fetch("ready_window", params)))
        free = self._free_of(rows)
        met = len(free) < len(rows)
        if met:
            self._flight.pass_over(set(rows).difference(free), now)
        counts = Counter([one.lane for one in rows])
        last = {one.lane: one for one in rows}  # in order within each lane
        for lane, most in asked.items():
            self._rests[lane] = _Rest([], last[lane].order if counts[lane] == most else None, now)
        for one in free:
            self._rests[one.lane].jobs.append(one)
        for lane in asked:
            if self._rests[lane].end is not None and not self._rests[lane].jobs:
                self._barred.add(lane)
            else:
                self._barred.discard(lane)
        return met

    def _further(self, lane: int, most: int) -> int:
        """Return how many jobs of a lane to read for rounds of so many."""
        furthest = max(MOST_AHEAD, most)
        return furthest if lane in self._barred else min(AHEAD * most, furthest)

    def _free_of(self, jobs: Sequence[Candidate]) -> list[Candidate]:
        """Return those that may be offered: not in flight, nor below a paused route in the lane above it."""
        rules = self._allowance.rules
        if not rules.paused_pools:
            return self._flight.free_of(jobs)
        kept = [one for one in jobs if rules.pause_of_route(one.route) is None]
        if len(kept) < len(jobs):
            self.strays.set()
        return self._flight.free_of(kept)
