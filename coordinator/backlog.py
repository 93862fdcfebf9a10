"""Bounds of backlogs: how many unfinished jobs a namespace may have, as this coordinator sees it.

An estimate that costs a submit nothing: what the leader counted last (``count_backlogs.sql``, every two seconds, less
often where it takes long) and what this coordinator has accepted since. So a bound may be passed by what other
coordinators accept between two counts and by single submits that arrive at the very same moment, and room that finished
jobs leave shows with the next count. Only namespaces that have a bound are looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BacklogFull, TenureError
from tenure.model.jobs import PlannedJob
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

REFRESH_S = 0.5
SLICE_S = 0.05
SLICES = 1_000
"""Of a namespace, at most: nobody counts while there is no leader, and no count takes as long as they last."""


@dataclass(slots=True)
class _Slice:
    """Jobs that were written close together; monotonic instants."""

    began: float
    ended: float
    jobs: int = 0


@dataclass(slots=True)
class _Accepted:
    """Jobs of a namespace that have not been counted yet: those being written, and slices of those that are."""

    jobs: int = 0
    slices: deque[_Slice] = field(default_factory=deque)

    def written(self, jobs: int, at: float) -> None:
        if not self.slices or at - self.slices[-1].began > SLICE_S:
            self.slices.append(_Slice(at, at))
        self.slices[-1].ended = at
        self.slices[-1].jobs += jobs
        if len(self.slices) > SLICES:
            self.slices[1].jobs += self.slices.popleft().jobs

    def counted(self, at: float) -> None:
        """Forget what was written before this instant."""
        while self.slices and self.slices[0].ended < at:
            self.jobs -= self.slices.popleft().jobs


@dataclass(frozen=True, slots=True)
class _Bound:
    most: int
    counted: int


class Backlogs:
    """The bounds, and what counts against them. ``keep_fresh`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._bounds: dict[str, _Bound] = {}
        self._accepted: defaultdict[str, _Accepted] = defaultdict(_Accepted)

    async def refresh(self) -> None:
        """Read bounds and counts; forget what was accepted before it was counted."""
        asked_at = self._clock.monotonic()
        rows = await self._database.fetch("backlogs")
        self._bounds = {row.name: _Bound(row.backlog, row.unfinished) for row in rows}
        for name in self._accepted.keys() - self._bounds.keys():
            del self._accepted[name]
        for row in rows:
            self._accepted[row.name].counted(asked_at - row.age_s)

    async def keep_fresh(self) -> None:
        """Refresh until cancelled; a failure leaves the older picture."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await self.refresh()
            except TenureError as exc:
                log.warning("backlogs_not_refreshed", error=exc.message)

    def is_full(self, namespace: str) -> bool:
        """Say whether a namespace has no room for another job."""
        bound = self._bounds.get(namespace)
        return bound is not None and self._unfinished(namespace, bound) >= bound.most

    @contextmanager
    def writing(self, jobs: Sequence[PlannedJob], *, refuses: bool = True) -> Iterator[None]:
        """Count jobs against their namespaces for as long as they are written, and from then on.

        Raises:
            BacklogFull: there is no room for all of them, and ``refuses`` says that this matters.
        """
        wanted = (
            Counter(job.spec.namespace for job in jobs if job.spec.namespace in self._bounds) if self._bounds else {}
        )
        if refuses:
            for namespace, count in wanted.items():
                self._require_room(namespace, count)
        counts = [(self._accepted[namespace], count) for namespace, count in wanted.items()]
        for accepted, count in counts:
            accepted.jobs += count
        try:
            yield
        except BaseException:
            for accepted, count in counts:
                accepted.jobs -= count
            raise
        for accepted, count in counts:
            accepted.written(count, self._clock.monotonic())

    def _unfinished(self, namespace: str, bound: _Bound) -> int:
        return bound.counted + self._accepted[namespace].jobs

    def _require_room(self, namespace: str, count: int) -> None:
        bound = self._bounds[namespace]
        unfinished = self._unfinished(namespace, bound)
        if unfinished + count > bound.most:
            raise BacklogFull(
                f"namespace {namespace!r} has {unfinished:,} unfinished jobs, with {count:,} more there would be above"
                f" {bound.most:,}",
                hint="try again when some have finished, or have an operator raise the bound: tenure namespaces update",
            )
