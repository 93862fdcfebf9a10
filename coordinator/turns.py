"""Turns: which lanes a round looks at, where more have ready jobs than it has room for.

By the priority of the first job that a lane is known to have, and in turns where that is alike: the work of a round
goes by its room, not by how many tenants have jobs. Lanes under a full limit are set aside until a slot of it is free.
A hint like all of dispatch. Invariant: a lane that may have jobs to give is in one queue, or set aside; nowhere else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import zip_longest

from tenure.model.dispatch import Lane

UNREAD = -(2**31)
"""Instead of a rank, before any: a hint told of jobs of which nothing was read yet."""


class Turns:
    """Lanes that may have ready jobs which are not in flight."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._queue_of: dict[int, int] = {}
        """Lane to its rank; one that is set aside has none."""
        self._queues: dict[int, dict[int, None]] = {}
        """Rank to lanes, whose turn it is next first."""
        self._aside: dict[str, set[int]] = {}
        """Full limit to its lanes."""
        self._ended: dict[int, int] = {}
        """Lanes that were read to their end since the last poll, to the rank of a job that they gave."""

    def __contains__(self, lane: int) -> bool:
        return lane in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def begin_anew(self, heads: Iterable[tuple[Lane, int]]) -> None:
        """Take these lanes and the ranks of their first jobs for all that there are; whose turn it is stays.

        New ones come last, since most of them have nothing but jobs in flight.
        """
        place = {lane: turn for turn, lane in enumerate(lane for queue in self._queues.values() for lane in queue)}
        ranked = sorted(heads, key=lambda head: (head[1], place.get(head[0].id, len(place))))
        self._lanes = {lane.id: lane for lane, _ in ranked}
        self._queue_of = {}
        self._queues = {}
        self._aside = {}
        self._ended = {}
        for lane, rank in ranked:
            self._append(lane.id, rank)

    def hinted(self, lanes: Iterable[Lane]) -> None:
        """Look at lanes soon: they have new jobs."""
        for lane in lanes:
            self._lanes[lane.id] = lane
            if self._queue_of.get(lane.id) != UNREAD:
                self._append(lane.id, UNREAD)

    def perhaps(self, lanes: Iterable[Lane]) -> None:
        """Look at lanes again in which a job may have come free. Most of them have run it: they wait for their turn."""
        for lane in lanes:
            if lane.id not in self._lanes:
                self._lanes[lane.id] = lane
                self._append(lane.id, self._ended.get(lane.id, UNREAD))

    def __iter__(self) -> Iterator[Lane]:
        """Yield the lanes that are not set aside, in their turn: by rank, every other one of those that were hinted at.

        Half and half, so that tenants who submit all the time keep nobody from his turn.
        """
        unread = self._queues.get(UNREAD, {})
        ranked = (lane for rank in self._ranks() for lane in self._queues[rank])
        for pair in zip_longest(unread, ranked):
            for lane in pair:
                if lane is not None:
                    yield self._lanes[lane]

    def next_rank(self, looked_at: Container[int]) -> int | None:
        """Return the rank of the first lane that is not among these; None where it is not known, or there is none."""
        left = (rank for rank in self._ranks() if any(lane not in looked_at for lane in self._queues[rank]))
        return next(left, None)

    def looked_at(self, ranks: Mapping[int, int | None], given: Mapping[int, int], waiting: Container[int]) -> bool:
        """Put lanes at the end of their queues; drop those that have no more jobs.

        Returns whether lanes that gave nothing have made way for others.

        Args:
            ranks: of the next job of every lane that was looked at; None where there is none.
            given: lanes that gave jobs, to the rank of one of them.
            waiting: lanes that found no place for the jobs that they have: it is their turn still.
        """
        made_way = False
        for lane, rank in ranks.items():
            made_way |= lane not in given and self._queue_of[lane] != rank
            if rank is None:
                self._ended[lane] = given.get(lane, self._queue_of[lane])
                self._leave(lane)
                del self._lanes[lane]
            elif lane not in waiting or self._queue_of[lane] != rank:
                self._append(lane, rank)
        return made_way

    def set_aside(self, full: Mapping[int, str]) -> None:
        """Look no more at lanes, until a slot of their limit is free."""
        for lane, limit in full.items():
            self._leave(lane)
            self._aside.setdefault(limit, set()).add(lane)

    def freed(self, limits: Iterable[str]) -> None:
        """Look again at the lanes under these limits."""
        for limit in limits:
            for lane in self._aside.pop(limit, ()):
                if lane in self._lanes and lane not in self._queue_of:
                    self._append(lane, UNREAD)

    def _ranks(self) -> list[int]:
        return sorted(rank for rank, queue in self._queues.items() if queue and rank != UNREAD)

    def _append(self, lane: int, rank: int) -> None:
        self._leave(lane)
        self._queue_of[lane] = rank
        self._queues.setdefault(rank, {})[lane] = None

    def _leave(self, lane: int) -> None:
        rank = self._queue_of.pop(lane, None)
        if rank is not None:
            queue = self._queues[rank]
            del queue[lane]
            if not queue:
                del self._queues[rank]
