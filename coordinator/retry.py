"""Retry: another go at a job that failed or was canceled, as a new job that copies what was asked for.

A terminal state is final, so the old job stays as it ended; the two name each other. Invariant: a job has at most one
retry, kept by the guarded statement that marks the old row and inserts the new one. Called by operators, for one job
or for all that match a filter: then in windows, each of which is a transaction of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenure.coordinator import counted
from tenure.coordinator.hint import Hints
from tenure.coordinator.lanes import Lanes, placement_of
from tenure.coordinator.passing import FIRST_IDS, PASS_S, WINDOW_JOBS, Span
from tenure.model.clock import Clock
from tenure.model.errors import NotFound, Unavailable, WrongState
from tenure.model.ids import new_id
from tenure.model.states import JobState
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.taken import UniqueTaken
from tenure.store.postgres.unique import holders

RETRIABLE = frozenset({JobState.FAILED, JobState.CANCELED})
LISTED = "tenure jobs list shows the jobs that are there"


@dataclass(slots=True)
class Retried:
    """What one pass did: jobs retried (in a preview: that match), passed over, the first ids, and what is left."""

    jobs: int = 0
    skipped: int = 0
    ids: tuple[uuid.UUID, ...] = ()
    rest: Span | None = None


class Retryer:
    """Retries jobs for operators."""

    def __init__(self, database: Database, lanes: Lanes, hints: Hints, clock: Clock) -> None:
        self._database = database
        self._lanes = lanes
        self._hints = hints
        self._clock = clock

    async def retry(self, job_id: uuid.UUID) -> tuple[uuid.UUID, bool]:
        """Return the id of the job's retry, and whether it was made by this call.

        Raises:
            NotFound: there is no such job.
            WrongState: it has not failed and was not canceled, it depends on one that has failed itself, or another job
                has its unique key.
            Unavailable: the outcome is unknown; ask again.
        """
        row = await self._read(job_id)
        if row.retried_by is None and row.state in RETRIABLE:
            made = await self._write([row])
            if made:
                return made[0].id, True
            row = await self._read(job_id)
        if row.retried_by is not None:
            return row.retried_by, False
        if row.state not in RETRIABLE:
            raise WrongState(
                f"job {job_id} is {row.state}; only a failed or a canceled one can be retried",
                hint=f"submit another: tenure submit {row.kind}"
                if row.state == JobState.COMPLETED
                else "cancel it, or wait for its end",
            )
        broken = await self._database.fetch("unfinished_parents", {"ids": [job_id]})
        key = (row.namespace, row.kind, row.unique_key)
        holder = (await holders(self._database, [key])).get(key) if row.unique_key is not None else None
        if holder is not None:
            raise WrongState(
                f"the unique key of job {job_id} is that of job {holder.id} now, which is {holder.state}",
                hint=f"wait for its end or cancel it: tenure jobs cancel {holder.id}",
            )
        if not broken:
            raise Unavailable("the job's parents kept changing", hint="retry again")
        raise WrongState(
            f"job {job_id} depends on job {broken[0].parent_id}, which is {broken[0].state}",
            hint=f"retry that one first, or both at once: tenure jobs retry {broken[0].parent_id}",
        )

    async def retry_matching(self, filters: Mapping[str, Any], span: Span, *, preview: bool) -> Retried:
        """Retry what matches and was not retried before, for some seconds; ``rest`` is what was not looked at.

        Raises:
            Unavailable: what was done is done; ask again.
        """
        done = Retried()
        until = self._clock.monotonic() + PASS_S
        after = span.after
        while True:
            window = await self._database.fetch(
                "dead_letters", {**filters, "after": after, "until": span.until, "limit": WINDOW_JOBS}
            )
            matching = [row for row in window if row.matches]
            ids = [row.id for row in (matching if preview or not matching else await self._write(matching))]
            done.jobs += len(ids)
            done.skipped += len(matching) - len(ids)
            done.ids = (*done.ids, *ids)[:FIRST_IDS]
            if len(window) < WINDOW_JOBS:
                return done
            after = window[-1].id
            if self._clock.monotonic() >= until:
                done.rest = Span(after, span.until)
                return done

    async def _write(self, rows: Sequence[Row]) -> list[Row]:
        """Copy jobs; return the new ones (id, retry_of, lane)."""
        lanes = await self._lanes.of([placement_of(row) for row in rows])
        ids, new_ids = [row.id for row in rows], [new_id() for _ in rows]
        try:
            made, _, _, _ = await self._database.transaction(
                [
                    Statement("retry_jobs", {"ids": ids, "new_ids": new_ids, "lanes": lanes}),
                    Statement("lock_parents_of_retries", {"ids": ids}),
                    Statement("insert_retry_dependencies", {"new_ids": new_ids}),
                    Statement("reopen_workflows", {"new_ids": new_ids}),
                ]
            )
        except UniqueTaken as exc:
            raise Unavailable("a unique key was taken at the same moment", hint="retry again") from exc
        counted.submitted([row.lane for row in made], "retry")
        self._hints.ready(set(lanes))
        return made

    async def _read(self, job_id: uuid.UUID) -> Row:
        rows = await self._database.fetch("jobs_by_id", {"ids": [job_id]})
        if not rows:
            raise NotFound(f"job {job_id} does not exist", hint=LISTED)
        return rows[0]
