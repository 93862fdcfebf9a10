"""Count: how many jobs have ended, by day, namespace, kind and state, so that nobody counts the rows of history.

No end of a job writes a counter. The leader looks through the partition of a week, once when it is over, and that of
the present week again and again, in windows, and puts what it has counted in the place of what was there. It leaves out
the last minute, in which a transaction may still commit an end that it began with; so what it counts is fixed when it
begins, and whoever reads is told until when that is. Weeks are counted in their order: all that ended before is there.

Retention takes off what it removes (``tenure.remove_history``). Both are the leader's, under its term, and take turns:
no job of a span is removed while the span is counted.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

import structlog

from tenure.coordinator.metrics import CHORES_FAILED
from tenure.coordinator.passing import FIRST_ID
from tenure.coordinator.retain import Turns, bounds_of, spans_of_history
from tenure.model.clock import Clock
from tenure.model.errors import Deposed, TenureError
from tenure.model.retention import Span
from tenure.store.postgres.database import Database, Statement

log = structlog.get_logger(__name__)

EVERY_S = 60.0
SHARE = 0.1
"""Of the time, at most, that goes into counting again what is counted."""
LAG_S = 60.0
"""No transaction that ends jobs takes as long, by Postgres' own bounds."""
WINDOW_JOBS = 10_000
REST = 4.0
"""Times as long as a window took, the next one waits."""
_Group = tuple[date, str, str, str]


class HistoryCounter:
    """Counts during one term of leadership. ``count_forever`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock, *, guard: Statement, turns: Turns | None = None) -> None:
        self._database = database
        self._clock = clock
        self._guard = guard
        self._turns = Turns() if turns is None else turns

    async def count_forever(self) -> None:
        """Count what has ended, now and again and again.

        Raises:
            Deposed: the term is over.
        """
        while True:
            began = self._clock.monotonic()
            try:
                await self.round()
                await self._database.transaction([self._guard, Statement("drop_empty_counts", {})])
            except Deposed:
                raise
            except TenureError as exc:
                CHORES_FAILED.add(1, "count")
                log.warning("count_interrupted", error=exc.message)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                CHORES_FAILED.add(1, "count")
                log.exception("count_failed")
            await self._clock.sleep(max(EVERY_S, (self._clock.monotonic() - began) / SHARE))

    async def round(self) -> None:
        """Count the weeks that are over and not counted, and the present one."""
        [at] = await self._database.fetch("counted_until", {"lag_s": LAG_S})
        counted: datetime | None = at.until_at
        _, found = await spans_of_history(self._database, 0)
        for span in found:
            is_counted = counted is not None and span.until_at is not None and span.until_at <= counted
            if is_counted or (span.from_at is not None and span.from_at >= at.can_be):
                continue
            until_at = at.can_be if span.until_at is None else min(span.until_at, at.can_be)
            async with self._turns[span.from_at]:
                await self._put(span, until_at, counted, await self._count(span, until_at))
            counted = until_at

    async def _count(self, span: Span, until_at: datetime) -> Counter[_Group]:
        jobs: Counter[_Group] = Counter()
        where = {**bounds_of(span), "counted_until": until_at, "window": WINDOW_JOBS}
        after = FIRST_ID
        while True:
            began = self._clock.monotonic()
            *groups, last = await self._database.fetch("count_page", {**where, "after": after})
            for row in groups:
                jobs[row.day, row.namespace, row.kind, row.state] += row.jobs
            if last.jobs < WINDOW_JOBS:
                return jobs
            after = last.last
            await self._clock.sleep(REST * (self._clock.monotonic() - began))

    async def _put(self, span: Span, until_at: datetime, before: datetime | None, jobs: Counter[_Group]) -> None:
        columns = list(zip(*jobs, strict=True)) or [()] * 4
        names = ("days", "namespaces", "kinds", "states")
        counted = {name: list(column) for name, column in zip(names, columns, strict=True)}
        put = {**bounds_of(span), "counted_until": until_at, "before": before, **counted, "jobs": list(jobs.values())}
        await self._database.transaction([self._guard, Statement("lock_retention", {}), Statement("put_counts", put)])
