"""Which ready jobs to offer to which workers: a pure decision over one picture of the cluster.

Order: strictly by priority, then activation time, then id. A job that no worker can take now is passed over,
never in the way of those behind it.
"""

from __future__ import annotations

import heapq
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tenure.model.routes import covers


@dataclass(frozen=True, slots=True)
class Lane:
    """Ready jobs that can be decided upon alike."""

    id: int
    pool: str
    namespace: str
    kind: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ready job, as the dispatcher read it."""

    id: uuid.UUID
    lane: int
    attempt: int
    priority: int
    activate_at: datetime
    route: str
    ttl_s: float

    @property
    def order(self) -> tuple[int, datetime, uuid.UUID]:
        """The key by which candidates are served."""
        return (-self.priority, self.activate_at, self.id)


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker with room: how many more jobs it can take now."""

    worker: str
    pools: tuple[str, ...]
    kinds: frozenset[str]
    free: int

    def serves(self, lane: Lane) -> bool:
        """Say whether this worker may run the jobs of a lane."""
        return lane.kind in self.kinds and any(covers(pool, lane.pool) for pool in self.pools)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One job for one worker."""

    worker: str
    candidate: Candidate


def servable(lanes: Iterable[Lane], seats: Sequence[Seat]) -> dict[int, list[Seat]]:
    """Return, per lane that some worker with room serves, those workers."""
    offers: dict[tuple[str, str], list[Seat]] = {}
    found: dict[int, list[Seat]] = {}
    for lane in lanes:
        key = (lane.pool, lane.kind)
        if key not in offers:
            offers[key] = [seat for seat in seats if seat.free > 0 and seat.serves(lane)]
        if offers[key]:
            found[lane.id] = offers[key]
    return found


def assign(candidates: Iterable[Candidate], serving: Mapping[int, Sequence[Seat]]) -> list[Assignment]:
    """Give each candidate, in order, to the serving worker with the most room left.

    ``serving`` maps a lane to its workers (see ``servable``). Candidates beyond the room are left out.
    """
    free: dict[str, int] = {seat.worker: seat.free for seats in serving.values() for seat in seats}
    # One heap of workers per distinct set of them; entries go stale when another heap takes room, and are renewed.
    heaps: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    lane_heap: dict[int, list[tuple[int, str]]] = {}
    for lane, seats in serving.items():
        group = tuple(sorted(seat.worker for seat in seats))
        if group not in heaps:
            heaps[group] = [(-free[worker], worker) for worker in group]
            heapq.heapify(heaps[group])
        lane_heap[lane] = heaps[group]
    chosen: list[Assignment] = []
    for candidate in candidates:
        heap = lane_heap.get(candidate.lane)
        while heap:
            room, worker = heap[0]
            if -room != free[worker]:
                heapq.heapreplace(heap, (-free[worker], worker))
                continue
            if room == 0:
                break
            free[worker] -= 1
            heapq.heapreplace(heap, (-free[worker], worker))
            chosen.append(Assignment(worker, candidate))
            break
    return chosen


def by_worker(assignments: Iterable[Assignment]) -> dict[str, list[Candidate]]:
    """Group assignments, keeping their order within each worker."""
    grouped: dict[str, list[Candidate]] = defaultdict(list)
    for assignment in assignments:
        grouped[assignment.worker].append(assignment.candidate)
    return dict(grouped)
