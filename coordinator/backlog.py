"""Bounds of namespaces, as this coordinator sees them: how many unfinished jobs each may have, how fast it may submit.

The first is an estimate that costs a submit nothing: what the leader counted last (``count_backlogs.sql``, every two
seconds, less often where it takes long) and what this coordinator has accepted since. So a bound may be passed by what
other coordinators accept between two counts and by single submits that arrive at the very same moment, and room that
finished jobs leave shows with the next count. The second is a bucket of tokens in memory: exact here, and each
coordinator has one. Only namespaces that have a bound are looked at.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BacklogFull, SubmitRateExceeded, TenureError
from tenure.model.jobs import PlannedJob
from tenure.model.submit_rate import Bucket, SubmitRate, burst_of
from tenure.store.postgres.database import Database, Row

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
        self._rates: dict[str, Bucket] = {}

    async def refresh(self) -> None:
        """Read bounds and counts; forget what was accepted before it was counted."""
        asked_at = self._clock.monotonic()
        rows = await self._database.fetch("backlogs")
        self._set_rates({row.name: _rate(row) for row in rows if row.submit_rate is not None})
        rows = [row for row in rows if row.backlog is not None]
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
        """Say whether a namespace has no room for another job, or may not submit one now."""
        bucket = self._rates.get(namespace)
        if bucket is not None and bucket.is_empty(self._clock.monotonic()):
            return True
        bound = self._bounds.get(namespace)
        return bound is not None and self._unfinished(namespace, bound) >= bound.most

    @contextmanager
    def writing(self, jobs: Sequence[PlannedJob], *, refuses: bool = True) -> Iterator[None]:
        """Count jobs against their namespaces for as long as they are written, and from then on.

        Raises:
            BacklogFull: there is no room for all of them, and ``refuses`` says that this matters.
            SubmitRateExceeded: they come too fast.
        """
        wanted = (
            Counter(job.spec.namespace for job in jobs if job.spec.namespace in self._bounds) if self._bounds else {}
        )
        if refuses:
            for namespace, count in wanted.items():
                self._require_room(namespace, count)
        taken = self._take(Counter(job.spec.namespace for job in jobs)) if self._rates else ()
        counts = [(self._accepted[namespace], count) for namespace, count in wanted.items()]
        for accepted, count in counts:
            accepted.jobs += count
        try:
            yield
        except BaseException:
            for accepted, count in counts:
                accepted.jobs -= count
            for bucket, count in taken:
                bucket.give_back(count)
            raise
        for accepted, count in counts:
            accepted.written(count, self._clock.monotonic())

    def _set_rates(self, rates: Mapping[str, SubmitRate]) -> None:
        now = self._clock.monotonic()
        for name in self._rates.keys() - rates.keys():
            del self._rates[name]
        for name, rate in rates.items():
            if name not in self._rates:
                self._rates[name] = Bucket(rate, now)
            elif self._rates[name].rate != rate:
                self._rates[name].change(rate, now)

    def _take(self, wanted: Mapping[str, int]) -> list[tuple[Bucket, int]]:
        """Take the tokens of all, or none."""
        now = self._clock.monotonic()
        taken: list[tuple[Bucket, int]] = []
        for namespace, count in wanted.items():
            if (bucket := self._rates.get(namespace)) is None:
                continue
            if wait_s := bucket.take(count, now):
                for other, returned in taken:
                    other.give_back(returned)
                raise _too_fast(namespace, count, bucket.rate, wait_s)
            taken.append((bucket, count))
        return taken

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


def _rate(row: Row) -> SubmitRate:
    return SubmitRate(row.submit_rate, burst_of(row.submit_rate, row.submit_burst))


def _too_fast(namespace: str, count: int, rate: SubmitRate, wait_s: float) -> SubmitRateExceeded:
    allowed = f"namespace {namespace!r} may submit {rate.per_s:,g} jobs a second, at most {rate.burst:,} at once"
    if wait_s == math.inf:
        return SubmitRateExceeded(
            f"{allowed}: {count:,} are more than that",
            hint="submit fewer at a time, or have an operator raise it: tenure namespaces update --submit-burst",
        )
    return SubmitRateExceeded(
        f"{allowed}: room for {count:,} more in {wait_s:.3g} s", hint="try again then", retry_after_s=wait_s
    )
