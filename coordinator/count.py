"""Count: how many jobs have ended, by day, namespace, kind and state, so that nobody counts the rows of history.

The leader counts what has ended since it last did, a span of time in a transaction: no end of a job writes a counter.
It leaves out the last minute, in which a transaction may still commit an end that it began with. Whoever reads is told
until when is counted. Each job is counted once: a span begins where the one before has ended, which its transaction
checks, and nothing is removed meanwhile. Retention takes off what it removes (``tenure.remove_history``).
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import Deposed, TenureError
from tenure.store.postgres.database import Database, Statement

log = structlog.get_logger(__name__)

EVERY_S = 30.0
LAG_S = 60.0
"""No transaction that ends jobs takes as long, by Postgres' own bounds."""
SPAN = timedelta(minutes=10)
"""Counted at once, where much is to be counted."""
REST = 4.0
"""Times as long as a count took, the next one waits."""
CLEAN_EVERY_S = 3_600.0


class HistoryCounter:
    """Counts during one term of leadership. ``count_forever`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock, *, guard: Statement) -> None:
        self._database = database
        self._clock = clock
        self._guard = guard

    async def count_forever(self) -> None:
        """Count what has ended, now and again and again.

        Raises:
            Deposed: the term is over.
        """
        cleaned_at = self._clock.monotonic()
        while True:
            try:
                await self.round()
                if self._clock.monotonic() - cleaned_at > CLEAN_EVERY_S:
                    cleaned_at = self._clock.monotonic()
                    await self._database.transaction([self._guard, Statement("drop_empty_counts", {})])
            except Deposed:
                raise
            except TenureError as exc:
                log.warning("count_interrupted", error=exc.message)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                log.exception("count_failed")
            await self._clock.sleep(EVERY_S)

    async def round(self) -> None:
        """Count all that can be counted by now."""
        [at] = await self._database.fetch("counted_until", {"lag_s": LAG_S})
        counted, from_at = at.until_at, at.from_at
        while from_at < at.can_be:
            began = self._clock.monotonic()
            until_at = min(from_at + SPAN, at.can_be)
            span = {"counted": counted, "from_at": from_at, "until_at": until_at}
            *_, [row] = await self._database.transaction(
                [self._guard, Statement("lock_retention", {}), Statement("count_history", span)]
            )
            if not row.moved:  # somebody else has counted it
                return
            counted = from_at = until_at
            await self._clock.sleep(REST * (self._clock.monotonic() - began))
