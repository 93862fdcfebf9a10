"""A job service of a few lines on a real gRPC server, which fails on demand: for the client's behaviour on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tenure.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

READY = job_pb2.JOB_STATE_READY
EXECUTING = job_pb2.JOB_STATE_EXECUTING
COMPLETED = job_pb2.JOB_STATE_COMPLETED


@dataclass
class Service(job_service_pb2_grpc.JobServiceServicer):
    """Remembers jobs by key; ``failures`` are raised first, one a call; ``states`` is what a watch tells."""

    failures: list[grpc.StatusCode] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    jobs: dict[str, job_pb2.Job] = field(default_factory=dict)
    streams: list[list[job_pb2.Job]] = field(default_factory=list)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    lose_answers: int = 0
    violations: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, job_service_pb2.JobRefusal] = field(default_factory=dict)
    """By kind: what such a job is answered with where others were sent with it."""
    knows_each: bool = True
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _enter(self, request: Any, context: Any) -> None:
        self.calls.append(request)
        self.entered.set()
        if self.failures:
            await context.abort(self.failures.pop(0), "on demand")
        if self.violations:
            detail = any_pb2.Any()
            detail.Pack(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                        for name, text in self.violations.items()
                    ]
                )
            )
            status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="invalid", details=[detail])
            await context.abort_with_status(rpc_status.to_status(status))

    async def SubmitJob(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        created = request.job.idempotency_key not in self.jobs
        job = self._submitted(request.job)
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "after the commit")
        return job_service_pb2.SubmitJobResponse(job=job, created=created)

    def _submitted(self, spec: job_pb2.JobSpec) -> job_pb2.Job:
        new = job_pb2.Job(id=f"job-{len(self.jobs)}", kind=spec.kind, state=READY, idempotency_key=spec.idempotency_key)
        return self.jobs.setdefault(spec.idempotency_key, new)

    async def SubmitEach(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        if not self.knows_each:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "of an older release")
        return job_service_pb2.SubmitEachResponse(
            jobs=[
                job_service_pb2.SubmittedEach(refusal=self.refusals[spec.kind])
                if spec.kind in self.refusals
                else job_service_pb2.SubmittedEach(job=self._submitted(spec), created=True)
                for spec in request.jobs
            ]
        )

    async def GetJob(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        if request.id == "hang":
            await asyncio.sleep(60)
        return job_service_pb2.GetJobResponse(job=job_pb2.Job(id=request.id, state=READY))

    async def WaitJob(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        try:
            async with asyncio.timeout(request.timeout.ToNanoseconds() / 1e9):
                await self.finished.wait()
        except TimeoutError:
            return job_service_pb2.WaitJobResponse(job=job_pb2.Job(id=request.id, state=EXECUTING))
        return job_service_pb2.WaitJobResponse(job=job_pb2.Job(id=request.id, state=COMPLETED), finished=True)

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._enter(request, context)
        for job in self.streams.pop(0):
            yield job_service_pb2.WatchJobResponse(job=job)
        if self.streams:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "stream cut")

    async def ListJobs(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        start = int(request.page_token or 0)
        page = [job_pb2.Job(id=str(i), state=READY) for i in range(start, min(start + request.page_size, 25))]
        end = start + len(page)
        return job_service_pb2.ListJobsResponse(jobs=page, next_page_token=str(end) if end < 25 else "")


@asynccontextmanager
async def serving(prepare: Callable[[Service], None] | None = None, *, port: int = 0) -> AsyncIterator[Service]:
    """Serve on a free port of loopback."""
    service = Service()
    if prepare:
        prepare(service)
    server = grpc.aio.server()
    job_service_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)
