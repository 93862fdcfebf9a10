"""The asyncio client of the job service. ``client.sync_client`` is generated from this module's class.

Owns the idempotency of what it sends (each submit carries a key, so a repeated one is answered with the first job)
and the resumption of waits and watches over reconnects. Invariant: every await is bounded. Deliberately does not
validate what the service validates: there is one rule set, and it answers with the field named.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from tenure.client import convert
from tenure.client.drawing import draw, refuse_unknown_format
from tenure.client.errors import RETRYABLE
from tenure.client.kinds import KindSettings, kind_from_wire, kind_to_wire
from tenure.client.link import TLS, TOKEN_VARIABLE, Link, addresses_of, backoff_s
from tenure.client.records import (
    Attempt,
    CanceledJobs,
    Cluster,
    Explanation,
    HeldClaim,
    Job,
    Limit,
    Namespace,
    NewJob,
    Pause,
    Pool,
    RetriedJobs,
    Retry,
    SubmittedJobs,
    Worker,
)
from tenure.client.schedules import (
    NewSchedule,
    Schedule,
    Tick,
    TickJob,
    backfilled_from_wire,
    schedule_from_wire,
    schedule_to_wire,
    tick_from_wire,
)
from tenure.client.stream import Outbox, StreamedJob
from tenure.client.workflows import (
    Workflow,
    WorkflowChange,
    change_from_wire,
    workflow_from_wire,
)
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import DeadlineExceeded, FieldViolation, InvalidInput
from tenure.model.limits import covering
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.states import JobState
from tenure.model.unique import OnDuplicate
from tenure.v1 import cluster_service_pb2 as cluster_pb
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import kind_service_pb2 as kind_pb
from tenure.v1 import limit_service_pb2 as limit_pb
from tenure.v1 import namespace_service_pb2 as namespace_pb
from tenure.v1 import pool_service_pb2 as pool_pb
from tenure.v1 import schedule_service_pb2 as schedule_pb
from tenure.v1 import workflow_service_pb2 as workflow_pb

WAIT_STEP_S = 20.0
"""How long one WaitJob may hang before it is asked afresh: bounds the harm of a connection that died silently."""
STREAM_STEP_S = 60.0
"""The same for one WatchJob stream."""
GRACE_S = 5.0
"""For the answer to a WaitJob whose step has passed, before the coordinator counts as hung."""
ANSWER_S = 1.0
"""The same at the end of the caller's own timeout."""
MAX_WAITS = 100
"""WaitJob calls that ``wait_many`` has under way at once."""
REMOVAL_LOOK_S = 0.5
"""Between passes of ``remove_pool`` that wait for executing jobs to stop."""
WORKFLOWS_PAGE = 50
MEMBERS_PAGE = 1_000
BATCH_JOBS_PER_S = 200
"""What a slow service may need for a large batch: adds to the call's timeout."""


class AsyncClient:
    """A client of the coordinators, for asyncio. Use it as ``async with`` or call ``close``; safe for many tasks."""

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        tls: TLS | None = None,
        timeout_s: float = 30.0,
        outage_s: float = 300.0,
    ) -> None:
        """Prepare a client; nothing is connected before the first call.

        ``address``: HOST:PORT, several comma-separated or listed: the next is asked when one does not answer.
        None reads TENURE_COORDINATOR, else 127.0.0.1:7070. ``token``: None reads TENURE_TOKEN.
        ``timeout_s``: the most that one call may take, its retries included. ``outage_s``: how long ``wait`` and
        ``watch`` bear with coordinators that answered before and do not now.

        Raises:
            InvalidInput: an address that is not HOST:PORT.
            ConfigurationError: a TLS file that cannot be read.
        """
        token = token if token is not None else os.environ.get(TOKEN_VARIABLE)
        self._link = Link(addresses_of(address), token=token, tls=tls)
        self._timeout_s = timeout_s
        self._outage_s = outage_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._link.close()

    async def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        route: str = DEFAULT_ROUTE,
        priority: int | None = None,
        activate_at: datetime | None = None,
        delay_s: float | None = None,
        retry: Retry | None = None,
        ttl_s: float | None = None,
        timeout_s: float | None = None,
        start_within_s: float | None = None,
        start_by: datetime | None = None,
        job_timeout_s: float | None = None,
        max_crashes: int | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        limits: Sequence[str] = (),
        requires: Mapping[str, str] | None = None,
        depends_on: Sequence[str] = (),
        trigger: Trigger | str = Trigger.ALL_COMPLETED,
        upstream_failure: UpstreamFailure | str = UpstreamFailure.CANCEL,
        unique_key: str | None = None,
        on_duplicate: OnDuplicate | str | None = None,
        idempotency_ttl_s: float | None = None,
    ) -> Job:
        """Submit one job and return it as written; it is durable when this returns. Options are those of ``NewJob``.

        ``timeout_s`` bounds one attempt of the job, not this call. Repeated over failures without doubling the job.
        ``Job.created`` is False when ``idempotency_key`` or ``unique_key`` answered with an earlier job.

        Raises:
            InvalidInput: with every bad field. Conflict: the key came with another request before, or an unfinished job
            has the ``unique_key``.
            Unavailable, DeadlineExceeded: no answer; with an ``idempotency_key`` the same call may be made again.
        """
        job = NewJob(
            kind=kind,
            payload=payload,
            namespace=namespace,
            route=route,
            priority=priority,
            activate_at=activate_at,
            delay_s=delay_s,
            retry=retry,
            ttl_s=ttl_s,
            timeout_s=timeout_s,
            start_within_s=start_within_s,
            start_by=start_by,
            job_timeout_s=job_timeout_s,
            max_crashes=max_crashes,
            labels=labels or {},
            limits=limits,
            requires=requires or {},
            depends_on=depends_on,
            trigger=trigger,
            upstream_failure=upstream_failure,
            unique_key=unique_key,
            on_duplicate=on_duplicate,
            idempotency_ttl_s=idempotency_ttl_s,
        )
        spec = convert.spec_to_wire(job, idempotency_key=idempotency_key or _new_key())
        answer: pb.SubmitJobResponse = await self._link.unary(
            lambda to: to.jobs.SubmitJob, pb.SubmitJobRequest(job=spec), timeout_s=self._timeout_s
        )
        # A repeated call may find its own job; one under another key is somebody else's, met by its unique key.
        own = idempotency_key is None and answer.job.idempotency_key == spec.idempotency_key
        return convert.job_from_wire(answer.job, created=answer.created or own)

    async def submit_many(self, jobs: Sequence[NewJob], *, workflow: str | None = None) -> SubmittedJobs:
        """Submit a batch, whole or not at all, and return its members in order.

        Members may depend on each other: give one a ``ref`` and name it in another's ``depends_on``. Such a batch is a
        workflow, and so is one that is given a name by ``workflow``; the answer has its ``workflow_id``.

        Raises:
            InvalidInput: with every bad field (``jobs[3].route``), unknown references and cycles.
            Conflict, Unavailable, DeadlineExceeded: as for ``submit``.
        """
        if not jobs:
            return SubmittedJobs()
        specs = [
            convert.spec_to_wire(job, idempotency_key=job.idempotency_key or _new_key(), path=f"jobs[{i}].")
            for i, job in enumerate(jobs)
        ]
        answer: pb.SubmitJobsResponse = await self._link.unary(
            lambda to: to.jobs.SubmitJobs,
            pb.SubmitJobsRequest(jobs=specs, workflow_name=workflow or ""),
            timeout_s=self._timeout_s + len(specs) / BATCH_JOBS_PER_S,
        )
        return SubmittedJobs(
            (
                convert.submitted_from_wire(made, own_key=job.idempotency_key is None)
                for made, job in zip(answer.jobs, jobs, strict=True)
            ),
            answer.workflow_id or None,
        )

    async def submit_stream(self, jobs: Iterable[NewJob]) -> AsyncIterator[StreamedJob]:
        """Submit any number of jobs, each for itself, and yield what came of them, in order.

        Jobs are taken from ``jobs`` as the service keeps up, in a thread: it may take its time. One that is refused
        fails alone: its ``error`` says why. A broken connection is made again, and no job written twice. They cannot
        name each other by ``ref``.

        Raises:
            Unavailable: no coordinator answered for ``outage_s``; what was yielded is written. What ``jobs`` raises.
        """
        loop = asyncio.get_running_loop()
        outbox = Outbox(jobs, _new_key)
        failures, silent_since = 0, loop.time()
        while not outbox.is_done:
            stream = self._link.stream(lambda to: to.jobs.StreamSubmitJobs, outbox.requests(), timeout_s=STREAM_STEP_S)
            try:
                async for message in stream:
                    failures, silent_since = 0, loop.time()
                    for one in outbox.settle(message.jobs):
                        yield one
                for one in outbox.settle(()):
                    yield one
            except RETRYABLE:
                if outbox.awaits_answers:
                    self._bear(loop.time() - silent_since)
                else:  # the source of the jobs is slow: nobody was asked for anything
                    silent_since = loop.time()
                failures += 1
                await asyncio.sleep(backoff_s(failures, len(self._link.addresses)))
            finally:
                await stream.aclose()  # type: ignore[attr-defined]
        if outbox.problem is not None:
            raise outbox.problem

    async def get(self, job_id: str) -> Job:
        """Return a job with its payload and result.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        answer: pb.GetJobResponse = await self._link.unary(
            lambda to: to.jobs.GetJob, pb.GetJobRequest(id=job_id), timeout_s=self._timeout_s
        )
        return convert.job_from_wire(answer.job)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return the job once it is terminal, whatever the outcome; waits over reconnects.

        ``timeout_s`` None waits without end.

        Raises:
            DeadlineExceeded: it was not terminal in time. NotFound: there is no such job.
            Unavailable: no coordinator answered for ``outage_s``.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left_s = WAIT_STEP_S if deadline is None else max(0.0, deadline - loop.time())
            step_s = min(WAIT_STEP_S, left_s)
            patience_s = self._patience_s() if deadline is None else min(self._patience_s(), left_s + ANSWER_S)
            try:
                answer: pb.WaitJobResponse = await self._link.unary(
                    lambda to: to.jobs.WaitJob,
                    pb.WaitJobRequest(id=job_id, timeout=convert.duration(step_s, "timeout_s")),
                    timeout_s=patience_s,
                    attempt_timeout_s=step_s + GRACE_S,
                )
            except RETRYABLE as exc:
                if deadline is not None and loop.time() >= deadline:
                    raise DeadlineExceeded(f"job {job_id}: no answer within {timeout_s:g} s ({exc})") from exc
                raise
            job = convert.job_from_wire(answer.job)
            if job.is_terminal:
                return job
            if deadline is not None and loop.time() >= deadline:
                raise DeadlineExceeded(
                    f"job {job_id} is still {job.state} after {timeout_s:g} s", hint=f"tenure jobs wait {job_id}"
                )

    async def wait_many(self, job_ids: Iterable[str], timeout_s: float | None = None) -> builtins.list[Job]:
        """Return the jobs, in the order given, once all are terminal. Timeout and errors as for ``wait``."""
        gate = asyncio.Semaphore(MAX_WAITS)
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s

        async def one(job_id: str) -> Job:
            async with gate:
                return await self.wait(job_id, None if deadline is None else max(0.0, deadline - loop.time()))

        tasks: builtins.list[asyncio.Task[Job]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(one(job_id)) for job_id in job_ids)
        except ExceptionGroup as failures:
            # Callers handle the errors of ``wait``; the first one stands for the group.
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """Yield the job now and after each change of state, attempt or progress, up to its terminal state.

        Resumes after a lost connection; what did not change meanwhile is not repeated, and changes that came and
        went meanwhile are seen by their sum.

        Raises:
            NotFound: there is no such job. Unavailable: no coordinator answered for ``outage_s``.
        """
        loop = asyncio.get_running_loop()
        last: Job | None = None
        failures, silent_since = 0, loop.time()
        while True:
            stream = self._link.stream(
                lambda to: to.jobs.WatchJob, pb.WatchJobRequest(id=job_id), timeout_s=STREAM_STEP_S
            )
            heard = False
            try:
                async for message in stream:
                    heard, failures, silent_since = True, 0, loop.time()
                    job = convert.job_from_wire(message.job)
                    if job != last:
                        yield job
                    last = job
                    if job.is_terminal:
                        return
            except DeadlineExceeded:
                # Its own time was up: asked afresh at once if it said something, else it is an outage.
                if heard:
                    continue
                self._bear(loop.time() - silent_since)
            except RETRYABLE:
                self._bear(loop.time() - silent_since)
            finally:
                await stream.aclose()  # type: ignore[attr-defined]
            # Ended early, without an error too (a coordinator that stops): elsewhere, after a pause.
            failures += 1
            await asyncio.sleep(backoff_s(failures, len(self._link.addresses)))

    async def watch_many(self, job_ids: Iterable[str]) -> AsyncIterator[Job]:
        """Yield the jobs now and after each change, as ``watch``, until all of them are terminal. At most 1,000.

        Raises:
            InvalidInput: too many, or not ids. NotFound, Unavailable: as for ``watch``.
        """
        loop = asyncio.get_running_loop()
        left = builtins.list(dict.fromkeys(job_ids))
        last: dict[str, Job] = {}
        failures, silent_since = 0, loop.time()
        while left:
            stream = self._link.stream(
                lambda to: to.jobs.WatchJobs, pb.WatchJobsRequest(ids=left), timeout_s=STREAM_STEP_S
            )
            heard = False
            try:
                async for message in stream:
                    heard, failures, silent_since = True, 0, loop.time()
                    for job in map(convert.job_from_wire, message.jobs):
                        if job != last.get(job.id):
                            yield job
                        last[job.id] = job
            except DeadlineExceeded:
                if heard:
                    continue
                self._bear(loop.time() - silent_since)
            except RETRYABLE:
                self._bear(loop.time() - silent_since)
            finally:
                await stream.aclose()  # type: ignore[attr-defined]
                left = [id for id in left if id not in last or not last[id].is_terminal]
            if left:
                failures += 1
                await asyncio.sleep(backoff_s(failures, len(self._link.addresses)))

    async def list(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        route_prefix: str | None = None,
        states: Iterable[JobState | str] = (),
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        workflow_id: str | None = None,
        deleted: bool = False,
        limit: int | None = None,
        page_size: int = 200,
    ) -> AsyncIterator[Job]:
        """Yield the jobs that match every filter, newest first, without payloads and results.

        Pages are fetched as they are needed. ``route_prefix`` matches whole segments; ``limit`` None means all;
        ``deleted`` lets those through that were deleted.

        Raises:
            InvalidInput: a filter is malformed.
        """
        if limit is not None and limit < 1:
            raise InvalidInput([FieldViolation("limit", "must be at least 1")])
        wanted = convert.filter_to_wire(
            namespace=namespace,
            kind=kind,
            route_prefix=route_prefix,
            states=states,
            labels=labels,
            parent_id=parent_id,
            created_after=created_after,
            created_before=created_before,
            workflow_id=workflow_id,
        )
        token, left = "", limit
        while True:
            size = page_size if left is None else min(page_size, left)
            answer: pb.ListJobsResponse = await self._link.unary(
                lambda to: to.jobs.ListJobs,
                pb.ListJobsRequest(filter=wanted, page_size=size, page_token=token, deleted=deleted),
                timeout_s=self._timeout_s,
            )
            for job in answer.jobs:
                yield convert.job_from_wire(job)
            token = answer.next_page_token
            left = None if left is None else left - len(answer.jobs)
            if not token or (left is not None and left <= 0):
                return

    async def delete(self, job_id: str) -> Job:
        """Hide a job that has ended from listings, and return it; it can still be read by its id.

        Raises:
            NotFound: there is no such job. WrongState: it has not ended; cancel it first.
        """
        answer: pb.DeleteJobResponse = await self._link.unary(
            lambda to: to.jobs.DeleteJob, pb.DeleteJobRequest(id=job_id), timeout_s=self._timeout_s
        )
        return convert.job_from_wire(answer.job)

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        """Cancel a job and return it: canceled at once, or executing with ``cancel_requested`` until it has stopped.

        One that has ended stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.CancelJobResponse = await self._link.unary(
            lambda to: to.jobs.CancelJob, pb.CancelJobRequest(id=job_id, reason=reason), timeout_s=self._timeout_s
        )
        return convert.job_from_wire(answer.job)

    async def cancel_many(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        route_prefix: str | None = None,
        states: Iterable[JobState | str] = (),
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        workflow_id: str | None = None,
        all: bool = False,
        preview: bool = False,
        reason: str = "",
    ) -> CanceledJobs:
        """Cancel every job that matches and has not ended; executing ones are asked to stop.

        Without any filter ``all`` must be set. ``preview`` only counts. Jobs submitted meanwhile are left alone.

        Raises:
            InvalidInput: a filter is malformed, or empty. Unavailable: what was done is done; ask again.
        """
        wanted = convert.filter_to_wire(
            namespace=namespace,
            kind=kind,
            route_prefix=route_prefix,
            states=states,
            labels=labels,
            parent_id=parent_id,
            created_after=created_after,
            created_before=created_before,
            workflow_id=workflow_id,
        )
        token, done = "", CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        while True:
            answer: pb.CancelJobsResponse = await self._link.unary(
                lambda to: to.jobs.CancelJobs,
                pb.CancelJobsRequest(filter=wanted, all=all, preview=preview, reason=reason, page_token=token),
                timeout_s=self._timeout_s,
            )
            done = convert.canceled_from_wire(answer, done)
            token = answer.next_page_token
            if not token:
                return done

    async def retry(self, job_id: str) -> Job:
        """Make another go at a failed or canceled job and return it: a new job, a copy of what was asked for.

        A job has one retry: repeated, the call returns it, with ``created`` False.

        Raises:
            NotFound: there is no such job. WrongState: it can not be retried; the message says why.
        """
        answer: pb.RetryJobResponse = await self._link.unary(
            lambda to: to.jobs.RetryJob, pb.RetryJobRequest(id=job_id), timeout_s=self._timeout_s
        )
        return convert.job_from_wire(answer.job, created=answer.created)

    async def retry_many(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        route_prefix: str | None = None,
        states: Iterable[JobState | str] = (),
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        workflow_id: str | None = None,
        all: bool = False,
        preview: bool = False,
    ) -> RetriedJobs:
        """Retry every failed job that matches and was not retried before; canceled ones only if ``states`` says so.

        Without any filter ``all`` must be set. ``preview`` only counts.

        Raises:
            InvalidInput: a filter is malformed, or empty. Unavailable: what was done is done; ask again.
        """
        wanted = convert.filter_to_wire(
            namespace=namespace,
            kind=kind,
            route_prefix=route_prefix,
            states=states,
            labels=labels,
            parent_id=parent_id,
            created_after=created_after,
            created_before=created_before,
            workflow_id=workflow_id,
        )
        token, done = "", RetriedJobs(retried=0, skipped=0, ids=())
        while True:
            answer: pb.RetryJobsResponse = await self._link.unary(
                lambda to: to.jobs.RetryJobs,
                pb.RetryJobsRequest(filter=wanted, all=all, preview=preview, page_token=token),
                timeout_s=self._timeout_s,
            )
            done = convert.retried_from_wire(answer, done)
            token = answer.next_page_token
            if not token:
                return done

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """Return the attempts at a job, oldest first, the executing one last.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.ListAttemptsResponse = await self._link.unary(
            lambda to: to.jobs.ListAttempts, pb.ListAttemptsRequest(job_id=job_id), timeout_s=self._timeout_s
        )
        return [convert.attempt_from_wire(attempt) for attempt in answer.attempts]

    async def workers(self) -> builtins.list[Worker]:
        """Return the workers that are registered now."""
        answer: cluster_pb.ListWorkersResponse = await self._link.unary(
            lambda to: to.cluster.ListWorkers, cluster_pb.ListWorkersRequest(), timeout_s=self._timeout_s
        )
        return [convert.worker_from_wire(worker) for worker in answer.workers]

    async def claims(self) -> builtins.list[HeldClaim]:
        """Return the claims that stand now."""
        answer: cluster_pb.ListClaimsResponse = await self._link.unary(
            lambda to: to.cluster.ListClaims, cluster_pb.ListClaimsRequest(), timeout_s=self._timeout_s
        )
        return [convert.held_claim_from_wire(claim) for claim in answer.claims]

    async def revoke_claim(self, job_id: str) -> bool:
        """Take a job away from its worker; it restarts elsewhere, not counted as a crash. False: nobody held it."""
        answer: cluster_pb.RevokeClaimResponse = await self._link.unary(
            lambda to: to.cluster.RevokeClaim, cluster_pb.RevokeClaimRequest(job_id=job_id), timeout_s=self._timeout_s
        )
        return answer.revoked

    async def why(self, job_id: str) -> Explanation:
        """Say in words why a job does not run, or what it does.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.ExplainJobResponse = await self._link.unary(
            lambda to: to.jobs.ExplainJob, pb.ExplainJobRequest(id=job_id), timeout_s=self._timeout_s
        )
        return convert.explanation_from_wire(answer)

    async def put_limit(
        self,
        name: str,
        *,
        concurrent: int | None = None,
        rate: int | None = None,
        interval_s: float | None = None,
        burst: int | None = None,
    ) -> Limit:
        """Define a limit, or change it; it acts at once on what starts from then on.

        ``name`` is what jobs carry, or ``prefix*`` for a family in which each name is a limit of its own.
        ``concurrent`` bounds jobs at a time, ``rate`` starts per ``interval_s`` (default 1 s), ``burst`` of them at
        once.

        Raises:
            InvalidInput: with every bad field.
        """
        limit = convert.limit_to_wire(name, concurrent, rate, interval_s, burst)
        answer: limit_pb.PutLimitResponse = await self._link.unary(
            lambda to: to.limits.PutLimit, limit_pb.PutLimitRequest(limit=limit), timeout_s=self._timeout_s
        )
        return convert.limit_from_wire(answer.limit, {})

    async def limit(self, name: str) -> Limit:
        """Return one limit, with the names under it of which slots are held.

        Raises:
            NotFound: it is not defined.
        """
        answer: limit_pb.GetLimitResponse = await self._link.unary(
            lambda to: to.limits.GetLimit, limit_pb.GetLimitRequest(name=name), timeout_s=self._timeout_s
        )
        return convert.limit_from_wire(answer.limit, {use.name: use.held for use in answer.uses})

    async def limits(self) -> builtins.list[Limit]:
        """Return all limits that are defined, by name, each with what is held under its own name or family."""
        answer: limit_pb.ListLimitsResponse = await self._link.unary(
            lambda to: to.limits.ListLimits, limit_pb.ListLimitsRequest(), timeout_s=self._timeout_s
        )
        names = {limit.name: convert.limit_from_wire(limit, {}) for limit in answer.limits}
        held: dict[str, dict[str, int]] = {name: {} for name in names}
        for use in answer.uses:
            limit = covering(use.name, names)
            if limit is not None:
                held[limit.name][use.name] = use.held
        return [replace(limit, held=held[limit.name]) for limit in names.values()]

    async def delete_limit(self, name: str) -> bool:
        """Forget a limit: jobs that carry its name are limited no more. False: it was not defined."""
        answer: limit_pb.DeleteLimitResponse = await self._link.unary(
            lambda to: to.limits.DeleteLimit, limit_pb.DeleteLimitRequest(name=name), timeout_s=self._timeout_s
        )
        return answer.deleted

    async def put_kind(self, settings: KindSettings) -> KindSettings:
        """Set all of a kind's settings in a namespace, or in all: what its jobs get where they ask for nothing.

        They hold for what is submitted from a second later on.

        Raises:
            InvalidInput: with every bad field.
        """
        answer: kind_pb.PutKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.PutKindSettings,
            kind_pb.PutKindSettingsRequest(settings=kind_to_wire(settings)),
            timeout_s=self._timeout_s,
        )
        return kind_from_wire(answer.settings)

    async def kind(self, kind: str, *, namespace: str | None = None) -> KindSettings:
        """Return the settings of a kind as they were put for a namespace; None: for all.

        Raises:
            NotFound: nothing is set.
        """
        answer: kind_pb.GetKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.GetKindSettings,
            kind_pb.GetKindSettingsRequest(kind=kind, namespace=namespace or ""),
            timeout_s=self._timeout_s,
        )
        return kind_from_wire(answer.settings)

    async def kinds(self) -> builtins.list[KindSettings]:
        """Return the settings of all kinds for which anything was set."""
        answer: kind_pb.ListKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.ListKindSettings, kind_pb.ListKindSettingsRequest(), timeout_s=self._timeout_s
        )
        return [kind_from_wire(settings) for settings in answer.settings]

    async def delete_kind(self, kind: str, *, namespace: str | None = None) -> bool:
        """Forget the settings of a kind for a namespace, or those for all; False: nothing was set."""
        answer: kind_pb.DeleteKindSettingsResponse = await self._link.unary(
            lambda to: to.kinds.DeleteKindSettings,
            kind_pb.DeleteKindSettingsRequest(kind=kind, namespace=namespace or ""),
            timeout_s=self._timeout_s,
        )
        return answer.deleted

    async def pools(self) -> builtins.list[Pool]:
        """Return every pool that is or was served, with what waits and executes below it."""
        answer: pool_pb.ListPoolsResponse = await self._link.unary(
            lambda to: to.pools.ListPools, pool_pb.ListPoolsRequest(), timeout_s=self._timeout_s
        )
        return [convert.pool_from_wire(pool) for pool in answer.pools]

    async def pause(
        self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None, reason: str = ""
    ) -> int:
        """Let nothing of a pool (or route prefix), kind or namespace start; return how many of its jobs go on.

        What was offered before may still start within a second or so.

        Raises:
            InvalidInput: not just one of the three is given, or it is malformed.
            WrongState: somebody resumed it at the same moment.
        """
        subject = convert.pause_subject(pool, kind, namespace)
        answer: pool_pb.PauseResponse = await self._link.unary(
            lambda to: to.pools.Pause,
            pool_pb.PauseRequest(subject=subject, reason=reason),
            timeout_s=self._timeout_s,
        )
        return answer.executing

    async def resume(self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None) -> bool:
        """Let it start again; False: it was not paused.

        Raises:
            InvalidInput: as ``pause``.
        """
        subject = convert.pause_subject(pool, kind, namespace)
        answer: pool_pb.ResumeResponse = await self._link.unary(
            lambda to: to.pools.Resume, pool_pb.ResumeRequest(subject=subject), timeout_s=self._timeout_s
        )
        return answer.resumed

    async def pauses(self) -> builtins.list[Pause]:
        """Return what is paused, with the jobs of each that still execute."""
        answer: pool_pb.ListPausesResponse = await self._link.unary(
            lambda to: to.pools.ListPauses, pool_pb.ListPausesRequest(), timeout_s=self._timeout_s
        )
        return [convert.pause_from_wire(pause) for pause in answer.pauses]

    async def remove_pool(
        self, pool: str, *, reason: str = "", preview: bool = False, timeout_s: float | None = None
    ) -> CanceledJobs:
        """Cancel every job below a route prefix, wait until executing ones have stopped, and forget its pools.

        ``preview`` only counts.

        Raises:
            InvalidInput: it is no route. WrongState: a worker serves it.
            DeadlineExceeded: some still execute after ``timeout_s``; what was done is done, call it again.
        """
        token, done = "", CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        began = time.monotonic()
        while True:
            answer: pool_pb.RemovePoolResponse = await self._link.unary(
                lambda to: to.pools.RemovePool,
                pool_pb.RemovePoolRequest(pool=pool, reason=reason, preview=preview, page_token=token),
                timeout_s=self._timeout_s,
            )
            done = CanceledJobs(
                canceled=done.canceled + answer.canceled,
                asked=max(done.asked, answer.asked),  # the same ones, asked again
                dependants=done.dependants + answer.dependants,
                ids=(),
            )
            token = answer.next_page_token
            if token:
                continue
            if preview or answer.removed:
                return done
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise DeadlineExceeded(
                    f"{answer.left} jobs below {pool} have not ended yet", hint="remove it again: it goes on"
                )
            await asyncio.sleep(REMOVAL_LOOK_S)

    async def namespaces(self) -> builtins.list[Namespace]:
        """Return the namespaces for which anything was set."""
        answer: namespace_pb.ListNamespacesResponse = await self._link.unary(
            lambda to: to.namespaces.ListNamespaces, namespace_pb.ListNamespacesRequest(), timeout_s=self._timeout_s
        )
        return [convert.namespace_from_wire(one) for one in answer.namespaces]

    async def update_namespace(
        self, name: str, *, weight: float | None = None, ageing_s: float | None = None, backlog: int | None = None
    ) -> Namespace:
        """Set what is given of a namespace's settings, and return them. 0 turns ageing off, lifts the backlog's bound.

        Raises:
            InvalidInput: with every bad field.
        """
        ageing = convert.duration(ageing_s, "namespace.ageing_s")
        weight, backlog = (
            convert.number(weight, "namespace.weight"),
            convert.whole(backlog, "namespace.backlog", bits=64),
        )
        try:
            asked = namespace_pb.Namespace(name=name, weight=weight, ageing=ageing, backlog=backlog)
        except (TypeError, ValueError) as exc:
            raise InvalidInput([FieldViolation("namespace", str(exc))]) from exc
        answer: namespace_pb.UpdateNamespaceResponse = await self._link.unary(
            lambda to: to.namespaces.UpdateNamespace,
            namespace_pb.UpdateNamespaceRequest(namespace=asked),
            timeout_s=self._timeout_s,
        )
        return convert.namespace_from_wire(answer.namespace)

    async def cluster(self) -> Cluster:
        """Return who coordinates, who leads, and the versions of the stores."""
        answer: cluster_pb.GetClusterResponse = await self._link.unary(
            lambda to: to.cluster.GetCluster, cluster_pb.GetClusterRequest(), timeout_s=self._timeout_s
        )
        return convert.cluster_from_wire(answer)

    async def create_schedule(self, schedule: NewSchedule) -> Schedule:
        """Create a schedule and return it; it ticks from now on. The same once more answers with what is there.

        Raises:
            InvalidInput: with every bad field (``schedule.cron``). Conflict: the name is another schedule's.
        """
        answer: schedule_pb.CreateScheduleResponse = await self._link.unary(
            lambda to: to.schedules.CreateSchedule,
            schedule_pb.CreateScheduleRequest(schedule=schedule_to_wire(schedule)),
            timeout_s=self._timeout_s,
        )
        return schedule_from_wire(answer.schedule)

    async def get_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Return a schedule by its name or id.

        Raises:
            NotFound: there is none.
        """
        answer: schedule_pb.GetScheduleResponse = await self._link.unary(
            lambda to: to.schedules.GetSchedule,
            schedule_pb.GetScheduleRequest(namespace=namespace, schedule=schedule),
            timeout_s=self._timeout_s,
        )
        return schedule_from_wire(answer.schedule)

    async def schedules(self, *, namespace: str | None = None, page_size: int = 200) -> AsyncIterator[Schedule]:
        """Yield the schedules of a namespace, or of all, by namespace and name."""
        token = ""
        while True:
            answer: schedule_pb.ListSchedulesResponse = await self._link.unary(
                lambda to: to.schedules.ListSchedules,
                schedule_pb.ListSchedulesRequest(namespace=namespace or "", page_size=page_size, page_token=token),
                timeout_s=self._timeout_s,
            )
            for schedule in answer.schedules:
                yield schedule_from_wire(schedule)
            token = answer.next_page_token
            if not token:
                return

    async def update_schedule(self, schedule: NewSchedule, *, revision: int = 0) -> Schedule:
        """Replace what a schedule is, but for its name, its namespace and whether it is paused; return it.

        ``revision`` is that of the schedule from which the change was made; 0 replaces whatever is there.

        Raises:
            InvalidInput: as for ``create_schedule``. WrongState: it is at another revision. NotFound: there is none.
        """
        answer: schedule_pb.UpdateScheduleResponse = await self._link.unary(
            lambda to: to.schedules.UpdateSchedule,
            schedule_pb.UpdateScheduleRequest(schedule=schedule_to_wire(schedule), revision=revision),
            timeout_s=self._timeout_s,
        )
        return schedule_from_wire(answer.schedule)

    async def delete_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Forget a schedule; the jobs that it made go on.

        Raises:
            NotFound: there is none.
        """
        await self._link.unary(
            lambda to: to.schedules.DeleteSchedule,
            schedule_pb.DeleteScheduleRequest(namespace=namespace, schedule=schedule),
            timeout_s=self._timeout_s,
        )

    async def pause_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick no more until it is resumed, and return it."""
        answer: schedule_pb.PauseScheduleResponse = await self._link.unary(
            lambda to: to.schedules.PauseSchedule,
            schedule_pb.PauseScheduleRequest(namespace=namespace, schedule=schedule),
            timeout_s=self._timeout_s,
        )
        return schedule_from_wire(answer.schedule)

    async def resume_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick again, and return it. What it did not tick meanwhile is not made up for."""
        answer: schedule_pb.ResumeScheduleResponse = await self._link.unary(
            lambda to: to.schedules.ResumeSchedule,
            schedule_pb.ResumeScheduleRequest(namespace=namespace, schedule=schedule),
            timeout_s=self._timeout_s,
        )
        return schedule_from_wire(answer.schedule)

    async def trigger_schedule(
        self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE, idempotency_key: str | None = None
    ) -> TickJob:
        """Make a job of a schedule now, whatever its rule, its overlap or a pause say; returns which."""
        answer: schedule_pb.TriggerScheduleResponse = await self._link.unary(
            lambda to: to.schedules.TriggerSchedule,
            schedule_pb.TriggerScheduleRequest(
                namespace=namespace, schedule=schedule, idempotency_key=idempotency_key or _new_key()
            ),
            timeout_s=self._timeout_s,
        )
        return TickJob(None, answer.job_id, answer.created or idempotency_key is None)

    async def backfill_schedule(
        self, schedule: str, start: datetime, until: datetime, *, namespace: str = DEFAULT_NAMESPACE
    ) -> builtins.list[TickJob]:
        """Make the jobs of the past ticks in ``[start, until)`` that have none, and return the job of each.

        Raises:
            InvalidInput: the range holds too many ticks, or ends after now.
        """
        request = schedule_pb.BackfillScheduleRequest(
            namespace=namespace, schedule=schedule, until=convert.timestamp(until, "until")
        )
        if (first := convert.timestamp(start, "from")) is not None:
            getattr(request, "from").CopyFrom(first)
        answer: schedule_pb.BackfillScheduleResponse = await self._link.unary(
            lambda to: to.schedules.BackfillSchedule, request, timeout_s=self._timeout_s
        )
        return [backfilled_from_wire(job) for job in answer.jobs]

    async def preview_schedule(
        self,
        schedule: str | NewSchedule,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        count: int = 10,
        after: datetime | None = None,
    ) -> builtins.list[Tick]:
        """Return the next ticks of a schedule: a stored one by name or id, or one that is not stored."""
        answer: schedule_pb.PreviewScheduleResponse = await self._link.unary(
            lambda to: to.schedules.PreviewSchedule,
            schedule_pb.PreviewScheduleRequest(
                namespace=namespace,
                schedule=schedule if isinstance(schedule, str) else "",
                spec=None if isinstance(schedule, str) else schedule_to_wire(schedule, path="spec."),
                count=count,
                after=convert.timestamp(after, "after"),
            ),
            timeout_s=self._timeout_s,
        )
        return [tick_from_wire(tick) for tick in answer.ticks]

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow: its state, and how many of its members are in which.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        answer: workflow_pb.GetWorkflowResponse = await self._link.unary(
            lambda to: to.workflows.GetWorkflow,
            workflow_pb.GetWorkflowRequest(id=workflow_id),
            timeout_s=self._timeout_s,
        )
        return workflow_from_wire(answer.workflow)

    async def list_workflows(
        self, *, namespace: str | None = None, name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Workflow]:
        """Yield the workflows that match every filter, newest first; ``limit`` None means all."""
        if limit is not None and limit < 1:
            raise InvalidInput([FieldViolation("limit", "must be at least 1")])
        token, left = "", limit
        while True:
            answer: workflow_pb.ListWorkflowsResponse = await self._link.unary(
                lambda to: to.workflows.ListWorkflows,
                workflow_pb.ListWorkflowsRequest(
                    namespace=namespace or "",
                    name=name or "",
                    page_size=WORKFLOWS_PAGE if left is None else min(WORKFLOWS_PAGE, left),
                    page_token=token,
                ),
                timeout_s=self._timeout_s,
            )
            for workflow in answer.workflows:
                yield workflow_from_wire(workflow)
            token = answer.next_page_token
            left = None if left is None else left - len(answer.workflows)
            if not token or (left is not None and left <= 0):
                return

    async def workflow_jobs(self, workflow_id: str) -> AsyncIterator[Job]:
        """Yield the members of a workflow, oldest first, with what they depend on, without payloads and results.

        Raises:
            NotFound: there is no such workflow.
        """
        token = ""
        while True:
            answer: workflow_pb.ListWorkflowJobsResponse = await self._link.unary(
                lambda to: to.workflows.ListWorkflowJobs,
                workflow_pb.ListWorkflowJobsRequest(id=workflow_id, page_size=MEMBERS_PAGE, page_token=token),
                timeout_s=self._timeout_s,
            )
            for job in answer.jobs:
                yield convert.job_from_wire(job)
            token = answer.next_page_token
            if not token:
                return

    async def watch_workflow(self, workflow_id: str) -> AsyncIterator[WorkflowChange]:
        """Yield the workflow now and as its members change, until all have ended.

        Changes are gathered for a second or so. Resumes after a lost connection: members that ended meanwhile are told
        of, those that were told of shortly before it perhaps again.

        Raises:
            NotFound: there is no such workflow. Unavailable: no coordinator answered for ``outage_s``.
        """
        loop = asyncio.get_running_loop()
        token, is_over = "", False
        failures, silent_since = 0, loop.time()
        while True:
            stream = self._link.stream(
                lambda to: to.workflows.WatchWorkflow,
                workflow_pb.WatchWorkflowRequest(id=workflow_id, resume_token=token),
                timeout_s=STREAM_STEP_S,
            )
            heard = False
            try:
                async for message in stream:
                    heard, failures, silent_since = True, 0, loop.time()
                    token = message.resume_token
                    change = change_from_wire(message)
                    is_over = change.workflow.is_over
                    yield change
                if is_over:
                    return
            except DeadlineExceeded:
                # Its own time was up: asked afresh at once if it said something, else it is an outage.
                if heard:
                    continue
                self._bear(loop.time() - silent_since)
            except RETRYABLE:
                self._bear(loop.time() - silent_since)
            finally:
                await stream.aclose()  # type: ignore[attr-defined]
            failures += 1
            await asyncio.sleep(backoff_s(failures, len(self._link.addresses)))

    async def cancel_workflow(
        self, workflow_id: str, reason: str = "", *, grace_s: float | None = None, preview: bool = False
    ) -> CanceledJobs:
        """Cancel every member of a workflow that has not ended; executing ones are asked to stop.

        ``grace_s`` is how long their workers have to, before the claims are taken away; None: as the coordinators are
        set. Attempts submit no children into the workflow from then on. ``preview`` only counts.

        Raises:
            NotFound: there is no such workflow. Unavailable: what was done is done; ask again.
        """
        token, done = "", CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        while True:
            answer: workflow_pb.CancelWorkflowResponse = await self._link.unary(
                lambda to: to.workflows.CancelWorkflow,
                workflow_pb.CancelWorkflowRequest(
                    id=workflow_id,
                    reason=reason,
                    grace=convert.duration(grace_s, "grace_s"),
                    preview=preview,
                    page_token=token,
                ),
                timeout_s=self._timeout_s,
            )
            done = convert.canceled_from_wire(answer, done)
            token = answer.next_page_token
            if not token:
                return done

    async def draw_workflow(self, workflow_id: str, format: str = "mermaid") -> str:
        """Return a picture of a workflow as text: ``text``, ``mermaid``, ``dot`` or ``svg`` (``client.drawing``).

        Raises:
            NotFound: there is no such workflow. InvalidInput: another format.
        """
        refuse_unknown_format(format)
        return draw([job async for job in self.workflow_jobs(workflow_id)], format)

    def _bear(self, outage_s: float) -> None:
        """Re-raise the error being handled once an outage has lasted too long."""
        if outage_s > self._patience_s():
            raise

    def _patience_s(self) -> float:
        return self._outage_s if self._link.has_answered else self._timeout_s


def _new_key() -> str:
    return f"auto-{uuid.uuid4().hex}"
