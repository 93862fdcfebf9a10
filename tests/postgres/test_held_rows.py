"""Two writers of one row at the same moment, the second made to wait for the first: what it sees then decides.

The races are directed: the first transaction is held open until Postgres says that the second waits for it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Set
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from tests.postgres.conftest import Table, until

from tenure.coordinator.park import Park, Parking, write_parkings
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState
from tenure.store.postgres.database import PoolOptions, Statement, query
from tenure.store.postgres.locked import write_rows
from tenure.store.postgres.submit import insertion, write_jobs
from tenure.store.postgres.unique import replacing


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


async def test_an_end_that_waited_for_progress_is_recorded(fresh: Table) -> None:
    """Another write has moved the row meanwhile: it is written on the second try."""
    id = await fresh.submit()
    [started] = await fresh.start(id)
    tries: list[int] = []

    async def end(ids: Set[str]) -> list[Any]:
        tries.append(len(ids))
        return await fresh.end(id, started.fence)

    progress = {"ids": [id], "fences": [started.fence], "fractions": [0.5], "messages": ["half"]}
    async with open_transaction(fresh, ("report_progress", progress)):
        ending = await started_and_waiting(fresh, write_rows(fresh.db, [started.id], end))
        assert not ending.done(), "not exercised: the end waited for nothing"
    rows, locked = await ending
    assert ([row.id for row in rows], locked) == ([started.id], frozenset())
    assert 1 <= len(tries) <= 2
    row = await fresh.row(id)
    assert (row.state, row.progress_message) == ("completed", "half")


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
    fences = {uuid.UUID(row.id): row.fence for row in await fresh.start(parent, child)}
    async with open_transaction(
        fresh, ("end_attempts", _end(child, fences[child])), ("settle_parents", {"ids": [child]})
    ):
        parking = Parking(str(parent), fences[parent], Park((child,)))
        park = await started_and_waiting(fresh, write_parkings(fresh.db, [parking]))
        assert not park.done(), "not exercised: the park waited for nothing"
    assert [(row.id, row.state) for row in await park] == [(str(parent), "ready")]
    assert await fresh.db.fetch("unsettled_parents", {"limit": 10}) == []


def _unique(key: str, id: uuid.UUID | None = None) -> PlannedJob:
    id = id or new_id()
    return PlannedJob(id, JobSpec(kind="k", unique_key=key, idempotency_key=str(id)), (), b"")


async def _executing_and_replaced(table: Table, key: str) -> tuple[uuid.UUID, int, uuid.UUID]:
    """Return a job, its fence, and the job that has replaced it while it executes."""
    old, new = await table.submit(unique_key=key), _unique(key)
    [started] = await table.start(old)
    await write_jobs(table.db, [new], [1], replaces={old: new.id})
    return old, started.fence, new.id


async def _run(connection: psycopg.AsyncConnection[Any], *statements: Statement) -> None:
    for name, params in statements:
        await connection.execute(query(name), params)


async def test_a_replacement_and_the_end_of_the_job_that_was_replaced_before_have_one_order(fresh: Table) -> None:
    """Either fails where they lock each other out: here nobody repeats what Postgres rolls back."""
    old, fence, held = await _executing_and_replaced(fresh, "u")
    new = _unique("u")
    async with (
        await psycopg.AsyncConnection.connect(fresh.dsn) as replaces,
        await psycopg.AsyncConnection.connect(fresh.dsn) as ends,
    ):
        await _run(replaces, *replacing({held: new.id}))
        end = await started_and_waiting(fresh, _run(ends, Statement("end_attempts", _end(old, fence))))
        assert not end.done(), "not exercised: the end waited for nothing"
        await _run(replaces, *insertion([new], [1]))
        await replaces.commit()
        await end
    assert await fresh.state(held) is JobState.CANCELED
    assert await fresh.state(new.id) is JobState.READY


async def test_replaced_jobs_are_held_in_place_in_the_order_in_which_they_end(fresh: Table) -> None:
    """Of two jobs that are to end, the end has locked the first one; the submit must not have the second one."""
    (first, _, held), (second, _, too) = [await _executing_and_replaced(fresh, key) for key in ("u", "v")]
    await fresh.db.fetch("cancel_idle", {"ids": [held, too], "reason": "r"})
    assert first < second
    lock = "SELECT FROM tenure.job WHERE id = %s FOR UPDATE NOWAIT"
    async with await psycopg.AsyncConnection.connect(fresh.dsn) as ends:
        await ends.execute(lock, [first])
        submit = await started_and_waiting(fresh, write_jobs(fresh.db, [_unique("v"), _unique("u")], [1, 1]))
        assert not submit.done(), "not exercised: the submit waited for nothing"
        await ends.execute(lock, [second])
        await ends.commit()
        await submit


async def test_a_job_whose_key_became_free_while_it_was_written_is_held_all_the_same(fresh: Table) -> None:
    """What has the key replaces an executing job and is canceled, before the submit that waits for it goes on."""
    old = await fresh.submit(unique_key="u")
    [started] = await fresh.start(old)
    between, new = _unique("u"), _unique("u")
    async with await psycopg.AsyncConnection.connect(fresh.dsn) as replaces:
        await _run(replaces, *replacing({old: between.id}), *insertion([between], [1]))
        submit = await started_and_waiting(fresh, write_jobs(fresh.db, [new], [1]))
        assert not submit.done(), "not exercised: the submit waited for nothing"
        await _run(replaces, Statement("cancel_idle", {"ids": [between.id], "reason": "r"}))
        await replaces.commit()
        await submit
    assert await fresh.state(new.id) is JobState.WAITING
    await fresh.end(old, started.fence)
    assert await fresh.state(new.id) is JobState.READY


async def test_unique_keys_are_taken_in_one_order(fresh: Table) -> None:
    """Two writers that name the same keys in another order do not lock each other out."""
    async with (
        await psycopg.AsyncConnection.connect(fresh.dsn) as first,
        await psycopg.AsyncConnection.connect(fresh.dsn) as second,
    ):
        await _run(first, *insertion([_unique("u")], [1]))
        late = await started_and_waiting(fresh, _run(second, *insertion([_unique("v"), _unique("u")], [1, 1])))
        assert not late.done(), "not exercised: the second writer waited for nothing"
        await _run(first, *insertion([_unique("v")], [1]))
        await first.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            await late
