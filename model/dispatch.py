"""Which ready jobs to offer to which workers: a pure decision over one picture of the cluster.

Order: strictly by priority. At equal priority namespaces take turns, so that the jobs each has in flight stand in
proportion to its weight; within a namespace by activation time, then id. A job that cannot run now (no worker has room,
a limit is full) is passed over, never in the way of those behind it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tenure.model.routes import covers

Order = tuple[int, float, str]
"""Rank, activation time, id: what comes first is the least."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Ready jobs that can be decided upon alike."""

    id: int
    pool: str
    namespace: str
    kind: str
    limits: tuple[str, ...] = ()
    """Names of limits, sorted."""
    requires: tuple[tuple[str, str], ...] = ()
    """Labels that a worker must have, sorted."""


class Candidate(NamedTuple):
    """A ready job, as the dispatcher read it: thousands a second, so a tuple. It begins with its order."""

    rank: int
    """Its priority, negated."""
    activate_at_s: float
    """Seconds since 1970, by Postgres' clock."""
    id: str
    lane: int
    attempt: int
    route: str
    ttl_s: float

    @property
    def order(self) -> Order:
        """The key by which candidates of one namespace are served."""
        return self[:3]


@dataclass(frozen=True, slots=True)
class Window:
    """The first candidates of a namespace, in order; ``cut`` is where reading stopped, None if there are no more."""

    namespace: str
    candidates: tuple[Candidate, ...]
    cut: Order | None


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker with room: how many more jobs it can take now."""

    worker: str
    pools: tuple[str, ...]
    kinds: frozenset[str]
    free: int
    labels: Mapping[str, str] | None = None

    def serves(self, lane: Lane) -> bool:
        """Say whether this worker may run the jobs of a lane."""
        return (
            lane.kind in self.kinds
            and any(covers(pool, lane.pool) for pool in self.pools)
            and all((self.labels or {}).get(name) == value for name, value in lane.requires)
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What a namespace has in flight, and its weight against others."""

    in_flight: int = 0
    weight: float = 1.0


class Assignment(NamedTuple):
    """One job for one worker."""

    worker: str
    candidate: Candidate


def servable(lanes: Iterable[Lane], seats: Sequence[Seat]) -> dict[int, list[Seat]]:
    """Return, per lane that some worker with room serves, those workers."""
    offers: dict[tuple[object, ...], list[Seat]] = {}
    found: dict[int, list[Seat]] = {}
    for lane in lanes:
        key = (lane.pool, lane.kind, lane.requires)
        if key not in offers:
            offers[key] = [seat for seat in seats if seat.free > 0 and seat.serves(lane)]
        if offers[key]:
            found[lane.id] = offers[key]
    return found


def windows(
    candidates: Iterable[Candidate], lanes: Mapping[int, Lane], cut: Mapping[int, Order | None]
) -> list[Window]:
    """Sort what was read into one window per namespace.

    ``cut`` tells of every lane that was read where reading stopped: at its last candidate's order, or None if no more
    of it can start now. What comes after the first stop of any lane of a namespace is left out, since something unread
    may come before it.
    """
    by_namespace: dict[str, list[Candidate]] = defaultdict(list)
    stop: dict[str, Order | None] = {}
    for lane, order in cut.items():
        namespace = lanes[lane].namespace
        before = stop.setdefault(namespace, None)
        if order is not None and (before is None or order < before):
            stop[namespace] = order
    for candidate in candidates:
        by_namespace[lanes[candidate.lane].namespace].append(candidate)
    found = []
    for namespace, end in stop.items():
        mine = sorted(by_namespace[namespace])
        kept = len(mine) if end is None else bisect_right(mine, end, key=lambda candidate: candidate.order)
        found.append(Window(namespace, tuple(mine[:kept]), end))
    return found


def assign(
    read: Iterable[Window],
    lanes: Mapping[int, Lane],
    serving: Mapping[int, Sequence[Seat]],
    *,
    shares: Mapping[str, Share],
    units: Mapping[str, int],
    unread: int | None = None,
) -> list[Assignment]:
    """Give candidates, in the order of the module's head, to the serving worker with the most room left.

    ``serving`` maps a lane to its workers (see ``servable``), ``units`` a limit to the jobs that it still admits (one
    that is not there admits any number). Once a namespace's window is used up and was cut, nothing of a priority below
    the cut is given away: what was not read may come before it. ``unread`` is the rank of the first job of lanes of
    which nothing was read.
    """
    places = _Places(serving)
    left = dict(units)
    queue: list[tuple[int, float, Order, int]] = []
    sources = list(read)
    taken = [0] * len(sources)
    in_flight = {window.namespace: shares.get(window.namespace, Share()).in_flight for window in sources}

    def push(source: int) -> None:
        nonlocal unread
        window = sources[source]
        if taken[source] < len(window.candidates):
            head = window.candidates[taken[source]]
            weight = shares.get(window.namespace, Share()).weight
            heapq.heappush(queue, (head.rank, in_flight[window.namespace] / weight, head.order, source))
        elif window.cut is not None:
            unread = window.cut[0] if unread is None else min(unread, window.cut[0])

    for source in range(len(sources)):
        push(source)
    chosen: list[Assignment] = []
    while queue and places.left:
        source = heapq.heappop(queue)[-1]
        window = sources[source]
        end = taken[source] + 1 if queue else None  # alone it keeps the turn
        for candidate in window.candidates[taken[source] : end]:
            if unread is not None and candidate.rank > unread:
                return chosen
            if not places.left:
                break
            taken[source] += 1
            limits = lanes[candidate.lane].limits
            if limits and not all(left.get(name, 1) > 0 for name in limits):
                continue
            worker = places.take(candidate.lane)
            if worker is not None:
                chosen.append(Assignment(worker, candidate))
                in_flight[window.namespace] += 1
                for name in limits:
                    if name in left:
                        left[name] -= 1
        push(source)
    return chosen


class _Places:
    """The room of workers, most room first; one heap per distinct set of workers that serve a lane."""

    def __init__(self, serving: Mapping[int, Sequence[Seat]]) -> None:
        self._free = {seat.worker: seat.free for seats in serving.values() for seat in seats}
        self.left = sum(self._free.values())
        # Entries go stale when another heap takes room, and are renewed.
        heaps: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        self._heap_of: dict[int, list[tuple[int, str]]] = {}
        for lane, seats in serving.items():
            group = tuple(sorted(seat.worker for seat in seats))
            if group not in heaps:
                heaps[group] = [(-self._free[worker], worker) for worker in group]
                heapq.heapify(heaps[group])
            self._heap_of[lane] = heaps[group]

    def take(self, lane: int) -> str | None:
        """Take a place for a job of this lane; None if no worker has one."""
        heap = self._heap_of.get(lane)
        while heap:
            room, worker = heap[0]
            if -room != self._free[worker]:
                heapq.heapreplace(heap, (-self._free[worker], worker))
                continue
            if room == 0:
                return None
            self._free[worker] -= 1
            self.left -= 1
            heapq.heapreplace(heap, (-self._free[worker], worker))
            return worker
        return None


def by_worker(assignments: Iterable[Assignment]) -> dict[str, list[Candidate]]:
    """Group assignments, keeping their order within each worker."""
    grouped: dict[str, list[Candidate]] = defaultdict(list)
    for assignment in assignments:
        grouped[assignment.worker].append(assignment.candidate)
    return dict(grouped)
