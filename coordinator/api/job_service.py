"""JobService: for those who submit jobs and look after them."""

from __future__ import annotations

import asyncio
import base64
import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence, Set
from contextlib import aclosing, suppress
from typing import Any

import grpc

from tenure.coordinator import access
from tenure.coordinator.api import convert
from tenure.coordinator.api.acts import audited
from tenure.coordinator.api.count_jobs import count_jobs
from tenure.coordinator.api.filters import (
    ended_from_pb,
    filters_from_pb,
    mass_filters,
    page_key,
    span_from_token,
    token_of_span,
)
from tenure.coordinator.api.log_calls import read_logs, wanted_logs
from tenure.coordinator.api.refusals import is_of_all, refusal_to_pb
from tenure.coordinator.api.stream_submit import MESSAGE_JOBS, StreamedSubmit, refuse_foreign
from tenure.coordinator.archived import Archived, ArchivedJob
from tenure.coordinator.artifacts import Artifacts, tell_results
from tenure.coordinator.audit import Audit
from tenure.coordinator.cancel import CANCELABLE, Canceler
from tenure.coordinator.explain import Explainer
from tenure.coordinator.listing import page_of_jobs
from tenure.coordinator.owner import owner_of
from tenure.coordinator.pending import show_pending
from tenure.coordinator.read_logs import Head, LogReader
from tenure.coordinator.retry import LISTED, RETRIABLE, Retryer
from tenure.coordinator.submit import Submitter
from tenure.coordinator.waiters import Waiters
from tenure.model.batch import Batcher, pieces
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, Locked, NotFound, TenureError, Unavailable, WrongState
from tenure.model.ids import parse_id
from tenure.model.jobs import JobSpec
from tenure.model.objects import RESULT
from tenure.model.states import TERMINAL, JobState
from tenure.model.submit import Submitted
from tenure.model.why import Obstacle
from tenure.model.workflows import workflow_name
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row
from tenure.v1 import job_pb2, wire
from tenure.v1 import job_service_pb2 as pb
from tenure.v1.job_service_pb2_grpc import JobServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 50
MAX_PAGE = 1_000
WATCH_POLL_S = 0.25
"""How often a watched job is read again; reads of all watchers share one query."""
WATCH_MANY_POLL_S = 0.5
"""The same for WatchJobs."""
MARKS_JOBS = 5_000
"""That all calls of WatchJobs together look for in one query."""
MARKS_REST_S = 0.02
WATCH_GATHER_S = 0.05
"""What changes within this time is told together, so that each end does not read all the others again."""
WATCH_UNREAD_S = 5.0
"""How long WatchJobs goes on reading the archive once a job could not be read: what runs is to be shown, too."""
MAX_WATCHED = 1_000
WATCH_READ_JOBS = 100
WATCH_BYTES = 256 * 1024
"""Of jobs with payloads and results in a message of WatchJobs; one that is larger has its own. A reader that takes
nothing holds one."""
PIECE_JOBS = 500
"""Of a batch, that are read in one go: about five milliseconds."""
DEADLINE_MARGIN_S = 0.2
"""A waiting call answers this long before its own deadline, so that the answer still arrives."""


class JobService(JobServiceServicer):
    """The service over the steps. ``run`` is the body of a task that batches reads."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        submitter: Submitter,
        waiters: Waiters,
        canceler: Canceler,
        retryer: Retryer,
        explainer: Explainer,
        audit: Audit,
        artifacts: Artifacts | None = None,
        archived: Archived | None = None,
    ) -> None:
        self._artifacts = artifacts or Artifacts(database)
        self._archived = archived or Archived(database)
        self.base_url = ""
        """Where a URL is that is a path."""
        self._audit = audit
        self._database = database
        self._submitter = submitter
        self._waiters = waiters
        self._canceler = canceler
        self._retryer = retryer
        self._explainer = explainer
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._reads: Batcher[uuid.UUID, job_pb2.Job | None] = Batcher(
            self._read_group, max_items=500, in_flight=2, name="read"
        )
        self._marks: Batcher[Set[uuid.UUID], Mapping[uuid.UUID, Row]] = Batcher(
            self._marks_of_groups,
            max_items=500,
            weigh=len,
            max_weight=MARKS_JOBS,
            rest_s=MARKS_REST_S,
            name="marks",
        )
        self.logs = LogReader(database, clock, waiters)

    async def run(self) -> None:
        """Carry out batched reads until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reads.run())
            group.create_task(self._marks.run())
            group.create_task(self.logs.run())

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmitJobResponse:
        """Write one job."""
        submitted = await self._submitter.submit(wire.spec_from_pb(request.job))
        return pb.SubmitJobResponse(job=await self._as_submitted(submitted), created=submitted.created)

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> pb.SubmitJobsResponse:
        """Write a batch, whole or not at all."""
        specs = await _specs(request.jobs)
        name = workflow_name(request.workflow_name, "workflow_name")
        submitted = await self._submitter.submit_batch(specs, workflow_name=name)
        return pb.SubmitJobsResponse(
            jobs=submitted_to_pb(submitted, [spec.ref for spec in specs]), workflow_id=_workflow_id(submitted)
        )

    async def SubmitEach(self, request: pb.SubmitEachRequest, context: Context) -> pb.SubmitEachResponse:
        """Write jobs that were sent together, each for itself."""
        if not 1 <= len(request.jobs) <= MESSAGE_JOBS:
            raise InvalidInput([FieldViolation("jobs", f"must be 1 to {MESSAGE_JOBS} in a call")])
        asked = [_spec_or_refusal(message) for message in request.jobs]
        answers = iter(await self._submitter.submit_together([spec for spec in asked if isinstance(spec, JobSpec)]))
        return pb.SubmitEachResponse(
            jobs=await self._each([next(answers) if isinstance(spec, JobSpec) else spec for spec in asked])
        )

    async def _each(self, answers: Sequence[Submitted | Exception]) -> list[pb.SubmittedEach]:
        if of_all := next((one for one in answers if isinstance(one, Exception) and _is_of_call(one)), None):
            raise of_all
        unread = [one.id for one in answers if isinstance(one, Submitted) and one.written is None]
        read: dict[uuid.UUID, job_pb2.Job | Exception | None] = {}
        if unread:
            read.update(zip(unread, await self._read_group(unread), strict=True))
        if missing := [id for id, job in read.items() if job is None]:
            archived = await self._archived.find_each(missing)
            read.update((id, _archived_to_pb(found)) for id, found in archived.items())
        return [_one_of_each(answer, read) for answer in answers]

    async def _as_submitted(self, submitted: Submitted) -> job_pb2.Job:
        if job := _as_written(submitted):
            return job
        try:
            return await self._read(submitted.id)
        except NotFound as exc:
            raise _key_of_removed(submitted.id) from exc

    async def StreamSubmitJobs(self, requests: AsyncIterator[pb.StreamSubmitJobsRequest], context: Context) -> None:
        """Write jobs as they come, each for itself."""
        await StreamedSubmit(self._submitter, self._waiters).serve(requests, context.write)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Read one job."""
        job = await self._read(parse_id(request.id, "id"))
        await show_pending(self._etcd, self._keys, [job])
        return pb.GetJobResponse(job=job)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Read a page of jobs, newest first."""
        size = request.page_size or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput([FieldViolation("page_size", f"must be 1 to {MAX_PAGE}")])
        filters = filters_from_pb(request.filter)
        page = await page_of_jobs(
            self._database,
            filters,
            ended_from_pb(request),
            before=page_key(request.page_token),
            size=size,
            deleted=request.include_deleted,
        )
        token = base64.urlsafe_b64encode(page.rest.bytes).decode() if page.rest else ""
        jobs = [convert.job_to_pb(row) for row in page.rows]
        await show_pending(self._etcd, self._keys, jobs)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CountJobs(self, request: pb.CountJobsRequest, context: Context) -> pb.CountJobsResponse:
        """Count jobs that have ended."""
        return await count_jobs(self._database, request)

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> pb.WaitJobResponse:
        """Answer when the job is terminal, or its present state when time is up."""
        job_id = parse_id(request.id, "id")
        limit = _wait_s(request, context)
        async with self._waiters.waiting(str(job_id)) as maybe_done:
            job = None if await self._is_unfinished(job_id) else await self._read(job_id)
            with suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    while job is None or not _is_terminal(job):
                        await maybe_done.wait()
                        self._waiters.refuse_if_closed()
                        maybe_done.clear()
                        job = await self._read(job_id)
        job = job or await self._read(job_id)
        return pb.WaitJobResponse(job=job, finished=_is_terminal(job))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        """Stream the job at each change until it is terminal."""
        job_id = parse_id(request.id, "id")
        shown: tuple[object, ...] | None = None
        async with self._waiters.waiting(str(job_id)) as maybe_done:
            while True:
                maybe_done.clear()
                job = await self._read(job_id)
                seen = (job.state, job.attempt, job.progress, job.progress_message, job.cancel_requested)
                if seen != shown:
                    shown = seen
                    yield pb.WatchJobResponse(job=job)
                if _is_terminal(job):
                    return
                self._waiters.refuse_if_closed()
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_POLL_S):
                        await maybe_done.wait()

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        """Stream what changes of many jobs, until all are terminal."""
        if not 1 <= len(request.ids) <= MAX_WATCHED:
            raise InvalidInput([FieldViolation("ids", f"must be 1 to {MAX_WATCHED}")])
        left = {parse_id(id, f"ids[{index}]") for index, id in enumerate(request.ids)}
        shown: dict[uuid.UUID, tuple[object, ...]] = {}
        unread: dict[uuid.UUID, TenureError] = {}
        """Of those that are left: archived jobs that could not be read. They are for the end, and for the next call."""
        async with self._waiters.waiting_for_any({str(id) for id in left}) as maybe_done:
            while True:
                maybe_done.clear()
                changed, missing = await self._changed(left - unread.keys(), shown)
                for start in range(0, len(changed), WATCH_READ_JOBS):
                    page = changed[start : start + WATCH_READ_JOBS]
                    jobs = dict(zip(page, await asyncio.gather(*self._reads.add(page)), strict=True))
                    found = (job for job in jobs.values() if job is not None)
                    for told in pieces(found, job_pb2.Job.ByteSize, max_weight=WATCH_BYTES, max_items=WATCH_READ_JOBS):
                        yield pb.WatchJobsResponse(jobs=told)
                    left -= {id for id, job in jobs.items() if job is None or _is_terminal(job)}
                async with aclosing(self._archived_jobs(missing)) as archived:
                    async for id, one in archived:
                        if isinstance(one, TenureError):
                            unread[id] = one
                            continue
                        yield pb.WatchJobsResponse(jobs=[one])
                        left.discard(id)
                if absent := next((exc for exc in unread.values() if isinstance(exc, NotFound)), None):
                    raise absent
                self._waiters.refuse_if_closed()
                if not left:
                    return
                if left == unread.keys():
                    raise next(iter(unread.values()))
                await self._clock.sleep(WATCH_GATHER_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_MANY_POLL_S - WATCH_GATHER_S):
                        await maybe_done.wait()

    async def _changed(
        self, ids: Set[uuid.UUID], shown: dict[uuid.UUID, tuple[object, ...]]
    ) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
        """Return the jobs that are not as they were shown, and note what they are; and those that Postgres has not."""
        rows = await self._marks.ask(ids)
        marks = {id: tuple(row[1:]) for id, row in rows.items() if access.sees(row.namespace)}
        changed = [id for id, mark in marks.items() if shown.get(id) != mark]
        shown.update((id, marks[id]) for id in changed)
        return changed, sorted(ids - marks.keys())

    async def _is_unfinished(self, job_id: uuid.UUID) -> bool:
        """Say so of a job that Postgres has and the caller may see: the whole job costs several times this."""
        row = (await self._marks.ask({job_id})).get(job_id)
        return row is not None and access.sees(row.namespace) and JobState(row.state) not in TERMINAL

    async def _marks_of_groups(self, groups: list[Set[uuid.UUID]]) -> list[Mapping[uuid.UUID, Row] | Exception]:
        """Look for all who watch at once: a query for each of them is what many of them would cost most by."""
        rows = await self._database.fetch("marks_of", {"ids": sorted(set[uuid.UUID]().union(*groups))})
        by_id = {row.id: row for row in rows}
        return [{id: by_id[id] for id in group if id in by_id} for group in groups]

    async def _archived_jobs(
        self, ids: Sequence[uuid.UUID]
    ) -> AsyncGenerator[tuple[uuid.UUID, job_pb2.Job | TenureError], None]:
        """Yield jobs that Postgres has not, one after the other, or why one cannot be told.

        Once one could not be read, the others are tried for ``WATCH_UNREAD_S`` more: the store may be away.
        """
        until = math.inf
        for id in ids:
            told: job_pb2.Job | TenureError
            try:
                if self._clock.monotonic() >= until:
                    raise Unavailable(f"job {id} was not looked for in the archive, since others could not be read")
                told = await self._archived_job(id) or _not_found(id)
            except Unavailable as exc:
                told, until = exc, min(until, self._clock.monotonic() + WATCH_UNREAD_S)
            yield id, told

    @audited
    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        """Hide a job that has ended."""
        job_id = parse_id(request.id, "id")
        await self._require_seen(job_id)
        if not await self._database.fetch("delete_job", {"id": job_id}):
            await self._require_not_archived(job_id)
            state = wire.STATE_FROM_PB[(await self._read(job_id)).state]
            raise WrongState(
                f"job {job_id} is {state}; only one that has ended can be deleted",
                hint=f"cancel it first: tenure jobs cancel {job_id}",
            )
        return pb.DeleteJobResponse(job=await self._read(job_id))

    @audited
    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """Cancel at once, or ask the worker to stop."""
        job_id = parse_id(request.id, "id")
        job = await self._read(job_id)  # NOT_FOUND before anything else
        if job.HasField("archived_at"):
            return pb.CancelJobResponse(job=job)  # like any that has ended, it stays as it is
        await self._canceler.cancel(job_id, _reason(request.reason))
        return pb.CancelJobResponse(job=await self._read(job_id))

    @audited
    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        """Cancel all that match, or count them."""
        filters = mass_filters(request.filter, all_=request.all, allowed=CANCELABLE, default=CANCELABLE)
        span = span_from_token(request.page_token)
        done = await self._canceler.cancel_matching(filters, span, _reason(request.reason), preview=request.preview)
        return pb.CancelJobsResponse(
            canceled=done.canceled,
            asked=done.asked,
            dependants=done.dependants,
            ids=[str(id) for id in done.ids],
            next_page_token=token_of_span(done.rest),
        )

    @audited
    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        """Make another go at a failed or canceled job, once."""
        job_id = parse_id(request.id, "id")
        await self._require_seen(job_id)
        try:
            new, created = await self._retryer.retry(job_id)
        except NotFound:
            await self._require_not_archived(job_id)
            raise
        return pb.RetryJobResponse(job=await self._read(new), created=created)

    @audited
    async def RetryJobs(self, request: pb.RetryJobsRequest, context: Context) -> pb.RetryJobsResponse:
        """Retry all that match, or count them."""
        filters = mass_filters(
            request.filter, all_=request.all, allowed=RETRIABLE, default=frozenset({JobState.FAILED})
        )
        span = span_from_token(request.page_token)
        done = await self._retryer.retry_matching(filters, span, preview=request.preview)
        return pb.RetryJobsResponse(
            retried=done.jobs,
            skipped=done.skipped,
            ids=[str(id) for id in done.ids],
            next_page_token=token_of_span(done.rest),
        )

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """Say in words why a job does not run, or what it does."""
        job_id = parse_id(request.id, "id")
        job = await self._read(job_id)
        await show_pending(self._etcd, self._keys, [job])
        found = await self._explainer.obstacles(job_id)
        return pb.ExplainJobResponse(
            job=job,
            summary=_summary(job, found),
            obstacles=[pb.Obstacle(code=one.code, message=one.message) for one in found],
        )

    async def ListAttempts(self, request: pb.ListAttemptsRequest, context: Context) -> pb.ListAttemptsResponse:
        """Read every attempt of a job."""
        job_id = parse_id(request.job_id, "job_id")
        await self._require_seen(job_id)
        rows = await self._database.fetch("attempts_of", {"id": job_id})
        if not rows and (found := await self._archived.find(job_id)):
            rows = found.row.attempts
        if not rows:
            await self._read(job_id)
        return pb.ListAttemptsResponse(attempts=[convert.attempt_to_pb(row) for row in rows])

    async def GetJobClaim(self, request: pb.GetJobClaimRequest, context: Context) -> pb.GetJobClaimResponse:
        """Read who holds a job, from etcd."""
        job_id = parse_id(request.job_id, "job_id")
        await self._read(job_id)  # NOT_FOUND before anything else
        return await owner_of(self._etcd, self._keys, str(job_id))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> AsyncIterator[pb.ReadLogsResponse]:
        """Stream what a job's attempts wrote to their logs."""
        wanted = wanted_logs(request)
        job = await self._read(wanted.job_id)  # NOT_FOUND before anything else
        if job.HasField("archived_at"):
            found = await self._archived.find(wanted.job_id)
            logs = found.row.logs if found else ()
            heads = [Head(one.attempt, one.last_seq, True, job.namespace) for one in logs]
            wanted = wanted._replace(heads=heads, follow=False)
        async with aclosing(read_logs(self.logs, wanted)) as pages:
            async for page in pages:
                yield page

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        """Read which files attempts of a job have saved."""
        job_id = parse_id(request.job_id, "job_id")
        job = await self._read(job_id)
        if (saved := await self._saved(job)) is None:
            rows = await self._artifacts.of(job_id)
        else:
            rows = [one for one in saved if one.sha256 is not None]
        return pb.ListArtifactsResponse(artifacts=[convert.artifact_to_pb(row) for row in rows])

    async def CreateDownload(self, request: pb.CreateDownloadRequest, context: Context) -> pb.CreateDownloadResponse:
        """Say where a file of a job can be read."""
        job_id = parse_id(request.job_id, "job_id")
        job = await self._read(job_id)
        name, attempt = request.name or RESULT, request.attempt
        if name == RESULT and not attempt:
            _require_saved_result(job)
            attempt = job.attempt
        saved = await self._saved(job)
        found = await self._artifacts.find(job_id, job.namespace, name, attempt, saved=saved)
        return pb.CreateDownloadResponse(
            artifact=convert.artifact_to_pb(found.row),
            url=convert.absolute(found.download.url, self.base_url),
            expires_at=wire.timestamp(found.download.expires_at),
        )

    async def _read(self, job_id: uuid.UUID) -> job_pb2.Job:
        job = await self._reads.ask(job_id)
        if job is None and (found := await self._archived_job(job_id)):
            return found
        if job is None or not access.sees(job.namespace):
            raise _not_found(job_id)
        return job

    async def _archived_job(self, job_id: uuid.UUID) -> job_pb2.Job | None:
        found = await self._archived.find(job_id)
        return convert.archived_to_pb(found) if found else None

    async def _saved(self, job: job_pb2.Job) -> Sequence[Any] | None:
        """Return what a job of the archive has saved; None of one that is in Postgres."""
        if not job.HasField("archived_at"):
            return None
        found = await self._archived.find(uuid.UUID(job.id))
        return found.row.artifacts if found else None

    async def _require_not_archived(self, job_id: uuid.UUID) -> None:
        if await self._archived.find(job_id):
            raise WrongState(
                f"job {job_id} is in the archive, where it can be read and no more",
                hint=f"tenure jobs get {job_id}",
            )

    async def _require_seen(self, job_id: uuid.UUID) -> None:
        """Answer for a job of a namespace that is not the caller's as for one that is not there."""
        if access.is_confined():
            await self._read(job_id)

    async def _read_group(self, ids: list[uuid.UUID]) -> list[job_pb2.Job | None]:
        wanted = list(set(ids))
        rows = await self._database.fetch("jobs_with_parents", {"ids": wanted})
        jobs = {row.id: convert.job_to_pb(row, parents=row.parents) for row in rows}
        await tell_results(self._database, rows, jobs)
        return [jobs.get(id) for id in ids]


async def _specs(messages: Sequence[job_pb2.JobSpec]) -> list[JobSpec]:
    """Validate the members of a batch in pieces, and let others have their turn in between: this process may lead."""
    specs: list[JobSpec] = []
    violations: list[FieldViolation] = []
    for first in range(0, len(messages), PIECE_JOBS):
        try:
            specs += wire.specs_from_pb(messages[first : first + PIECE_JOBS], first=first)
        except InvalidInput as exc:
            violations.extend(exc.violations)
            if len(violations) >= wire.MAX_VIOLATIONS:
                break
        await asyncio.sleep(0)
    if violations:
        raise InvalidInput(violations)
    return specs


def _spec_or_refusal(message: job_pb2.JobSpec) -> JobSpec | TenureError:
    try:
        return refuse_foreign(wire.spec_from_pb(message))
    except TenureError as exc:
        return exc


def _is_of_call(exc: Exception) -> bool:
    """Say whether an error concerns all jobs that were sent together; somebody's lock is in the way of one of them."""
    return is_of_all(exc) and not isinstance(exc, Locked)


def _as_written(submitted: Submitted) -> job_pb2.Job | None:
    if submitted.written is None or submitted.written_at is None:
        return None
    return convert.written_to_pb(submitted.written, submitted.written_at)


def _archived_to_pb(found: ArchivedJob | Exception | None) -> job_pb2.Job | Exception | None:
    return convert.archived_to_pb(found) if isinstance(found, ArchivedJob) else found


def _one_of_each(
    answer: Submitted | Exception, read: Mapping[uuid.UUID, job_pb2.Job | Exception | None]
) -> pb.SubmittedEach:
    if isinstance(answer, Submitted):
        job = _as_written(answer) or read[answer.id]
        if isinstance(job, job_pb2.Job):
            return pb.SubmittedEach(job=job, created=answer.created)
        answer = job or _key_of_removed(answer.id)
    return pb.SubmittedEach(refusal=refusal_to_pb(answer))


def _require_saved_result(job: job_pb2.Job) -> None:
    if job.HasField("result_lost"):
        raise NotFound(f"the result of job {job.id} could not be kept: {job.result_lost.reason}")
    if job.result:
        raise NotFound(f"the result of job {job.id} is kept with the job", hint=f"tenure jobs get {job.id}")
    if not job.HasField("result_object"):
        raise NotFound(f"job {job.id} has no result: it is {wire.STATE_FROM_PB[job.state]}")


def _key_of_removed(job_id: uuid.UUID) -> NotFound:
    return NotFound(
        f"this idempotency key stands for job {job_id}, which has ended and is kept no longer; nothing was submitted",
        hint="to run it once more, submit it with another key",
    )


def _not_found(job_id: uuid.UUID) -> NotFound:
    return NotFound(f"job {job_id} does not exist", hint=LISTED)


def submitted_to_pb(submitted: list[Submitted], refs: list[str | None]) -> list[pb.SubmittedJob]:
    """Convert the answers to a batch."""
    return [
        pb.SubmittedJob(id=str(one.id), ref=ref or "", created=one.created, duplicate=one.duplicate)
        for one, ref in zip(submitted, refs, strict=True)
    ]


def _workflow_id(submitted: Sequence[Submitted]) -> str:
    """Return the workflow that new members were written into; if all were known, that of the first that is in one."""
    asked = [one for one in submitted if one.created] or submitted
    return next((str(one.workflow_id) for one in asked if one.workflow_id), "")


def _reason(text: str) -> str:
    return text[:512].replace("\x00", "")


def _summary(job: job_pb2.Job, found: Sequence[Obstacle]) -> str:
    state = wire.STATE_FROM_PB[job.state]
    if state in TERMINAL:
        return f"it is {state}{f': {job.reason}' if job.reason else ''}"
    if state is JobState.EXECUTING:
        return f"it executes on worker {job.worker}, attempt {job.attempt}"
    if found:
        return found[0].message
    if job.HasField("claim"):
        return f"worker {job.claim.worker} has claimed it and is about to start it"
    return "nothing is in its way: it waits for its turn behind jobs of a higher priority or an earlier time"


def _is_terminal(job: job_pb2.Job) -> bool:
    return wire.STATE_FROM_PB[job.state] in TERMINAL


def _wait_s(request: pb.WaitJobRequest, context: Context) -> float | None:
    asked = wire.seconds(request.timeout) if request.HasField("timeout") else None
    if asked is not None and asked < 0:
        raise InvalidInput([FieldViolation("timeout", "must not be negative")])
    remaining = context.time_remaining()
    if remaining is None:
        return asked
    remaining = max(0.0, remaining - DEADLINE_MARGIN_S)
    return remaining if asked is None else min(asked, remaining)
