"""Reading jobs, and what can be done with those that are there: cancel, retry, delete."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime

from tenure.client import convert
from tenure.client.counts import COUNTED_BY, JobCounts, counts_from_wire
from tenure.client.fields import timestamp
from tenure.client.link import Link
from tenure.client.records import Attempt, CanceledJobs, Explanation, Job, RetriedJobs
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.states import JobState
from tenure.v1 import job_service_pb2 as pb


class JobCalls:
    """Read jobs and look after them."""

    _link: Link

    async def get(self, job_id: str) -> Job:
        """Return a job with its payload and result.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        answer: pb.GetJobResponse = await self._link.unary(lambda to: to.jobs.GetJob, pb.GetJobRequest(id=job_id))
        return convert.job_from_wire(answer.job)

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
        include_deleted: bool = False,
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        limit: int | None = None,
        page_size: int = 200,
    ) -> AsyncIterator[Job]:
        """Yield the jobs that match every filter, newest first, without payloads and results.

        Pages of ``page_size`` (at most 1,000) are fetched as they are needed, each of which looks through a bounded
        number of jobs: what matches rarely takes many. ``route_prefix`` matches whole segments; ``limit`` None means
        all; ``include_deleted`` lets those through that were deleted; ``finished_after`` and ``finished_before`` only
        those that ended from the one time on and before the other.

        Raises:
            InvalidInput: a filter is malformed, such as a time without a zone.
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
        left = limit
        size = page_size if left is None else min(page_size, left)
        request = pb.ListJobsRequest(
            filter=wanted,
            page_size=size,
            include_deleted=include_deleted,
            finished_after=timestamp(finished_after, "finished_after"),
            finished_before=timestamp(finished_before, "finished_before"),
        )
        answer: pb.ListJobsResponse
        async for answer in self._link.pages(lambda to: to.jobs.ListJobs, request):
            for job in answer.jobs:
                yield convert.job_from_wire(job)
            if left is not None:
                left -= len(answer.jobs)
                if left <= 0:
                    return
                request.page_size = min(page_size, left)

    async def count(
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
        asked = [by] if isinstance(by, str) else list(by)
        if strange := [one for one in asked if one not in COUNTED_BY]:
            raise InvalidInput([FieldViolation("by", f"{strange[0]!r} is none of {', '.join(COUNTED_BY)}")])
        wanted = convert.filter_to_wire(
            namespace=namespace,
            kind=kind,
            route_prefix=None,
            states=states,
            labels=None,
            parent_id=None,
            created_after=None,
            created_before=None,
        )
        answer: pb.CountJobsResponse = await self._link.unary(
            lambda to: to.jobs.CountJobs,
            pb.CountJobsRequest(
                filter=wanted,
                finished_after=timestamp(finished_after, "finished_after"),
                finished_before=timestamp(finished_before, "finished_before"),
                by_day="day" in asked,
                by_namespace="namespace" in asked,
                by_kind="kind" in asked,
                by_state="state" in asked,
            ),
        )
        return counts_from_wire(answer)

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """Return the attempts at a job, oldest first, the executing one last.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.ListAttemptsResponse = await self._link.unary(
            lambda to: to.jobs.ListAttempts, pb.ListAttemptsRequest(job_id=job_id)
        )
        return [convert.attempt_from_wire(attempt) for attempt in answer.attempts]

    async def why(self, job_id: str) -> Explanation:
        """Say in words why a job does not run, or what it does.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.ExplainJobResponse = await self._link.unary(
            lambda to: to.jobs.ExplainJob, pb.ExplainJobRequest(id=job_id)
        )
        return convert.explanation_from_wire(answer)

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        """Cancel a job and return it: canceled at once, or executing with ``cancel_requested`` until it has stopped.

        One that has ended stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.CancelJobResponse = await self._link.unary(
            lambda to: to.jobs.CancelJob, pb.CancelJobRequest(id=job_id, reason=reason)
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
        done = CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        request = pb.CancelJobsRequest(filter=wanted, all=all, preview=preview, reason=reason)
        answer: pb.CancelJobsResponse
        async for answer in self._link.pages(lambda to: to.jobs.CancelJobs, request):
            done = convert.canceled_from_wire(answer, done)
        return done

    async def retry(self, job_id: str) -> Job:
        """Make another go at a failed or canceled job and return it: a new job, a copy of what was asked for.

        A job has one retry: repeated, the call returns it, with ``created`` False.

        Raises:
            NotFound: there is no such job. WrongState: it can not be retried; the message says why.
        """
        answer: pb.RetryJobResponse = await self._link.unary(lambda to: to.jobs.RetryJob, pb.RetryJobRequest(id=job_id))
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
        done = RetriedJobs(retried=0, skipped=0, ids=())
        request = pb.RetryJobsRequest(filter=wanted, all=all, preview=preview)
        answer: pb.RetryJobsResponse
        async for answer in self._link.pages(lambda to: to.jobs.RetryJobs, request):
            done = convert.retried_from_wire(answer, done)
        return done

    async def delete(self, job_id: str) -> Job:
        """Hide a job that has ended from listings, and return it; it can still be read by its id.

        Raises:
            NotFound: there is no such job. WrongState: it has not ended; cancel it first.
        """
        answer: pb.DeleteJobResponse = await self._link.unary(
            lambda to: to.jobs.DeleteJob, pb.DeleteJobRequest(id=job_id)
        )
        return convert.job_from_wire(answer.job)
