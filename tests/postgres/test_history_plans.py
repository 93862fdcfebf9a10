"""A history of 300,000 jobs in ten partitions: what a call reads of it is bounded, and found by the indexes it has."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.fixtures.postgres import PostgresServer

from tenure.bench.history import fill
from tenure.bench.plan import Plan
from tenure.coordinator.listing import Ended, _bounds
from tenure.coordinator.passing import FIRST_ID, LAST_ID
from tenure.coordinator.retain import WINDOW_JOBS, bounds_of
from tenure.model.ids import first_id_at
from tenure.model.retention import Span
from tenure.store.postgres.database import query

JOBS, DAYS, WINDOW, PAGE = 300_000, 63, 5_000, 50
ACTIVE = """
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes)
SELECT tenure.new_id(), 'default', 'k', 'p', 1, 'ready', true, 0, now(), 'null', 10, 3 FROM generate_series(1, 20000)
"""
FILTERS: dict[str, Any] = dict.fromkeys(
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
TYPES = {
    **dict.fromkeys(("before", "first", "after", "parent_id", "workflow_id"), "uuid"),
    **dict.fromkeys(("any_of", "states", "namespaces"), "text[]"),
    **dict.fromkeys(("from_week", "until_week", "from_at", "until_at", "made_at", "counted_until"), "timestamptz"),
    **dict.fromkeys(("created_after", "created_before", "finished_after", "finished_before"), "timestamptz"),
    **dict.fromkeys(("window", "limit"), "int"),
    **dict.fromkeys(("deleted", "archive"), "boolean"),
    "ids": "uuid[]",
    "labels": "jsonb",
    "asked_keep_s": "bigint",
}
"""Of parameters; text is that of the others."""
Large = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def large(postgres_server: PostgresServer, postgres_template: str) -> Iterator[Large]:
    import asyncio

    dsn = postgres_server.create_database(postgres_template)
    asyncio.run(fill(dsn, Plan(history_jobs=JOBS, history_days=DAYS)))
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(ACTIVE)
        connection.execute("SET enable_seqscan = off")  # as Database has it
        connection.execute("SET jit = off")
        connection.execute("VACUUM ANALYZE tenure.job")
        yield connection
    postgres_server.drop_database(dsn)


def reads(connection: Large, name: str, params: dict[str, Any], *, generic: bool = False) -> dict[str, int]:
    """Run a query with EXPLAIN ANALYZE, undo it, and return how many rows it read of each table; by indexes always."""
    with connection.transaction(force_rollback=True):
        mode = "force_generic_plan" if generic else "force_custom_plan"
        connection.execute("SELECT set_config('plan_cache_mode', %s, true)", [mode])
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", query(name))))
        statement = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", query(name))
        types = ", ".join(TYPES.get(one, "text") for one in names)
        connection.execute(f"PREPARE subject ({types}) AS {statement}".encode(), prepare=False)
        values = ", ".join(["%s"] * len(names))
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE subject ({values})".encode()
        row = psycopg.ClientCursor(connection).execute(explained, [params[one] for one in names]).fetchone()
        connection.execute("DEALLOCATE subject", prepare=False)
    assert row is not None
    plan = row["QUERY PLAN"]
    left, found = [(json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]], dict[str, int]()
    while left:
        node = left.pop()
        left.extend(node.get("Plans", ()))
        table = str(node.get("Relation Name", ""))
        is_theirs = table.startswith(("job", "history", "attempt", "dependency"))
        if is_theirs and not table.startswith("history_count") and "Scan" in node["Node Type"]:
            if not node["Actual Loops"]:
                continue
            assert node["Node Type"] != "Seq Scan", json.dumps(node)
            count = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            found[table] = found.get(table, 0) + round(count)
    return found


def listing(connection: Large, *, ended: Ended | None = None, generic: bool = False, **filters: Any) -> dict[str, int]:
    """As ``page_of_jobs`` has it run: where that leaves out tables, planned for its values."""
    ended = ended or Ended()
    wanted = {**FILTERS, **filters}
    params = {
        **wanted,
        **_bounds(wanted, ended, LAST_ID),
        "finished_after": ended.after,
        "finished_before": ended.before,
        "deleted": False,
        "window": WINDOW,
        "limit": PAGE,
    }
    return reads(connection, "list_jobs", params, generic=generic)


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.mark.parametrize("generic", [False, True])
def test_a_page_of_the_newest_reads_a_page(large: Large, generic: bool) -> None:
    assert sum(listing(large, generic=generic).values()) <= 2 * PAGE


@pytest.mark.parametrize("generic", [False, True])
def test_a_page_of_what_is_rare_reads_a_window_and_how_far_it_went(large: Large, generic: bool) -> None:
    read = listing(large, kind="rare", namespace="ns-7", labels='{"team": "blue"}', generic=generic)
    assert WINDOW <= sum(read.values()) <= 2 * WINDOW + 100
    read = listing(large, kind="rare", states=["completed"])
    assert sum(read.values()) <= 2 * WINDOW + 100


def test_a_page_of_those_that_did_not_complete_reads_none_that_did(large: Large) -> None:
    """One job in ten did not: a window of them is that of all but a tenth of the table."""
    read = listing(large, kind="rare", states=["failed"])
    assert WINDOW <= sum(read.values()) <= 2 * WINDOW + 100
    of_weeks = listing(large, kind="rare", states=["canceled"], created_after=days_ago(20))
    assert 0 < sum(of_weeks.values()) <= 2 * 0.12 * JOBS * 20 / DAYS


def test_states_leave_out_the_table_of_jobs_or_history(large: Large) -> None:
    assert "job" not in listing(large, states=["completed", "failed"])
    assert set(listing(large, states=["ready"])) == {"job"}
    assert set(listing(large, states=["waiting", "executing"])) == {"job"}


def test_the_time_of_the_end_leaves_out_partitions(large: Large) -> None:
    at = days_ago(30)
    read = listing(large, ended=Ended(at, at + timedelta(hours=1)))
    assert len(read) <= 2 and sum(read.values()) <= 2 * WINDOW + 100, read
    assert "job" not in read


def test_the_time_of_creation_is_a_range_of_ids(large: Large) -> None:
    at = days_ago(30)
    read = listing(large, created_after=at, created_before=at + timedelta(minutes=30), namespace="no-such")
    a_day = JOBS / DAYS
    assert 0 < sum(read.values()) <= 2 * a_day / 24, "half an hour, with the margin for clocks that differ"


@pytest.mark.parametrize("generic", [False, True])
def test_a_look_for_what_has_expired_reads_a_window(large: Large, generic: bool) -> None:
    week = large.execute(
        "SELECT * FROM tenure.week WHERE parent = 'history' ORDER BY from_at LIMIT 1 OFFSET 2"
    ).fetchone()
    assert week is not None
    span = Span(week["from_at"], week["until_at"])
    where = {**bounds_of(span), "after": FIRST_ID, "before": first_id_at(days_ago(1)), "window": WINDOW_JOBS}
    with large.transaction(force_rollback=True):
        large.execute(
            "INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s) VALUES ('', '', 'failed', 86400)"
        )
        read = reads(large, "expired_page", {**where, "archive": False}, generic=generic)
        assert set(read) <= {week["child"], "job", "dependency"}
        assert WINDOW_JOBS <= read[week["child"]] <= 1.2 * WINDOW_JOBS, "what has expired is looked at again"
        span_of = {"counted_until": days_ago(1), **bounds_of(span), "after": FIRST_ID, "window": WINDOW_JOBS}
        stepped = {name: where[name] for name in ("from_at", "until_at", "after", "before")}
        assert reads(large, "first_of_history", stepped, generic=generic) == {week["child"]: 1}
        assert reads(large, "count_page", span_of, generic=generic) == {week["child"]: WINDOW_JOBS}
        asked = dict.fromkeys(
            ("asked_namespace", "asked_kind", "asked_state", "asked_keep_s", "namespace", "namespaces")
        )
        read = reads(large, "preview_retention", {**where, **asked}, generic=generic)
        assert read[week["child"]] <= 1.2 * WINDOW_JOBS


@pytest.mark.parametrize("times", [1, 12])
def test_a_removal_reads_what_it_removes(large: Large, times: int) -> None:
    """Also when it is planned for whatever values, as it is after some times."""
    week = large.execute(
        "SELECT * FROM tenure.week WHERE parent = 'history' ORDER BY from_at LIMIT 1 OFFSET 2"
    ).fetchone()
    assert week is not None
    span, jobs = bounds_of(Span(week["from_at"], week["until_at"])), 200
    told = {"leader": "c1", "has_objects": False, "archive": False, "archive_file": None, "wanted": None}
    rest = {"made_at": week["from_at"], **told}
    which = (
        "SELECT id FROM tenure.history WHERE finished_at >= %(from_at)s AND finished_at < %(until_at)s"
        f" ORDER BY id LIMIT {jobs}"
    )
    with large.transaction(force_rollback=True):
        large.execute("INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s) VALUES ('', '', '', 86400)")
        for _ in range(times):
            ids: list[uuid.UUID] = [row["id"] for row in large.execute(which, span)]
            before = _touched(large)
            [row] = large.execute(query("remove_history"), {**span, **rest, "ids": ids})
            assert row["gone"] == jobs
        read = {table: count - before.get(table, 0) for table, count in _touched(large).items()}
    assert sum(read.values()) <= 12 * jobs, {table: count for table, count in read.items() if count}


def _touched(connection: Large) -> dict[str, int]:
    """Return how many rows of each large table this transaction has read so far, by index or not."""
    rows = connection.execute(
        "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows"
        " FROM pg_stat_xact_user_tables WHERE schemaname = 'tenure'"
    )
    large_ones = ("job", "history", "attempt", "dependency")
    return {row["relname"]: row["rows"] for row in rows if row["relname"].startswith(large_ones)}
