"""The query that KEDA asks Postgres counts what ready and executing jobs need workers for."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Json
from tests.chart.rendering import BUNDLED, EXTERNAL, Object, of_kind, over, render

POOLS = ["scan/fast", "scan_1"]


def scaled(base: dict[str, Any], **autoscaling: Any) -> list[Object]:
    worker = {"pools": POOLS, "capacity": 10, "autoscaling": {"keda": {"enabled": True}, **autoscaling}}
    return render(over(base, {"workers": {"default": None, "scan": worker}}))


def query(objects: list[Object]) -> str:
    (scaler,) = of_kind(objects, "ScaledObject")
    text: str = scaler["spec"]["triggers"][0]["metadata"]["query"]
    return text


def test_the_query_counts_ready_and_executing_jobs_of_the_pools(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:

        def submit(route: str) -> None:
            connection.execute("SELECT tenure.submit_job('k', %s, route => %s)", [Json(None), route])

        def asked() -> int:
            row = connection.execute(query(scaled(EXTERNAL)).encode()).fetchone()
            assert row is not None
            return int(row[0])

        connection.execute(
            "INSERT INTO tenure.pool (path) SELECT unnest(%s::text[])", [["scan", "scan/fast", "scan_1", "scanx1"]]
        )
        assert asked() == 0
        for route in ("scan/fast", "scan/fast/eu", "scan_1", "scan", "scan/faster", "scanx1", "scan/slow"):
            submit(route)
        assert asked() == 3
        connection.execute(
            "UPDATE tenure.job SET state = 'executing', fence = 7, worker = 'w', lease = 1, claim_revision = 1,"
            " started_at = now() WHERE route IN ('scan/fast', 'scan/slow')"
        )
        assert asked() == 3  # what executes keeps its worker
        connection.execute("UPDATE tenure.job SET due = false WHERE route = 'scan_1'")
        assert asked() == 2  # what is not due yet needs none


def test_the_query_reads_no_further_than_the_most_workers_need() -> None:
    assert query(scaled(EXTERNAL, maxReplicas=4)).count("LIMIT 40)") == 3


def test_a_backlog_of_other_pools_is_not_read(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO tenure.pool (path) VALUES ('scan/fast')")
        connection.execute("SELECT tenure.submit_job('k', NULL, route => 'scan/fast')")
        connection.execute("SELECT tenure.submit_job('k', NULL, route => 'other') FROM generate_series(1, 3000)")
        connection.execute("VACUUM ANALYZE tenure.job, tenure.lane")
        plan = connection.execute(f"EXPLAIN {query(scaled(EXTERNAL))}".encode()).fetchall()
        assert any("using job_ready" in line for (line,) in plan), plan


def test_the_first_host_is_asked_at_its_own_port() -> None:
    for host, asked in (("pg", ("pg", "5432")), ("pg:5433", ("pg", "5433")), ("[fd00::1]:5433", ("fd00::1", "5433"))):
        values = over(EXTERNAL, {"postgres": {"external": {"hosts": [host, "other"]}}})
        (scaler,) = of_kind(scaled(values), "ScaledObject")
        metadata = scaler["spec"]["triggers"][0]["metadata"]
        assert (metadata["host"], metadata["port"]) == asked


def test_the_dsn_comes_whole_from_its_secret() -> None:
    (authentication,) = of_kind(scaled(EXTERNAL), "TriggerAuthentication")
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "connection", "name": "pg", "key": "dsn"}]


def test_the_password_of_the_bundled_server_comes_from_its_secret() -> None:
    objects = scaled(BUNDLED)
    (authentication,) = of_kind(objects, "TriggerAuthentication")
    (secret,) = of_kind(objects, "Secret")
    (wanted,) = authentication["spec"]["secretTargetRef"]
    assert wanted == {"parameter": "password", "name": secret["metadata"]["name"], "key": next(iter(secret["data"]))}
    (scaler,) = of_kind(objects, "ScaledObject")
    metadata = scaler["spec"]["triggers"][0]["metadata"]
    assert (metadata["host"], metadata["port"]) == ("prod-tenure-postgres.jobs.svc", "5432")
    assert metadata["targetQueryValue"] == "10"
