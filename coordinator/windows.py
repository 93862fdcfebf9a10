"""Windows: history is looked through as many jobs at a time as Postgres manages within its bound of time.

A look that takes too long is made again over half as many jobs (``model.amount``). One job alone that takes too long
is stepped over, with an error in the log, so that it holds up nothing behind it. Called by retention and the archive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import structlog

from tenure.coordinator.passing import FIRST_ID
from tenure.coordinator.quiet import Look
from tenure.model.amount import Amount
from tenure.model.clock import Clock
from tenure.model.errors import TookTooLong
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)


class Windows:
    """Remembers how many jobs a look can look at."""

    def __init__(self, clock: Clock, most: int, rest: Callable[[float], Awaitable[None]]) -> None:
        """``rest``: pauses after what began then."""
        self._clock = clock
        self._rest = rest
        self._amount = Amount(most)

    async def of(self, database: Database, name: str, where: Mapping[str, Any], look: Look) -> AsyncIterator[list[Row]]:
        """Yield what each look at a span answers, whose last row says where it ended and how much it has ``seen``."""
        after = FIRST_ID
        while True:
            began, jobs = self._clock.monotonic(), self._amount.now
            try:
                rows = await database.fetch(name, {**where, "after": after, "window": jobs})
            except TookTooLong as exc:
                await self._rest(began)
                self._amount.took_too_long(jobs)
                if jobs > 1:
                    log.warning("look_halved", jobs=self._amount.now, error=exc.message)
                    continue
                [row] = await database.fetch("first_of_history", {**where, "after": after})
                if row.id is None:
                    return
                log.error("job_not_looked_at", job=str(row.id), error=exc.message)
                look.kept = True
                after = row.id
                continue
            self._amount.worked(rows[-1].seen)
            await self._rest(began)
            yield rows
            if rows[-1].seen < jobs:
                return
            after = rows[-1].last
