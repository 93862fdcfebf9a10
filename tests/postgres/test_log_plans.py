"""What appends, readers, followers and the mover of logs ask for, beside many logs: by index, and what they need."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_plans import _plan

JOBS = 2_000
FILL = """
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes, fence, worker, lease, claim_revision, started_at, attempt)
SELECT gen_random_uuid(), 'default', 'k', 'p', 1, 'executing', true, 0, now(), 'null', 10, 3, n, 'w', n, n, now(), 1
FROM generate_series(1, 2000) AS n;
INSERT INTO tenure.log_head (job_id, attempt, fence, namespace, first_seq, last_seq, lines, bytes, moved_at)
SELECT id, 1, fence, 'default', 991, 1000, 1000, 100000, NULL FROM tenure.job
UNION ALL SELECT gen_random_uuid(), 1, n, 'default', 1, 10, 10, 100, now() FROM generate_series(1, 20000) AS n;
INSERT INTO tenure.log (job_id, attempt, first_seq, last_seq, lines)
SELECT id, 1, 10 * n + 1, 10 * n + 10, repeat('x', 100) FROM tenure.job CROSS JOIN generate_series(0, 99) AS n;
"""
TABLES = {"job", "log", "log_head"}


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, postgres_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row, options="-c enable_seqscan=off") as connection:
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE tenure.job, tenure.log, tenure.log_head")
        yield connection
    postgres_server.drop_database(dsn)


def _jobs(connection: psycopg.Connection[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return connection.execute("SELECT id, fence FROM tenure.job ORDER BY md5(id::text) LIMIT %s", (count,)).fetchall()


def read(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many rows were read of each table; each must have been looked up by an index."""
    rows: dict[str, float] = {}
    for node in nodes:
        table = node.get("Relation Name")
        if table in TABLES and node["Node Type"] != "ModifyTable":
            assert "Index Cond" in node or "Recheck Cond" in node, node
            seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows[table] = rows.get(table, 0) + seen * node["Actual Loops"]
    return rows


@pytest.mark.parametrize("count", [1, 100, 500])
def test_an_append_touches_its_attempts_alone(large: psycopg.Connection[dict[str, Any]], count: int) -> None:
    jobs = _jobs(large, count)
    params = {
        "ids": [job["id"] for job in jobs],
        "fences": [job["fence"] for job in jobs],
        "firsts": [1001] * count,
        "lasts": [1010] * count,
        "counts": [10] * count,
        "sizes": [1000] * count,
        "lines": ["x\n"] * count,
        "notes": ["full\n"] * count,
        "most": 64 << 20,
    }
    rows = read(_plan(large, "append_logs", params))
    assert rows["job"] <= count
    assert rows["log_head"] <= count


def test_a_page_begins_where_the_reader_is(large: psycopg.Connection[dict[str, Any]]) -> None:
    places = {"ids": [], "attempts": [], "afters": []}  # type: dict[str, list[Any]]
    for job in _jobs(large, 16):
        places["ids"].append(job["id"])
        places["attempts"].append(1)
        places["afters"].append(955)
    rows = read(_plan(large, "log_pages", {**places, "limit": 500, "bytes": 1 << 17}))
    assert rows["log"] <= 16 * (1 + 5), "from the batch that holds line 955 on"


def test_a_look_at_many_followed_jobs_is_one_probe_each(large: psycopg.Connection[dict[str, Any]]) -> None:
    ids = [job["id"] for job in _jobs(large, 200)]
    assert read(_plan(large, "follow_logs", {"ids": ids})) == {"job": 200, "log_head": 200}


def test_the_mover_reads_a_page_of_what_lies_here(large: psycopg.Connection[dict[str, Any]]) -> None:
    place = {"job_id": uuid.UUID(int=0), "attempt": 0, "after_s": 0, "limit": 50}
    rows = read(_plan(large, "logs_to_move", place))
    assert rows["log_head"] <= 51
    assert rows["job"] <= 51


def test_a_moved_log_is_deleted_by_its_key(large: psycopg.Connection[dict[str, Any]]) -> None:
    [job] = _jobs(large, 1)
    params = {"job_id": job["id"], "attempt": 1, "last_seq": 1000, "object_bytes": 1}
    assert read(_plan(large, "record_moved_log", params)) == {"log_head": 1, "log": 100}
