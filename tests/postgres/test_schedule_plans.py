"""The leader's look at many schedules, twice a second: it reads what is due by the indexes, and never all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer

from tenure.store.postgres.database import query

FILL = """
INSERT INTO tenure.schedule (id, namespace, name, spec, paused, next_at, queued_tick)
SELECT gen_random_uuid(), 'default', 's' || n, '{}', n % 10 = 0,
       now() + CASE WHEN n % 500 = 1 THEN interval '-1 s' ELSE interval '1 h' END,
       CASE WHEN n % 1000 = 2 THEN now() END
FROM generate_series(1, 50000) AS n
"""


@pytest.fixture(scope="module")
def many(postgres_server: PostgresServer, postgres_template: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = postgres_server.create_database(postgres_template)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE tenure.schedule")
        yield connection
    postgres_server.drop_database(dsn)


def _nodes(connection: psycopg.Connection[dict[str, Any]], name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode(), params).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"]
    nodes: list[dict[str, Any]] = []

    def collect(node: dict[str, Any]) -> None:
        nodes.append(node)
        for child in node.get("Plans", ()):
            collect(child)

    collect((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return nodes


@pytest.mark.parametrize(("name", "params"), [("due_schedules", {"limit": 200, "broken": []}), ("next_schedule", {})])
def test_it_reads_no_more_than_what_is_due(
    many: psycopg.Connection[dict[str, Any]], name: str, params: dict[str, Any]
) -> None:
    nodes = _nodes(many, name, params)
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "schedule"]
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") == "schedule"
    )
    assert read <= 500
