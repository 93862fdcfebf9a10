"""Triggers in Postgres: the SQL says what the rule says, each end is counted once, and only its own edges are read."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import psycopg
import pytest
from tests.postgres.conftest import Table

from tenure.model.dependencies import Trigger, UpstreamFailure, Verdict, verdict
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState
from tenure.store.postgres.database import query
from tenure.store.postgres.submit import write_jobs

ENDS = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)
FAN = 10_000


async def _finish(table: Table, id: uuid.UUID, end: JobState) -> None:
    [row] = await table.start(id)
    await table.end(id, row.fence, end)


def _as_state(found: Verdict) -> JobState:
    """A broken job waits until it is ended."""
    return JobState.READY if found is Verdict.RUN else JobState.WAITING


async def test_the_sql_says_what_the_rule_says(table: Table) -> None:
    counts = list(itertools.product(range(4), repeat=3))
    rows = await table.sql(
        "SELECT t, a, b, c, tenure.verdict(t, a, b, c) AS verdict, tenure.verdict(NULL, a, b, c) AS by_default"
        " FROM unnest(%s::text[]) t, generate_series(0, 3) a, generate_series(0, 3) b, generate_series(0, 3) c",
        [str(trigger) for trigger in Trigger],
    )
    assert len(rows) == len(counts) * len(Trigger)
    for row in rows:
        assert row.verdict == verdict(Trigger(row.t), left=row.a, completed=row.b, otherwise=row.c)
        assert row.by_default == verdict(Trigger.ALL_COMPLETED, left=row.a, completed=row.b, otherwise=row.c)


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("ends", list(itertools.product(ENDS[:2], repeat=3)))
async def test_a_job_becomes_ready_at_the_end_that_its_trigger_needs(
    table: Table, trigger: Trigger, ends: tuple[JobState, ...]
) -> None:
    parents = [await table.submit() for _ in ends]
    child = await table.submit(parents=parents, trigger=trigger)
    seen: list[JobState] = []
    decided = Verdict.WAIT
    for parent, end in zip(parents, ends, strict=True):
        await _finish(table, parent, end)
        seen.append(end)
        completed = seen.count(JobState.COMPLETED)
        decided = verdict(trigger, left=len(ends) - len(seen), completed=completed, otherwise=len(seen) - completed)
        assert await table.state(child) is _as_state(decided)
        broken = {row.id for row in await table.db.fetch("unsettled_parents", {"limit": 100_000}) if row.broken}
        assert (child in broken) == (decided is Verdict.BROKEN)
    # The same of parents that have ended before.
    late = await table.submit(parents=parents, trigger=trigger)
    assert await table.state(late) is _as_state(decided)
    broken = {row.id for row in await table.db.fetch("unsettled_parents", {"limit": 100_000}) if row.broken}
    assert (late in broken) == (decided is Verdict.BROKEN)


@pytest.mark.parametrize("choice", UpstreamFailure)
async def test_a_broken_job_ends_as_asked_for_and_says_why(table: Table, choice: UpstreamFailure) -> None:
    good, bad = await table.submit(), await table.submit()
    child = await table.submit(parents=[good, bad], upstream_failure=choice)
    await _finish(table, bad, JobState.FAILED)
    await table.db.fetch("end_broken", {"ids": [child]})
    row = await table.row(child)
    assert row.state == ("failed" if choice is UpstreamFailure.FAIL else "canceled")
    assert row.reason == f"job {bad}, which it depends on, failed"
    assert (row.trigger, row.upstream_failure) == (None, "fail" if choice is UpstreamFailure.FAIL else None)


async def test_what_it_waits_for_no_longer_moves_a_job_that_runs(table: Table) -> None:
    first, second = await table.submit(), await table.submit()
    child = await table.submit(parents=[first, second], trigger=Trigger.ANY_FINISHED)
    await _finish(table, first, JobState.FAILED)
    [started] = await table.start(child)
    await _finish(table, second, JobState.FAILED)
    assert (await table.row(child)).fence == started.fence
    await table.give_back(child, started.fence)
    assert await table.state(child) is JobState.READY


@pytest.mark.parametrize("trigger", Trigger)
async def test_a_retry_keeps_its_trigger(table: Table, trigger: Trigger) -> None:
    parent = await table.submit()
    child = await table.submit(parents=[parent], trigger=trigger, upstream_failure=UpstreamFailure.FAIL)
    await _finish(table, parent, JobState.COMPLETED)
    await _finish(table, child, JobState.FAILED)
    again = new_id()
    await table.db.fetch("retry_jobs", {"ids": [child], "new_ids": [again], "lanes": [1]})
    await table.db.fetch("insert_retry_dependencies", {"new_ids": [again]})
    assert await table.state(again) is JobState.READY
    row = await table.row(again)
    assert (row.trigger or "all_completed", row.upstream_failure) == (str(trigger), "fail")


@pytest.mark.parametrize(("trigger", "comes"), [(Trigger.ALL_COMPLETED, False), (Trigger.ALL_FINISHED, True)])
async def test_a_retry_is_refused_only_where_it_could_not_run(table: Table, trigger: Trigger, comes: bool) -> None:
    parent = await table.submit()
    child = await table.submit(parents=[parent], trigger=trigger)
    await _finish(table, parent, JobState.FAILED)
    if await table.state(child) is JobState.READY:
        await _finish(table, child, JobState.FAILED)
    else:
        await table.db.fetch("end_broken", {"ids": [child]})
    made = await table.db.fetch("retry_jobs", {"ids": [child], "new_ids": [new_id()], "lanes": [1]})
    assert bool(made) == comes


async def test_a_wide_fan_in_is_not_recounted_at_each_end(fresh: Table) -> None:
    """Ten thousand parents end one by one, in effect: the end of one reads one edge, its parent and its child."""
    parents = [PlannedJob(new_id(), JobSpec(kind="k"), (), b"") for _ in range(FAN)]
    child = PlannedJob(new_id(), JobSpec(kind="k", trigger=Trigger.ALL_FINISHED), tuple(p.id for p in parents), b"")
    await write_jobs(fresh.db, [*parents, child], [1] * (FAN + 1))
    await fresh.sql("ANALYZE tenure.job, tenure.dependency, tenure.history")
    one = parents[FAN // 2].id
    [started] = await fresh.start(one)
    await fresh.db.fetch("end_attempts", _ending([one], [started.fence]))
    assert await _rows_read(fresh, "settle_parents", {"ids": [one]}) < 50
    await fresh.db.fetch("settle_parents", {"ids": [one]})
    rest = [p.id for p in parents if p.id != one]
    fences = {uuid.UUID(row.id): row.fence for row in await fresh.start(*rest)}
    # In portions: on a busy machine one statement that ends them all outlasts the statement timeout.
    for first in range(0, len(rest), 1_000):
        some = rest[first : first + 1_000]
        await fresh.db.fetch("end_attempts", _ending(some, [fences[id] for id in some]))
    await fresh.db.fetch("settle_parents", {"ids": rest})
    assert await fresh.state(child.id) is JobState.READY


async def test_a_parent_of_very_many_ends_before_all_of_them_are_told(fresh: Table) -> None:
    parent = await fresh.submit()
    await fresh.submit(parents=[parent])
    await fresh.sql(
        "INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,"
        " max_crashes, waiting_on) SELECT gen_random_uuid(), namespace, kind, route, lane, state, due, priority,"
        " activate_at, payload, ttl_s, max_crashes, waiting_on FROM tenure.job, generate_series(1, 24999)"
        " WHERE state = 'waiting'"
    )
    await fresh.sql(
        "INSERT INTO tenure.dependency (child_id, parent_id)"
        f" SELECT id, '{parent}' FROM tenure.job WHERE state = 'waiting' ON CONFLICT DO NOTHING"
    )
    await _finish(fresh, parent, JobState.COMPLETED)
    counted = "SELECT count(*) AS n FROM tenure.job WHERE state = 'waiting'"
    assert (await fresh.sql(counted))[0].n == 5_000
    [slipped] = await fresh.db.fetch("unsettled_parents", {"limit": 10})
    assert (slipped.id, slipped.broken) == (parent, False)
    assert len(await fresh.db.fetch("settle_parents", {"ids": [parent]})) == 5_000
    assert (await fresh.sql(counted))[0].n == 0
    assert not await fresh.db.fetch("unsettled_parents", {"limit": 10})


async def _rows_read(table: Table, name: str, params: dict[str, Any]) -> float:
    """Run a query, undo it, and return how many rows its scans looked at."""
    async with await psycopg.AsyncConnection.connect(table.dsn) as connection:
        cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode(), params)
        row = await cursor.fetchone()
        await connection.rollback()
    assert row is not None

    def read(node: dict[str, Any]) -> float:
        seen = node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)
        own = seen * node.get("Actual Loops", 1) if "Scan" in node["Node Type"] else 0
        return float(own + sum(read(child) for child in node.get("Plans", ())))

    return read(row[0][0]["Plan"])


def _ending(ids: list[uuid.UUID], fences: list[int]) -> dict[str, object]:
    many = len(ids)
    return {
        "ids": ids,
        "fences": fences,
        "outcomes": ["completed"] * many,
        "states": ["completed"] * many,
        "results": ["null"] * many,
        "errors": [None] * many,
        "reasons": [""] * many,
        "error_counts": [0] * many,
        "crash_counts": [0] * many,
    }
