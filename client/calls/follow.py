"""Waiting for jobs and watching them, over reconnects. Invariant: every await is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from tenure.client import convert
from tenure.client.errors import RETRYABLE
from tenure.client.fields import duration
from tenure.client.link import Link
from tenure.client.records import Job
from tenure.client.resume import Resumption
from tenure.model.errors import DeadlineExceeded
from tenure.model.states import JobState
from tenure.v1 import job_service_pb2 as pb

WAIT_STEP_S = 20.0
"""How long one WaitJob may hang before it is asked afresh: bounds the harm of a connection that died silently."""
GRACE_S = 5.0
"""For the answer to a WaitJob whose step has passed, before the coordinator counts as hung."""
ANSWER_S = 1.0
"""The same at the end of the caller's own timeout."""
MAX_WAITS = 100
"""WaitJob calls that ``wait_many`` has under way at once."""


class FollowCalls:
    """Wait for jobs, watch them."""

    _link: Link

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return the job once it is terminal, whatever the outcome; waits over reconnects.

        ``timeout_s`` None waits without end. To stop waiting changes nothing of the job.

        Raises:
            DeadlineExceeded: it was not terminal in time. NotFound: there is no such job. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left_s = WAIT_STEP_S if deadline is None else max(0.0, deadline - loop.time())
            step_s = min(WAIT_STEP_S, left_s)
            patience_s = self._link.patience_s if deadline is None else min(self._link.patience_s, left_s + ANSWER_S)
            try:
                answer: pb.WaitJobResponse = await self._link.unary(
                    lambda to: to.jobs.WaitJob,
                    pb.WaitJobRequest(id=job_id, timeout=duration(step_s, "timeout_s")),
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
                look = "wait" if job.state is JobState.EXECUTING else "why"
                raise DeadlineExceeded(
                    f"job {job_id} is still {job.state} after {round(timeout_s or 0.0, 1):g} s",
                    hint=f"tenure jobs {look} {job_id}",
                )

    async def wait_many(
        self, job_ids: Iterable[str], timeout_s: float | None = None, *, on_ended: Callable[[Job], None] | None = None
    ) -> list[Job]:
        """Return the jobs, in the order given, once all are terminal. Timeout and errors as for ``wait``.

        ``on_ended`` is told of each as it ends, in the thread of the client's event loop; it must not block nor raise.
        """
        gate = asyncio.Semaphore(MAX_WAITS)
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s

        async def one(job_id: str) -> Job:
            async with gate:
                job = await self.wait(job_id, None if deadline is None else max(0.0, deadline - loop.time()))
            if on_ended is not None:
                on_ended(job)
            return job

        tasks: list[asyncio.Task[Job]] = []
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
            NotFound: there is no such job. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        request = pb.WatchJobRequest(id=job_id)
        resumption = Resumption(self._link)
        last: Job | None = None
        while True:
            async with resumption.stream(lambda to: to.jobs.WatchJob, request) as messages:
                async for message in messages:
                    job = convert.job_from_wire(message.job)
                    if job != last:
                        yield job
                    last = job
                    if job.is_terminal:
                        return

    async def watch_many(self, job_ids: Iterable[str]) -> AsyncIterator[Job]:
        """Yield the jobs now and after each change, as ``watch``, until all of them are terminal. At most 1,000.

        Raises:
            InvalidInput: too many, or not ids. NotFound, Unavailable, BoundExceeded: as for ``watch``.
        """
        left = list(dict.fromkeys(job_ids))
        resumption = Resumption(self._link)
        last: dict[str, Job] = {}
        while left:
            async with resumption.stream(lambda to: to.jobs.WatchJobs, pb.WatchJobsRequest(ids=left)) as messages:
                async for message in messages:
                    for job in map(convert.job_from_wire, message.jobs):
                        if job != last.get(job.id):
                            yield job
                        last[job.id] = job
            left = [id for id in left if id not in last or not last[id].is_terminal]
