"""Hot queries on a table of 200,000 jobs: they use the indexes that are meant for them, and never scan ``job``."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer
from tests.postgres.conftest import Table

from tenure.store.postgres.database import query

JOBS = 200_000
EXECUTING = 2_000
LANES = 20
FILL = """
INSERT INTO tenure.lane (pool, namespace, kind) SELECT 'p' || n, 'default', 'k' FROM generate_series(1, 20) AS n;
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes, fence, worker, lease, claim_revision, started_at, attempt)
SELECT gen_random_uuid(), 'default', 'k', l.pool, l.id,
       CASE WHEN executing THEN 'executing' WHEN waiting THEN 'waiting' ELSE 'ready' END,
       NOT waiting AND NOT ahead, (n * 7) % 11, now() + CASE WHEN ahead THEN interval '1 h' ELSE interval '-1 h' END,
       'null', 10, 3, CASE WHEN executing THEN n END, CASE WHEN executing THEN 'w' || n % 50 END,
       CASE WHEN executing THEN n END, CASE WHEN executing THEN n END, CASE WHEN executing THEN now() END, 0
FROM (SELECT n, 1 + n % 20 AS lane, n % 100 = 0 AS executing, n % 100 = 1 AS waiting, n % 100 IN (2, 3) AS ahead
      FROM generate_series(1, 200000) AS n) AS g JOIN tenure.lane l ON l.pool = 'p' || g.lane;
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason)
SELECT gen_random_uuid(), 'default', 'k', 'p1', CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END, 0, now(),
       now(), 'null', 1, 0, 0, now() + make_interval(days => n % 8), 10, 3, 1, '', false, ''
FROM generate_series(1, 100000) AS n;
UPDATE tenure.job SET activate_at = now() - interval '1 s'
WHERE id IN (SELECT id FROM tenure.job WHERE NOT due AND state = 'ready' LIMIT 100);
"""


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, postgres_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE tenure.job, tenure.history")
        yield connection
    postgres_server.drop_database(dsn)


def _ids(connection: psycopg.Connection[dict[str, Any]], state: str, count: int) -> list[dict[str, Any]]:
    return connection.execute(
        "SELECT id, attempt, coalesce(fence, 0) AS fence FROM tenure.job WHERE state = %s AND (due OR state <> 'ready')"
        " ORDER BY md5(id::text) LIMIT %s",
        (state, count),
    ).fetchall()


def _plan(connection: psycopg.Connection[dict[str, Any]], name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a query with EXPLAIN ANALYZE, undo it, and return the nodes of its plan."""
    with connection.transaction(force_rollback=True):
        # Planned with the values of the parameters; what a statement does that is planned once is tested by name.
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode()
        row = connection.execute(explained, params).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"]
    return list(_nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _scans(nodes: list[dict[str, Any]]) -> set[str]:
    """Say how the table of jobs is read: names of indexes, or SEQ."""
    found = set()
    for node in nodes:
        if node["Node Type"] == "Seq Scan" and node.get("Relation Name") == "job":
            found.add("SEQ")
        elif "Index Name" in node and str(node["Index Name"]).startswith("job"):
            found.add(node["Index Name"])
    return found


def _read(nodes: list[dict[str, Any]]) -> int:
    """Count the rows that scans of the table of jobs gave or threw away."""
    return sum(
        int((node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 1))
        for node in nodes
        if node.get("Relation Name") == "job" and "Scan" in node["Node Type"]
    )


def test_the_ready_window_reads_only_what_it_returns(large: psycopg.Connection[dict[str, Any]]) -> None:
    lanes = [row["id"] for row in large.execute("SELECT id FROM tenure.lane ORDER BY id LIMIT 10")]
    nodes = _plan(large, "ready_window", {"lanes": lanes, "wanted": [50] * 10, "passed": "{}"})
    assert _scans(nodes) == {"job_ready"}
    assert _read(nodes) <= 10 * 50
    assert "Incremental Sort" not in {node["Node Type"] for node in nodes}


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("name", ["ready_window", "jobs_with_parents", "jobs_by_id"])
def test_what_is_read_for_each_job_is_not_planned_for_each(
    large: psycopg.Connection[dict[str, Any]], name: str, count: int
) -> None:
    """Postgres plans a statement anew as long as knowing its parameters promises to pay: for these it never does."""
    lanes = [row["id"] for row in large.execute("SELECT id FROM tenure.lane ORDER BY id")]
    ids = [row["id"] for row in _ids(large, "executing", count)]
    params = {"lanes": lanes[:count], "wanted": [50] * len(lanes[:count]), "passed": ids, "ids": ids}
    large.execute("DEALLOCATE ALL")
    statement = re.sub(r"%\((\w+)\)s", r"$\1", query(name)).encode()
    used = [key for key in params if b"$" + key.encode() in statement]
    for number, key in enumerate(used, 1):
        statement = re.sub(rb"\$%s\b" % key.encode(), b"$%d" % number, statement)
    types = ", ".join({"lanes": "bigint[]", "wanted": "int[]"}.get(key, "uuid[]") for key in used)
    large.execute(f"PREPARE subject ({types}) AS {statement.decode()}".encode(), prepare=False)
    values = ", ".join(["%s"] * len(used))
    for _ in range(12):
        psycopg.ClientCursor(large).execute(f"EXECUTE subject ({values})".encode(), [params[key] for key in used])
    told = large.execute(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'subject'"
    ).fetchone()
    large.execute("DEALLOCATE ALL")
    assert told == {"generic_plans": 7, "custom_plans": 5}


def test_the_ready_window_passes_over_what_is_in_flight(large: psycopg.Connection[dict[str, Any]]) -> None:
    """Whatever their number: they are put into one table that is hashed, and looked up there."""
    found = large.execute("SELECT lane FROM tenure.job WHERE due GROUP BY lane ORDER BY count(*) DESC LIMIT 1")
    params: dict[str, Any] = {"lanes": [row["lane"] for row in found], "wanted": [50], "passed": "{}"}
    rows = large.execute(query("ready_window"), {**params, "wanted": [60]}).fetchall()
    passed = [row["id"] for row in rows[:50:5]]
    params["passed"] = f"{{{','.join(passed)}}}"
    left = large.execute(query("ready_window"), params).fetchall()
    assert left == [row for row in rows if row["id"] not in passed]
    nodes = _plan(large, "ready_window", params)
    assert _scans(nodes) == {"job_ready"}
    assert _read(nodes) == 60
    assert any("hashed SubPlan" in str(node.get("Filter")) for node in nodes)


def test_lanes_with_ready_jobs_cost_one_probe_each(large: psycopg.Connection[dict[str, Any]]) -> None:
    nodes = _plan(large, "lanes_with_ready", {})
    assert _scans(nodes) == {"job_ready"}
    assert _read(nodes) <= LANES + 1


def test_ready_jobs_are_counted_by_pool_within_bounds(large: psycopg.Connection[dict[str, Any]]) -> None:
    priorities = 11
    nodes = _plan(large, "ready_by_pool", {"heads": 5_000, "most": 1_000})
    assert _scans(nodes) == {"job_ready"}
    # Each probe, and as many entries of each lane as it may, of half of the bound and then of all of it; a probe for
    # the next lane finds none of this one's.
    assert _read(nodes) <= 500 + 1_000 + 2 * LANES * priorities + 1
    bounded = _plan(large, "ready_by_pool", {"heads": 30, "most": 100})
    assert _read(bounded) <= 50 + 100 + 2 * 30 + 1


def test_an_overview_counts_in_indexes_and_up_to_its_bounds(large: psycopg.Connection[dict[str, Any]]) -> None:
    bounds = {"ready": 1_000, "executing": 500, "others": 300, "heads": 5_000}
    nodes = _plan(large, "overview", bounds)
    assert _scans(nodes) == {"job_ready", "job_executing", "job_waiting", "job_activation"}
    # 20 lanes of 11 priorities: a probe for each, two where a lane is over; and what is counted.
    assert _read(nodes) < 3 * 20 * 11 + 500 + 1_000 + 500 + 2 * 300 + 100
    rows = large.execute(query("overview").encode(), bounds).fetchall()
    assert sum(row["jobs"] for row in rows if row["what"] == "ready") == 1_000
    assert sum(row["jobs"] for row in rows if row["what"] == "executing") == 500
    oldest = large.execute(
        "SELECT lane, min(activate_at) AS at FROM tenure.job"
        " WHERE due AND state IN ('ready', 'restarting') GROUP BY lane"
    ).fetchall()
    assert {row["lane"]: row["oldest_at"] for row in rows if row["what"] == "ready"} == {
        row["lane"]: row["at"] for row in oldest
    }


def test_due_jobs_are_found_by_their_time(large: psycopg.Connection[dict[str, Any]]) -> None:
    nodes = _plan(large, "activate_due", {"limit": 1_000})
    assert "SEQ" not in _scans(nodes)
    assert "job_activation" in _scans(nodes)
    nodes = _plan(large, "next_activation", {})
    assert _scans(nodes) == {"job_activation"}
    assert _read(nodes) <= 1


@pytest.mark.parametrize("count", [1, 60, 500])
def test_a_start_touches_its_jobs_alone(large: psycopg.Connection[dict[str, Any]], count: int) -> None:
    rows = _ids(large, "ready", count)
    nodes = _plan(
        large,
        "start_attempts",
        {
            "worker": "w",
            "ids": [row["id"] for row in rows],
            "attempts": [row["attempt"] for row in rows],
            "leases": [1] * count,
            "revisions": [1] * count,
            "slots": [""] * count,
        },
    )
    assert _scans(nodes) == {"job_pkey"}
    assert _read(nodes) <= 3 * count


@pytest.mark.parametrize("vacuum", [False, True])
@pytest.mark.parametrize("name", ["start_attempts", "end_attempts"])
async def test_a_plan_made_while_the_queue_was_empty_goes_by_the_primary_key(
    fresh: Table, name: str, vacuum: bool
) -> None:
    """It is kept until the next ANALYZE, however many jobs there are by then."""
    ids = [str(uuid.uuid4()) for _ in range(80)]
    zeros = [0] * 80
    # All parameters of both; those that one does not name are passed over.
    params = {
        "worker": "w", "ids": ids, "attempts": zeros, "leases": zeros, "revisions": zeros, "slots": [""] * 80,
        "fences": zeros, "outcomes": ids, "states": ids, "results": ids, "errors": ids, "reasons": ids,
        "error_counts": zeros, "crash_counts": zeros,
    }  # fmt: skip
    async with fresh.db._pool.connection() as connection:
        if vacuum:
            await connection.execute("VACUUM ANALYZE tenure.job")
        rows = await (await connection.execute(f"EXPLAIN (COSTS OFF) {query(name)}".encode(), params)).fetchall()
    scans = {line.strip() for (line,) in rows if re.search(r"\b(on|using) job", line)}
    assert {re.sub(r"^->  ", "", scan) for scan in scans if "Scan" in scan} == {
        "Tid Scan on job j",
        "Index Scan using job_pkey on job f",
    }


@pytest.mark.parametrize("vacuum", [False, True])
async def test_what_retention_asks_of_jobs_goes_by_an_index_though_it_was_planned_while_none_was_there(
    fresh: Table, vacuum: bool
) -> None:
    """It asks for each job that has ended: what looks through all jobs then takes minutes for a step."""
    asked = "EXPLAIN (FORMAT JSON) SELECT id, held, needed FROM tenure.ended WHERE id = ANY (%(ids)s::uuid[])"
    async with fresh.db._pool.connection() as connection:
        if vacuum:
            await connection.execute("VACUUM ANALYZE tenure.job, tenure.dependency")
        row = await (await connection.execute(asked, {"ids": [uuid.uuid4() for _ in range(80)]})).fetchone()
    assert row is not None
    of_jobs = [
        node for node in _nodes(json.loads(row[0])[0]["Plan"]) if node.get("Relation Name") in ("job", "dependency")
    ]
    assert len(of_jobs) >= 8
    for node in of_jobs:
        assert "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan", node


@pytest.mark.parametrize("count", [1, 60, 500])
@pytest.mark.parametrize("name", ["end_attempts", "return_attempts"])
def test_an_end_touches_its_jobs_alone(large: psycopg.Connection[dict[str, Any]], name: str, count: int) -> None:
    rows = _ids(large, "executing", count)
    nodes = _plan(
        large,
        name,
        {
            "ids": [row["id"] for row in rows],
            "fences": [row["fence"] for row in rows],
            "outcomes": ["released"] * count,
            "states": ["completed" if name == "end_attempts" else "ready"] * count,
            "results": ["null"] * count,
            "errors": [None] * count,
            "reasons": [""] * count,
            "error_counts": [0] * count,
            "crash_counts": [0] * count,
            "delays": [0.0] * count,
        },
    )
    assert "SEQ" not in _scans(nodes)
    assert _scans(nodes) <= {"job_pkey", "job_executing"}
    assert _read(nodes) <= max(4 * count, EXECUTING + 2 * count)


def test_the_sweep_pages_through_executing_jobs_alone(large: psycopg.Connection[dict[str, Any]]) -> None:
    nodes = _plan(
        large,
        "executing_page",
        {"after": "00000000-0000-0000-0000-000000000000", "limit": 500, "timeout_grace_s": 5.0},
    )
    assert _scans(nodes) == {"job_executing"}
    assert _read(nodes) <= 500


LOOKUPS = (
    "executing_by_fence",
    "executing_by_id",
    "jobs_by_id",
    "jobs_with_parents",
    "cancel_idle",
    "known_jobs",
)


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_by_id_use_an_index(large: psycopg.Connection[dict[str, Any]], name: str) -> None:
    rows = _ids(large, "executing", 20)
    nodes = _plan(
        large,
        name,
        {
            "ids": [row["id"] for row in rows],
            "fences": [row["fence"] for row in rows],
            "timeout_grace_s": 5.0,
            "reason": "",
        },
    )
    assert _scans(nodes) <= {"job_pkey", "job_executing", "dependency_pkey"}
    assert _scans(nodes)


def test_a_page_of_the_newest_jobs_reads_a_page(large: psycopg.Connection[dict[str, Any]]) -> None:
    filters = dict.fromkeys(
        (
            "namespace",
            "namespaces",
            "kind",
            "route",
            "states",
            "labels",
            "parent_id",
            "created_after",
            "created_before",
            "workflow_id",
        )
    )
    window = dict.fromkeys(("any_of", "from_week", "until_week", "finished_after", "finished_before"))
    ids = {"before": "ffffffff-ffff-ffff-ffff-ffffffffffff", "first": "00000000-0000-0000-0000-000000000000"}
    page = {**ids, "window": 10_000, "limit": 50, "deleted": False}
    nodes = _plan(large, "list_jobs", {**page, **window, **filters})
    assert _scans(nodes) == {"job_pkey"}
    assert _read(nodes) <= 51


NO_FILTER = dict.fromkeys(
    (
        "namespace",
        "namespaces",
        "kind",
        "route",
        "labels",
        "parent_id",
        "created_after",
        "created_before",
        "workflow_id",
    )
)


def test_dead_letters_are_found_without_reading_what_completed(large: psycopg.Connection[dict[str, Any]]) -> None:
    everything = {
        "after": "00000000-0000-0000-0000-000000000000",
        "until": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "states": ["failed"],
    }
    nodes = _plan(large, "dead_letters", {**NO_FILTER, **everything, "kind": "rare", "limit": 100})
    read = [
        node
        for node in nodes
        if str(node.get("Relation Name", "")).startswith("history") and "Scan" in node["Node Type"]
    ]
    assert {"Seq Scan", "Bitmap Heap Scan"}.isdisjoint({node["Node Type"] for node in read})
    assert sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in read) <= 100 + len(read)


def test_a_window_of_a_mass_cancel_reads_a_window(large: psycopg.Connection[dict[str, Any]]) -> None:
    span = {"after": "00000000-0000-0000-0000-000000000000", "until": "ffffffff-ffff-ffff-ffff-ffffffffffff"}
    params = {**NO_FILTER, **span, "states": ["ready"], "kind": "rare", "limit": 1_000}
    nodes = _plan(large, "cancelable", params)
    assert _scans(nodes) == {"job_pkey"}
    assert _read(nodes) <= 1_001


def test_overdue_jobs_are_found_by_their_times(large: psycopg.Connection[dict[str, Any]]) -> None:
    for due in (0, 50):
        with large.transaction(force_rollback=True):
            large.execute(
                "UPDATE tenure.job SET start_by = now() + interval '1 h', deadline = now() + interval '2 h'"
                " WHERE id IN (SELECT id FROM tenure.job LIMIT 20000)"
            )
            large.execute(
                "UPDATE tenure.job SET start_by = now() - interval '1 h', deadline = now() - interval '1 h'"
                " WHERE id IN (SELECT id FROM tenure.job WHERE start_by IS NOT NULL LIMIT %s)",
                (due,),
            )
            large.execute("ANALYZE tenure.job")
            nodes = _plan(large, "overdue_jobs", {"limit": 1_000})
            assert _scans(nodes) == {"job_start_by", "job_deadline"}
            assert _read(nodes) <= 2 * due


def test_an_expiry_touches_its_jobs_alone(large: psycopg.Connection[dict[str, Any]]) -> None:
    rows = _ids(large, "ready", 100)
    nodes = _plan(large, "expire_idle", {"ids": [row["id"] for row in rows], "not_started": "", "not_ended": ""})
    assert "SEQ" not in _scans(nodes)
    assert _read(nodes) <= 300


def test_a_retry_touches_its_jobs_alone(large: psycopg.Connection[dict[str, Any]]) -> None:
    ids = [row["id"] for row in large.execute("SELECT id FROM tenure.history WHERE state = 'failed' LIMIT 50")]
    nodes = _plan(large, "retry_jobs", {"ids": ids, "new_ids": ids, "lanes": [1] * len(ids)})
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node.get("Actual Rows", 0) > 1_000]


def test_the_sweep_of_dependants_does_not_read_the_backlog(large: psycopg.Connection[dict[str, Any]]) -> None:
    nodes = _plan(large, "unsettled_parents", {"limit": 1_000})
    assert "SEQ" not in _scans(nodes)


@pytest.mark.parametrize("name", ["replace_holders", "lock_replaced"])
def test_unique_keys_are_looked_up_by_their_indexes(large: psycopg.Connection[dict[str, Any]], name: str) -> None:
    ids = [row["id"] for row in _ids(large, "ready", 60)]
    keys = {"namespaces": ["default"] * 60, "kinds": ["k"] * 60, "keys": [str(id) for id in ids]}
    nodes = _plan(large, name, {"ids": ids, "new_ids": ids, "reason": "", **keys})
    assert "SEQ" not in _scans(nodes)
    assert _read(nodes) <= 5 * 60
