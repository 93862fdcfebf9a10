"""Overdue: jobs that nobody executes and whose time is up fail, those that never started and those that never end.

One of the leader's chores. Invariant: who is overdue is judged by Postgres' clock, in the statement that ends the job,
and a start is refused by the same comparison, so that neither needs the other to have happened. Attempts that execute
past the deadline of their job are the reaper's affair.
"""

from __future__ import annotations

import structlog

from tenure.coordinator import counted
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.finish import Finisher
from tenure.model.retry import NOT_ENDED, NOT_STARTED
from tenure.store.postgres.database import Database, Statement

log = structlog.get_logger(__name__)

PAGE_JOBS = 1_000


class Overdue:
    """Ends what is overdue, a page at a time."""

    def __init__(self, database: Database, finisher: Finisher, dependants: Dependants) -> None:
        self._database = database
        self._finisher = finisher
        self._dependants = dependants

    async def sweep(self) -> int:
        """Fail every job that is overdue now; return how many."""
        failed = 0
        while ids := sorted(row.id for row in await self._database.fetch("overdue_jobs", {"limit": PAGE_JOBS})):
            expired, settled = await self._database.transaction(
                [
                    Statement("expire_idle", {"ids": ids, "not_started": NOT_STARTED, "not_ended": NOT_ENDED}),
                    Statement("settle_parents", {"ids": ids}),
                ]
            )
            counted.ended(expired)
            await self._finisher.tell(expired)
            await self._dependants.follow(settled)
            failed += len(expired)
            if not expired:  # all of them are being written by others at this moment
                break
        if failed:
            log.info("jobs_overdue", jobs=failed)
        return failed
