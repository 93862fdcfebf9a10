"""The direct link: offers, claims and leases in etcd, attempts and reports over gRPC to a coordinator.

One loop does all of it, apart from user code: inbox -> claim -> start, then reports. A claim that did not start is
let go; one whose report was answered gives its lease back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from tenure.model.clock import Clock
from tenure.model.dependencies import Trigger
from tenure.model.errors import (
    BoundExceeded,
    OwnershipLost,
    PermissionDenied,
    TenureError,
    Unauthenticated,
)
from tenure.model.jobs import JobSpec
from tenure.model.objects import ELSEWHERE
from tenure.model.states import Outcome
from tenure.store.etcd.claims import verify_batch
from tenure.store.etcd.keyspace import CancelRequest, InboxValue, Keyspace, Offers
from tenure.store.etcd.leases import LeaseKeeper, LeasePool
from tenure.store.etcd.port import Delete, Etcd, Txn
from tenure.v1 import job_pb2, log_wire, wire
from tenure.v1 import worker_service_pb2 as pb
from tenure.v1.transfer import Files
from tenure.worker.artifact import Artifact, Source
from tenure.worker.claim import Claimed, Claimer
from tenure.worker.connection import Bodies
from tenure.worker.coordinators import Coordinators
from tenure.worker.execute.call import (
    NO_LABELS,
    Assignment,
    Ended,
    ErrorReport,
    LostResult,
    SavedResult,
    StopCause,
)
from tenure.worker.inbox import Inbox
from tenure.worker.link import Answer, LogAnswer, LogBatch, Report, Started, StopAttempt
from tenure.worker.upload import Plan, Uploader, Wanted, Watch
from tenure.worker.upstream import UpstreamJob, UpstreamPage

log = structlog.get_logger(__name__)

START_TIMEOUT_S = 10.0
NO_ROOM_PAUSE_S = 1.0
"""How long claims are kept whose start found Postgres out of room: given back at once they would be offered at once."""


class DirectLink:
    """See ``worker.link.Link``. ``receive`` and ``verify_forever`` are bodies of tasks."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        keeper: LeaseKeeper,
        coordinators: Coordinators,
        worker: str,
        *,
        idle_leases: int,
        room: Callable[[], int],
        stop: StopAttempt,
        touch: Callable[[], None],
        verify_s: float,
        files: Files | None = None,
    ) -> None:
        self._uploader = Uploader(self, files or Files(), clock)
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._keeper = keeper
        self._coordinators = coordinators
        self._leases = LeasePool(etcd, keeper, self._lease_lost, max_idle=idle_leases)
        self._claimer = Claimer(etcd, keys, clock, self._leases, worker)
        self._inbox = Inbox(etcd, keys, clock, worker, self._take)
        self._worker = worker
        self._room = room
        self._stop = stop
        self._touch = touch
        self._verify_s = verify_s
        self._ready: asyncio.Queue[list[Started]] = asyncio.Queue(maxsize=1_000)
        self._claiming = 0
        self._held: dict[int, Started] = {}
        """Lease to the attempt that runs under it, until its report is answered."""
        self._tokens: dict[int, str] = {}
        """Fence to the token of its attempt, where coordinators give any."""
        self._reported: set[int] = set()
        """Of these, the leases whose report was sent: their claims go as soon as it is recorded."""
        self._draining = False
        self._answering: asyncio.TaskGroup
        """The answers to messages, each a task: they stay as many as leaders dare to offer."""
        self._moved = asyncio.Event()

    def bodies(self) -> Bodies:
        """Return the bodies of the link's tasks."""
        return {"receive": self.receive(), "verify": self.verify_forever()}

    # -- from offers to attempts --

    async def receive(self) -> None:
        """Answer the messages of the inbox, each at once and apart from the others."""
        async with asyncio.TaskGroup() as self._answering:
            await self._inbox.run()

    def _take(self, key: str, message: InboxValue) -> None:
        if isinstance(message, CancelRequest):
            self._stop(message.job, message.fence, StopCause.CANCELED)
            self._answering.create_task(self._discard(key))
        elif self._draining:
            self._answering.create_task(self._discard(key))
        else:
            self._answering.create_task(self._answer(key, message))

    async def attempts(self) -> AsyncIterator[Sequence[Started]]:
        """Yield attempts as they start."""
        while True:
            batch = await self._ready.get()
            self._moved.set()
            yield batch

    async def drain(self) -> None:
        """Take no more: messages are thrown away; return when every claim under way was let go or has begun to run."""
        self._draining = True
        while self._claiming or not self._ready.empty():
            self._moved.clear()
            await self._moved.wait()

    async def _answer(self, key: str, message: Offers) -> None:
        # The leader counts our room, but from a picture that may be a moment old: what does not fit is not claimed.
        offers = message.offers[: max(0, self._room() - self._claiming)]
        self._claiming += len(offers)
        try:
            if not offers:
                await self._discard(key)
                return
            claims = await self._claimer.claim(key, offers)
            await self._start(claims)
        except TenureError as exc:
            log.warning("offer_not_answered", offers=len(offers), error=exc.message)
        finally:
            self._claiming -= len(offers)
            self._moved.set()

    async def _start(self, claims: Sequence[Claimed]) -> None:
        if not claims:
            return
        if self._draining:
            await self._claimer.release(claims)
            return
        request = pb.StartAttemptsRequest(
            worker=self._worker,
            claims=[
                pb.ClaimedJob(
                    job_id=claim.offer.job,
                    attempt_seen=claim.offer.attempt,
                    lease=claim.lease,
                    claim_revision=claim.revision,
                    slots=claim.offer.slots,
                )
                for claim in claims
            ],
        )
        by_job = {claim.offer.job: claim for claim in claims}
        try:
            response = await self._coordinators.call("StartAttempts", request, timeout_s=START_TIMEOUT_S)
        except TenureError as exc:
            # Unknown: whichever did start is found by the reaper once its claim is gone.
            log.warning("start_failed", claims=len(claims), error=exc.message, next_step=exc.hint)
            if isinstance(exc, (BoundExceeded, Unauthenticated, PermissionDenied)):
                await self._clock.sleep(NO_ROOM_PAUSE_S * random.uniform(0.5, 1.0))
            await self._claimer.let_go([(claim.lease, False) for claim in claims])
            return
        started: list[Started] = []
        for message in response.attempts:
            claim = by_job.pop(message.job_id)
            one = Started(_assignment(message), claim.lease, claim.revision)
            self._held[claim.lease] = one
            if message.attempt_token:
                self._tokens[message.fence] = message.attempt_token
            started.append(one)
        if started:
            await self._ready.put(started)
        if by_job:
            await self._claimer.release(list(by_job.values()))

    async def _discard(self, key: str) -> None:
        try:
            await self._etcd.txn(Txn((), (Delete(key),)))
        except TenureError as exc:
            log.info("message_not_discarded", key=key, error=exc.message)  # it goes with the session, or is withdrawn

    # -- trust --

    @property
    def claims(self) -> int:
        """How many leases carry a claim, or may."""
        return self._leases.out

    def trusted_until(self, started: Started) -> float:
        """Return the instant until which the claim is trusted; the distant past once it is lost."""
        trust = self._keeper.trust(started.lease)
        return trust.until if trust is not None else float("-inf")

    def forsake(self, started: Started) -> None:
        """See ``Link``."""
        self._keeper.remove(started.lease)

    def _lease_lost(self, lease: int) -> None:
        """Take note that a lease is gone: its attempt must stop at once."""
        started = self._held.get(lease)
        if started is not None:
            self._touch()
            self._stop(started.assignment.job_id, started.assignment.fence, StopCause.LOST)

    async def verify_forever(self) -> None:
        """Read own claims and the holds every now and then: a lease that lives says nothing about the claim on it."""
        while True:
            await self._clock.sleep(self._verify_s)
            try:
                await self._verify()
            except TenureError as exc:
                log.info("claims_not_verified", error=exc.message)  # trust runs out by itself

    async def _verify(self) -> None:
        held = [one for lease, one in self._held.items() if lease not in self._reported]
        if not held:
            return
        shown = await verify_batch(
            self._etcd, self._keys, [(one.assignment.job_id, one.claim_revision, one.lease) for one in held]
        )
        holds = await self._etcd.list(self._keys.holds, keys_only=True)
        stopped = {item.key[len(self._keys.holds) :] for item in holds.items}
        for one in held:
            if self._held.get(one.lease) is not one or one.lease in self._reported:
                continue  # it ended meanwhile
            if one.assignment.job_id not in shown:
                self._touch()
                log.warning("claim_taken_away", job=one.assignment.job_id, fence=one.assignment.fence)
                self._stop(one.assignment.job_id, one.assignment.fence, StopCause.LOST)
            elif one.assignment.job_id in stopped:
                log.warning("job_is_held", job=one.assignment.job_id)
                self._stop(one.assignment.job_id, one.assignment.fence, StopCause.RELEASED)

    async def close(self) -> bool:
        """Revoke every lease; return whether none can have carried a claim."""
        is_clean = not self._leases.out
        await self._leases.close()
        return is_clean

    # -- reports --

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        """Report ends; leases of claims that were deleted are used again."""
        self._reported.update(report.started.lease for report in reports)
        request = pb.FinishAttemptsRequest(
            worker=self._worker, reports=[_report_to_pb(report, self._token(report.started)) for report in reports]
        )
        response = await self._coordinators.call("FinishAttempts", request)
        answers = []
        leases: list[tuple[int, bool]] = []
        for report, message in zip(reports, response.attempts, strict=True):
            if message.verdict == pb.VERDICT_INVALID and report.ended.large and message.message.startswith("result:"):
                # It is of a release that does not know of results that are elsewhere: another one is to record this.
                self._coordinators.turn_away()
                answers.append(Answer(recorded=False, locked=True))
                continue
            if message.verdict == pb.VERDICT_INVALID:
                answers.append(Answer(recorded=False, problem=message.message))
                continue
            if message.verdict == pb.VERDICT_LOCKED:
                answers.append(Answer(recorded=False, locked=True))
                continue
            answers.append(Answer(recorded=message.verdict != pb.VERDICT_LOST))
            if self._forget(report.started):
                leases.append((report.started.lease, message.claim_deleted))
        await self._claimer.let_go(leases)
        return answers

    async def abandon(self, started: Started) -> None:
        """Let go of the claim: the reaper ends the attempt as lost."""
        if self._forget(started):
            await self._claimer.let_go([(started.lease, False)])

    def _forget(self, started: Started) -> bool:
        self._reported.discard(started.lease)
        self._tokens.pop(started.assignment.fence, None)
        return self._held.pop(started.lease, None) is not None

    def _token(self, started: Started) -> str | None:
        return self._tokens.get(started.assignment.fence)

    async def progress(self, started: Started, fraction: float, message: str) -> None:
        """See ``Link``."""
        one = started.assignment
        report = pb.ProgressReport(
            job_id=one.job_id,
            fence=one.fence,
            fraction=fraction,
            message=message,
            attempt_token=self._token(started),
        )
        response = await self._coordinators.call("ReportProgress", pb.ReportProgressRequest(reports=[report]))
        _require(response.verdicts[0], started)

    async def save_checkpoint(self, started: Started, text: str) -> None:
        """See ``Link``."""
        one = started.assignment
        request = pb.SaveCheckpointRequest(
            job_id=one.job_id, fence=one.fence, checkpoint=text, attempt_token=self._token(started)
        )
        response = await self._coordinators.call("SaveCheckpoint", request)
        _require(response.verdict, started)

    async def submit_children(self, started: Started, jobs: Sequence[JobSpec]) -> list[str]:
        """See ``Link``."""
        one = started.assignment
        request = pb.SubmitChildrenRequest(
            job_id=one.job_id,
            fence=one.fence,
            jobs=[wire.spec_to_pb(job) for job in jobs],
            attempt_token=self._token(started),
        )
        response = await self._coordinators.call("SubmitChildren", request, timeout_s=30.0)
        _require(response.verdict, started)
        return [job.id for job in response.jobs]

    async def read_upstream(self, started: Started, after: str) -> UpstreamPage:
        """See ``Link``."""
        one = started.assignment
        request = pb.ReadUpstreamRequest(
            job_id=one.job_id, fence=one.fence, page_token=after, attempt_token=self._token(started)
        )
        response = await self._coordinators.call("ReadUpstream", request)
        _require(response.verdict, started)
        return UpstreamPage([_upstream(job) for job in response.jobs], response.next_page_token)

    async def append_logs(self, batches: Sequence[LogBatch]) -> list[LogAnswer]:
        """See ``Link``."""
        request = pb.AppendLogsRequest(
            batches=[
                pb.LogBatch(
                    job_id=batch.started.assignment.job_id,
                    fence=batch.started.assignment.fence,
                    first_seq=batch.first_seq,
                    lines=map(log_wire.line_to_pb, batch.lines),
                    attempt_token=self._token(batch.started),
                )
                for batch in batches
            ]
        )
        response = await self._coordinators.call("AppendLogs", request)
        return [_log_answer(message) for message in response.batches]

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, watch: Watch | None = None
    ) -> Artifact:
        """See ``Link``."""
        return await self._uploader.upload(started, name, source, content_type, watch=watch)

    async def create_upload(self, started: Started, wanted: Wanted) -> Plan:
        """See ``worker.upload.UploadCalls``."""
        one = started.assignment
        request = pb.CreateUploadRequest(
            job_id=one.job_id, fence=one.fence, attempt_token=self._token(started), **wanted._asdict()
        )
        response = await self._coordinators.call("CreateUpload", request)
        _require(response.verdict, started)
        return Plan(
            response.upload, response.url, dict(response.headers), response.part_bytes, tuple(response.part_urls)
        )

    async def complete_upload(self, started: Started, upload: str, tags: Sequence[str]) -> None:
        """See ``worker.upload.UploadCalls``."""
        one = started.assignment
        request = pb.CompleteUploadRequest(
            job_id=one.job_id, fence=one.fence, attempt_token=self._token(started), upload=upload, part_tags=tags
        )
        response = await self._coordinators.call("CompleteUpload", request, timeout_s=60.0)
        _require(response.verdict, started)


def _upstream(message: pb.UpstreamJob) -> UpstreamJob:
    error = message.error
    return UpstreamJob(
        message.job_id,
        message.kind,
        message.key,
        wire.STATE_FROM_PB[message.state],
        message.result or None,
        ErrorReport(error.type, error.message, error.traceback) if message.HasField("error") else None,
        message.reason,
    )


def _log_answer(message: pb.AppendedLogs) -> LogAnswer:
    return LogAnswer(
        is_over=message.verdict == pb.VERDICT_LOST or message.is_full,
        is_again=message.verdict == pb.VERDICT_LOCKED,
        problem=message.message if message.verdict == pb.VERDICT_INVALID else None,
    )


def _require(verdict: pb.Verdict, started: Started) -> None:
    if verdict == pb.VERDICT_LOST:
        raise OwnershipLost(f"job {started.assignment.job_id} is not executing under fence {started.assignment.fence}")


def _assignment(message: pb.StartedAttempt) -> Assignment:
    return Assignment(
        message.job_id,
        message.attempt,
        message.fence,
        message.namespace,
        message.kind,
        message.route,
        message.payload,
        message.checkpoint or None,
        dict(message.labels) if message.labels else NO_LABELS,
        wire.seconds(message.timeout) if message.HasField("timeout") else None,
        message.parent_id or None,
        message.parked_attempt or None,
    )


def _report_to_pb(report: Report, token: str | None) -> pb.AttemptReport:
    assignment, lease, claim_revision = report.started
    ended = report.ended
    message = pb.AttemptReport(
        job_id=assignment.job_id,
        fence=assignment.fence,
        outcome=wire.OUTCOME_TO_PB[ended.outcome],
        result=ended.result,
        lease=lease,
        claim_revision=claim_revision,
        attempt_token=token,
    )
    if ended.outcome is not Outcome.COMPLETED:
        message.MergeFrom(_more(ended))
    elif ended.large is not None:
        message.MergeFrom(_large(ended.large))
        message.result = ELSEWHERE
    return message


def _large(large: SavedResult | LostResult) -> pb.AttemptReport:
    if isinstance(large, SavedResult):
        told = job_pb2.ResultObject(size_bytes=large.size_bytes, sha256=bytes.fromhex(large.sha256))
        return pb.AttemptReport(result_object=told)
    return pb.AttemptReport(result_lost=job_pb2.ResultLost(size_bytes=large.size_bytes, reason=large.reason))


def _more(ended: Ended) -> pb.AttemptReport:
    """Return what there is to say of an attempt that did not complete."""
    error, park = ended.error, ended.park
    return pb.AttemptReport(
        error=job_pb2.JobError(type=error.type, message=error.message, traceback=error.traceback) if error else None,
        permanent=not ended.retryable,
        delay=wire.duration(ended.delay_s) if ended.delay_s else None,
        error_bases=error.bases if error else (),
        spends_budget=ended.spends_budget,
        park=pb.Park(
            children=park.children, checkpoint=park.checkpoint, trigger=wire.TRIGGER_TO_PB[Trigger(park.trigger)]
        )
        if park
        else None,
    )
