"""Writes under an old fence are refused and counted, each by its own name; so are reaped attempts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, reaper_of, running

from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.objects import access_to
from tenure.coordinator.start import ClaimedJob
from tenure.coordinator.uploads import Uploads
from tenure.model.errors import OwnershipLost
from tenure.model.states import JobState, Outcome
from tenure.probes.server import HttpServer, application
from tenure.store.objects.opening import open_store
from tenure.v1 import job_pb2
from tenure.v1 import worker_service_pb2 as pb

NO_CONTEXT: Any = None
"""The calls under test do not look at theirs."""


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def stale(write: str) -> float:
    return counted("tenure_stale_writes_refused_total", write=write)


async def _restarted(parts: Parts) -> tuple[uuid.UUID, int, int]:
    """Return a job that executes again, with the fence of its first attempt and that of its second."""
    job = await parts.submit()
    first = await parts.execute(job)
    await parts.lose_claim(job)
    await parts.sql(
        "UPDATE tenure.job SET state = 'restarting', fence = NULL, worker = NULL, lease = NULL, claim_revision = NULL,"
        " started_at = NULL WHERE id = %s",
        job,
    )
    return job, first.fence, (await parts.execute(job, worker="w2")).fence


@pytest_asyncio.fixture
async def service(parts: Parts, tmp_path: Path) -> WorkerService:
    """The service whose calls carry fences."""
    uploads = Uploads(parts.db, 1_000)
    uploads.objects = await access_to(open_store(tmp_path.as_uri()), parts.db, parts.clock)
    return WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads)


async def _finish(service: WorkerService, job: str, fence: int) -> pb.Verdict:
    report = pb.AttemptReport(job_id=job, fence=fence, outcome=job_pb2.OUTCOME_COMPLETED, result='"late"')
    answer = await service.FinishAttempts(pb.FinishAttemptsRequest(worker="w1", reports=[report]), NO_CONTEXT)
    return answer.attempts[0].verdict


async def _progress(service: WorkerService, job: str, fence: int) -> pb.Verdict:
    report = pb.ProgressReport(job_id=job, fence=fence, fraction=0.9, message="late")
    return (await service.ReportProgress(pb.ReportProgressRequest(reports=[report]), NO_CONTEXT)).verdicts[0]


async def _checkpoint(service: WorkerService, job: str, fence: int) -> pb.Verdict:
    request = pb.SaveCheckpointRequest(job_id=job, fence=fence, checkpoint='"late"')
    return (await service.SaveCheckpoint(request, NO_CONTEXT)).verdict


async def _children(service: WorkerService, job: str, fence: int) -> pb.Verdict:
    request = pb.SubmitChildrenRequest(job_id=job, fence=fence, jobs=[job_pb2.JobSpec(kind="late", ref="late")])
    try:
        return (await service.SubmitChildren(request, NO_CONTEXT)).verdict
    except OwnershipLost:
        return pb.VERDICT_LOST


async def _artifact(service: WorkerService, job: str, fence: int) -> pb.Verdict:
    request = pb.CreateUploadRequest(job_id=job, fence=fence, name="late", size_bytes=1, sha256=b"\0" * 32)
    return (await service.CreateUpload(request, NO_CONTEXT)).verdict


@pytest.mark.parametrize(
    ("write", "call"),
    [
        ("finish", _finish),
        ("progress", _progress),
        ("checkpoint", _checkpoint),
        ("children", _children),
        ("artifact", _artifact),
    ],
)
async def test_a_write_under_an_old_fence_is_refused_and_counted(
    parts: Parts, service: WorkerService, write: str, call: Callable[..., Any]
) -> None:
    job, old, new = await _restarted(parts)
    before = stale(write)
    row = await parts.row(job)
    assert await call(service, str(job), old) == pb.VERDICT_LOST
    assert stale(write) == before + 1
    assert await parts.row(job) == row, "nothing was changed"
    assert await parts.sql("SELECT 1 FROM tenure.jobs WHERE parent_id = %s", job) == []
    assert await call(service, str(job), new) != pb.VERDICT_LOST, "the same write of the attempt that owns the job"
    assert stale(write) == before + 1


async def test_a_start_without_a_claim_is_refused_and_counted(parts: Parts) -> None:
    job = await parts.submit()
    claim = await parts.claim(job)
    await parts.lose_claim(job)
    before = stale("start")
    assert await parts.starter.start("w1", [claim]) == []
    assert stale("start") == before + 1
    assert await parts.state(job) is JobState.READY


async def test_a_start_that_came_second_is_refused_and_counted(parts: Parts) -> None:
    job = await parts.submit()
    await parts.execute(job)
    await parts.lose_claim(job)
    late = await parts.claim(job, worker="w2")
    before = stale("start")
    assert await parts.starter.start("w2", [ClaimedJob(str(job), 0, late.lease, late.claim_revision)]) == []
    assert stale("start") == before + 1


async def test_reaped_attempts_and_the_brake_are_counted(alone: Parts) -> None:
    jobs = [await alone.submit() for _ in range(4)]
    for number, job in enumerate(jobs):
        await alone.execute(job, worker=f"w{number}")
    for job in jobs[:3]:
        await alone.lose_claim(job)
    overdue = "UPDATE tenure.job SET timeout_s = 1, started_at = now() - interval '1 hour' WHERE id = %s"
    await alone.sql(overdue, jobs[3])
    reaper = await reaper_of(alone)

    def figures() -> tuple[float, ...]:
        reaped = [counted("tenure_attempts_reaped_total", outcome=str(o)) for o in (Outcome.LOST, Outcome.TIMED_OUT)]
        return (*reaped, counted("tenure_brakes_total"))

    before = figures()
    assert await reaper.sweep() == 4
    assert [now - then for now, then in zip(figures(), before, strict=True)] == [3, 1, 1]


async def test_the_numbers_are_served() -> None:
    server = HttpServer(application({}, REGISTRY), listen="127.0.0.1:0", variable="TENURE_HTTP_LISTEN")
    server.bind()
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{server.address}", timeout=20) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    outcomes = ("lost", "released", "timed_out", "canceled")
    reaped = [f'attempts_reaped_total{{outcome="{outcome}"}}' for outcome in outcomes]
    gauges = ('coordinator_ready{check="postgres"}', "coordinator_leads")
    for name in ('stale_writes_refused_total{write="finish"}', *reaped, "brakes_total", *gauges):
        assert f"\ntenure_{name} " in answer.text
