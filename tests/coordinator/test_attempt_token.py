"""Where credentials are asked for, a worker writes about the attempts that it has started, and about no others."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running

from tenure.coordinator.access import called_by
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.object_tokens import UploadToken
from tenure.coordinator.objects import access_to
from tenure.coordinator.runner_tokens import signer_of
from tenure.coordinator.uploads import Uploads
from tenure.model.access import ANYBODY, Identity, Role
from tenure.model.errors import PermissionDenied
from tenure.model.states import JobState
from tenure.store.objects.opening import open_store
from tenure.v1 import job_pb2
from tenure.v1 import worker_service_pb2 as pb

MINE = Identity("mine", Role.WORKER, pools=("default",))
OTHER = Identity("other", Role.WORKER, pools=("default",))
MOVED = Identity("mine", Role.WORKER, pools=("elsewhere",))
Write = Callable[[str, int, str], Awaitable[Any]]


class Shown:
    """The context of a call that shows credentials, or none."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what was sent."""
        return self._metadata


NOTHING, SOMETHING = Shown(), Shown(("authorization", "Bearer x"))


class Workers:
    """The service, and every write of it."""

    def __init__(self, parts: Parts, service: WorkerService) -> None:
        self.parts = parts
        self.service = service
        self.upload = ""

    async def started(self, context: Shown = NOTHING) -> pb.StartedAttempt:
        """Start a job of the caller."""
        id = await self.parts.submit()
        claim = await self.parts.claim(id)
        claimed = pb.ClaimedJob(job_id=str(id), lease=claim.lease, claim_revision=claim.claim_revision)
        request = pb.StartAttemptsRequest(worker="w1", claims=[claimed])
        [attempt] = (await self.service.StartAttempts(request, context)).attempts  # type: ignore[arg-type]
        return attempt

    def writes(self) -> dict[str, Write]:
        """Return the writes, each about a job and a fence, with a token."""

        async def finish(job: str, fence: int, token: str) -> Any:
            report = pb.AttemptReport(
                job_id=job, fence=fence, attempt_token=token, outcome=job_pb2.OUTCOME_COMPLETED, result="1"
            )
            return await self.service.FinishAttempts(pb.FinishAttemptsRequest(worker="w1", reports=[report]), None)  # type: ignore[arg-type]

        async def progress(job: str, fence: int, token: str) -> Any:
            report = pb.ProgressReport(job_id=job, fence=fence, attempt_token=token, fraction=0.5)
            return await self.service.ReportProgress(pb.ReportProgressRequest(reports=[report]), None)  # type: ignore[arg-type]

        async def checkpoint(job: str, fence: int, token: str) -> Any:
            request = pb.SaveCheckpointRequest(job_id=job, fence=fence, attempt_token=token, checkpoint="1")
            return await self.service.SaveCheckpoint(request, None)  # type: ignore[arg-type]

        async def children(job: str, fence: int, token: str) -> Any:
            jobs = [job_pb2.JobSpec(kind="k", ref="c")]
            request = pb.SubmitChildrenRequest(job_id=job, fence=fence, attempt_token=token, jobs=jobs)
            return await self.service.SubmitChildren(request, None)  # type: ignore[arg-type]

        async def upstream(job: str, fence: int, token: str) -> Any:
            request = pb.ReadUpstreamRequest(job_id=job, fence=fence, attempt_token=token)
            return await self.service.ReadUpstream(request, None)  # type: ignore[arg-type]

        async def logs(job: str, fence: int, token: str) -> Any:
            lines = [job_pb2.LogLine(message="m")]
            batch = pb.LogBatch(job_id=job, fence=fence, attempt_token=token, first_seq=1, lines=lines)
            return await self.service.AppendLogs(pb.AppendLogsRequest(batches=[batch]), None)  # type: ignore[arg-type]

        async def create(job: str, fence: int, token: str) -> Any:
            request = pb.CreateUploadRequest(
                job_id=job, fence=fence, attempt_token=token, name="a", size_bytes=1, sha256=b"\0" * 32
            )
            begun = await self.service.CreateUpload(request, None)  # type: ignore[arg-type]
            access = self.service.uploads.objects
            assert access is not None
            self.upload = begun.upload
            await access.store.put(access.signer.read(begun.upload, UploadToken).key, b"x")
            return begun

        async def complete(job: str, fence: int, token: str) -> Any:
            request = pb.CompleteUploadRequest(job_id=job, fence=fence, attempt_token=token, upload=self.upload)
            return await self.service.CompleteUpload(request, None)  # type: ignore[arg-type]

        return {
            "AppendLogs": logs,
            "CreateUpload": create,
            "CompleteUpload": complete,
            "ReportProgress": progress,
            "SaveCheckpoint": checkpoint,
            "SubmitChildren": children,
            "ReadUpstream": upstream,
            "FinishAttempts": finish,
        }


@pytest_asyncio.fixture
async def workers(parts: Parts, tmp_path: Path) -> AsyncIterator[Workers]:
    uploads = Uploads(parts.db, 1_000)
    uploads.objects = await access_to(open_store(tmp_path.as_uri()), parts.db, parts.clock)
    service = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads)
    service.sign_with(await signer_of(parts.db), is_strict=True)
    async with running(parts.submitter.run()):
        yield Workers(parts, service)


def test_every_write_is_here(workers: Workers) -> None:
    methods = pb.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
    assert workers.writes().keys() | {"StartAttempts"} == set(methods)


@pytest.mark.parametrize("who", [MINE, OTHER, MOVED], ids=["mine", "other", "moved"])
async def test_without_the_token_of_this_attempt_nothing_is_written(workers: Workers, who: Identity) -> None:
    with called_by(MINE):
        attempt, another = await workers.started(), await workers.started()
    wrong = ["", "x", another.attempt_token] + ([attempt.attempt_token] if who is not MINE else [])
    with called_by(who):
        for name, write in workers.writes().items():
            for token in wrong:
                with pytest.raises(PermissionDenied):
                    await write(attempt.job_id, attempt.fence, token)
                    pytest.fail(name)
    row = await workers.parts.row(uuid.UUID(attempt.job_id))
    assert (row.state, row.fence, row.progress) == (JobState.EXECUTING, attempt.fence, 0)


async def test_with_it_all_is_written(workers: Workers) -> None:
    with called_by(MINE):
        attempt = await workers.started()
        for write in workers.writes().values():
            await write(attempt.job_id, attempt.fence, attempt.attempt_token)
    assert await workers.parts.state(uuid.UUID(attempt.job_id)) is JobState.COMPLETED


async def test_a_token_of_an_attempt_that_is_over_writes_nothing(workers: Workers) -> None:
    with called_by(MINE):
        attempt = await workers.started()
        writes = workers.writes()
        await writes["FinishAttempts"](attempt.job_id, attempt.fence, attempt.attempt_token)
        late = await writes["ReportProgress"](attempt.job_id, attempt.fence, attempt.attempt_token)
    assert list(late.verdicts) == [pb.VERDICT_LOST]


async def test_what_was_started_before_anybody_was_asked_goes_on_after(workers: Workers) -> None:
    """Workers show credentials before coordinators ask for them; what they execute then is not lost when these do."""
    signer = await signer_of(workers.parts.db)
    workers.service.sign_with(signer, is_strict=False)
    with called_by(ANYBODY):
        assert (await workers.started()).attempt_token == "", "who shows nothing needs nothing"
        attempt = await workers.started(SOMETHING)
    workers.service.sign_with(signer, is_strict=True)
    with called_by(OTHER):
        for write in workers.writes().values():
            await write(attempt.job_id, attempt.fence, attempt.attempt_token)
    assert await workers.parts.state(uuid.UUID(attempt.job_id)) is JobState.COMPLETED
