"""Workflows in Postgres: who is a member, what is counted, and that children and a cancel exclude each other."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.postgres.conftest import Table

from tenure.model.errors import WrongState
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState
from tenure.store.postgres.database import query
from tenure.store.postgres.submit import NewWorkflow, write_jobs


async def write(table: Table, members: int, *, name: str | None = "nightly") -> tuple[uuid.UUID, list[uuid.UUID]]:
    """Write a workflow of independent members; return its id and theirs."""
    workflow = NewWorkflow(new_id(), "default", name)
    jobs = [
        PlannedJob(new_id(), JobSpec(kind="k", ref=f"m{n}"), (), b"hash", workflow_id=workflow.id)
        for n in range(members)
    ]
    await write_jobs(table.db, jobs, [table.lane] * members, workflow=workflow)
    return workflow.id, [job.id for job in jobs]


def child_of(parent: uuid.UUID, workflow: uuid.UUID) -> PlannedJob:
    return PlannedJob(new_id(), JobSpec(kind="k"), (), b"hash", parent_id=parent, workflow_id=workflow)


async def counts(table: Table, workflow: uuid.UUID) -> dict[str, int]:
    return {row.state: row.jobs for row in await table.db.fetch("workflow_counts", {"ids": [workflow]})}


async def test_members_are_counted_wherever_they_are(table: Table) -> None:
    workflow, ids = await write(table, 5)
    await table.end(ids[0], (await table.start(ids[0]))[0].fence)
    await table.start(ids[1])
    await table.db.fetch("cancel_idle", {"ids": [ids[2]], "reason": "r"})
    assert await counts(table, workflow) == {"completed": 1, "executing": 1, "canceled": 1, "ready": 2}
    row = await table.row(ids[0])
    assert (row.workflow_id, row.ref) == (workflow, "m0"), "the end forgets neither"
    [stored] = await table.db.fetch("workflows_by_id", {"ids": [workflow]})
    assert (stored.name, stored.namespace, stored.jobs, stored.canceled_at) == ("nightly", "default", 5, None)


async def test_members_are_counted_however_they_end(table: Table) -> None:
    workflow, ids = await write(table, 3)
    await table.sql("UPDATE tenure.job SET deadline = now() - interval '1 s' WHERE id = %s", ids[0])
    await table.db.fetch("expire_idle", {"ids": [ids[0]], "not_started": "a", "not_ended": "b"})
    await table.sql("UPDATE tenure.job SET state = 'waiting', due = false WHERE id = %s", ids[1])
    await table.db.fetch("end_broken", {"ids": [ids[1]]})
    assert await counts(table, workflow) == {"failed": 1, "canceled": 1, "ready": 1}
    assert [(await table.row(id)).ref for id in ids] == ["m0", "m1", "m2"]


async def test_a_retry_joins_the_workflow_and_stands_for_the_old_one(table: Table) -> None:
    workflow, [id] = await write(table, 1)
    await table.end(id, (await table.start(id))[0].fence, JobState.FAILED)
    await table.db.fetch("mark_workflow_canceled", {"id": workflow, "reason": "r"})
    new = new_id()
    await table.db.fetch("retry_jobs", {"ids": [id], "new_ids": [new], "lanes": [table.lane]})
    await table.db.fetch("reopen_workflows", {"new_ids": [new]})
    row = await table.row(new)
    assert (row.workflow_id, row.ref) == (workflow, "m0")
    assert await counts(table, workflow) == {"ready": 1}
    [stored] = await table.db.fetch("workflows_by_id", {"ids": [workflow]})
    assert stored.canceled_at is None


async def test_no_child_is_written_into_a_canceled_workflow(table: Table) -> None:
    workflow, [id] = await write(table, 1)
    [started] = await table.start(id)
    await table.db.fetch("mark_workflow_canceled", {"id": workflow, "reason": "r"})
    with pytest.raises(WrongState, match="is canceled"):
        await write_jobs(table.db, [child_of(id, workflow)], [table.lane], fence=started.fence)
    assert await counts(table, workflow) == {"executing": 1}


async def test_a_cancel_sees_children_that_were_being_written(table: Table) -> None:
    """Whoever has marked the workflow has waited for them."""
    workflow, [_id] = await write(table, 1)
    async with await psycopg.AsyncConnection.connect(table.dsn) as writer:
        await writer.execute(query("assert_workflow"), {"id": workflow})
        marking = asyncio.create_task(table.db.fetch("mark_workflow_canceled", {"id": workflow, "reason": "r"}))
        await asyncio.sleep(0.1)
        assert not marking.done()
        await writer.commit()
        await marking


_UNSET = ("namespace", "namespaces", "name")


async def test_workflows_are_listed_newest_first_in_pages(fresh: Table) -> None:
    made = [(await write(fresh, 1, name=name))[0] for name in ("a", "b", "a", None)]

    async def listed(**filters: Any) -> list[uuid.UUID]:
        params = {"before": uuid.UUID(int=2**128 - 1), "limit": 10, **dict.fromkeys(_UNSET), **filters}
        return [row.id for row in await fresh.db.fetch("list_workflows", params)]

    assert await listed() == made[::-1]
    assert await listed(name="a") == [made[2], made[0]]
    assert await listed(limit=2) == [made[3], made[2]]
    assert await listed(before=made[2]) == [made[1], made[0]]
    assert await listed(namespace="elsewhere") == []


FILL = """
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes, attempt, workflow_id)
SELECT gen_random_uuid(), 'default', 'k', 'p', 1, 'ready', true, 0, now(), 'null', 10, 3, 0,
       CASE WHEN n % 10 = 0 THEN ('00000000-0000-7000-8000-' || lpad((n % 1000)::text, 12, '0'))::uuid END
FROM generate_series(1, 50000) AS n;
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason, workflow_id)
SELECT gen_random_uuid(), 'default', 'k', 'p', 'completed', 0, now(), now(), 'null', 1, 0, 0, now(), 10, 3, 1, '',
       false, '', CASE WHEN n % 10 = 0 THEN ('00000000-0000-7000-8000-' || lpad((n % 1000)::text, 12, '0'))::uuid END
FROM generate_series(1, 50000) AS n;
ANALYZE tenure.job, tenure.history;
"""


async def test_reads_of_a_workflow_scan_neither_table(fresh: Table) -> None:
    workflow = uuid.UUID("00000000-0000-7000-8000-000000000500")
    none = uuid.UUID(int=0)
    async with await psycopg.AsyncConnection.connect(fresh.dsn, row_factory=dict_row) as connection:
        await connection.execute(FILL.encode())
        reads: dict[str, dict[str, Any]] = {
            "workflow_counts": {"ids": [workflow]},
            "workflow_jobs": {"workflow_id": workflow, "after": none, "limit": 100},
            "workflow_cancelable": {"workflow_id": workflow, "before": uuid.UUID(int=2**128 - 1), "limit": 100},
            "workflow_executing": {"workflow_id": workflow, "shown": [new_id()], "limit": 100},
        }
        for name, params in reads.items():
            explained = await connection.execute(f"EXPLAIN {query(name)}".encode(), params)
            plan = "\n".join(row["QUERY PLAN"] for row in await explained.fetchall())
            assert "Seq Scan on job " not in plan, f"{name}\n{plan}"
            assert "workflow" in plan, f"{name}\n{plan}"
