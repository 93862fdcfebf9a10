"""Wake-up: what the end of jobs means for those that wait for them.

Children of completed parents count down in the transaction that ends the parents; children of failed or canceled
parents are canceled here, step by step, and so are theirs. A crash in between is made good by ``sweep``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence, Set

from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.hint import Hints
from tenure.model.states import JobState
from tenure.store.postgres.database import Database, Row, Statement

SWEEP_JOBS = 1_000
REASON = "a job it depends on did not complete"


class Dependants:
    """Carries the end of parents on to their children."""

    def __init__(self, database: Database, announcer: Announcer, hints: Hints) -> None:
        self._database = database
        self._announcer = announcer
        self._hints = hints

    async def follow(self, settled: Iterable[Row]) -> int:
        """Act on rows that ``settle_parents`` returned: hint the ready ones, cancel and count the broken ones."""
        rows = list(settled)
        self._hints.ready({row.lane for row in rows if row.state == JobState.READY})
        return await self._cancel_all({row.id for row in rows if row.broken})

    async def sweep(self) -> int:
        """Catch what slipped (a parent that ended while an edge was being written, a crash between two steps)."""
        rows = await self._database.fetch("unsettled_parents", {"limit": SWEEP_JOBS})
        parents = sorted({row.id for row in rows if not row.broken})
        if parents:
            await self.follow(await self._database.fetch("settle_parents", {"ids": parents}))
        await self._cancel_all({row.id for row in rows if row.broken})
        return len(rows)

    async def _cancel_all(self, broken: Set[uuid.UUID]) -> int:
        canceled = 0
        left = sorted(broken)
        while left:
            now, left = await self._cancel(left)
            canceled += now
        return canceled

    async def _cancel(self, ids: Sequence[uuid.UUID]) -> tuple[int, list[uuid.UUID]]:
        canceled, settled = await self._database.transaction(
            [
                Statement("cancel_idle", {"ids": list(ids), "reason": REASON}),
                Statement("settle_parents", {"ids": list(ids)}),
            ]
        )
        await self._announcer.announce([Ended(str(row.id), JobState.CANCELED, row.attempt) for row in canceled])
        self._hints.ready({row.lane for row in settled if row.state == JobState.READY})
        return len(canceled), sorted({row.id for row in settled if row.broken})
