"""The remote link: claims by long poll, everything else by short calls, all of them outbound.

As the direct one, but that a coordinator speaks to etcd on this runner's behalf: it claims what was offered, and renews
a lease each time this runner asks for it. What is held is known by tokens. Trust counts from when a request was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial

import msgspec
import pydantic_core
import structlog

from tenure.model.clock import Clock
from tenure.model.dependencies import Trigger
from tenure.model.errors import NotFound, TenureError, Unavailable
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Grant
from tenure.v1 import runner_api as wire
from tenure.v1.transfer import Files
from tenure.worker.artifact import Artifact, Source
from tenure.worker.connection import Bodies
from tenure.worker.execute.call import (
    NO_LABELS,
    Assignment,
    Ended,
    ErrorReport,
    LostResult,
    SavedResult,
    StopCause,
)
from tenure.worker.link import Answer, LogAnswer, LogBatch, Report, Started, StopAttempt
from tenure.worker.remote.api import Api
from tenure.worker.remote.leases import RemoteLeases, RemoteSessions
from tenure.worker.upload import Plan, Uploader, Wanted, Watch
from tenure.worker.upstream import UpstreamJob, UpstreamPage

log = structlog.get_logger(__name__)

POLL_S = 20.0
POLL_MARGIN_S = 10.0
"""How long after its time a poll may be answered."""
ROOM_S = 2.0
"""How long a claim waits for a place. Coordinators know of a finished attempt before its runner has their answer."""
LOOK_S = 0.02
MAX_REPORT_BYTES = 4 * 1024 * 1024
"""Of a call that reports; one report alone may be larger. Far below what coordinators take, and little enough to arrive
in time over a thin line."""
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 5.0


class RemoteLink:
    """See ``worker.link.Link``. ``receive`` is the body of a task."""

    def __init__(
        self,
        api: Api,
        sessions: RemoteSessions,
        leases: RemoteLeases,
        keeper: LeaseKeeper,
        clock: Clock,
        *,
        room: Callable[[], int],
        stop: StopAttempt,
        touch: Callable[[], None],
        files: Files | None = None,
    ) -> None:
        self._uploader = Uploader(self, files or Files(), clock)
        self._api = api
        self._sessions = sessions
        self._leases = leases
        self._keeper = keeper
        self._clock = clock
        self._room = room
        self._stop = stop
        self._touch = touch
        self._ready: asyncio.Queue[list[Started]] = asyncio.Queue(maxsize=1_000)
        self._taking = 0
        """Batches of claims on their way to be attempts, or let go of."""
        self._starting = 0
        """Claims that have a place, and are not attempts that run yet."""
        self._held: dict[int, Started] = {}
        """Lease to the attempt that runs under it, until its report is answered."""
        self._tokens: dict[int, str] = {}
        """Fence to the token of its attempt."""
        self._reported: set[int] = set()
        """Leases whose report was sent: their claims go as soon as it is recorded."""
        self._draining = False
        self._moved = asyncio.Event()
        leases.on_stop = self._told_to_stop

    def bodies(self) -> Bodies:
        """Return the bodies of the link's tasks."""
        return {"receive": self.receive()}

    # -- from offers to attempts --

    async def receive(self) -> None:
        """Poll for claims, and start them."""
        pause_s = FIRST_PAUSE_S
        async with asyncio.TaskGroup() as group:
            while True:
                poll = wire.Poll(await self._sessions.token(), POLL_S)
                try:
                    polled, _ = await self._api.call(
                        "claim", poll, wire.Polled, timeout_s=POLL_S + POLL_MARGIN_S, once=True
                    )
                except TenureError as exc:
                    if isinstance(exc, NotFound):
                        # The lease may live although nobody is shown on it: only here does that come to light.
                        self._touch()
                    log.warning("poll_failed", error=exc.message, next_step=exc.hint)
                    await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
                    continue
                pause_s = FIRST_PAUSE_S
                for cancel in polled.cancels:
                    self._stop(cancel.job_id, int(cancel.fence), StopCause.CANCELED)
                for start in range(0, len(polled.claims), wire.MAX_CLAIMS):
                    self._taking += 1
                    group.create_task(self._take(polled.claims[start : start + wire.MAX_CLAIMS]))

    async def _take(self, claims: Sequence[wire.Claim]) -> None:
        left = [claim.claim for claim in claims]
        until = self._clock.monotonic() + ROOM_S
        try:
            # What fits begins at once: nobody renews a claim while it waits.
            while left and not self._draining and self._clock.monotonic() < until:
                fit = min(len(left), self._places())
                if not fit:
                    await self._clock.sleep(LOOK_S)
                    continue
                page, left = left[:fit], left[fit:]
                self._starting += fit
                try:
                    await self._start(page)
                finally:
                    self._starting -= fit
            await self._release(left)
        except TenureError as exc:
            log.warning("claims_not_started", claims=len(claims), error=exc.message)
            await self._release(left)
        finally:
            self._taking -= 1
            self._moved.set()

    def _places(self) -> int:
        return max(0, self._room() - self._starting)

    async def _start(self, claims: Sequence[str]) -> None:
        try:
            answer, sent = await self._api.call("start", wire.Start(tuple(claims)), wire.Started)
        except TenureError:
            # Unknown: whichever did start is found by the reaper once its claim is gone.
            await self._release(claims)
            raise
        started: list[Started] = []
        for attempt in answer.attempts:
            one = Started(_assignment(attempt), int(attempt.lease, 16), 0)
            self._held[one.lease] = one
            self._tokens[one.assignment.fence] = attempt.attempt_token
            self._leases.hold(one.lease, attempt.attempt_token, partial(self._show, one.assignment.fence))
            self._keeper.add(Grant(one.lease, attempt.ttl_s, sent.at), self._lease_lost)
            started.append(one)
        if started:
            self._starting += len(started)  # until they are seen to run
            await self._ready.put(started)

    def _show(self, fence: int, token: str) -> None:
        if fence in self._tokens:
            self._tokens[fence] = token

    async def _release(self, tokens: Sequence[str]) -> None:
        for start in range(0, len(tokens), wire.MAX_CLAIMS):
            page = tuple(tokens[start : start + wire.MAX_CLAIMS])
            try:
                await self._api.call("release", wire.Release(page), wire.Done, timeout_s=5.0)
            except TenureError as exc:
                log.info("claims_left_to_expire", claims=len(page), error=exc.message)

    async def attempts(self) -> AsyncIterator[Sequence[Started]]:
        """Yield attempts as they start."""
        while True:
            batch = await self._ready.get()
            self._starting -= len(batch)
            self._moved.set()
            yield batch

    async def drain(self) -> None:
        """Take no more; return when every claim under way was let go or has begun to run."""
        self._draining = True
        while self._taking or not self._ready.empty():
            self._moved.clear()
            await self._moved.wait()

    # -- trust --

    @property
    def claims(self) -> int:
        """How many leases carry a claim, as far as is known."""
        return len(self._held)

    def trusted_until(self, started: Started) -> float:
        """Return the instant until which the claim is trusted; the distant past once it is lost."""
        trust = self._keeper.trust(started.lease)
        return trust.until if trust is not None else float("-inf")

    def forsake(self, started: Started) -> None:
        """See ``Link``."""
        self._keeper.remove(started.lease)

    def _lease_lost(self, lease: int) -> None:
        self._end(lease, StopCause.LOST)

    def _told_to_stop(self, lease: int, stop: str) -> None:
        self._end(lease, StopCause.LOST if stop == "lost" else StopCause.RELEASED)

    def _end(self, lease: int, cause: StopCause) -> None:
        started = self._held.get(lease)
        if started is None or lease in self._reported:
            return
        if cause is StopCause.LOST:
            self._touch()
        log.warning("claim_taken_away", job=started.assignment.job_id, cause=cause.value)
        self._stop(started.assignment.job_id, started.assignment.fence, cause)

    async def close(self) -> bool:
        """Let go of what is held; return whether that was nothing."""
        tokens = [token for one in list(self._held.values()) if (token := self._drop(one)) is not None]
        if tokens:
            await self._release(tokens)
        return not tokens

    # -- reports --

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        """Report ends, once."""
        self._reported.update(report.started.lease for report in reports)
        written = [_report(self._token(report.started), report.ended) for report in reports]
        ends: list[wire.Finished] = []
        # Nothing is forgotten before the last page is answered: if that is not, all go again, and those that were
        # recorded are answered so.
        for page in _pages(written):
            finished, _ = await self._api.call("finish", wire.Finish(page), wire.FinishedAll)
            ends += finished.reports
        answers = []
        for report, one in zip(reports, ends, strict=True):
            if one.verdict == "invalid":
                answers.append(Answer(recorded=False, problem=one.message))
            elif one.verdict == "locked":
                answers.append(Answer(recorded=False, locked=True))
            else:
                answers.append(Answer(recorded=one.verdict != "lost"))
                self._drop(report.started)
        return answers

    async def abandon(self, started: Started) -> None:
        """Let go of the claim: the reaper ends the attempt as lost."""
        token = self._drop(started)
        if token is not None:
            await self._release([token])

    def _token(self, started: Started) -> str:
        token = self._tokens.get(started.assignment.fence)
        if token is None:
            raise Unavailable("this attempt was let go of")
        return token

    def _drop(self, started: Started) -> str | None:
        self._keeper.remove(started.lease)
        self._leases.drop(started.lease)
        self._held.pop(started.lease, None)
        self._reported.discard(started.lease)
        return self._tokens.pop(started.assignment.fence, None)

    async def progress(self, started: Started, fraction: float, message: str) -> None:
        """See ``Link``."""
        request = wire.Progress(self._token(started), fraction, message)
        await self._api.call("progress", request, wire.Done)

    async def save_checkpoint(self, started: Started, text: str) -> None:
        """See ``Link``."""
        request = wire.Checkpoint(self._token(started), msgspec.Raw(text.encode()))
        await self._api.call("checkpoint", request, wire.Done)

    async def submit_children(self, started: Started, jobs: Sequence[JobSpec]) -> list[str]:
        """See ``Link``."""
        request = wire.SubmitChildren(self._token(started), tuple(map(_child, jobs)))
        submitted, _ = await self._api.call("children", request, wire.SubmittedChildren, timeout_s=30.0)
        return list(submitted.ids)

    async def read_upstream(self, started: Started, after: str) -> UpstreamPage:
        """See ``Link``."""
        page, _ = await self._api.call("upstream", wire.ReadUpstream(self._token(started), after), wire.UpstreamPage)
        return UpstreamPage([_upstream(job) for job in page.jobs], page.next)

    async def append_logs(self, batches: Sequence[LogBatch]) -> list[LogAnswer]:
        """See ``Link``."""
        tokens = [self._tokens.get(batch.started.assignment.fence) for batch in batches]
        asked = [_log_batch(token, batch) for token, batch in zip(tokens, batches, strict=True) if token is not None]
        answers: Iterator[LogAnswer] = iter(())
        if asked:
            appended, _ = await self._api.call("logs", wire.AppendLogs(tuple(asked)), wire.AppendedAll)
            if len(appended.batches) != len(asked):
                raise Unavailable("the answer is to another question")
            answers = iter([_log_answer(one) for one in appended.batches])
        # An attempt without a token was let go of.
        return [LogAnswer(is_over=True) if token is None else next(answers) for token in tokens]

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, watch: Watch | None = None
    ) -> Artifact:
        """See ``Link``."""
        return await self._uploader.upload(started, name, source, content_type, watch=watch)

    async def create_upload(self, started: Started, wanted: Wanted) -> Plan:
        """See ``worker.upload.UploadCalls``."""
        request = wire.CreateUpload(
            self._token(started),
            wanted.name,
            wanted.size_bytes,
            wanted.sha256.hex(),
            wanted.content_type,
            wanted.upload,
        )
        told, _ = await self._api.call("upload", request, wire.Upload)
        return Plan(told.upload, self._api.absolute(told.url), told.headers, told.part_bytes, told.part_urls)

    async def complete_upload(self, started: Started, upload: str, tags: Sequence[str]) -> None:
        """See ``worker.upload.UploadCalls``."""
        request = wire.CompleteUpload(self._token(started), upload, tuple(tags))
        await self._api.call("uploaded", request, wire.Done, timeout_s=60.0)


def _assignment(attempt: wire.Attempt) -> Assignment:
    return Assignment(
        attempt.job_id,
        attempt.attempt,
        int(attempt.fence),
        attempt.namespace,
        attempt.kind,
        attempt.route,
        bytes(attempt.payload).decode(),
        _text(attempt.checkpoint),
        attempt.labels or NO_LABELS,
        attempt.timeout_s,
        attempt.parent_id,
        attempt.parked_attempt,
    )


def _report(token: str, ended: Ended) -> wire.Report:
    error, park = ended.error, ended.park
    return wire.Report(
        attempt_token=token,
        outcome=ended.outcome.value,  # type: ignore[arg-type]  # an attempt never reports that it is lost
        result=_raw(ended.result),
        error=wire.Error(error.type, error.message, error.traceback) if error else None,
        retryable=ended.retryable,
        error_bases=error.bases if error else (),
        delay_s=ended.delay_s,
        spends_budget=ended.spends_budget,
        park=wire.Park(park.children, _raw(park.checkpoint), Trigger(park.trigger).value) if park else None,
        result_object=_saved(ended),
        result_lost=_lost(ended),
    )


def _log_batch(token: str, batch: LogBatch) -> wire.LogBatch:
    return wire.LogBatch(
        token,
        batch.first_seq,
        tuple(
            wire.LogLine(
                line.message,
                line.at,
                line.level.word,
                msgspec.Raw(line.fields.encode()) if line.fields else msgspec.UNSET,
                line.logger,
                line.code,
            )
            for line in batch.lines
        ),
    )


def _log_answer(one: wire.Appended) -> LogAnswer:
    return LogAnswer(
        is_over=one.verdict == "lost" or one.is_full,
        is_again=one.verdict == "locked",
        problem=one.message if one.verdict == "invalid" else None,
    )


def _saved(ended: Ended) -> wire.ResultObject | None:
    large = ended.large
    return wire.ResultObject(large.size_bytes, large.sha256) if isinstance(large, SavedResult) else None


def _lost(ended: Ended) -> wire.ResultLost | None:
    large = ended.large
    return wire.ResultLost(large.reason, large.size_bytes) if isinstance(large, LostResult) else None


def _pages(reports: Iterable[wire.Report]) -> Iterator[tuple[wire.Report, ...]]:
    """Split reports into what a coordinator takes in a call."""
    page: list[wire.Report] = []
    size = 0
    for report in reports:
        weight = len(msgspec.json.encode(report))
        if page and (size + weight > MAX_REPORT_BYTES or len(page) == wire.MAX_CLAIMS):
            yield tuple(page)
            page, size = [], 0
        page.append(report)
        size += weight
    if page:
        yield tuple(page)


def _child(spec: JobSpec) -> msgspec.Raw:
    fields = spec.model_dump(mode="json", exclude_defaults=True, exclude={"payload", "namespace"})
    named = {name: msgspec.Raw(pydantic_core.to_json(value)) for name, value in fields.items()}
    named |= {
        "payload": msgspec.Raw(spec.payload.encode()),
        "namespace": msgspec.Raw(msgspec.json.encode(spec.namespace)),
    }
    return msgspec.Raw(msgspec.json.encode(named))


def _upstream(job: wire.Upstream) -> UpstreamJob:
    error = job.error
    return UpstreamJob(
        job.job_id,
        job.kind,
        job.key,
        JobState(job.state),
        _text(job.result),
        ErrorReport(error.type, error.message, error.traceback) if error else None,
        job.reason,
    )


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()


def _raw(text: str | None) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.UNSET if text is None else msgspec.Raw(text.encode())
