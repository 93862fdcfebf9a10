"""Submitting jobs: one, a batch, or without end.

Owns the idempotency of what is sent: each job carries a key, so that a repeated one is answered with the first.
Deliberately does not validate what the service validates: there is one rule set, and it answers with the field named.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from tenure.client import convert
from tenure.client.gather import Gathering
from tenure.client.link import Link
from tenure.client.records import Job, NewJob, Retry, SubmittedJobs
from tenure.client.resume import Resumption
from tenure.client.stream import Outbox, StreamedJob
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.unique import OnDuplicate
from tenure.probes import tracing
from tenure.v1 import job_service_pb2 as pb

BATCH_JOBS_PER_S = 200
"""What a slow service may need for a large batch: adds to the call's timeout."""


class SubmitCalls:
    """Submit jobs."""

    _link: Link
    _gathering: Gathering

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
            has the ``unique_key``. BoundExceeded: its namespace has as many unfinished jobs as it may.
            Unavailable, DeadlineExceeded: no answer; with an ``idempotency_key`` the same call may be made again.
        """
        with tracing.sending(kind, route) as sending:
            job = await self._submit(
                NewJob(
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
                    labels=tracing.carried(labels or {}),
                    limits=limits,
                    requires=requires or {},
                    depends_on=depends_on,
                    trigger=trigger,
                    upstream_failure=upstream_failure,
                    unique_key=unique_key,
                    on_duplicate=on_duplicate,
                    idempotency_ttl_s=idempotency_ttl_s,
                ),
                idempotency_key,
            )
            sending.sent(job.id)
            return job

    async def _submit(self, job: NewJob, idempotency_key: str | None) -> Job:
        spec = convert.spec_to_wire(job, idempotency_key=idempotency_key or new_key())
        answer = await self._gathering.submit(spec)
        # A repeated call may find its own job; one under another key is somebody else's, met by its unique key.
        own = idempotency_key is None and answer.job.idempotency_key == spec.idempotency_key
        return convert.job_from_wire(answer.job, created=answer.created or own)

    async def submit_many(self, jobs: Sequence[NewJob], *, workflow: str | None = None) -> SubmittedJobs:
        """Submit a batch of at most 10,000, whole or not at all, and return its members in order.

        Members may depend on each other: give one a ``ref`` and name it in another's ``depends_on``. Such a batch is a
        workflow, and so is one that is given a name by ``workflow``; the answer has its ``workflow_id``.

        Raises:
            InvalidInput: with every bad field (``jobs[3].route``), unknown references and cycles.
            Conflict, BoundExceeded, Unavailable, DeadlineExceeded: as for ``submit``.
        """
        if not jobs:
            return SubmittedJobs()
        with tracing.sending(workflow or "batch", jobs[0].route, jobs=len(jobs)):
            specs = [
                convert.spec_to_wire(
                    replace(job, labels=tracing.carried(job.labels)) if tracing.is_on() else job,
                    idempotency_key=job.idempotency_key or new_key(),
                    path=f"jobs[{i}].",
                )
                for i, job in enumerate(jobs)
            ]
            answer: pb.SubmitJobsResponse = await self._link.unary(
                lambda to: to.jobs.SubmitJobs,
                pb.SubmitJobsRequest(jobs=specs, workflow_name=workflow or ""),
                timeout_s=self._link.timeout_s + len(specs) / BATCH_JOBS_PER_S,
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
        fails alone: its ``error`` says why, InvalidInput, Conflict or BoundExceeded as for ``submit``. A broken
        connection is made again, and no job written twice. They cannot name each other by ``ref``.

        Raises:
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room. Of both:
            what was yielded is written; with keys of their own all may be submitted again.
            What ``jobs`` raises, once what it gave before is answered.
        """
        outbox = Outbox(jobs, new_key)
        # A source that is slow asks nobody for anything: its silence is no outage.
        resumption = Resumption(self._link, lambda: outbox.awaits_answers)
        while not outbox.is_done:
            async with resumption.stream(lambda to: to.jobs.StreamSubmitJobs, outbox.requests()) as messages:
                async for message in messages:
                    for one in outbox.settle(message.jobs):
                        yield one
                for one in outbox.settle(()):
                    yield one
        if outbox.problem is not None:
            raise outbox.problem


def new_key() -> str:
    """Return a key that nobody else has."""
    # In order of time, so that the index of keys grows at its end; never twice, not even in processes that fork.
    return f"auto-{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
