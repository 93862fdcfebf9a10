"""Workflows: batches read, counted and canceled as one.

What a workflow is follows from the rows of its members alone; nothing is kept that could disagree with them.
Invariant: once a cancel has marked the workflow, no attempt submits children into it, and those that were being
submitted are in the table before the first window is read; so one pass over the members meets them all. The pass begins
with the youngest, which mostly depend on older ones, so that each member is canceled for the reason given and not for
its parent's sake.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tenure.coordinator.cancel import CANCELABLE, Canceled, Canceler
from tenure.coordinator.passing import FIRST_IDS, LAST_ID, PASS_S, WINDOW_JOBS
from tenure.model.batch import Batcher
from tenure.model.clock import Clock
from tenure.model.errors import NotFound
from tenure.model.states import JobState
from tenure.model.workflows import WorkflowState, progress_of, state_of
from tenure.store.postgres.database import Database, Row


@dataclass(frozen=True, slots=True)
class Summary:
    """A workflow as its members make it out."""

    row: Row
    counts: dict[JobState, int] = field(default_factory=dict)
    reported: float = 0.0
    """The sum of the progress that executing members have reported."""
    started_at: datetime | None = None
    last_end_at: datetime | None = None

    @property
    def state(self) -> WorkflowState | None:
        """Return the state of the whole."""
        return state_of(self.counts)

    @property
    def progress(self) -> float:
        """Return the share that is done."""
        return progress_of(self.counts, self.reported)

    @property
    def finished_at(self) -> datetime | None:
        """Return when the last member ended; None while one has not."""
        return None if self.state is WorkflowState.RUNNING else self.last_end_at


@dataclass(slots=True)
class CanceledMembers:
    """What one pass did, and the id below which members are left to be looked at."""

    done: Canceled
    before: uuid.UUID | None = None


class Workflows:
    """Reads and cancels workflows. ``run`` is the body of a task that batches reads."""

    def __init__(self, database: Database, clock: Clock, canceler: Canceler) -> None:
        self._database = database
        self._clock = clock
        self._canceler = canceler
        self._reads: Batcher[uuid.UUID, Summary | None] = Batcher(
            self._read_group, max_items=100, in_flight=2, name="workflows"
        )

    async def run(self) -> None:
        """Carry out batched reads until cancelled."""
        await self._reads.run()

    async def read(self, workflow_id: uuid.UUID) -> Summary:
        """Count the members of a workflow; those who ask at the same time share a query.

        Raises:
            NotFound: there is no such workflow.
        """
        summary = await self._reads.ask(workflow_id)
        if summary is None:
            raise not_found(workflow_id)
        return summary

    async def summaries(self, rows: Sequence[Row]) -> list[Summary]:
        """Count the members of workflows that were read."""
        if not rows:
            return []
        counted: dict[uuid.UUID, list[Row]] = defaultdict(list)
        for count in await self._database.fetch("workflow_counts", {"ids": [row.id for row in rows]}):
            counted[count.workflow_id].append(count)
        return [_summary(row, counted[row.id]) for row in rows]

    async def cancel(
        self, workflow_id: uuid.UUID, before: uuid.UUID | None, reason: str, grace_s: float | None
    ) -> CanceledMembers:
        """Cancel the members below an id (None: all of them), youngest first, for some seconds.

        Raises:
            NotFound: there is no such workflow.
            Unavailable: what was done is done; ask again.
        """
        if before is None and not await self._database.fetch(
            "mark_workflow_canceled", {"id": workflow_id, "reason": reason}
        ):
            raise not_found(workflow_id)
        result = CanceledMembers(Canceled(), before or LAST_ID)
        until = self._clock.monotonic() + PASS_S
        while True:
            window = await self._window(workflow_id, result.before or LAST_ID, WINDOW_JOBS)
            ids = [row.id for row in window]
            if ids:
                await self._canceler.cancel_window(
                    ids, CANCELABLE, reason or "workflow canceled", result.done, grace_s=grace_s
                )
                result.done.ids = (*result.done.ids, *ids)[:FIRST_IDS]
            if len(window) < WINDOW_JOBS:
                result.done.require_all()
                result.before = None
                return result
            result.before = ids[-1]
            if self._clock.monotonic() >= until:
                result.done.require_all()
                return result

    async def preview_cancel(self, workflow_id: uuid.UUID) -> Canceled:
        """Count what a cancel would meet.

        Raises:
            NotFound: there is no such workflow.
        """
        counts = (await self.read(workflow_id)).counts
        asked = counts.get(JobState.EXECUTING, 0)
        first = await self._window(workflow_id, LAST_ID, FIRST_IDS)
        return Canceled(
            canceled=sum(counts.get(state, 0) for state in CANCELABLE) - asked,
            asked=asked,
            ids=tuple(row.id for row in first),
        )

    async def _window(self, workflow_id: uuid.UUID, before: uuid.UUID, limit: int) -> list[Row]:
        return await self._database.fetch(
            "workflow_cancelable", {"workflow_id": workflow_id, "before": before, "limit": limit}
        )

    async def _read_group(self, ids: list[uuid.UUID]) -> list[Summary | None]:
        rows = await self._database.fetch("workflows_by_id", {"ids": list(set(ids))})
        found = {summary.row.id: summary for summary in await self.summaries(rows)}
        return [found.get(id) for id in ids]


def not_found(workflow_id: uuid.UUID) -> NotFound:
    """Return the refusal for a workflow that is not there."""
    return NotFound(f"workflow {workflow_id} does not exist", hint="tenure workflows list")


def _summary(row: Row, counts: Sequence[Row]) -> Summary:
    return Summary(
        row,
        {JobState(count.state): count.jobs for count in counts},
        sum(count.progress for count in counts if count.state == JobState.EXECUTING),
        min((count.started_at for count in counts if count.started_at), default=None),
        max((count.finished_at for count in counts if count.finished_at), default=None),
    )
