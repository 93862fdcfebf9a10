"""Writing jobs: whole or not at all, one job per idempotency key, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.postgres.conftest import Table

from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob, RetrySpec
from tenure.store.postgres import submit
from tenure.store.postgres.database import Database, PoolOptions, Row, Statement
from tenure.store.postgres.submit import keyed_jobs, write_jobs
from tenure.store.postgres.taken import KeyTaken


def _planned(key: str | None = None, *, parent: uuid.UUID | None = None, **spec: Any) -> PlannedJob:
    return PlannedJob(new_id(), JobSpec(kind="k", idempotency_key=key, **spec), (), b"h", parent)


async def test_a_batch_with_a_taken_key_writes_nothing(table: Table) -> None:
    key = str(uuid.uuid4())
    await write_jobs(table.db, [_planned(key)], [1])
    others = [_planned() for _ in range(3)]
    with pytest.raises(KeyTaken):
        await write_jobs(table.db, [*others, _planned(key)], [1] * 4)
    assert [await table.row(job.id) for job in others] == [None] * 3


async def test_a_taken_key_is_no_warning(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    job = _planned(str(uuid.uuid4()))
    await write_jobs(table.db, [job], [1])
    for _ in range(50):
        with pytest.raises(KeyTaken):
            await write_jobs(table.db, [job], [1])
    assert not caplog.records


async def test_a_key_stands_for_its_job(table: Table) -> None:
    key = str(uuid.uuid4())
    job = _planned(key)
    await write_jobs(table.db, [job], [1])
    triple = ("default", "", key)
    known = await keyed_jobs(table.db, [triple, ("default", "", "another"), ("other", "", key)])
    assert set(known) == {triple}
    assert (known[triple].job_id, known[triple].request_hash) == (job.id, b"h")


async def test_plain_jobs_are_written_in_one_statement_as_they_are_in_two(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def jobs(mark: str) -> list[PlannedJob]:
        plain = _planned(f"{mark}-plain", namespace="n", route="a/b", priority=5, payload='{"b": 1}', ttl_s=2.5)
        return [plain, _planned(f"{mark}-bare"), _planned(max_crashes=9)]

    async def written(mark: str) -> list[Any]:
        made = jobs(mark)
        told = await write_jobs(table.db, made, [1, 2, 1], tells_time=True)
        ids = [job.id for job in made]
        rows = await table.sql("SELECT * FROM tenure.job WHERE id = ANY (%s) ORDER BY id", ids)
        assert {row.created_at for row in rows} == {told.at}
        keys = await table.sql(
            "SELECT namespace, scope, right(key, 5), request_hash, expires_at - %s AS lasts FROM tenure.idempotency"
            " WHERE job_id = ANY (%s) ORDER BY job_id",
            told.at,
            ids,
        )
        same = [{**row._asdict(), "id": None, "created_at": None, "activate_at": None} for row in rows]
        return [{**row, "idempotency_key": (row["idempotency_key"] or "")[-5:]} for row in same] + keys

    statements: list[list[str]] = []
    run = table.db._run

    async def noted(asked: Sequence[Statement], *, as_transaction: bool) -> list[list[Row]]:
        statements.append([statement.name for statement in asked])
        return await run(asked, as_transaction=as_transaction)

    monkeypatch.setattr(table.db, "_run", noted)
    in_one = await written(str(uuid.uuid4()))
    monkeypatch.setattr(submit, "_are_plain", lambda jobs: False)
    in_two = await written(str(uuid.uuid4()))
    assert [names for names in statements if "time" in names or len(names) == 1] == [
        ["insert_plain_jobs"],
        ["take_keys", "insert_jobs", "time"],
    ]
    assert in_one == in_two


async def test_an_expired_key_is_free(table: Table) -> None:
    key = str(uuid.uuid4())
    await write_jobs(table.db, [_planned(key)], [1])
    await table.sql("UPDATE tenure.idempotency SET expires_at = now() WHERE key = %s", key)
    second = _planned(key)
    with pytest.raises(KeyTaken):
        await write_jobs(table.db, [second], [1])  # the row is still there ...
    assert await keyed_jobs(table.db, [("default", "", key)]) == {}  # ... until somebody asks for it
    await write_jobs(table.db, [second], [1])
    assert (await keyed_jobs(table.db, [("default", "", key)]))[("default", "", key)].job_id == second.id


async def test_expired_keys_are_dropped_in_bounded_steps(fresh: Table) -> None:
    await write_jobs(fresh.db, [_planned(f"k{n}") for n in range(5)], [1] * 5)
    await fresh.sql("UPDATE tenure.idempotency SET expires_at = now() WHERE key <> 'k0'")
    await fresh.db.fetch("drop_expired_keys", {"limit": 3})
    assert len(await fresh.sql("SELECT 1 FROM tenure.idempotency")) == 2
    await fresh.db.fetch("drop_expired_keys", {"limit": 3})
    assert [row.key for row in await fresh.sql("SELECT key FROM tenure.idempotency")] == ["k0"]


async def test_one_key_from_many_connections_makes_one_job(shared_database: str, table: Table) -> None:
    key = str(uuid.uuid4())

    async def submit() -> bool:
        async with Database(shared_database, PoolOptions(min_size=1, max_size=2)) as own:
            try:
                await write_jobs(own, [_planned(key), _planned()], [1, 1])
            except KeyTaken:
                return False
            return True

    assert sum(await asyncio.gather(*(submit() for _ in range(6)))) == 1
    assert len(await table.sql("SELECT 1 FROM tenure.job WHERE idempotency_key = %s", key)) == 1


async def test_batches_that_take_the_same_keys_in_other_orders_do_not_deadlock(table: Table) -> None:
    keys = [str(uuid.uuid4()) for _ in range(20)]

    async def submit(names: list[str]) -> bool:
        try:
            await write_jobs(table.db, [_planned(name) for name in names], [1] * len(names))
        except KeyTaken:
            return False
        return True

    won = await asyncio.gather(submit(keys), submit(keys[::-1]), submit(keys), submit(keys[::-1]))
    assert sum(won) == 1


async def test_a_child_and_a_submitter_may_use_the_same_key(table: Table) -> None:
    key = str(uuid.uuid4())
    parent = await table.submit()
    fence = (await table.start(parent))[0].fence
    await write_jobs(table.db, [_planned(key)], [1])
    await write_jobs(table.db, [_planned(key, parent=parent)], [1], fence=fence)
    with pytest.raises(KeyTaken):
        await write_jobs(table.db, [_planned(key, parent=parent)], [1], fence=fence)


async def test_a_job_is_due_when_its_time_has_come(table: Table) -> None:
    past, future = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    times: list[dict[str, Any]] = [
        {},
        {"activate_at": past},
        {"activate_at": future},
        {"delay_s": 60.0},
        {"delay_s": 0.0},
    ]
    jobs = [_planned(**time) for time in times]
    await write_jobs(table.db, jobs, [1] * 5)
    rows = await table.sql("SELECT id, due FROM tenure.job WHERE id = ANY (%s)", [job.id for job in jobs])
    due = {row.id: row.due for row in rows}
    assert [due[job.id] for job in jobs] == [True, True, False, False, True]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Marquesas"])
async def test_the_ends_of_time_can_be_read_back_whatever_zone_the_database_has(fresh: Table, zone: str) -> None:
    """One job with such a time must not make a listing, or dispatch, unreadable."""
    name = fresh.dsn.rpartition("/")[2].partition("?")[0]
    await fresh.sql(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    async with Database(fresh.dsn, PoolOptions(min_size=1, max_size=2)) as own:
        jobs = [_planned(activate_at=at) for at in times]
        await write_jobs(own, jobs, [1, 1])
        rows = await own.fetch("jobs_by_id", {"ids": [job.id for job in jobs]})
        assert {row.activate_at for row in rows} == set(times)


async def test_what_was_asked_for_is_stored_as_it_was(table: Table) -> None:
    job = _planned(
        None,
        payload='{"b":1,  "a": "\\u00fc\\ud83d\\ude00"}',
        labels={"k": "v'\"{},"},
        priority=-1000,
        ttl_s=2.5,
        timeout_s=0.5,
        max_crashes=7,
        retry={"max_attempts": 9},
        route="a/b/c",
        namespace="ns",
    )
    await write_jobs(table.db, [job], [1])
    row = await table.row(job.id)
    assert row.payload == job.spec.payload  # byte for byte: a json column, not jsonb
    assert row.labels == '{"k": "v\'\\"{},"}'
    assert (row.priority, row.ttl_s, row.timeout_s, row.max_crashes) == (-1000, 2.5, 0.5, 7)
    assert (row.route, row.namespace, row.kind, row.state) == ("a/b/c", "ns", "k", "ready")
    assert RetrySpec.model_validate_json(row.retry).max_attempts == 9


async def test_lanes_are_interned_once_by_everybody(table: Table) -> None:
    pools = [f"p{n}" for n in range(30)]

    async def intern(names: list[str]) -> dict[str, int]:
        columns = {
            "pools": names,
            "namespaces": ["n"] * 30,
            "kinds": ["k"] * 30,
            "limits": [""] * 30,
            "requires": [""] * 30,
        }
        found: dict[str, int] = {}
        while len(found) < 30:  # as Lanes does: what another makes at this moment shows in a fresh snapshot
            found |= {row.pool: row.id for row in await table.db.fetch("intern_lanes", columns)}
        return found

    answers = await asyncio.gather(intern(pools), intern(pools[::-1]), intern(pools))
    assert answers[0] == answers[1] == answers[2]
