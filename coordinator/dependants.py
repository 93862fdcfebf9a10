"""Wake-up: what the end of jobs means for those that wait for them.

Children count down, and become ready by their triggers, in the transaction that ends their parents. Those whose trigger
can no longer be met are ended here, step by step: each step settles what waits for the jobs that it ended. A crash in
between is made good by ``sweep``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence, Set

from tenure.coordinator import counted
from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.hint import Hints
from tenure.model.states import JobState
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.locked import write_unlocked

SWEEP_JOBS = 1_000


class Dependants:
    """Carries the end of parents on to their children."""

    def __init__(self, database: Database, announcer: Announcer, hints: Hints) -> None:
        self._database = database
        self._announcer = announcer
        self._hints = hints

    async def follow(self, settled: Iterable[Row], *, steps: int | None = None) -> int:
        """Act on rows that ``settle_parents`` returned: hint the ready ones, end and count the broken ones.

        With ``steps``, not deeper than that: the sweep ends the rest.
        """
        rows = list(settled)
        self._hints.ready({row.lane for row in rows if row.state == JobState.READY})
        return await self._end_all({row.id for row in rows if row.broken}, steps)

    async def sweep(self) -> int:
        """Catch what slipped (a parent that ended while an edge was being written, a crash between two steps)."""
        rows = await self._database.fetch("unsettled_parents", {"limit": SWEEP_JOBS})
        parents = sorted({row.id for row in rows if not row.broken})
        while parents and (settled := await self._database.fetch("settle_parents", {"ids": parents})):
            await self.follow(settled)  # a bounded number of edges at a time
        await self._end_all({row.id for row in rows if row.broken})
        return len(rows)

    async def _end_all(self, broken: Set[uuid.UUID], steps: int | None = None) -> int:
        ended = 0
        left = sorted(broken)
        while left and steps != 0:
            now, left = await self._end(left)
            ended += now
            steps = None if steps is None else steps - 1
        return ended

    async def _end(self, ids: Sequence[uuid.UUID]) -> tuple[int, list[uuid.UUID]]:
        # One that somebody has locked is left to the sweep.
        (ended, settled), _ = await write_unlocked(self._database, ids, self._write)
        counted.ended(ended)
        await self._announcer.announce([Ended(str(row.id), JobState(row.state), row.attempt) for row in ended])
        self._hints.ready({row.lane for row in settled if row.state == JobState.READY})
        return len(ended), sorted({row.id for row in settled if row.broken})

    async def _write(self, ids: Set[uuid.UUID]) -> list[list[Row]]:
        columns = {"ids": sorted(ids)}
        return await self._database.transaction(
            [Statement("end_broken", columns), Statement("settle_parents", columns)]
        )
