"""Two writers of one row at the same moment, the second made to wait for the first: what it sees then decides.

The races are directed: the first transaction is held open until Postgres says that the second waits for it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from tests.postgres.conftest import Table, until

from tenure.coordinator.park import Park, Parking, write_parkings
from tenure.model.states import JobState
from tenure.store.postgres.database import PoolOptions, query


@pytest.fixture
def options() -> PoolOptions:
    return PoolOptions(min_size=2, max_size=4, lock_timeout_s=15.0)


@asynccontextmanager
async def open_transaction(table: Table, *statements: tuple[str, dict[str, Any]]) -> AsyncIterator[None]:
    """Run statements in a transaction that commits at the end of the block, not before."""
    async with await psycopg.AsyncConnection.connect(table.dsn) as connection:
        for name, params in statements:
            cursor = await connection.execute(query(name), params)
            assert await cursor.fetchall() or name == "settle_parents"
        yield


async def started_and_waiting(table: Table, body: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task; return it once it waits for a lock, or has ended without."""
    task = asyncio.create_task(body)

    async def waits() -> bool:
        waiting = await table.sql(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(waiting) or task.done()

    await until(waits)
    return task


def _start(id: uuid.UUID, worker: str) -> dict[str, Any]:
    return {"worker": worker, "ids": [id], "attempts": [0], "leases": [1], "revisions": [1], "slots": [""]}


def _end(id: uuid.UUID, fence: int) -> dict[str, Any]:
    return {
        "ids": [id], "fences": [fence], "outcomes": ["completed"], "states": ["completed"], "results": ["null"],
        "errors": [None], "reasons": [""], "error_counts": [0], "crash_counts": [0],
    }  # fmt: skip


async def test_a_start_that_waited_for_another_starts_nothing(fresh: Table) -> None:
    id = await fresh.submit()
    async with open_transaction(fresh, ("start_attempts", _start(id, "first"))):
        second = await started_and_waiting(fresh, fresh.start_seen([(id, 0)], worker="second"))
        assert not second.done(), "not exercised: the second start waited for nothing"
    assert await second == []
    row = await fresh.row(id)
    assert (row.worker, row.attempt) == ("first", 1)


async def test_an_end_that_waited_for_a_reap_records_nothing(fresh: Table) -> None:
    id = await fresh.submit()
    [started] = await fresh.start(id)
    reap = _end(id, started.fence) | {"outcomes": ["lost"], "states": ["restarting"], "delays": [0.0]}
    del reap["results"]
    async with open_transaction(fresh, ("return_attempts", reap)):
        end = await started_and_waiting(fresh, fresh.end(id, started.fence))
        assert not end.done(), "not exercised: the end waited for nothing"
    assert await end == []
    assert await fresh.state(id) is JobState.RESTARTING
    assert [row.outcome for row in await fresh.db.fetch("attempts_of", {"id": id})] == ["lost"]


async def test_an_edge_waits_for_a_parent_that_is_about_to_end(fresh: Table) -> None:
    """The parent's end does not see the edge, so the edge must see the end."""
    parent = await fresh.submit()
    [started] = await fresh.start(parent)
    async with open_transaction(
        fresh, ("end_attempts", _end(parent, started.fence)), ("settle_parents", {"ids": [parent]})
    ):
        edge = await started_and_waiting(fresh, fresh.submit(parents=[parent]))
    assert await fresh.state(await edge) is JobState.READY
    assert await fresh.db.fetch("unsettled_parents", {"limit": 10}) == []


async def test_a_park_waits_for_a_child_that_is_about_to_end(fresh: Table) -> None:
    """The child's end does not see the edge, so the park must see the end."""
    parent, child = await fresh.submit(), await fresh.submit()
    fences = {row.id: row.fence for row in await fresh.start(parent, child)}
    async with open_transaction(
        fresh, ("end_attempts", _end(child, fences[child])), ("settle_parents", {"ids": [child]})
    ):
        parking = Parking(parent, fences[parent], Park((child,)))
        park = await started_and_waiting(fresh, write_parkings(fresh.db, [parking]))
        assert not park.done(), "not exercised: the park waited for nothing"
    assert [(row.id, row.state) for row in await park] == [(parent, "ready")]
    assert await fresh.db.fetch("unsettled_parents", {"limit": 10}) == []
