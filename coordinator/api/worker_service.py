"""WorkerService: the writes of workers about their attempts, each under its fence."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc
import structlog

from tenure.coordinator import access
from tenure.coordinator.api import convert
from tenure.coordinator.api.job_service import submitted_to_pb
from tenure.coordinator.api.log_calls import append_logs
from tenure.coordinator.finish import AttemptError, Finished, Finisher, LostResult, Report, SavedResult, Verdict
from tenure.coordinator.logs import LogWriter
from tenure.coordinator.metrics import STALE_WRITES
from tenure.coordinator.park import Park
from tenure.coordinator.runner_tokens import AttemptToken, Signer, require_own
from tenure.coordinator.start import ClaimedJob, Starter
from tenure.coordinator.submit import Submitter
from tenure.coordinator.uploads import Uploads, Wanted
from tenure.model.access import Right, has
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import SystemClock
from tenure.model.dependencies import Trigger
from tenure.model.errors import FieldViolation, InvalidInput, OwnershipLost, PermissionDenied
from tenure.model.ids import id_text, parse_id
from tenure.model.jobs import json_error
from tenure.model.objects import DEFAULT_CONTENT_TYPE, ELSEWHERE
from tenure.model.routes import limit_error
from tenure.model.states import Outcome
from tenure.model.submit import Parent, keyed_after_parent, refuse_foreign_children
from tenure.store.postgres.database import Database, Row, Statement
from tenure.v1 import job_pb2, wire
from tenure.v1 import worker_service_pb2 as pb
from tenure.v1.worker_service_pb2_grpc import WorkerServiceServicer

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

VERDICT_TO_PB = {
    Verdict.RECORDED: pb.VERDICT_RECORDED,
    Verdict.REPEATED: pb.VERDICT_REPEATED,
    Verdict.LOST: pb.VERDICT_LOST,
    Verdict.INVALID: pb.VERDICT_INVALID,
    Verdict.LOCKED: pb.VERDICT_LOCKED,
}
MAX_BATCH = 5_000
MAX_REASON_CHARS = 1_024
UPSTREAM_JOBS = 500
UPSTREAM_BYTES = 1024 * 1024
"""Of results and errors in a page; the last one in it may go beyond."""


class _AboutAttempt(Protocol):
    """A message about one attempt."""

    job_id: str
    fence: int
    attempt_token: str


class WorkerService(WorkerServiceServicer):
    """The service over the steps."""

    def __init__(
        self,
        database: Database,
        starter: Starter,
        finisher: Finisher,
        submitter: Submitter,
        uploads: Uploads | None = None,
    ) -> None:
        self.uploads = uploads or Uploads(database, 0)
        self.base_url = ""
        """Where a URL is that is a path."""
        self._database = database
        self._signer: Signer | None = None
        self._is_strict = False
        self._starter = starter
        self._finisher = finisher
        self._submitter = submitter
        self._clock = SystemClock()
        self._logs = LogWriter(database, self._clock)

    def sign_with(self, signer: Signer, *, is_strict: bool) -> None:
        """Give tokens to the attempts of workers with credentials; strict: every write must show its attempt's.

        Who is not asked for credentials yet is given tokens if it shows some: coordinators that do ask take them.
        """
        self._signer, self._is_strict = signer, is_strict

    async def StartAttempts(self, request: pb.StartAttemptsRequest, context: Context) -> pb.StartAttemptsResponse:
        """Turn claims into attempts."""
        _bounded(request.claims, "claims")
        if not request.worker.isprintable() or not 1 <= len(request.worker) <= 255:
            raise InvalidInput([FieldViolation("worker", "must be 1 to 255 printable characters")])
        claims = [
            ClaimedJob(
                id_text(claim.job_id, f"claims[{index}].job_id"),
                claim.attempt_seen,
                claim.lease,
                claim.claim_revision,
                _slots(claim.slots, f"claims[{index}].slots") if claim.slots else (),
            )
            for index, claim in enumerate(request.claims)
        ]
        rows = await self._starter.start(request.worker, claims)
        attempts = _started_to_pb(rows)
        if self._signer is not None and (self._is_strict or _shows_credentials(context)):
            by_job = {claim.job_id: claim for claim in claims}
            for attempt in attempts:
                attempt.attempt_token = self._signer.sign(_token(request.worker, by_job[attempt.job_id], attempt))
        return pb.StartAttemptsResponse(attempts=attempts)

    def _require_token(self, about: _AboutAttempt) -> None:
        """Refuse a write that does not show the token of its attempt, of who calls.

        Raises:
            PermissionDenied: whatever is wrong with it.
        """
        if self._signer is None or not self._is_strict:
            return
        token = self._signer.read(about.attempt_token, AttemptToken)
        if (token.job, token.fence) != (about.job_id, about.fence):
            raise PermissionDenied("this token names another attempt")
        require_own(token, Right.WORK if has(access.caller(), Right.WORK) else Right.RUN)

    async def FinishAttempts(self, request: pb.FinishAttemptsRequest, context: Context) -> pb.FinishAttemptsResponse:
        """Record how attempts ended."""
        _bounded(request.reports, "reports")
        for message in request.reports:
            self._require_token(message)
        read = [_report_from_pb(message) for message in request.reports]
        answers = iter(await self._finisher.finish([report for report in read if isinstance(report, Report)]))
        # One bad member fails alone: it has its answer already.
        ends = [next(answers) if isinstance(report, Report) else report for report in read]
        return pb.FinishAttemptsResponse(
            attempts=[_finished_to_pb(message.job_id, end) for message, end in zip(request.reports, ends, strict=True)]
        )

    async def ReportProgress(self, request: pb.ReportProgressRequest, context: Context) -> pb.ReportProgressResponse:
        """Keep the latest progress of executing attempts."""
        _bounded(request.reports, "reports")
        latest: dict[tuple[uuid.UUID, int], pb.ProgressReport] = {}
        keys: list[tuple[uuid.UUID, int]] = []
        for index, report in enumerate(request.reports):
            self._require_token(report)
            if not (math.isfinite(report.fraction) and 0 <= report.fraction <= 1):
                raise InvalidInput([FieldViolation(f"reports[{index}].fraction", "must be 0 to 1")])
            key = (parse_id(report.job_id, f"reports[{index}].job_id"), report.fence)
            keys.append(key)
            latest[key] = report
        ordered = sorted(latest)
        rows = await self._database.fetch(
            "report_progress",
            {
                "ids": [id for id, _ in ordered],
                "fences": [fence for _, fence in ordered],
                # Rounded: what is next to nothing does not fit into a real.
                "fractions": [round(latest[key].fraction, 6) for key in ordered],
                "messages": [_text(latest[key].message, DEFAULT_BOUNDS.progress_message_chars) for key in ordered],
            },
        )
        accepted = {(row.id, row.fence) for row in rows}
        for job, fence in latest.keys() - accepted:
            STALE_WRITES.labels("progress").inc()
            log.warning("stale_progress_refused", job=str(job), fence=fence)
        return pb.ReportProgressResponse(
            verdicts=[pb.VERDICT_RECORDED if key in accepted else pb.VERDICT_LOST for key in keys]
        )

    async def SaveCheckpoint(self, request: pb.SaveCheckpointRequest, context: Context) -> pb.SaveCheckpointResponse:
        """Keep a checkpoint for the next attempt."""
        self._require_token(request)
        problem = json_error(
            request.checkpoint, max_bytes=DEFAULT_BOUNDS.checkpoint_bytes, max_depth=DEFAULT_BOUNDS.json_depth
        )
        if problem:
            raise InvalidInput([FieldViolation("checkpoint", problem)])
        job_id = parse_id(request.job_id, "job_id")
        rows = await self._database.fetch(
            "save_checkpoint", {"id": job_id, "fence": request.fence, "checkpoint": request.checkpoint}
        )
        if not rows:
            STALE_WRITES.labels("checkpoint").inc()
            log.warning("stale_checkpoint_refused", job=request.job_id, fence=request.fence)
        return pb.SaveCheckpointResponse(verdict=pb.VERDICT_RECORDED if rows else pb.VERDICT_LOST)

    async def SubmitChildren(self, request: pb.SubmitChildrenRequest, context: Context) -> pb.SubmitChildrenResponse:
        """Submit jobs on behalf of an executing attempt."""
        self._require_token(request)
        job_id = parse_id(request.job_id, "job_id")
        rows = await self._database.fetch("jobs_by_id", {"ids": [job_id]})
        parent = Parent(job_id, request.fence, rows[0].workflow_id if rows else None)
        namespace = rows[0].namespace if rows else ""
        for message in request.jobs:
            message.namespace = message.namespace or namespace
        _refuse_foreign(request.jobs, namespace)
        specs = keyed_after_parent(wire.specs_from_pb(request.jobs))
        has_key = bool(rows) and rows[0].unique_key is not None
        refuse_foreign_children(specs, (namespace, rows[0].kind, rows[0].unique_key) if has_key else None)
        try:
            submitted = await self._submitter.submit_batch(specs, parent=parent)
        except OwnershipLost as exc:
            STALE_WRITES.labels("children").inc()
            log.warning("stale_children_refused", job=request.job_id, fence=request.fence, jobs=len(specs))
            raise OwnershipLost(f"job {request.job_id} is not executing under fence {request.fence}") from exc
        created = any(one.created for one in submitted)
        return pb.SubmitChildrenResponse(
            verdict=pb.VERDICT_RECORDED if created else pb.VERDICT_REPEATED,
            jobs=submitted_to_pb(submitted, [spec.ref for spec in specs]),
        )

    async def ReadUpstream(self, request: pb.ReadUpstreamRequest, context: Context) -> pb.ReadUpstreamResponse:
        """Tell an executing attempt what became of the jobs that its job waited for."""
        self._require_token(request)
        job_id = parse_id(request.job_id, "job_id")
        after = parse_id(request.page_token, "page_token") if request.page_token else uuid.UUID(int=0)
        page = {"id": job_id, "after": after, "limit": UPSTREAM_JOBS, "bytes": UPSTREAM_BYTES}
        try:
            _, rows = await self._database.transaction(
                [
                    Statement("assert_fence", {"id": job_id, "fence": request.fence}),
                    Statement("read_upstream", page),
                ]
            )
        except OwnershipLost:
            return pb.ReadUpstreamResponse(verdict=pb.VERDICT_LOST)
        is_last = not rows or len(rows) == rows[0].found < UPSTREAM_JOBS
        return pb.ReadUpstreamResponse(
            verdict=pb.VERDICT_RECORDED,
            jobs=[_upstream_to_pb(row) for row in rows],
            next_page_token=None if is_last else str(rows[-1].id),
        )

    async def AppendLogs(self, request: pb.AppendLogsRequest, context: Context) -> pb.AppendLogsResponse:
        """Write lines to the logs of executing attempts."""
        return await append_logs(self._logs, request, self._require_token, self._clock)

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Context) -> pb.CreateUploadResponse:
        """Say where a file of an attempt goes."""
        self._require_token(request)
        wanted = Wanted(
            request.name,
            request.size_bytes,
            request.sha256,
            request.content_type or DEFAULT_CONTENT_TYPE,
            request.upload,
        )
        try:
            begun = await self.uploads.begin(parse_id(request.job_id, "job_id"), request.fence, wanted)
        except OwnershipLost:
            return pb.CreateUploadResponse(verdict=pb.VERDICT_LOST)
        plan = begun.plan
        return pb.CreateUploadResponse(
            verdict=pb.VERDICT_RECORDED,
            upload=begun.upload,
            url=convert.absolute(plan.url, self.base_url),
            headers=plan.headers,
            part_bytes=plan.part_bytes,
            part_urls=plan.part_urls,
        )

    async def CompleteUpload(self, request: pb.CompleteUploadRequest, context: Context) -> pb.CompleteUploadResponse:
        """Take it that a file was sent."""
        self._require_token(request)
        try:
            job_id = parse_id(request.job_id, "job_id")
            await self.uploads.end(job_id, request.fence, request.upload, request.part_tags)
        except OwnershipLost:
            return pb.CompleteUploadResponse(verdict=pb.VERDICT_LOST)
        return pb.CompleteUploadResponse(verdict=pb.VERDICT_RECORDED)


def _refuse_foreign(jobs: Iterable[job_pb2.JobSpec], parents: str) -> None:
    """Refuse children for a namespace that is neither the parent's nor in the scope of the worker's credentials."""
    for index, job in enumerate(jobs):
        if job.namespace != parents and not access.sees(job.namespace):
            raise access.denied(Right.SUBMIT, f" in namespace {job.namespace[:64]}", field=f"jobs[{index}].namespace")


def _upstream_to_pb(row: Row) -> pb.UpstreamJob:
    return pb.UpstreamJob(
        job_id=str(row.id),
        kind=row.kind,
        key=row.key,
        state=wire.STATE_TO_PB[row.state],
        result=row.result,
        error=convert.error_to_pb(row.error),
        reason=row.reason,
    )


def _shows_credentials(context: Context | None) -> bool:
    return context is not None and any(name == "authorization" for name, _ in context.invocation_metadata() or ())


def _token(worker: str, claim: ClaimedJob, attempt: pb.StartedAttempt) -> AttemptToken:
    caller = access.caller().name
    return AttemptToken(caller, worker, claim.lease, attempt.job_id, attempt.route, claim.claim_revision, attempt.fence)


def _slots(names: Iterable[str], field: str) -> tuple[str, ...]:
    slots = tuple(names)
    for name in slots:
        limit, _, number = name.rpartition("/")
        if limit_error(limit) or not number.isdecimal():
            raise InvalidInput([FieldViolation(field, f"{name[:200]!r} names no slot")])
    return slots


def _bounded(members: Sequence[object], field: str) -> None:
    if len(members) > MAX_BATCH:
        raise InvalidInput([FieldViolation(field, f"{len(members)} members, at most {MAX_BATCH} in a call")])


def _text(text: str, limit: int) -> str:
    return text[:limit].replace("\x00", "\ufffd")


def _started_to_pb(rows: Sequence[Row]) -> list[pb.StartedAttempt]:
    # Those that one statement started have one time in common.
    times = {at: wire.timestamp(at) for at in {row.started_at for row in rows}}
    return [
        pb.StartedAttempt(
            job_id=row.id,
            attempt=row.attempt,
            fence=row.fence,
            namespace=row.namespace,
            kind=row.kind,
            route=row.route,
            payload=row.payload,
            checkpoint=row.checkpoint,
            timeout=row.timeout_s if row.timeout_s is None else wire.duration(round(row.timeout_s, 6)),
            labels=row.labels if row.labels is None else convert.labels_from_text(row.labels),
            started_at=times[row.started_at],
            parent_id=row.parent_id,
            parked_attempt=row.parked_attempt,
        )
        for row in rows
    ]


def _report_from_pb(message: pb.AttemptReport) -> Report | Finished:
    """Read a report; one that cannot be read is answered as invalid."""
    outcome = wire.OUTCOME_FROM_PB.get(message.outcome)
    if outcome is None:
        return Finished(Verdict.INVALID, message="outcome: must be set")
    try:
        job_id = id_text(message.job_id, "job_id")
        park = _park_from_pb(message.park) if message.HasField("park") else None
    except InvalidInput as exc:
        return Finished(Verdict.INVALID, message=exc.message)
    if outcome is Outcome.COMPLETED and park is None:  # as most do, and with nothing but a result
        delay_s = wire.seconds(message.delay) if message.HasField("delay") else 0.0
        large = _large_result(message) if message.result in ("", ELSEWHERE) else None
        result = None if large is not None else message.result or None
        return Report(job_id, message.fence, outcome, result, delay_s=delay_s, large=large)
    error = message.error
    return Report(
        job_id=job_id,
        fence=message.fence,
        outcome=outcome,
        result=message.result or None,
        error=AttemptError(error.type, error.message, error.traceback) if message.HasField("error") else None,
        retryable=not message.permanent,
        delay_s=wire.seconds(message.delay) if message.HasField("delay") else 0.0,
        error_bases=tuple(message.error_bases),
        spends_budget=message.spends_budget,
        park=park,
    )


def _large_result(message: pb.AttemptReport) -> SavedResult | LostResult | None:
    if message.HasField("result_object"):
        return SavedResult(message.result_object.size_bytes, message.result_object.sha256)
    if message.HasField("result_lost"):
        return LostResult(message.result_lost.size_bytes, _text(message.result_lost.reason, MAX_REASON_CHARS))
    return None


def _park_from_pb(message: pb.Park) -> Park:
    trigger = wire.TRIGGER_FROM_PB.get(message.trigger) if message.trigger else Trigger.ALL_FINISHED
    if trigger is None:
        raise InvalidInput([FieldViolation("park.trigger", f"{message.trigger} is none")])
    children = tuple(parse_id(id, f"park.children[{index}]") for index, id in enumerate(message.children))
    return Park(children, message.checkpoint or None, trigger)


def _finished_to_pb(job_id: str, answer: Finished) -> pb.FinishedAttempt:
    return pb.FinishedAttempt(
        job_id=job_id,
        verdict=VERDICT_TO_PB[answer.verdict],
        message=answer.message,
        state=wire.STATE_TO_PB[answer.state] if answer.state else job_pb2.JOB_STATE_UNSPECIFIED,
        claim_deleted=answer.claim_deleted,
    )
