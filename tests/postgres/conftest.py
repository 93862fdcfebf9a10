"""A pool on a fresh database, and rows of jobs in any state, written as the steps write them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import namedtuple_row
from tests.fixtures.postgres import PostgresServer

from tenure.model.errors import Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState, Outcome
from tenure.store.postgres.database import Database, PoolOptions, Statement
from tenure.store.postgres.submit import write_jobs

WORKER = "w1"
PATIENCE_S = 20.0
"""How long a test waits for what must happen; only a hang takes as long."""


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer of a check; being unavailable is none."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Unavailable):
                if answer := await check():
                    return answer
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class Table:
    """Puts jobs into states by the statements of the steps, and reads what became of them."""

    db: Database
    dsn: str
    lane: int = 1

    async def submit(self, *, id: uuid.UUID | None = None, parents: Sequence[uuid.UUID] = (), **spec: Any) -> uuid.UUID:
        """Write one job, ready unless it has parents."""
        job = PlannedJob(id or new_id(), JobSpec(kind="k", **spec), tuple(parents), b"hash")
        await write_jobs(self.db, [job], [self.lane])
        return job.id

    async def start(self, *ids: uuid.UUID, lease: int = 7, revision: int = 70, worker: str = WORKER) -> list[Any]:
        """Start attempts at whatever attempt the rows show."""
        rows = {row.id: row.attempt for row in await self.db.fetch("jobs_by_id", {"ids": list(ids)})}
        return await self.start_seen([(id, rows[id]) for id in ids], lease=lease, revision=revision, worker=worker)

    async def start_seen(
        self, seen: Sequence[tuple[uuid.UUID, int]], *, lease: int = 7, revision: int = 70, worker: str = WORKER
    ) -> list[Any]:
        """Start attempts of jobs as they were seen."""
        return await self.db.fetch(
            "start_attempts",
            {
                "worker": worker,
                "ids": [id for id, _ in seen],
                "attempts": [attempt for _, attempt in seen],
                "leases": [lease] * len(seen),
                "revisions": [revision] * len(seen),
                "slots": [""] * len(seen),
            },
        )

    async def end(
        self,
        id: uuid.UUID,
        fence: int,
        state: JobState = JobState.COMPLETED,
        outcome: Outcome | None = None,
        **more: Any,
    ) -> list[Any]:
        """End an attempt for good, and tell its dependants; returns the rows of ``end_attempts``."""
        ended, _ = await self.end_and_settle(id, fence, state, outcome, **more)
        return ended

    async def end_and_settle(
        self,
        id: uuid.UUID,
        fence: int,
        state: JobState = JobState.COMPLETED,
        outcome: Outcome | None = None,
        **more: Any,
    ) -> list[list[Any]]:
        """As ``end``; returns the rows of both statements."""
        columns = {
            "ids": [id],
            "fences": [fence],
            "outcomes": [str(outcome or state)],
            "states": [str(state)],
            "results": ["null"],
            "errors": [None],
            "reasons": [""],
            "error_counts": [0],
            "crash_counts": [0],
            **more,
        }
        return await self.db.transaction(
            [Statement("end_attempts", columns), Statement("settle_parents", {"ids": [id]})]
        )

    async def give_back(
        self,
        id: uuid.UUID,
        fence: int,
        state: JobState = JobState.READY,
        outcome: Outcome = Outcome.RELEASED,
        delay_s: float = 0.0,
        **more: Any,
    ) -> list[Any]:
        """End an attempt of a job that goes on."""
        columns = {
            "ids": [id],
            "fences": [fence],
            "outcomes": [str(outcome)],
            "states": [str(state)],
            "errors": [None],
            "reasons": [""],
            "error_counts": [0],
            "crash_counts": [0],
            "delays": [delay_s],
            **more,
        }
        return await self.db.fetch("return_attempts", columns)

    async def in_state(self, state: JobState) -> uuid.UUID:
        """Return a job that was brought into a state by the steps that lead there."""
        if state is JobState.WAITING:
            return await self.submit(parents=[await self.submit()])
        id = await self.submit()
        if state is JobState.READY:
            return id
        fence = (await self.start(id))[0].fence
        if state is JobState.EXECUTING:
            return id
        if state is JobState.RESTARTING:
            await self.give_back(id, fence, JobState.RESTARTING, Outcome.LOST)
        else:
            await self.end(id, fence, state)
        return id

    async def row(self, id: uuid.UUID) -> Any:
        """Read a row of the view of all jobs, None if there is none."""
        rows = await self.db.fetch("jobs_by_id", {"ids": [id]})
        return rows[0] if rows else None

    async def state(self, id: uuid.UUID) -> JobState:
        """Read the state of a job."""
        return JobState((await self.row(id)).state)

    async def sql(self, text: str, *params: Any) -> list[Any]:
        """Run any statement, on a connection of its own."""
        async with await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, row_factory=namedtuple_row
        ) as connection:
            cursor = await connection.execute(text.encode(), params)
            return await cursor.fetchall() if cursor.description is not None else []


@pytest.fixture
def options() -> PoolOptions:
    """Small bounds; tests that need others define their own."""
    return PoolOptions(min_size=1, max_size=4)


@pytest.fixture(scope="module")
def shared_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database for all tests of a module: for those that look at their own jobs alone."""
    dsn = postgres_server.create_database(postgres_template)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest_asyncio.fixture
async def table(shared_database: str, options: PoolOptions) -> AsyncIterator[Table]:
    """Jobs in any state, among those of other tests."""
    async with Database(shared_database, options, name="tenure-test") as db:
        yield Table(db, shared_database)


@pytest_asyncio.fixture
async def fresh(database: str, options: PoolOptions) -> AsyncIterator[Table]:
    """Jobs in any state, alone in their database."""
    async with Database(database, options, name="tenure-test") as db:
        yield Table(db, database)
