"""The blocking client. DO NOT EDIT: scripts/generate_sync_client.py makes it from ``AsyncClient``.

Each method hands the one of the same name there to the event loop of ``client.portal`` and waits.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tenure.client.async_client import AsyncClient
from tenure.client.counts import JobCounts
from tenure.client.kinds import KindSettings
from tenure.client.link import TLS
from tenure.client.overview import Overview
from tenure.client.portal import Portal
from tenure.client.records import (
    Artifact,
    Attempt,
    AuditEntry,
    AuditPage,
    Caller,
    CanceledJobs,
    Cluster,
    ClusterPicture,
    Explanation,
    HeldClaim,
    Job,
    JobClaim,
    JobPage,
    Limit,
    LogLine,
    Namespace,
    NewJob,
    Pause,
    Pool,
    RetriedJobs,
    Retry,
    StoreStep,
    SubmittedJobs,
    Worker,
)
from tenure.client.retention import ArchiveFile, ExpiredFiles, ExpiredJobs, LegalHold, RetentionPolicy
from tenure.client.schedules import NewSchedule, Schedule, Tick, TickJob
from tenure.client.stream import StreamedJob
from tenure.client.tokens import CreatedToken, Token
from tenure.client.workflows import Workflow, WorkflowChange
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.states import JobState
from tenure.model.unique import OnDuplicate


class Client:
    """A blocking client of the coordinators. Use it as ``with`` or call ``close``; safe for many threads.

    Make one in each process: a fork does not take it along.

    ::

        with Client() as client:
            job = client.submit("noop", {"n": 1})
            job = client.wait(job.id, timeout_s=60)
            print(job.state)  # completed

    Ids are texts, durations seconds (``_s``), times ``datetime`` with a time zone. A request that gets no answer is
    sent again, to the next coordinator, for as long as ``timeout_s`` lets it; nothing is done twice for it. Beside what
    each call says, any may raise these, each a ``TenureError`` that may have a ``hint``:

    - ``Unavailable``, ``DeadlineExceeded``: no coordinator answered in time.
    - ``BoundExceeded``: the service is out of room, or too many requests wait. Later it may go.
    - ``Unauthenticated``: no token was shown, or it is not valid; ``PermissionDenied``: it is not for this.
    """

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
        None reads TENURE_COORDINATOR, else 127.0.0.1:7070. ``token``: None reads TENURE_TOKEN, or
        the file that TENURE_TOKEN_FILE names, again whenever it has changed. ``tls``: None reads TENURE_TLS_CA and what
        belongs to it, else speaks without TLS. TENURE_OBJECT_STORE_CA names further authorities, for downloads.
        ``timeout_s``: the most that one call may take, its retries included. ``outage_s``: how long ``wait`` and
        ``watch`` bear with coordinators that answered before and do not now.

        Raises:
            InvalidInput: an address that is not HOST:PORT.
            ConfigurationError: a TLS file, or that of the token, that cannot be read, or TLS settings that do not go
                together.
        """
        self._client = AsyncClient(address, token=token, tls=tls, timeout_s=timeout_s, outage_s=outage_s)
        self._portal = Portal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._portal.close(self._client.close)

    def submit(
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
            has the ``unique_key``. BoundExceeded: its namespace has as many unfinished jobs as it may.
            Unavailable, DeadlineExceeded: no answer; with an ``idempotency_key`` the same call may be made again.
        """
        return self._portal.call(
            self._client.submit(
                kind,
                payload,
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
                idempotency_key=idempotency_key,
                labels=labels,
                limits=limits,
                requires=requires,
                depends_on=depends_on,
                trigger=trigger,
                upstream_failure=upstream_failure,
                unique_key=unique_key,
                on_duplicate=on_duplicate,
                idempotency_ttl_s=idempotency_ttl_s,
            )
        )

    def submit_many(self, jobs: Sequence[NewJob], *, workflow: str | None = None) -> SubmittedJobs:
        """Submit a batch of at most 10,000, whole or not at all, and return its members in order.

        Members may depend on each other: give one a ``ref`` and name it in another's ``depends_on``. Such a batch is a
        workflow, and so is one that is given a name by ``workflow``; the answer has its ``workflow_id``.

        Raises:
            InvalidInput: with every bad field (``jobs[3].route``), unknown references and cycles.
            Conflict, BoundExceeded, Unavailable, DeadlineExceeded: as for ``submit``.
        """
        return self._portal.call(self._client.submit_many(jobs, workflow=workflow))

    def submit_stream(self, jobs: Iterable[NewJob]) -> Iterator[StreamedJob]:
        """Submit any number of jobs, each for itself, and yield what came of them, in order.

        Jobs are taken from ``jobs`` as the service keeps up, in a thread: it may take its time. One that is refused
        fails alone: its ``error`` says why, InvalidInput, Conflict or BoundExceeded as for ``submit``. A broken
        connection is made again, and no job written twice. They cannot name each other by ``ref``.

        Raises:
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room. Of both:
            what was yielded is written; with keys of their own all may be submitted again.
            What ``jobs`` raises, once what it gave before is answered.
        """
        return self._portal.iterate(self._client.submit_stream(jobs))

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return the job once it is terminal, whatever the outcome; waits over reconnects.

        ``timeout_s`` None waits without end. To stop waiting changes nothing of the job.

        Raises:
            DeadlineExceeded: it was not terminal in time. NotFound: there is no such job. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        return self._portal.call(self._client.wait(job_id, timeout_s))

    def wait_many(
        self, job_ids: Iterable[str], timeout_s: float | None = None, *, on_ended: Callable[[Job], None] | None = None
    ) -> builtins.list[Job]:
        """Return the jobs, in the order given, once all are terminal. Timeout and errors as for ``wait``.

        ``on_ended`` is told of each as it ends, in the thread of the client's event loop; it must not block nor raise.
        """
        return self._portal.call(self._client.wait_many(job_ids, timeout_s, on_ended=on_ended))

    def watch(self, job_id: str) -> Iterator[Job]:
        """Yield the job now and after each change of state, attempt or progress, up to its terminal state.

        Resumes after a lost connection; what did not change meanwhile is not repeated, and changes that came and
        went meanwhile are seen by their sum.

        Raises:
            NotFound: there is no such job. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        return self._portal.iterate(self._client.watch(job_id))

    def watch_many(self, job_ids: Iterable[str]) -> Iterator[Job]:
        """Yield the jobs now and after each change, as ``watch``, until all of them are terminal. At most 1,000.

        Raises:
            InvalidInput: too many, or not ids. NotFound, Unavailable, BoundExceeded: as for ``watch``.
        """
        return self._portal.iterate(self._client.watch_many(job_ids))

    def get(self, job_id: str) -> Job:
        """Return a job with its payload and result.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        return self._portal.call(self._client.get(job_id))

    def list(
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
        include_deleted: bool = False,
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        limit: int | None = None,
        page_size: int = 200,
    ) -> Iterator[Job]:
        """Yield the jobs that match every filter, newest first, without payloads and results.

        Pages of ``page_size`` (at most 1,000) are fetched as they are needed, each of which looks through a bounded
        number of jobs: what matches rarely takes many. ``route_prefix`` matches whole segments; ``limit`` None means
        all; ``include_deleted`` lets those through that were deleted; ``finished_after`` and ``finished_before`` only
        those that ended from the one time on and before the other.

        Raises:
            InvalidInput: a filter is malformed, such as a time without a zone.
        """
        return self._portal.iterate(
            self._client.list(
                namespace=namespace,
                kind=kind,
                route_prefix=route_prefix,
                states=states,
                labels=labels,
                parent_id=parent_id,
                created_after=created_after,
                created_before=created_before,
                workflow_id=workflow_id,
                include_deleted=include_deleted,
                finished_after=finished_after,
                finished_before=finished_before,
                limit=limit,
                page_size=page_size,
            )
        )

    def list_page(
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
        include_deleted: bool = False,
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        page_size: int = 50,
        page_token: str | None = None,
    ) -> JobPage:
        """Return one page of ``list``, newest first: bounded work, whatever the filter.

        It may be short of ``page_size``, or empty, and still not be the last one: then more was looked through than a
        page may. Go on with the same filters and its ``next_page_token``.

        Raises:
            InvalidInput: a filter or the token is malformed.
        """
        return self._portal.call(
            self._client.list_page(
                namespace=namespace,
                kind=kind,
                route_prefix=route_prefix,
                states=states,
                labels=labels,
                parent_id=parent_id,
                created_after=created_after,
                created_before=created_before,
                workflow_id=workflow_id,
                include_deleted=include_deleted,
                finished_after=finished_after,
                finished_before=finished_before,
                page_size=page_size,
                page_token=page_token,
            )
        )

    def count(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        states: Iterable[JobState | str] = (),
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        by: Iterable[str] = (),
    ) -> JobCounts:
        """Count jobs that have ended, by whole days (UTC) of their end; from counters, as of a minute or two ago.

        ``by`` may name day, namespace, kind and state: one number for each of them. ``finished_after`` and
        ``finished_before`` are midnights of UTC. Those that were deleted count, those that retention removed do not.

        Raises:
            InvalidInput: what is not counted, such as a state that is not final. BoundExceeded: these are more than
                10,000 numbers.
        """
        return self._portal.call(
            self._client.count(
                namespace=namespace,
                kind=kind,
                states=states,
                finished_after=finished_after,
                finished_before=finished_before,
                by=by,
            )
        )

    def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """Return the attempts at a job, oldest first, the executing one last.

        Raises:
            NotFound: there is no such job.
        """
        return self._portal.call(self._client.attempts(job_id))

    def claim_of(self, job_id: str) -> JobClaim:
        """Return who holds a job at this moment, and how long the lease of its claim has left.

        Raises:
            NotFound: there is no such job.
        """
        return self._portal.call(self._client.claim_of(job_id))

    def why(self, job_id: str) -> Explanation:
        """Say in words why a job does not run, or what it does.

        Raises:
            NotFound: there is no such job.
        """
        return self._portal.call(self._client.why(job_id))

    def cancel(self, job_id: str, reason: str = "") -> Job:
        """Cancel a job and return it: canceled at once, or executing with ``cancel_requested`` until it has stopped.

        One that has ended stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        return self._portal.call(self._client.cancel(job_id, reason))

    def cancel_many(
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
        progress: Callable[[int], None] | None = None,
    ) -> CanceledJobs:
        """Cancel every job that matches and has not ended; executing ones are asked to stop.

        Without any filter ``all`` must be set. ``preview`` only counts. Jobs submitted meanwhile are left alone.

        ``progress`` is told how many are done, after each page.

        Raises:
            InvalidInput: a filter is malformed, or empty. Unavailable: what was done is done; ask again.
        """
        return self._portal.call(
            self._client.cancel_many(
                namespace=namespace,
                kind=kind,
                route_prefix=route_prefix,
                states=states,
                labels=labels,
                parent_id=parent_id,
                created_after=created_after,
                created_before=created_before,
                workflow_id=workflow_id,
                all=all,
                preview=preview,
                reason=reason,
                progress=progress,
            )
        )

    def retry(self, job_id: str) -> Job:
        """Make another go at a failed or canceled job and return it: a new job, a copy of what was asked for.

        A job has one retry: repeated, the call returns it, with ``created`` False.

        Raises:
            NotFound: there is no such job. WrongState: it can not be retried; the message says why.
        """
        return self._portal.call(self._client.retry(job_id))

    def retry_many(
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
        progress: Callable[[int], None] | None = None,
    ) -> RetriedJobs:
        """Retry every failed job that matches and was not retried before; canceled ones only if ``states`` says so.

        Without any filter ``all`` must be set. ``preview`` only counts.

        ``progress`` is told how many are done, after each page.

        Raises:
            InvalidInput: a filter is malformed, or empty. Unavailable: what was done is done; ask again.
        """
        return self._portal.call(
            self._client.retry_many(
                namespace=namespace,
                kind=kind,
                route_prefix=route_prefix,
                states=states,
                labels=labels,
                parent_id=parent_id,
                created_after=created_after,
                created_before=created_before,
                workflow_id=workflow_id,
                all=all,
                preview=preview,
                progress=progress,
            )
        )

    def delete(self, job_id: str) -> Job:
        """Hide a job that has ended from listings, and return it; it can still be read by its id.

        Raises:
            NotFound: there is no such job. WrongState: it has not ended; cancel it first.
        """
        return self._portal.call(self._client.delete(job_id))

    def result(self, job: Job | str) -> Any:
        """Return the result of a job that has completed, parsed, wherever it is kept.

        ``job`` is an id, or the job as it was answered: then a result that came with it is not asked for again.

        Raises:
            WrongState: it has not completed. NotFound: there is no such job, or its result could not be kept.
        """
        return self._portal.call(self._client.result(job))

    def artifacts(self, job_id: str) -> builtins.list[Artifact]:
        """Return the files that attempts of a job have saved, by attempt and name; a large result is one of them.

        Raises:
            NotFound: there is no such job.
        """
        return self._portal.call(self._client.artifacts(job_id))

    def download(self, job_id: str, name: str | None = None, path: str | Path = ".", *, attempt: int = 0) -> Path:
        """Fetch a file of a job and return where it is: ``path``, or under its name in that folder.

        It is there only when it is whole and right. ``name`` None means the result; ``attempt`` 0 the last attempt that
        has saved it.

        Raises:
            NotFound: there is no such job or file. InvalidInput: it cannot be written there.
            WrongState: the coordinators have no object store. Unavailable: it could not be read.
        """
        return self._portal.call(self._client.download(job_id, name, path, attempt=attempt))

    def download_url(self, job_id: str, name: str | None = None, *, attempt: int = 0) -> str:
        """Return where a file of a job is read by GET, without credentials, for some minutes. As for ``download``.

        Raises:
            NotFound: there is no such job or file. WrongState: the coordinators have no object store.
        """
        return self._portal.call(self._client.download_url(job_id, name, attempt=attempt))

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow: its state, and how many of its members are in which.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        return self._portal.call(self._client.get_workflow(workflow_id))

    def list_workflows(
        self, *, namespace: str | None = None, name: str | None = None, limit: int | None = None
    ) -> Iterator[Workflow]:
        """Yield the workflows that match every filter, newest first; ``limit`` None means all.

        Raises:
            InvalidInput: ``limit`` is below 1.
        """
        return self._portal.iterate(self._client.list_workflows(namespace=namespace, name=name, limit=limit))

    def workflow_jobs(self, workflow_id: str, *, page_size: int = 1000) -> Iterator[Job]:
        """Yield the members of a workflow, oldest first, with what they depend on, without payloads and results.

        Pages of ``page_size`` (at most 1,000) are fetched as they are needed.

        Raises:
            NotFound: there is no such workflow.
        """
        return self._portal.iterate(self._client.workflow_jobs(workflow_id, page_size=page_size))

    def watch_workflow(self, workflow_id: str) -> Iterator[WorkflowChange]:
        """Yield the workflow now and as its members change, until all have ended.

        Changes are gathered for a second or so. Resumes after a lost connection: members that ended meanwhile are told
        of, those that were told of shortly before it perhaps again.

        Raises:
            NotFound: there is no such workflow. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        return self._portal.iterate(self._client.watch_workflow(workflow_id))

    def cancel_workflow(
        self, workflow_id: str, reason: str = "", *, grace_s: float | None = None, preview: bool = False
    ) -> CanceledJobs:
        """Cancel every member of a workflow that has not ended; executing ones are asked to stop.

        ``grace_s`` is how long their workers have to, before the claims are taken away; None: as the coordinators are
        set. Attempts submit no children into the workflow from then on. ``preview`` only counts.

        Raises:
            NotFound: there is no such workflow. Unavailable: what was done is done; ask again.
        """
        return self._portal.call(self._client.cancel_workflow(workflow_id, reason, grace_s=grace_s, preview=preview))

    def draw_workflow(self, workflow_id: str, format: str = "mermaid") -> str:
        """Return a picture of a workflow as text: ``text``, ``mermaid``, ``dot`` or ``svg`` (``client.drawing``).

        Raises:
            NotFound: there is no such workflow. InvalidInput: another format.
        """
        return self._portal.call(self._client.draw_workflow(workflow_id, format))

    def create_schedule(self, schedule: NewSchedule) -> Schedule:
        """Create a schedule and return it; it ticks from now on. The same once more answers with what is there.

        Raises:
            InvalidInput: with every bad field (``schedule.cron``). Conflict: the name is another schedule's.
            BoundExceeded: the namespace has as many as it may.
        """
        return self._portal.call(self._client.create_schedule(schedule))

    def get_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Return a schedule by its name or id.

        Raises:
            NotFound: there is none.
        """
        return self._portal.call(self._client.get_schedule(schedule, namespace=namespace))

    def schedules(self, *, namespace: str | None = None, page_size: int = 200) -> Iterator[Schedule]:
        """Yield the schedules of a namespace, or of all, by namespace and name; pages hold at most 1,000."""
        return self._portal.iterate(self._client.schedules(namespace=namespace, page_size=page_size))

    def update_schedule(self, schedule: NewSchedule, *, revision: int = 0) -> Schedule:
        """Replace what a schedule is, but for its name, its namespace and whether it is paused; return it.

        ``revision`` is that of the schedule from which the change was made; 0 replaces whatever is there.

        Raises:
            InvalidInput: as for ``create_schedule``. WrongState: it is at another revision. NotFound: there is none.
        """
        return self._portal.call(self._client.update_schedule(schedule, revision=revision))

    def delete_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Forget a schedule; the jobs that it made go on.

        Raises:
            NotFound: there is none.
        """
        return self._portal.call(self._client.delete_schedule(schedule, namespace=namespace))

    def pause_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick no more until it is resumed, and return it; jobs that it made go on.

        Raises:
            NotFound: there is none.
        """
        return self._portal.call(self._client.pause_schedule(schedule, namespace=namespace))

    def resume_schedule(self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE) -> Schedule:
        """Let a schedule tick again, and return it. What it did not tick meanwhile is not made up for.

        Raises:
            NotFound: there is none.
        """
        return self._portal.call(self._client.resume_schedule(schedule, namespace=namespace))

    def trigger_schedule(
        self, schedule: str, *, namespace: str = DEFAULT_NAMESPACE, idempotency_key: str | None = None
    ) -> TickJob:
        """Make a job of a schedule now, whatever its rule, its overlap or a pause say, and return which.

        Repeated over failures without doubling the job; with an ``idempotency_key`` the same call may be made again.

        Raises:
            NotFound: there is no such schedule. Conflict: an unfinished job has the ``unique_key`` of its template.
        """
        return self._portal.call(
            self._client.trigger_schedule(schedule, namespace=namespace, idempotency_key=idempotency_key)
        )

    def backfill_schedule(
        self, schedule: str, start: datetime, until: datetime, *, namespace: str = DEFAULT_NAMESPACE
    ) -> builtins.list[TickJob]:
        """Make the jobs of the past ticks in ``[start, until)`` that have none, and return the job of each.

        Raises:
            InvalidInput: the range holds more than 1,000 ticks, or ends after now. NotFound: there is no such schedule.
        """
        return self._portal.call(self._client.backfill_schedule(schedule, start, until, namespace=namespace))

    def preview_schedule(
        self,
        schedule: str | NewSchedule,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        count: int = 10,
        after: datetime | None = None,
    ) -> builtins.list[Tick]:
        """Return the next ticks of a schedule: a stored one by name or id, or one that is not stored.

        ``count`` of them, at most 1,000, later than ``after``; None: than now.

        Raises:
            InvalidInput: with every bad field (``spec.cron``). NotFound: there is no such schedule.
        """
        return self._portal.call(self._client.preview_schedule(schedule, namespace=namespace, count=count, after=after))

    def put_limit(
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
        return self._portal.call(
            self._client.put_limit(name, concurrent=concurrent, rate=rate, interval_s=interval_s, burst=burst)
        )

    def limit(self, name: str) -> Limit:
        """Return one limit, with the names under it of which slots are held.

        Raises:
            NotFound: it is not defined.
        """
        return self._portal.call(self._client.limit(name))

    def limits(self) -> builtins.list[Limit]:
        """Return all limits that are defined, by name, each with what is held under its own name or family."""
        return self._portal.call(self._client.limits())

    def delete_limit(self, name: str) -> bool:
        """Forget a limit: jobs that carry its name are limited no more. False: it was not defined."""
        return self._portal.call(self._client.delete_limit(name))

    def put_kind(self, settings: KindSettings) -> KindSettings:
        """Set all of a kind's settings in a namespace, or in all: what its jobs get where they ask for nothing.

        They hold for what is submitted from a second later on.

        Raises:
            InvalidInput: with every bad field.
        """
        return self._portal.call(self._client.put_kind(settings))

    def kind(self, kind: str, *, namespace: str | None = None) -> KindSettings:
        """Return the settings of a kind as they were put for a namespace; None: for all.

        Raises:
            NotFound: nothing is set.
        """
        return self._portal.call(self._client.kind(kind, namespace=namespace))

    def kinds(self) -> builtins.list[KindSettings]:
        """Return the settings of all kinds for which anything was set."""
        return self._portal.call(self._client.kinds())

    def delete_kind(self, kind: str, *, namespace: str | None = None) -> bool:
        """Forget the settings of a kind for a namespace, or those for all; False: nothing was set."""
        return self._portal.call(self._client.delete_kind(kind, namespace=namespace))

    def pools(self) -> builtins.list[Pool]:
        """Return every pool that is or was served, with what waits and executes below it."""
        return self._portal.call(self._client.pools())

    def pause(
        self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None, reason: str = ""
    ) -> int:
        """Let nothing of a pool (or route prefix), kind or namespace start; return how many of its jobs go on.

        What was offered before may still start within a second or so.

        Raises:
            InvalidInput: not just one of the three is given, or it is malformed.
            WrongState: somebody resumed it at the same moment.
        """
        return self._portal.call(self._client.pause(pool=pool, kind=kind, namespace=namespace, reason=reason))

    def resume(self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None) -> bool:
        """Let it start again; False: it was not paused.

        Raises:
            InvalidInput: as ``pause``.
        """
        return self._portal.call(self._client.resume(pool=pool, kind=kind, namespace=namespace))

    def pauses(self) -> builtins.list[Pause]:
        """Return what is paused, with the jobs of each that still execute."""
        return self._portal.call(self._client.pauses())

    def remove_pool(
        self, pool: str, *, reason: str = "", preview: bool = False, timeout_s: float | None = None
    ) -> CanceledJobs:
        """Cancel every job below a route prefix, wait until executing ones have stopped, and forget its pools.

        ``preview`` only counts. ``timeout_s`` None waits for them without end.

        Raises:
            InvalidInput: it is no route. WrongState: a worker serves it.
            DeadlineExceeded: some still execute after ``timeout_s``; what was done is done, call it again.
        """
        return self._portal.call(self._client.remove_pool(pool, reason=reason, preview=preview, timeout_s=timeout_s))

    def namespaces(self) -> builtins.list[Namespace]:
        """Return the namespaces for which anything was set."""
        return self._portal.call(self._client.namespaces())

    def update_namespace(
        self,
        name: str,
        *,
        weight: float | None = None,
        ageing_s: float | None = None,
        backlog: int | None = None,
        submit_rate: float | None = None,
        submit_burst: int | None = None,
    ) -> Namespace:
        """Set what is given of a namespace's settings, and return them. 0 turns ageing off, lifts a bound.

        ``submit_rate`` is in new jobs per second, ``submit_burst`` how many may come at once after a quiet time.

        Raises:
            InvalidInput: with every bad field.
        """
        return self._portal.call(
            self._client.update_namespace(
                name,
                weight=weight,
                ageing_s=ageing_s,
                backlog=backlog,
                submit_rate=submit_rate,
                submit_burst=submit_burst,
            )
        )

    def cluster(self) -> Cluster:
        """Return who coordinates, who leads, and the versions of the stores."""
        return self._portal.call(self._client.cluster())

    def watch_cluster(self) -> Iterator[ClusterPicture]:
        """Yield who is there now, and again whenever that changes, until you stop; at most once a second.

        Resumes after a lost connection, with the picture of then. Who is slow is given the newest one.

        Raises:
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        return self._portal.iterate(self._client.watch_cluster())

    def overview(self) -> Overview:
        """Return how it goes: throughput, what waits and for how long, failures, workers, the leader."""
        return self._portal.call(self._client.overview())

    def caller(self) -> Caller:
        """Return who calls, as the service sees it, and what they may do.

        Raises:
            PermissionDenied: they may read nothing.
        """
        return self._portal.call(self._client.caller())

    def workers(self) -> builtins.list[Worker]:
        """Return the workers that are registered now."""
        return self._portal.call(self._client.workers())

    def claims(self, *, limit: int | None = None, with_time_left: bool = False) -> builtins.list[HeldClaim]:
        """Return the claims that stand now, by job id; at most ``limit``.

        ``with_time_left``: with what is left of their leases, of the first 200.
        """
        return self._portal.call(self._client.claims(limit=limit, with_time_left=with_time_left))

    def check_object_store(self) -> builtins.list[StoreStep]:
        """Have the coordinator that answers try the object store out; empty if it has none."""
        return self._portal.call(self._client.check_object_store())

    def revoke_claim(self, job_id: str) -> bool:
        """Take a job away from its worker; it restarts elsewhere, not counted as a crash. False: nobody held it."""
        return self._portal.call(self._client.revoke_claim(job_id))

    def create_token(
        self,
        name: str,
        role: str,
        *,
        namespaces: Iterable[str] = (),
        pools: Iterable[str] = (),
        expires_in_s: float | None = None,
        expires_at: datetime | None = None,
        certificate_subject: str | None = None,
    ) -> CreatedToken:
        """Make a bearer token, or let certificates of a subject stand for an identity; it expires after 90 days.

        ``role``: admin, operator, submitter or viewer (of ``namespaces``), worker or runner (of ``pools``); ``*`` is
        every one. The secret is shown in the answer and never again.

        Raises:
            InvalidInput: with every bad field.
            Conflict: the certificate's subject is bound to another identity.
        """
        return self._portal.call(
            self._client.create_token(
                name,
                role,
                namespaces=namespaces,
                pools=pools,
                expires_in_s=expires_in_s,
                expires_at=expires_at,
                certificate_subject=certificate_subject,
            )
        )

    def tokens(self, *, all: bool = False, page_size: int = 200) -> Iterator[Token]:
        """Yield the credentials, newest first; ``all`` lets those through that were revoked or have expired."""
        return self._portal.iterate(self._client.tokens(all=all, page_size=page_size))

    def revoke_token(self, token_id: str) -> Token:
        """Have a credential be refused everywhere within 5 s, and return it.

        Raises:
            NotFound: there is none.
        """
        return self._portal.call(self._client.revoke_token(token_id))

    def audit(
        self,
        *,
        caller: str | None = None,
        action: str | None = None,
        namespace: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        page_size: int = 200,
    ) -> Iterator[AuditEntry]:
        """Yield the entries of the audit log, newest first: those of ``[since, until)`` that match all that is given.

        ``action`` is how it begins (``jobs.``). ``limit`` None means all; pages hold at most 1,000 entries. With a
        namespace it takes the right to read there, without one the right to operate everywhere.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the token does not go so far.
        """
        return self._portal.iterate(
            self._client.audit(
                caller=caller,
                action=action,
                namespace=namespace,
                target=target,
                since=since,
                until=until,
                limit=limit,
                page_size=page_size,
            )
        )

    def audit_page(
        self,
        *,
        caller: str | None = None,
        action: str | None = None,
        namespace: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 200,
        page_token: str | None = None,
    ) -> AuditPage:
        """Return one page of ``audit``: bounded work, whatever the filters.

        It may be short of ``page_size``, or empty, and still not be the last one: then more was looked through than a
        page may. Go on with the same filters and its ``next_page_token``.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the token does not go so far.
        """
        return self._portal.call(
            self._client.audit_page(
                caller=caller,
                action=action,
                namespace=namespace,
                target=target,
                since=since,
                until=until,
                page_size=page_size,
                page_token=page_token,
            )
        )

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = False,
        attempt: int | None = None,
        level: str | None = None,
        tail: int | None = None,
        limit: int | None = None,
    ) -> Iterator[LogLine]:
        """Yield the lines of a job's logs, attempt by attempt; with ``follow`` as they are written, until it has ended.

        ``level`` leaves out what is less grave: "debug", "info", "warning", "error", "critical". ``tail`` begins so
        many lines before the end (at most 100,000), ``limit`` stops after so many. Resumes after a lost connection
        where it was. What handlers wrote is data: escape it before it comes to a terminal.

        Raises:
            NotFound: there is no such job. InvalidInput: not an id, or no such level.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        return self._portal.iterate(
            self._client.logs(job_id, follow=follow, attempt=attempt, level=level, tail=tail, limit=limit)
        )

    def put_retention(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        state: JobState | str | None = None,
        keep_s: int | None = None,
        archive: bool = False,
        archive_keep_s: int | None = None,
        storage_class: str | None = None,
    ) -> RetentionPolicy:
        """Set for how long after their end jobs are kept; what has expired begins to be removed within a minute.

        None in the place of a namespace, a kind or a final state is any; of several policies that cover a job the most
        specific one decides. ``keep_s`` None: for ever. So with ``archive_keep_s``, for files of the archive with such
        jobs; ``storage_class`` is theirs in S3.

        Raises:
            InvalidInput: with every bad field, such as ``archive`` where there is none.
        """
        return self._portal.call(
            self._client.put_retention(
                namespace=namespace,
                kind=kind,
                state=state,
                keep_s=keep_s,
                archive=archive,
                archive_keep_s=archive_keep_s,
                storage_class=storage_class,
            )
        )

    def retention(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        state: JobState | str | None = None,
        deciding: bool = False,
    ) -> RetentionPolicy:
        """Return the policy that was put for just these; ``deciding``: the one that decides about such jobs.

        Raises:
            NotFound: there is none, so that it keeps them for ever, or another one decides.
        """
        return self._portal.call(self._client.retention(namespace=namespace, kind=kind, state=state, deciding=deciding))

    def retentions(self) -> builtins.list[RetentionPolicy]:
        """Return all policies, by namespace, kind and state."""
        return self._portal.call(self._client.retentions())

    def delete_retention(
        self, *, namespace: str | None = None, kind: str | None = None, state: JobState | str | None = None
    ) -> bool:
        """Forget a policy; False: there was none."""
        return self._portal.call(self._client.delete_retention(namespace=namespace, kind=kind, state=state))

    def preview_retention(
        self, *, namespace: str | None = None, policy: RetentionPolicy | None = None
    ) -> builtins.list[ExpiredJobs]:
        """Count what would go now, in one namespace or in all; ``policy``: as if it were set, too.

        It looks through what can have expired, in as many calls as that takes: seconds for a million jobs.

        Raises:
            InvalidInput: with every bad field.
        """
        return self._portal.call(self._client.preview_retention(namespace=namespace, policy=policy))

    def preview_archive(
        self, *, namespace: str | None = None, policy: RetentionPolicy | None = None
    ) -> builtins.list[ExpiredFiles]:
        """Return which files of the archive would go now, by policy and namespace; as ``preview_retention``.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the namespace is not the caller's.
        """
        return self._portal.call(self._client.preview_archive(namespace=namespace, policy=policy))

    def put_hold(self, key: str, value: str, reason: str = "") -> LegalHold:
        """Keep all jobs with a label, in every namespace and whatever the policies say, until the hold is lifted.

        Once this returns nothing with the label is removed any more.

        Raises:
            InvalidInput: no job can have such a label.
        """
        return self._portal.call(self._client.put_hold(key, value, reason))

    def holds(self) -> builtins.list[LegalHold]:
        """Return the legal holds, by label."""
        return self._portal.call(self._client.holds())

    def delete_hold(self, key: str, value: str) -> bool:
        """Lift a legal hold; False: there was none."""
        return self._portal.call(self._client.delete_hold(key, value))

    def archive_files(
        self, *, namespace: str | None = None, limit: int | None = None, page_size: int = 200
    ) -> Iterator[ArchiveFile]:
        """Yield the files of the archive, newest first. ``limit`` None means all; pages hold at most 1,000 files.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the namespace is not the caller's.
        """
        return self._portal.iterate(self._client.archive_files(namespace=namespace, limit=limit, page_size=page_size))

    def verify_archive_file(self, file_id: str) -> str | None:
        """Have a file of the archive read from the object store; return what is wrong with it, None if nothing is.

        Raises:
            NotFound: there is no such file in the archive. WrongState: the coordinators have no object store.
            Unavailable: it does not answer.
        """
        return self._portal.call(self._client.verify_archive_file(file_id))

    def unknown_archive_files(self) -> Iterator[str]:
        """Yield the keys of files that lie in the archive and do not count, since the database does not know them.

        So it is after it was restored to a time before they were made. Takes an operator of all namespaces.

        Raises:
            WrongState: the coordinators have no object store. Unavailable: it does not answer.
        """
        return self._portal.iterate(self._client.unknown_archive_files())

    def adopt_archive_file(self, key: str) -> tuple[ArchiveFile | None, int]:
        """Have a file that does not count replaced by one that does, with those of its jobs that are nowhere else.

        Return that file, None if none of its jobs was missing elsewhere; and how many are in the database, or in other
        files. Takes an operator of all namespaces.

        Raises:
            NotFound: there is no such file. WrongState: it counts already, or cannot be read.
            Unavailable: the object store does not answer.
        """
        return self._portal.call(self._client.adopt_archive_file(key))
