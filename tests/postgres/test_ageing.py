"""Ageing: jobs that have been ready for too long are raised, the oldest first, so many at a time; what they asked for
stays visible. Where nobody ages nothing is read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer
from tests.postgres.conftest import Table
from tests.postgres.test_plans import _plan, _read, _scans

from tenure.model.bounds import MAX_PRIORITY
from tenure.model.states import JobState, Outcome

PARAMS = {"limit": 1_000, "per_lane": 100, "highest": MAX_PRIORITY}
OLD = timedelta(minutes=10)


@pytest.fixture
def table(fresh: Table) -> Table:
    """A database of its own for each test: what ages in one is raised, and counted, in all."""
    return fresh


async def lane(table: Table, namespace: str) -> int:
    """Make a lane of a namespace, and have jobs that are submitted from now on written to it."""
    sql = "INSERT INTO tenure.lane (pool, namespace, kind) VALUES ('default', %s, 'k') RETURNING id"
    table.lane = (await table.sql(sql, namespace))[0].id
    return table.lane


async def ageing(table: Table, namespace: str, seconds: float | None = 60.0) -> None:
    """Set a namespace's ageing."""
    await table.db.fetch(
        "put_namespace",
        {
            "name": namespace,
            "weight": None,
            "ageing_s": seconds,
            "backlog": None,
            "submit_rate": None,
            "submit_burst": None,
        },
    )


async def submit(table: Table, ago: timedelta = OLD, **spec: Any) -> uuid.UUID:
    """Write a job that became ready some time ago."""
    id = await table.submit(**spec)
    await table.sql("UPDATE tenure.job SET activate_at = now() - %s WHERE id = %s", ago, id)
    return id


async def window(table: Table, lane: int) -> list[uuid.UUID]:
    """Read a lane in the order in which it is served."""
    window = {"lanes": [lane], "wanted": [100], "passed": "{}"}
    return [uuid.UUID(row.id) for row in await table.db.fetch("ready_window", window)]


async def test_what_is_old_goes_first_and_what_was_asked_for_is_still_told(table: Table) -> None:
    ours = await lane(table, "ours")
    await ageing(table, "ours")
    high = await submit(table, timedelta(0), namespace="ours", priority=900)
    young = await submit(table, timedelta(seconds=30), namespace="ours", priority=5)
    older = await submit(table, OLD * 2, namespace="ours", priority=-5)
    old = await submit(table, namespace="ours", priority=3)
    assert await window(table, ours) == [high, young, old, older]
    raised = await table.db.fetch("raise_aged", PARAMS)
    assert [row.lane for row in raised] == [ours, ours]
    assert await window(table, ours) == [older, old, high, young]
    shown = {id: await table.row(id) for id in (high, young, older, old)}
    assert {id: row.priority for id, row in shown.items()} == {high: 900, young: 5, older: -5, old: 3}
    assert {id: row.aged for id, row in shown.items()} == {high: False, young: False, older: True, old: True}
    assert await table.db.fetch("raise_aged", PARAMS) == []


async def test_history_keeps_what_was_asked_for(table: Table) -> None:
    ours = await lane(table, "ended")
    await ageing(table, "ended")
    ids = [await submit(table, namespace="ended", priority=n) for n in range(3)]
    assert [row.lane for row in await table.db.fetch("raise_aged", PARAMS)].count(ours) == 3
    await table.end(ids[0], (await table.start(ids[0]))[0].fence)
    await table.db.fetch("cancel_idle", {"ids": [ids[1]], "reason": ""})
    await table.sql("UPDATE tenure.job SET deadline = now() - interval '1 s' WHERE id = %s", ids[2])
    await table.db.fetch("expire_idle", {"ids": [ids[2]], "not_started": "a", "not_ended": "b"})
    rows = [await table.row(id) for id in ids]
    assert [(row.state, row.priority) for row in rows] == [("completed", 0), ("canceled", 1), ("failed", 2)]


async def test_only_namespaces_that_want_it_are_aged_and_it_can_be_turned_off(table: Table) -> None:
    theirs = await lane(table, "theirs")
    await submit(table, namespace="theirs")
    assert theirs not in [row.lane for row in await table.db.fetch("raise_aged", PARAMS)]
    await ageing(table, "theirs")
    await ageing(table, "theirs", None)  # another setting is changed: this one is kept
    assert theirs in [row.lane for row in await table.db.fetch("raise_aged", PARAMS)]
    await ageing(table, "theirs", 0)
    await submit(table, namespace="theirs")
    assert theirs not in [row.lane for row in await table.db.fetch("raise_aged", PARAMS)]


async def test_so_many_of_a_lane_stand_raised_at_a_time_the_oldest_first(table: Table) -> None:
    many = await lane(table, "many")
    await ageing(table, "many")
    ids = [await submit(table, OLD + timedelta(seconds=n), namespace="many") for n in range(12)]
    params = {**PARAMS, "per_lane": 5}
    assert len(await table.db.fetch("raise_aged", params)) == 5
    assert await table.db.fetch("raise_aged", params) == []
    first = (await window(table, many))[:5]
    assert first == ids[:-6:-1]
    await table.start(*first[:2])
    assert len(await table.db.fetch("raise_aged", params)) == 2
    assert (await window(table, many))[3:5] == ids[-6:-8:-1]


async def test_a_raised_job_stays_raised_through_a_retry(table: Table) -> None:
    await lane(table, "again")
    await ageing(table, "again")
    id = await submit(table, namespace="again", priority=4)
    await table.db.fetch("raise_aged", PARAMS)
    await table.give_back(id, (await table.start(id))[0].fence, JobState.READY, Outcome.FAILED, error_counts=[1])
    row = await table.row(id)
    assert (row.state, row.priority, row.aged) == ("ready", 4, True)


FILL = """
INSERT INTO tenure.namespace (name, ageing_s) SELECT 'n' || n, CASE WHEN n <= %(ageing)s THEN 60 END
FROM generate_series(1, 10) AS n;
INSERT INTO tenure.lane (pool, namespace, kind) SELECT 'p', 'n' || n, 'k' FROM generate_series(1, 10) AS n;
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes)
SELECT gen_random_uuid(), l.namespace, 'k', 'p', l.id, 'ready', true, n %% 5, now() - make_interval(secs => n),
       'null', 10, 3
FROM generate_series(1, 100000) AS n JOIN tenure.lane l ON l.namespace = 'n' || 1 + n %% 10;
"""


@pytest.fixture
def backlog(
    postgres_server: PostgresServer, postgres_template: str, request: pytest.FixtureRequest
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """100,000 jobs in ten namespaces, as many of which age as the parameter says."""
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        psycopg.ClientCursor(connection).execute(FILL, {"ageing": request.param})
        connection.execute("VACUUM ANALYZE tenure.job, tenure.lane, tenure.namespace")
        yield connection
    postgres_server.drop_database(dsn)


@pytest.mark.parametrize(("backlog", "namespaces"), [(0, 0), (2, 2)], indirect=["backlog"])
def test_only_what_is_raised_is_read(backlog: psycopg.Connection[dict[str, Any]], namespaces: int) -> None:
    nodes = _plan(backlog, "raise_aged", {**PARAMS, "per_lane": 50})
    assert _scans(nodes) <= {"job_ready", "job_aged", "job_pkey"}
    priorities, raised = 5, namespaces * 5 * 50
    # Each is read when it is picked, locked and written; and a probe for each lane, and for each priority.
    assert _read(nodes) <= 10 + namespaces * (priorities + 1) + 3 * raised
    assert (_read(nodes) == 0) == (namespaces == 0)
