"""The calls of runners: each asks who calls and what its tokens say, then does what a worker would have done by itself.

The writes about attempts are those of ``WorkerService``, under the same fences; an attempt's token authorises its own
writes alone. Claims, leases and the inbox are ``coordinator.runners``' affair.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import structlog

from tenure.coordinator.access import caller, require
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.runner_tokens import AttemptToken, ClaimToken, RunnerToken, SessionToken, Signer, require_own
from tenure.coordinator.runners import Renewals, Runners, StandingClaim, WonClaim
from tenure.coordinator.uploads import Wanted
from tenure.model.access import Right
from tenure.model.dependencies import Trigger
from tenure.model.errors import FieldViolation, InvalidInput, OwnershipLost, PermissionDenied, Unavailable
from tenure.model.ids import parse_id
from tenure.model.jobs import validate_spec
from tenure.model.logs import LEVELS, Level
from tenure.model.routes import kind_error, name_error, route_error
from tenure.model.states import Outcome
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.port import Refused
from tenure.store.etcd.sessions import Sessions
from tenure.v1 import job_pb2, wire
from tenure.v1 import runner_api as api
from tenure.v1 import worker_service_pb2 as pb

log = structlog.get_logger(__name__)

ID_SUFFIX_BYTES = 4
MAX_NAME_CHARS = 63 - 1 - 2 * ID_SUFFIX_BYTES
VERDICTS = {
    pb.VERDICT_RECORDED: "recorded",
    pb.VERDICT_REPEATED: "repeated",
    pb.VERDICT_LOST: "lost",
    pb.VERDICT_INVALID: "invalid",
    pb.VERDICT_LOCKED: "locked",
}
_T = TypeVar("_T", bound=RunnerToken)


class RunnerService:
    """See ``rest.app.ENDPOINTS`` for which method serves which path."""

    def __init__(self, runners: Runners, sessions: Sessions, signer: Signer, workers: WorkerService) -> None:
        self._runners = runners
        self._sessions = sessions
        self._signer = signer
        self._workers = workers

    # -- session --

    async def open_session(self, request: api.OpenSession, gone: asyncio.Event) -> api.Session:
        """Register a runner, or change what it says of itself."""
        _require_valid(request.runner)
        for pool in request.runner.pools:
            require(Right.RUN, route=pool)
        before = self._read(request.session, SessionToken) if request.session else None
        runner = before.runner if before else _new_id(request.runner.name)
        value = _value(request.runner)
        if before is not None and await self._sessions.stands(runner, before.lease):
            try:
                await self._sessions.change(runner, value, before.lease, request.ttl_s)
                return self._session(runner, value, before.lease, request.ttl_s, is_new=False)
            except Refused as exc:
                log.info("session_not_changed", runner=runner, error=exc.message)  # it ended in between
        grant = await self._sessions.open(runner, value, request.ttl_s)
        log.info("runner_registered", runner=runner, pools=value.pools, caller=caller().name)
        return self._session(runner, value, grant.lease, grant.ttl_s, is_new=True)

    def _session(self, runner: str, value: WorkerValue, lease: int, ttl_s: float, *, is_new: bool) -> api.Session:
        token = SessionToken(caller().name, runner, lease, value.pools)
        return api.Session(self._signer.sign(token), runner, _hex(lease), ttl_s, is_new)

    async def close_session(self, request: api.CloseSession, gone: asyncio.Event) -> api.Done:
        """Forget a runner."""
        session = self._read(request.session, SessionToken)
        await self._sessions.end(session.lease)
        log.info("runner_gone", runner=session.runner)
        return api.Done()

    # -- from offers to attempts --

    async def poll(self, request: api.Poll, gone: asyncio.Event) -> api.Polled:
        """Wait for offers, and claim them."""
        session = self._read(request.session, SessionToken)
        taken = await self._runners.take(session.runner, session.lease, request.wait_s, gone)
        return api.Polled(
            tuple(self._claim(session, claim) for claim in taken.claims),
            tuple(api.Cancel(cancel.job, str(cancel.fence), cancel.reason) for cancel in taken.cancels),
        )

    def _claim(self, session: SessionToken, won: WonClaim) -> api.Claim:
        offer, lease, revision, ttl_s = won
        token = ClaimToken(
            session.caller, session.runner, lease, offer.job, offer.route, revision, ttl_s, offer.attempt, offer.slots
        )
        return api.Claim(
            self._signer.sign(token), offer.job, offer.namespace, offer.kind, offer.route, _hex(lease), ttl_s
        )

    async def start(self, request: api.Start, gone: asyncio.Event) -> api.Started:
        """Turn claims into attempts; their leases are renewed on the way."""
        claims = {text: self._read(text, ClaimToken) for text in request.claims}
        [runner] = _one_runner(claims.values())
        by_job = {claim.job: (text, claim) for text, claim in claims.items()}
        renewed = await self._runners.renew([claim.lease for claim in claims.values()], ())
        if len(renewed.ttls) < len(claims):
            raise Unavailable("etcd did not renew every lease; ask again with the same claims")
        living = [claim for claim in claims.values() if renewed.ttls[claim.lease] > 0]
        response = await self._workers.StartAttempts(
            pb.StartAttemptsRequest(worker=runner, claims=[_claimed_to_pb(claim) for claim in living]),
            None,  # type: ignore[arg-type]
        )
        started = [self._attempt(message, *by_job.pop(message.job_id), renewed.ttls) for message in response.attempts]
        await self._runners.revoke(claim.lease for _, claim in by_job.values())
        return api.Started(tuple(started))

    def _attempt(
        self, message: pb.StartedAttempt, text: str, claim: ClaimToken, ttls: Mapping[int, float]
    ) -> api.Attempt:
        token = AttemptToken(
            claim.caller, claim.runner, claim.lease, claim.job, message.route, claim.revision, message.fence
        )
        return api.Attempt(
            attempt_token=self._signer.sign(token),
            claim=text,
            job_id=message.job_id,
            attempt=message.attempt,
            fence=str(message.fence),
            namespace=message.namespace,
            kind=message.kind,
            route=message.route,
            lease=_hex(claim.lease),
            ttl_s=ttls[claim.lease],
            payload=msgspec.Raw(message.payload.encode()),
            checkpoint=_raw(message.checkpoint),
            labels=dict(message.labels),
            timeout_s=wire.seconds(message.timeout) if message.HasField("timeout") else None,
            parent_id=message.parent_id or None,
            parked_attempt=message.parked_attempt or None,
        )

    async def renew(self, request: api.Renew, gone: asyncio.Event) -> api.Renewals:
        """Keep leases alive. One that is not the caller's is lost to it, and costs the others nothing."""
        tokens = self._own(request.tokens)
        own = [token for token in tokens if token is not None]
        leases = [token.lease for token in own]
        if len(set(leases)) < len(leases):
            raise InvalidInput([FieldViolation("tokens", "must not name a lease twice")])
        claims = [
            StandingClaim(token.job, token.revision, token.lease)
            for token in own
            if not isinstance(token, SessionToken)
        ]
        renewed = await self._runners.renew(leases, claims)
        return api.Renewals(
            tuple(self._renewed(text, token, renewed) for text, token in zip(request.tokens, tokens, strict=True))
        )

    def _renewed(self, text: str, token: RunnerToken | None, renewed: Renewals) -> api.Renewed:
        if token is None:
            return api.Renewed(0.0, "lost")
        ttl_s, newer = renewed.ttls.get(token.lease), self._signer.newer(text, token)
        if isinstance(token, SessionToken):
            return api.Renewed(ttl_s, token=newer)
        return api.Renewed(
            ttl_s, "lost" if token.job in renewed.lost else "held" if token.job in renewed.held else "", newer
        )

    def _own(self, texts: Sequence[str]) -> list[RunnerToken | None]:
        """Read tokens; None for those that are not the caller's.

        Raises:
            PermissionDenied: none is.
        """
        tokens: list[RunnerToken | None] = []
        for text in texts:
            try:
                tokens.append(self._read_any(text))
            except PermissionDenied:
                if len(texts) == 1 or (len(tokens) == len(texts) - 1 and not any(tokens)):
                    raise
                tokens.append(None)
        return tokens

    async def release(self, request: api.Release, gone: asyncio.Event) -> api.Done:
        """Let go of claims."""
        tokens = [self._read_any(text) for text in request.tokens]
        if any(isinstance(token, SessionToken) for token in tokens):
            raise InvalidInput([FieldViolation("tokens", "a session is closed, not released")])
        await self._runners.revoke(token.lease for token in tokens)
        return api.Done()

    # -- writes about attempts --

    async def progress(self, request: api.Progress, gone: asyncio.Event) -> api.Done:
        """Keep an attempt's progress."""
        token = self._read(request.attempt_token, AttemptToken)
        report = pb.ProgressReport(
            job_id=token.job,
            fence=token.fence,
            fraction=request.fraction,
            message=request.message,
            attempt_token=request.attempt_token,
        )
        response = await self._workers.ReportProgress(
            pb.ReportProgressRequest(reports=[report]),
            None,  # type: ignore[arg-type]
        )
        _require_owned(response.verdicts[0], token)
        return api.Done()

    async def checkpoint(self, request: api.Checkpoint, gone: asyncio.Event) -> api.Done:
        """Keep a checkpoint."""
        token = self._read(request.attempt_token, AttemptToken)
        response = await self._workers.SaveCheckpoint(
            pb.SaveCheckpointRequest(
                job_id=token.job,
                fence=token.fence,
                checkpoint=_text(request.checkpoint),
                attempt_token=request.attempt_token,
            ),
            None,  # type: ignore[arg-type]
        )
        _require_owned(response.verdict, token)
        return api.Done()

    async def children(self, request: api.SubmitChildren, gone: asyncio.Event) -> api.SubmittedChildren:
        """Submit jobs on behalf of an attempt."""
        token = self._read(request.attempt_token, AttemptToken)
        jobs = [_child_to_pb(raw, f"jobs[{index}].") for index, raw in enumerate(request.jobs)]
        response = await self._workers.SubmitChildren(
            pb.SubmitChildrenRequest(
                job_id=token.job, fence=token.fence, jobs=jobs, attempt_token=request.attempt_token
            ),
            None,  # type: ignore[arg-type]
        )
        _require_owned(response.verdict, token)
        return api.SubmittedChildren(tuple(job.id for job in response.jobs))

    async def upstream(self, request: api.ReadUpstream, gone: asyncio.Event) -> api.UpstreamPage:
        """Tell what became of the jobs that this one waited for."""
        token = self._read(request.attempt_token, AttemptToken)
        response = await self._workers.ReadUpstream(
            pb.ReadUpstreamRequest(
                job_id=token.job,
                fence=token.fence,
                page_token=request.after,
                attempt_token=request.attempt_token,
                result_of=request.result_of,
            ),
            None,  # type: ignore[arg-type]
        )
        _require_owned(response.verdict, token)
        for job in response.jobs:  # a runner uses the address that it calls
            job.result_url = job.result_url.removeprefix(self._workers.base_url)
        return api.UpstreamPage(tuple(_upstream(job) for job in response.jobs), response.next_page_token)

    async def finish(self, request: api.Finish, gone: asyncio.Event) -> api.FinishedAll:
        """Record how attempts ended."""
        tokens = [self._read(report.attempt_token, AttemptToken) for report in request.reports]
        [runner] = _one_runner(tokens)
        response = await self._workers.FinishAttempts(
            pb.FinishAttemptsRequest(
                worker=runner,
                reports=[_report_to_pb(token, report) for token, report in zip(tokens, request.reports, strict=True)],
            ),
            None,  # type: ignore[arg-type]
        )
        ends = (pb.VERDICT_RECORDED, pb.VERDICT_REPEATED, pb.VERDICT_LOST)
        await self._runners.revoke(
            token.lease for token, message in zip(tokens, response.attempts, strict=True) if message.verdict in ends
        )
        return api.FinishedAll(tuple(_finished(message) for message in response.attempts))

    async def logs(self, request: api.AppendLogs, gone: asyncio.Event) -> api.AppendedAll:
        """Write to the logs of attempts; a token that is not right costs the other batches nothing."""
        response = await self._workers.AppendLogs(
            pb.AppendLogsRequest(
                batches=[_log_batch_to_pb(token, batch) for token, batch in self._with_tokens(request.batches)]
            ),
            None,  # type: ignore[arg-type]
        )
        return api.AppendedAll(
            tuple(
                api.Appended(VERDICTS[one.verdict], one.message, one.is_full)  # type: ignore[arg-type]
                for one in response.batches
            )
        )

    def _with_tokens(self, batches: Sequence[api.LogBatch]) -> list[tuple[AttemptToken | None, api.LogBatch]]:
        """Read the tokens of batches; None for those that are not the caller's.

        Raises:
            PermissionDenied: none is.
        """
        read: list[tuple[AttemptToken | None, api.LogBatch]] = []
        denied: PermissionDenied | None = None
        for batch in batches:
            try:
                read.append((self._read(batch.attempt_token, AttemptToken), batch))
            except PermissionDenied as exc:
                denied = exc
                read.append((None, batch))
        if denied is not None and not any(token for token, _ in read):
            raise denied
        return read

    async def upload(self, request: api.CreateUpload, gone: asyncio.Event) -> api.Upload:
        """Say where a file of an attempt goes. A URL that is a path is one of the address that was called."""
        token = self._read(request.attempt_token, AttemptToken)
        wanted = Wanted(request.name, request.size_bytes, _sha256(request.sha256), request.content_type, request.upload)
        begun = await self._workers.uploads.begin(parse_id(token.job, "attempt_token"), token.fence, wanted)
        plan = begun.plan
        return api.Upload(begun.upload, plan.url, dict(plan.headers), plan.part_bytes, tuple(plan.part_urls))

    async def uploaded(self, request: api.CompleteUpload, gone: asyncio.Event) -> api.Done:
        """Take it that a file was sent."""
        token = self._read(request.attempt_token, AttemptToken)
        await self._workers.uploads.end(
            parse_id(token.job, "attempt_token"), token.fence, request.upload, request.part_tags
        )
        return api.Done()

    # -- tokens --

    def _read(self, text: str, kind: type[_T]) -> _T:
        token = self._signer.read(text, kind)
        require_own(token, Right.RUN)
        return token

    def _read_any(self, text: str) -> RunnerToken:
        token = self._signer.read_any(text)
        require_own(token, Right.RUN)
        return token


def _new_id(name: str) -> str:
    """Return an id that nobody has: a runner may choose a name, but not take the place of another worker."""
    return f"{name[:MAX_NAME_CHARS].rstrip('-._')}-{secrets.token_hex(ID_SUFFIX_BYTES)}"


def _one_runner(tokens: Iterable[ClaimToken | AttemptToken]) -> list[str]:
    runners = {token.runner for token in tokens}
    if len(runners) > 1:
        raise InvalidInput([FieldViolation("", "the tokens are of more than one runner")])
    return list(runners)


def _require_owned(verdict: pb.Verdict, token: AttemptToken) -> None:
    if verdict == pb.VERDICT_LOST:
        raise OwnershipLost(f"job {token.job} is not executing under fence {token.fence}")


def _require_valid(runner: api.Runner) -> None:
    violations = []
    if problem := name_error(runner.name):
        violations.append(FieldViolation("runner.name", problem))
    for field, words, problem_of in (("pools", runner.pools, route_error), ("kinds", runner.kinds, kind_error)):
        for index, word in enumerate(words):
            if problem := problem_of(word):
                violations.append(FieldViolation(f"runner.{field}[{index}]", problem))
    if violations:
        raise InvalidInput(violations)


def _value(runner: api.Runner) -> WorkerValue:
    return WorkerValue(
        pools=runner.pools,
        kinds=tuple(sorted(set(runner.kinds))),
        capacity=runner.capacity,
        labels=runner.labels,
        mode="remote",
        host=runner.host,
        version=runner.version,
        draining=runner.draining,
        started_at=datetime.now(UTC).isoformat(),
    )


def _claimed_to_pb(claim: ClaimToken) -> pb.ClaimedJob:
    return pb.ClaimedJob(
        job_id=claim.job,
        attempt_seen=claim.attempt_seen,
        lease=claim.lease,
        claim_revision=claim.revision,
        slots=claim.slots,
    )


def _report_to_pb(token: AttemptToken, report: api.Report) -> pb.AttemptReport:
    error, park = report.error, report.park
    return pb.AttemptReport(
        job_id=token.job,
        fence=token.fence,
        attempt_token=report.attempt_token,
        outcome=wire.OUTCOME_TO_PB[Outcome(report.outcome)],
        result=_text(report.result),
        error=job_pb2.JobError(type=error.type, message=error.message, traceback=error.traceback) if error else None,
        permanent=not report.retryable,
        delay=wire.duration(report.delay_s) if report.delay_s else None,
        lease=token.lease,
        claim_revision=token.revision,
        error_bases=report.error_bases,
        spends_budget=report.spends_budget,
        park=pb.Park(
            children=park.children,
            checkpoint=_text(park.checkpoint),
            trigger=wire.TRIGGER_TO_PB[Trigger(park.trigger)],
        )
        if park
        else None,
        result_object=_result_object(report.result_object) if report.result_object else None,
        result_lost=job_pb2.ResultLost(reason=report.result_lost.reason, size_bytes=report.result_lost.size_bytes)
        if report.result_lost
        else None,
    )


def _result_object(told: api.ResultObject) -> job_pb2.ResultObject:
    return job_pb2.ResultObject(size_bytes=told.size_bytes, sha256=_sha256(told.sha256))


def _sha256(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise InvalidInput([FieldViolation("sha256", "must be 64 hexadecimal digits")]) from exc


def _child_to_pb(raw: msgspec.Raw, path: str) -> job_pb2.JobSpec:
    """Read a job as JSON; one that names no namespace is put into its parent's."""
    try:
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as exc:
        raise InvalidInput([FieldViolation(path.rstrip("."), str(exc))]) from exc
    values: dict[str, Any] = {name: msgspec.json.decode(value) for name, value in fields.items() if name != "payload"}
    if "payload" in fields:
        values["payload"] = _text(fields["payload"])
    message = wire.spec_to_pb(validate_spec(values, path=path))
    if "namespace" not in values:
        message.namespace = ""
    return message


def _log_batch_to_pb(token: AttemptToken | None, batch: api.LogBatch) -> pb.LogBatch:
    """Convert a batch; one whose token is not the caller's names no attempt, and is answered as invalid."""
    if token is None:
        return pb.LogBatch(attempt_token=batch.attempt_token, first_seq=batch.first_seq)
    return pb.LogBatch(
        job_id=token.job,
        fence=token.fence,
        first_seq=batch.first_seq,
        lines=[
            job_pb2.LogLine(
                at=wire.timestamp(_utc(line.at)),
                level=int(LEVELS.get(line.level, Level.INFO)),  # type: ignore[arg-type]  # the numbers are the same
                message=line.message,
                fields=_text(line.fields),
                logger=line.logger,
                code=line.code,
            )
            for line in batch.lines
        ],
        attempt_token=batch.attempt_token,
    )


def _utc(at: datetime | None) -> datetime | None:
    """Return a time with a zone: UTC where none was told."""
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)


def _finished(message: pb.FinishedAttempt) -> api.Finished:
    state = wire.STATE_FROM_PB.get(message.state)
    return api.Finished(VERDICTS[message.verdict], message.message, state.value if state else "")  # type: ignore[arg-type]


def _upstream(job: pb.UpstreamJob) -> api.Upstream:
    error = job.error
    return api.Upstream(
        job.job_id,
        job.kind,
        job.key,
        wire.STATE_FROM_PB[job.state].value,
        _raw(job.result),
        api.Error(error.type, error.message, error.traceback) if job.HasField("error") else None,
        job.reason,
        api.ResultObject(job.result_object.size_bytes, job.result_object.sha256.hex())
        if job.HasField("result_object")
        else None,
        api.ResultLost(job.result_lost.reason, job.result_lost.size_bytes) if job.HasField("result_lost") else None,
        job.result_url,
    )


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str:
    """Return JSON as text; empty if there is none."""
    return "" if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()


def _raw(text: str) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.Raw(text.encode()) if text else msgspec.UNSET


def _hex(lease: int) -> str:
    return f"{lease:016x}"


def all_lost(answer: Sequence[api.Finished]) -> bool:
    """Say whether every report was refused because its attempt is not the runner's any more."""
    return all(one.verdict == "lost" for one in answer)
