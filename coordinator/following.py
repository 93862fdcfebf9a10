"""Following a workflow: what changes among its members, gathered look by look, for as long as one has not ended.

A look is due when a member that executes has ended, which ``done/`` in etcd tells, and every second in any case. It
costs a few statements, however many members there are. Owns what each watcher has been shown. Invariants: the last look
comes after the last end, so that every end is told of; what is remembered is bounded by the members that execute (at
most ``EXECUTING_JOBS``) and those that ended within ``OVERLAP_S``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenure.coordinator.passing import FIRST_ID
from tenure.coordinator.waiters import Waiters
from tenure.coordinator.workflows import Summary, Workflows
from tenure.model.clock import Clock
from tenure.model.states import JobState
from tenure.model.workflows import WorkflowState
from tenure.store.postgres.database import Database, Row

LOOK_EVERY_S = 1.0
GATHER_S = 0.25
"""Looks are at least so far apart, however much ends meanwhile."""
LOOK_SHARE = 10
"""And so many times as long as a look takes, up to ``MAX_PAUSE_S``: a large workflow is looked at less often."""
MAX_PAUSE_S = 5.0
PAGE_JOBS = 1_000
EXECUTING_JOBS = 1_000
"""Of those that execute, so many are told of."""
OVERLAP_S = 30.0
"""Ends are committed out of the order of their times, but not later than this: no transaction lives as long."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a look found; ``at`` is Postgres' time before it, from which a later watcher may go on."""

    summary: Summary
    jobs: Sequence[Row]
    at: datetime


class Follower:
    """Follows one workflow for one watcher."""

    def __init__(
        self, database: Database, workflows: Workflows, waiters: Waiters, clock: Clock, workflow_id: uuid.UUID
    ) -> None:
        self._database = database
        self._workflows = workflows
        self._waiters = waiters
        self._clock = clock
        self._id = workflow_id
        self._executing: dict[uuid.UUID, tuple[object, ...]] = {}
        """Members that executed when last seen, as they were shown."""
        self._ended: dict[uuid.UUID, datetime] = {}
        """Members that ended of late and were shown."""

    async def follow(self, since: datetime | None) -> AsyncIterator[Change]:
        """Yield the workflow now and at each change, until all members have ended.

        With ``since`` the members that have ended from then on are told of, else those that end from now on.

        Raises:
            NotFound: there is no such workflow.
            Unavailable: a store, or this coordinator that stops.
        """
        shown: object = None
        if since is None:
            since = await self._time()
            async for page in self._ended_pages(since):
                self._mark_ended(page)
        while True:
            awaited = [str(id) for id in self._executing]
            async with self._waiters.waiting_for_any(awaited) as maybe_done:
                began, at = self._clock.monotonic(), await self._time()
                summary = await self._workflows.read(self._id)
                held: Sequence[Row] = ()
                async for page in self._changed_pages(since):
                    if held:
                        yield Change(summary, held, since)
                    held = page
                if held or _shown(summary) != shown:
                    shown = _shown(summary)
                    yield Change(summary, held, at)
                if summary.state is not WorkflowState.RUNNING:
                    return
                self._forget_before(at)
                since = at
                self._waiters.refuse_if_closed()
                took_s = self._clock.monotonic() - began
                if not self._executing.keys() - set(map(uuid.UUID, awaited)):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await maybe_done.wait()
            await self._clock.sleep(min(MAX_PAUSE_S, max(GATHER_S, LOOK_SHARE * took_s)))
            self._waiters.refuse_if_closed()

    async def _changed_pages(self, since: datetime) -> AsyncIterator[Sequence[Row]]:
        async for page in self._ended_pages(since):
            if new := [row for row in page if row.id not in self._ended]:
                self._mark_ended(new)
                yield new
        rows = await self._database.fetch(
            "workflow_executing",
            {"workflow_id": self._id, "shown": list(self._executing), "limit": EXECUTING_JOBS},
        )
        changed = [row for row in rows if self._executing.get(row.id) != _seen(row)]
        self._executing = {row.id: _seen(row) for row in rows if row.state == JobState.EXECUTING}
        if changed:
            yield changed

    async def _ended_pages(self, since: datetime) -> AsyncIterator[Sequence[Row]]:
        since -= timedelta(seconds=OVERLAP_S)
        after_at, after_id = since, FIRST_ID
        while True:
            rows = await self._database.fetch(
                "workflow_ended",
                {
                    "workflow_id": self._id,
                    "since": since,
                    "after_at": after_at,
                    "after_id": after_id,
                    "limit": PAGE_JOBS,
                },
            )
            if rows:
                yield rows
            if len(rows) < PAGE_JOBS:
                return
            after_at, after_id = rows[-1].finished_at, rows[-1].id

    def _mark_ended(self, rows: Iterable[Row]) -> None:
        self._ended.update((row.id, row.finished_at) for row in rows)

    def _forget_before(self, at: datetime) -> None:
        until = at - timedelta(seconds=OVERLAP_S)
        self._ended = {id: ended for id, ended in self._ended.items() if ended >= until}

    async def _time(self) -> datetime:
        rows = await self._database.fetch("time")
        at: datetime = rows[0].now
        return at


def _seen(row: Row) -> tuple[object, ...]:
    return (row.state, row.attempt, row.progress, row.progress_message, row.cancel_requested)


def _shown(summary: Summary) -> object:
    return (summary.counts, round(summary.progress, 4), summary.row.canceled_at)
