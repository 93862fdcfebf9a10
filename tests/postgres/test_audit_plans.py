"""The audit log with 300,000 entries: what a call reads of it is bounded, and the schema guards what was written."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer

from tenure.coordinator.api.audit_service import WINDOW
from tenure.store.postgres.database import query

ENTRIES = 300_000
FILL = """
INSERT INTO tenure.audit (id, at, caller, role, action, namespace, target, outcome)
SELECT gen_random_uuid(), now() - make_interval(mins => n), 'c' || n % 50, 'operator', 'jobs.cancel',
       CASE WHEN n % 3 = 0 THEN 'acme' END, n::text, 'ok'
FROM generate_series(1, 300000) AS n
"""
LISTING: dict[str, Any] = {
    "caller": None, "action": None, "namespace": None, "target": None, "since": None, "before": None,
    "before_id": uuid.UUID(int=0), "limit": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, postgres_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE tenure.audit")
        yield connection
    postgres_server.drop_database(dsn)


def _read(connection: psycopg.Connection[dict[str, Any]], name: str, params: dict[str, Any], mode: str) -> int:
    """Run a query with EXPLAIN ANALYZE, undo it, and count the rows of the log that it read; by an index always."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('plan_cache_mode', %s, true)", [mode])
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode()
        row = connection.execute(explained, params, prepare=True).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"]
    left, read = [(json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]], 0
    while left:
        node = left.pop()
        left.extend(node.get("Plans", ()))
        if node.get("Relation Name") == "audit" and "Scan" in node["Node Type"]:
            assert node.get("Index Name") == "audit_pkey", node
            read += int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    return read


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    "wanted", [{"caller": "c7"}, {"action": "tokens."}, {"namespace": "acme"}, {"target": "299999"}]
)
def test_a_filtered_listing_reads_a_window_at_most(
    large: psycopg.Connection[dict[str, Any]], wanted: dict[str, str], mode: str
) -> None:
    assert _read(large, "list_audit", {**LISTING, **wanted, "window": WINDOW}, mode) <= WINDOW
    middle = large.execute("SELECT at, id FROM tenure.audit ORDER BY at, id OFFSET 150000 LIMIT 1").fetchone()
    assert middle is not None
    deep = {"before": middle["at"], "before_id": middle["id"]}
    assert _read(large, "list_audit", {**LISTING, **wanted, **deep, "window": WINDOW}, mode) <= WINDOW


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_the_newest_entries_and_those_of_a_time_are_read_and_no_others(
    large: psycopg.Connection[dict[str, Any]], mode: str
) -> None:
    assert _read(large, "list_audit", {**LISTING, "window": 50}, mode) == 50
    row = large.execute("SELECT now() - interval '100 min' AS since, now() - interval '40 min' AS until").fetchone()
    assert row is not None
    since, until = row["since"], row["until"]
    assert isinstance(since, datetime)
    read = _read(large, "list_audit", {**LISTING, "since": since, "before": until, "window": WINDOW}, mode)
    assert 55 <= read <= 65


def test_an_entry_costs_a_look_at_the_last_hour_at_most(large: psycopg.Connection[dict[str, Any]]) -> None:
    entry = {
        "id": uuid.uuid4(), "caller": "a", "role": "admin", "action": "jobs.cancel", "namespace": None,
        "about": uuid.uuid4(), "target": "x", "outcome": "ok", "detail": "{}",
    }  # fmt: skip
    assert _read(large, "insert_audit", entry, "force_generic_plan") <= 61


def test_retention_drops_the_oldest_first_and_never_all(large: psycopg.Connection[dict[str, Any]]) -> None:
    with large.transaction(force_rollback=True):
        for _ in range(2):
            assert large.execute(query("drop_old_audit"), {"keep_days": 200, "limit": 1_000}).fetchall() == [
                {"gone": 1_000}
            ]
        left = large.execute("SELECT max(target::int) AS oldest, count(*) AS entries FROM tenure.audit").fetchone()
        assert left == {"oldest": ENTRIES - 2_000, "entries": ENTRIES - 2_000}
    with pytest.raises(psycopg.errors.InvalidParameterValue), large.transaction():
        large.execute(query("drop_old_audit"), {"keep_days": 0, "limit": 1_000})
