"""An archive of 20,000 files: which of it is read to find the file of a job, and a page of files."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer

from tenure.model.archive import made_ms, mark_of
from tenure.store.postgres.database import query

FILL = """
INSERT INTO tenure.archive_file (id, namespace, key, state, jobs, first_id, last_id, made, finished_from,
                                 finished_until, size_bytes, sha256, schema_version, marks, archived_at)
SELECT gen_random_uuid(), 'n' || n % 10, n::text, 'done', 3,
       (lpad(to_hex(n * 1000), 12, '0') || rpad('7', 20, '0'))::uuid,
       (lpad(to_hex(n * 1000 + 3000), 12, '0') || rpad('7', 20, 'f'))::uuid,
       int8range(n * 1000, n * 1000 + 3000, '[]'), now(), now(), 1, sha256(''), 1, ARRAY[n, n + 1, n + 2], now()
FROM generate_series(1, 20000) AS n
"""
POLICIES = """
INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s, archive, archive_keep_s)
VALUES ('', '', '', 60, true, NULL), ('n1', '', '', 60, true, 86400)
"""


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, postgres_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SET enable_seqscan = off")  # as coordinators have it
        connection.execute(FILL)
        connection.execute(POLICIES)
        connection.execute(
            "UPDATE tenure.archive_file SET policy_namespace = 'n1',"
            " archived_at = now() - make_interval(days => 2 + key::int % 20) WHERE key::int % 100 = 1"
        )
        connection.execute("VACUUM ANALYZE tenure.archive_file")
        yield connection
    postgres_server.drop_database(dsn)


def read(connection: psycopg.Connection[dict[str, Any]], name: str, params: dict[str, Any], mode: str) -> int:
    """Count the rows of files that a query reads; by an index always."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('plan_cache_mode', %s, true)", [mode])
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode()
        row = connection.execute(explained, params, prepare=True).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"]
    left, rows = [(json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]], 0
    while left:
        node = left.pop()
        left.extend(node.get("Plans", ()))
        if node.get("Relation Name") == "archive_file" and "Scan" in node["Node Type"]:
            assert node["Node Type"] != "Seq Scan", node
            rows += int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    return rows


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_to_find_a_job_reads_the_files_that_it_can_be_in(large: psycopg.Connection[dict[str, Any]], mode: str) -> None:
    job = uuid.UUID(int=(10_000_500 << 80) | (7 << 76) | 10_000)
    asked = {"job": job, "made_ms": made_ms(job), "mark": mark_of(job)}
    assert 1 <= read(large, "archive_file_of_job", asked, mode) <= 5
    rows = large.execute(query("archive_file_of_job"), asked).fetchall()
    assert 1 <= len(rows) <= 3


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("namespace", [None, "n3"])
def test_a_page_of_files_reads_little(
    large: psycopg.Connection[dict[str, Any]], mode: str, namespace: str | None
) -> None:
    asked = {"namespaces": None, "namespace": namespace, "before": uuid.UUID(int=2**128 - 1), "limit": 50}
    assert read(large, "list_archive_files", asked, mode) <= 50 * 40


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_what_has_expired_is_found_among_the_files_of_its_policy(
    large: psycopg.Connection[dict[str, Any]], mode: str
) -> None:
    first = {"after_at": "-infinity", "after": uuid.UUID(int=0), "limit": 100}
    assert read(large, "expired_archive_files", first, mode) <= 2 * 200, "of which the policy has 200"
    removed = {"id": uuid.uuid4(), "leader": "c1", "with_objects": [], "held_keys": [], "held_values": []}
    assert read(large, "remove_archive_file", removed, mode) <= 2


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_where_jobs_of_an_unknown_file_may_be_is_found_as_that_of_one(
    large: psycopg.Connection[dict[str, Any]], mode: str
) -> None:
    jobs = [uuid.UUID(int=((10_000_500 + n) << 80) | (7 << 76) | 10_000) for n in range(50)]
    asked = {"ids": jobs, "made_ms": [made_ms(job) for job in jobs], "marks": [mark_of(job) for job in jobs]}
    assert read(large, "archive_files_of_jobs", asked, mode) <= 50 * 4
    assert read(large, "known_archive_keys", {"keys": ["1", "2", "none"]}, mode) <= 3
