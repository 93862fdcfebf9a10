"""Dependencies: a child becomes ready exactly when its last parent completed, whatever happens at the same moment."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.postgres.conftest import Table

from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState
from tenure.store.postgres.database import PoolOptions, Statement
from tenure.store.postgres.submit import write_jobs

RACES = 60


@pytest.fixture
def options() -> PoolOptions:
    return PoolOptions(min_size=4, max_size=8)


async def _complete(table: Table, id: uuid.UUID) -> None:
    [row] = await table.start(id)
    assert await table.end(id, row.fence)


async def test_fan_in_waits_for_the_last_parent(table: Table) -> None:
    parents = [await table.submit() for _ in range(3)]
    child = await table.submit(parents=parents)
    for parent in parents:
        assert await table.state(child) is JobState.WAITING
        await _complete(table, parent)
    assert await table.state(child) is JobState.READY
    [row] = await table.sql("SELECT due, waiting_on FROM tenure.job WHERE id = %s", child)
    assert (row.due, row.waiting_on) == (True, 0)


async def test_parents_that_end_together_count_down_together(table: Table) -> None:
    parents = [await table.submit() for _ in range(4)]
    child = await table.submit(parents=parents)
    fences = [(await table.start(parent))[0].fence for parent in parents]
    await asyncio.gather(*(table.end(parent, fence) for parent, fence in zip(parents, fences, strict=True)))
    [row] = await table.sql("SELECT state, waiting_on FROM tenure.job WHERE id = %s", child)
    assert (row.state, row.waiting_on) == ("ready", 0)


async def test_fan_out_readies_every_child(table: Table) -> None:
    parent = await table.submit()
    children = [await table.submit(parents=[parent]) for _ in range(50)]
    [row] = await table.start(parent)
    _, settled = await table.end_and_settle(parent, row.fence)
    assert {one.id for one in settled} == set(children)
    assert {one.state for one in settled} == {"ready"}


async def test_a_batch_may_depend_on_itself_and_on_others(table: Table) -> None:
    outside = await table.submit()
    a, b = new_id(), new_id()
    await write_jobs(
        table.db,
        [PlannedJob(b, JobSpec(kind="k"), (a, outside), b""), PlannedJob(a, JobSpec(kind="k"), (), b"")],
        [1, 1],
    )
    assert [await table.state(b), await table.state(a)] == [JobState.WAITING, JobState.READY]
    await _complete(table, a)
    assert await table.state(b) is JobState.WAITING
    await _complete(table, outside)
    assert await table.state(b) is JobState.READY


async def test_a_child_of_finished_parents_is_ready_at_once(table: Table) -> None:
    parent = await table.in_state(JobState.COMPLETED)
    assert await table.state(await table.submit(parents=[parent])) is JobState.READY


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELED])
async def test_a_child_of_a_failed_parent_never_becomes_ready(table: Table, end: JobState) -> None:
    bad, good = await table.submit(), await table.submit()
    child = await table.submit(parents=[bad, good])
    fence = (await table.start(bad))[0].fence
    _, settled = await table.end_and_settle(bad, fence, end)
    assert [(row.id, row.broken) for row in settled] == [(child, True)]
    await _complete(table, good)
    assert await table.state(child) is JobState.WAITING
    late = await table.submit(parents=[bad])
    assert await table.state(late) is JobState.WAITING
    broken = {row.id for row in await table.db.fetch("unsettled_parents", {"limit": 1000}) if row.broken}
    assert {child, late} <= broken


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELED])
async def test_the_last_parent_must_complete_too(table: Table, end: JobState) -> None:
    good, bad = await table.submit(), await table.submit()
    child = await table.submit(parents=[good, bad])
    await _complete(table, good)
    await table.end((await table.start(bad))[0].id, (await table.row(bad)).fence, end)
    [row] = await table.sql("SELECT state, waiting_on FROM tenure.job WHERE id = %s", child)
    assert (row.state, row.waiting_on) == ("waiting", 1)


async def test_parents_that_end_in_one_batch_count_down_once_each(table: Table) -> None:
    parents = [await table.submit() for _ in range(3)]
    both = await table.submit(parents=parents[:2])
    all_three = await table.submit(parents=parents)
    fences = [(await table.start(parent))[0].fence for parent in parents]
    columns = {
        "ids": parents[:2],
        "fences": fences[:2],
        "outcomes": ["completed"] * 2,
        "states": ["completed"] * 2,
        "results": [None] * 2,
        "errors": [None] * 2,
        "reasons": [""] * 2,
        "error_counts": [0] * 2,
        "crash_counts": [0] * 2,
    }
    await table.db.transaction([Statement("end_attempts", columns), Statement("settle_parents", {"ids": parents[:2]})])
    assert [await table.state(both), await table.state(all_three)] == [JobState.READY, JobState.WAITING]
    await table.db.fetch("settle_parents", {"ids": parents[:2]})  # again: nothing is counted twice
    assert await table.state(all_three) is JobState.WAITING
    await table.end(parents[2], fences[2])
    assert await table.state(all_three) is JobState.READY


async def test_a_child_with_a_delay_waits_for_its_time_too(table: Table) -> None:
    parent = await table.submit()
    child = await table.submit(parents=[parent], delay_s=3600.0)
    await _complete(table, parent)
    [row] = await table.sql("SELECT state, due FROM tenure.job WHERE id = %s", child)
    assert (row.state, row.due) == ("ready", False)


async def test_an_edge_written_while_its_parent_ends_is_never_lost(table: Table) -> None:
    """Two connections, the end and the edge at the same moment, many times: the child is always ready in the end."""
    parents = [await table.submit() for _ in range(RACES)]
    fences = {uuid.UUID(row.id): row.fence for row in await table.start(*parents)}
    children = []
    for index, parent in enumerate(parents):
        ending = table.end(parent, fences[parent])
        edge = table.submit(parents=[parent])
        # Either may be first on the wire.
        done = await asyncio.gather(*((ending, edge) if index % 2 else (edge, ending)))
        children.append(done[0] if index % 2 == 0 else done[1])
    assert {await table.state(child) for child in children} == {JobState.READY}
    rows = await table.db.fetch("unsettled_parents", {"limit": 1000})
    assert not {row.id for row in rows} & {*children, *parents}


async def test_batches_of_edges_and_batches_of_ends_do_not_deadlock(table: Table) -> None:
    parents = [await table.submit() for _ in range(40)]
    fences = {uuid.UUID(row.id): row.fence for row in await table.start(*parents)}
    children = [new_id() for _ in range(6)]

    async def edges(child: uuid.UUID, order: list[uuid.UUID]) -> None:
        await write_jobs(table.db, [PlannedJob(child, JobSpec(kind="k"), tuple(order), b"")], [1])

    await asyncio.gather(
        *(edges(child, parents[:: 1 if n % 2 else -1]) for n, child in enumerate(children)),
        *(table.end(parent, fences[parent]) for parent in parents),
    )
    assert {await table.state(child) for child in children} == {JobState.READY}


async def test_the_sweep_finds_a_parent_that_ended_unseen(table: Table) -> None:
    parent = await table.submit()
    child = await table.submit(parents=[parent])
    [row] = await table.start(parent)
    columns = {
        "ids": [parent],
        "fences": [row.fence],
        "outcomes": ["completed"],
        "states": ["completed"],
        "results": [None],
        "errors": [None],
        "reasons": [""],
        "error_counts": [0],
        "crash_counts": [0],
    }
    await table.db.fetch("end_attempts", columns)  # without settle_parents: as if the process had died in between
    assert await table.state(child) is JobState.WAITING
    rows = await table.db.fetch("unsettled_parents", {"limit": 1000})
    assert parent in {found.id for found in rows}
    await table.db.fetch("settle_parents", {"ids": [parent]})
    assert await table.state(child) is JobState.READY
