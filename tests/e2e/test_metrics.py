"""What ``/metrics`` says of a real run: a job that completes, one that fails, one whose worker is killed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text
from scripts.generate_metrics import Named, coordinators, workers
from tests.e2e.conftest import PATIENCE_S, Setting, Stage, either_link

from tenure.cli.embedded import ports
from tenure.client import NotFound, Retry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
STUCK_S = 15.0
"""A dispatcher that came through no round for so long hangs: it polls more often."""


async def scrape(addresses: Sequence[str]) -> Samples:
    """Return the samples of some processes, summed."""
    summed: Samples = {}
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        for address in addresses:
            answer = await http.get(f"http://{address}/metrics")
            for family in prometheus_text(answer.text):
                for sample in family.samples:
                    key = (sample.name, frozenset(sample.labels.items()))
                    summed[key] = summed.get(key, 0.0) + sample.value
    return summed


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum over the samples of a name that have these labels."""
    wanted = set(labels.items())
    return sum(total for (found, has), total in samples.items() if found == name and wanted <= has)


def undocumented(samples: Samples, documented: Sequence[Named]) -> set[str]:
    known = set()
    for metric in documented:
        ends = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
        known |= {f"{metric.name}{end}" for end in ends}
        known.add(metric.name.removesuffix("_total") + "_created")
    return {name for name, _ in samples} - known


@either_link
async def test_a_real_run_is_told(stage: Setting, remote: bool, tmp_path: Path) -> None:
    listen = f"127.0.0.1:{ports.choose()}"
    on = await stage(workers=1, args=("--http-listen", listen))
    done = await on.client.wait((await on.client.submit("trace", {"a": 1})).id, timeout_s=PATIENCE_S)
    fails = await on.client.submit("by-plan", {"fails": True}, retry=Retry(max_attempts=1))
    failed = await on.client.wait(fails.id, timeout_s=PATIENCE_S)
    assert (done.state, failed.state) == ("completed", "failed")
    (tmp_path / "trace.over").touch()
    said = await on.client.wait((await on.client.submit("says", {"lines": 2})).id, timeout_s=PATIENCE_S)
    assert said.state == "completed"
    with pytest.raises(NotFound):
        await on.client.get(str(uuid.uuid4()))
    waits = await on.client.submit("trace", None, route="nobody-serves-this")

    async def worked() -> Samples | None:
        samples = await scrape([listen])
        is_reported = value(samples, "tenure_worker_attempts_ended_total") == 3
        return samples if is_reported and value(samples, "tenure_worker_keepalive_seconds_count") else None

    at_work: Samples = await on.until(worked)
    assert value(at_work, "tenure_worker_attempts_started_total") == 3
    assert value(at_work, "tenure_worker_attempts_ended_total", outcome="completed") == 2
    assert value(at_work, "tenure_worker_attempts_ended_total", outcome="failed") == 1
    for kind, outcome in (("trace", "completed"), ("says", "completed"), ("by-plan", "failed")):
        assert value(at_work, "tenure_worker_attempt_seconds_count", kind=kind, outcome=outcome) == 1
    assert value(at_work, "tenure_worker_attempt_seconds_count") == 3
    assert value(at_work, "tenure_worker_start_seconds_count") >= 1
    assert value(at_work, "tenure_worker_report_seconds_count") >= 1
    assert value(at_work, "tenure_worker_trust_margin_seconds") > 0
    assert value(at_work, "process_resident_memory_bytes") > 0
    if not remote:
        assert value(at_work, "tenure_worker_claims_made_total", result="won") == 3
        assert value(at_work, "tenure_worker_claim_seconds_count") >= 1
    assert not undocumented(at_work, workers())

    held = await on.client.submit("hold-first", None, ttl_s=2.0)
    await on.executing(held.id)
    victim = on.deployment.workers[0]
    await asyncio.to_thread(
        on.deployment.add_worker, ["--import", "tests.e2e.handlers", "--pool", "default", "--capacity", "5"]
    )
    victim.kill()
    assert (await on.client.wait(held.id, timeout_s=PATIENCE_S)).attempt == 2

    async def told() -> Samples | None:
        samples = await scrape(on.deployment.http_addresses)
        is_told = value(samples, "tenure_attempts_reaped_total", outcome="lost") == 1
        return samples if is_told and value(samples, "tenure_jobs_ready") == 1 else None

    told_s: Samples = await on.until(told)
    _expect_of_coordinators(told_s, remote=remote)
    assert not undocumented(told_s, coordinators())
    await on.client.cancel(waits.id)
    await _expect_open_metrics(on)


@either_link
async def test_a_zombie_is_told(stage: Setting, remote: bool) -> None:
    """A worker that is stopped for longer than its TTL finds its leases gone; what it reports then is refused."""
    listen = f"127.0.0.1:{ports.choose()}"
    on = await stage(workers=1, args=("--http-listen", listen))
    held = await on.client.submit("hold-first", None, ttl_s=2.0)
    await on.executing(held.id)
    (zombie,) = on.deployment.workers
    await asyncio.to_thread(
        on.deployment.add_worker, ["--import", "tests.e2e.handlers", "--pool", "default", "--capacity", "5"]
    )
    zombie.pause()
    assert (await on.client.wait(held.id, timeout_s=PATIENCE_S)).attempt == 2
    zombie.resume()

    async def found() -> bool:
        told, refused = await scrape([listen]), await scrape(on.deployment.http_addresses)
        return (
            value(told, "tenure_worker_leases_lost_total") >= 1
            and value(told, "tenure_worker_ownership_lost_total") == 1
            and value(refused, "tenure_stale_writes_refused_total", write="finish") >= 1
        )

    await on.until(found)


def _expect_of_coordinators(told: Samples, *, remote: bool) -> None:
    assert value(told, "tenure_jobs_submitted_total", by="submit") == 5
    assert value(told, "tenure_attempts_started_total") == 5
    assert value(told, "tenure_attempts_ended_total", outcome="completed") == 3
    assert value(told, "tenure_attempts_ended_total", outcome="failed") == 1
    assert value(told, "tenure_attempts_ended_total", outcome="lost") == 1
    assert value(told, "tenure_jobs_ended_total", state="completed") == 3
    assert value(told, "tenure_jobs_ended_total", state="failed") == 1
    for histogram in ("submit", "start", "finish", "dispatch_round", "event_loop_late"):
        assert value(told, f"tenure_{histogram}_seconds_count") >= 1, histogram
    assert value(told, "tenure_jobs_offered_total") >= 5
    assert value(told, "tenure_coordinator_leads") == 1
    assert value(told, "tenure_grpc_requests_total", method="JobService/SubmitJob", code="OK") == 5
    assert value(told, "tenure_grpc_request_seconds_count", method="JobService/SubmitJob") == 5
    assert value(told, "tenure_grpc_requests_total", method="JobService/GetJob", code="NOT_FOUND") == 1
    claims = {result: value(told, "tenure_claims_made_total", result=result) for result in ("won", "missed")}
    if remote:
        assert claims["won"] == 5
        assert value(told, "tenure_claim_seconds_count") >= 1
        assert value(told, "tenure_runner_requests_total", call="finish", status="200") >= 2
        assert value(told, "tenure_runner_request_seconds_count", call="start") >= 2
    else:
        assert claims == {"won": 0, "missed": 0}
        assert value(told, "tenure_grpc_requests_total", method="WorkerService/FinishAttempts", code="OK") >= 2
    assert value(told, "tenure_postgres_connections_max") > 0
    assert value(told, "tenure_postgres_connections", state="idle") >= 1
    assert 0 <= told["tenure_dispatch_lag_seconds", frozenset()] < STUCK_S
    assert told["tenure_postgres_pool_waiting", frozenset()] >= 0
    assert value(told, "tenure_log_lines_total") >= 2
    assert value(told, "tenure_jobs_ready_oldest_seconds") > 0
    assert value(told, "tenure_etcd_db_size_bytes") > 0
    assert value(told, "tenure_etcd_history_revisions") > 0
    assert value(told, "tenure_postgres_table_bytes", table="job") > 0
    assert ("tenure_postgres_table_dead_rows", frozenset({("table", "job")})) in told
    assert value(told, "process_cpu_seconds_total") > 0


async def _expect_open_metrics(on: Stage) -> None:
    """Who asks for OpenMetrics is given it, and its parser, which is strict, takes it."""
    address = on.deployment.http_addresses[0]
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        answer = await http.get(f"http://{address}/metrics", headers={"Accept": OPEN_METRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    families = open_metrics(answer.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"tenure_attempts_started", "tenure_submit_seconds"}
