"""The example's handlers in the harness that users have, and the whole of it on a real deployment."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.fixtures.deployment import DeploymentFactory

from tenure.client import AsyncClient, JobState
from tenure.examples.inventory import python_packages
from tenure.examples.inventory.findings import (
    DiscoverRequest,
    Discovery,
    Ecosystem,
    Package,
    Report,
    ScanRequest,
    ScanResult,
)
from tenure.examples.inventory.handlers import POLICY, SCAN, discover, scan
from tenure.model.jobs import resolve_batch
from tenure.model.states import Outcome
from tenure.worker.harness import Harness

MODULE = "tenure.examples.inventory.handlers"
PYTHON_ONLY = DiscoverRequest(ecosystems=(Ecosystem.PYTHON,), scans_per_ecosystem=4, hash_mb_per_scan=1)


async def test_discover_submits_scans_and_a_policy_over_them_all() -> None:
    run = await Harness().run(discover, PYTHON_ONLY, route="a/b", namespace="acme")
    assert run.outcome is Outcome.COMPLETED, run.error
    *scans, policy = run.children
    assert [child.kind for child in scans] == [SCAN] * 4
    assert policy.kind == POLICY
    assert policy.depends_on == tuple(child.ref for child in scans)
    assert {(child.route, child.namespace) for child in run.children} == {("a/b", "acme")}
    resolve_batch(run.children, [uuid4() for _ in run.children])


async def test_a_repeated_discover_submits_the_same_children() -> None:
    first, second = [await Harness().run(discover, PYTHON_ONLY, attempt=n) for n in (1, 2)]
    assert first.children == second.children


async def test_scan_reads_real_files_in_a_process() -> None:
    listed = {p.name: p for p, _ in python_packages.installed(python_packages.folders())}
    request = ScanRequest(group="python-01", ecosystem=Ecosystem.PYTHON, packages=(listed["pytest"], listed["typer"]))
    run = await Harness(modules=[MODULE]).run(scan, request)
    assert run.outcome is Outcome.COMPLETED, run.error
    result = ScanResult.model_validate(run.result)
    assert result.summary.packages == 2
    assert result.summary.hashed_files > 50
    assert result.summary.licences == {"MIT": 2}


async def test_a_scan_is_ended_in_the_middle(tmp_path: Path) -> None:
    info = tmp_path / "huge-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: huge\nVersion: 1.0\n")
    (tmp_path / "huge.bin").touch()
    os.truncate(tmp_path / "huge.bin", 1 << 40)
    (info / "RECORD").write_text(f"huge.bin,sha256={'A' * 43},{1 << 40}\n")
    package = Package(name="huge", version="1.0", place=str(info))
    request = ScanRequest(group="python-01", ecosystem=Ecosystem.PYTHON, packages=(package,))
    run = await Harness(modules=[MODULE]).run(scan, request, cancel_after=1.0)
    assert run.outcome is Outcome.CANCELED


async def test_a_bad_request_is_refused_with_its_field() -> None:
    run = await Harness().run(discover, {"hash_mb_per_scan": -1})
    assert run.outcome is Outcome.FAILED
    assert run.error is not None
    assert "hash_mb_per_scan" in run.error.message
    assert not run.ended.retryable


@pytest.mark.timeout(170)
async def test_the_whole_inventory_on_a_deployment(
    database: str, etcd_prefix: str, deployment: DeploymentFactory
) -> None:
    def start() -> Any:
        return deployment(coordinators=2, workers=2, worker_args=["--import", MODULE, "--pool", "inventory"])

    running = await asyncio.to_thread(start)
    async with AsyncClient(running.coordinator_addresses) as client:
        job = await client.submit("inventory-discover", PYTHON_ONLY, route="inventory", idempotency_key="today")
        done = await client.wait(job.id, timeout_s=60)
        assert done.state is JobState.COMPLETED, done
        found = Discovery.model_validate(done.result)
        policy = await client.wait(found.policy, timeout_s=90)
        assert policy.state is JobState.COMPLETED, policy
        report = Report.model_validate(policy.result)
        assert report.scans == 4
        assert report.total.packages == found.packages["python"]
        again = await client.submit("inventory-discover", PYTHON_ONLY, route="inventory", idempotency_key="today")
        assert (again.id, again.created) == (job.id, False)
        assert len([child async for child in client.list(parent_id=job.id)]) == 5
