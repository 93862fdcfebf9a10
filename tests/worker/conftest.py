"""A worker's link on a real etcd, beside a coordinator whose answers the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.fixtures.etcd import EtcdServer

from tenure.model.clock import SystemClock
from tenure.model.ids import new_id
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import Keyspace, Offer, Offers
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Etcd, Put, Txn
from tenure.v1 import worker_service_pb2 as pb
from tenure.v1.worker_service_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from tenure.worker.coordinators import Coordinators
from tenure.worker.direct import DirectLink
from tenure.worker.execute.call import StopCause

WORKER = "w1"
PATIENCE_S = 30.0


class Scripted(WorkerServiceServicer):
    """A coordinator that holds calls back, refuses them, or starts whatever it is shown; set the attributes."""

    def __init__(self) -> None:
        self.address = ""
        self.starts = 0
        self.passing = asyncio.Event()
        self.passing.set()
        self.passing_reports = asyncio.Event()
        self.passing_reports.set()
        self.refuse_starts: grpc.StatusCode | None = None
        self.refuse_finishes: grpc.StatusCode | None = None
        self.verdict = pb.VERDICT_RECORDED
        self.problem = ""
        self.locked: set[str] = set()
        """The jobs that a transaction has locked."""
        self.report_calls: list[list[str]] = []
        self.reports: list[pb.AttemptReport] = []
        self.knows_logs = False
        self._fences = iter(range(1, 1_000_000))

    async def StartAttempts(self, request: pb.StartAttemptsRequest, context: Any) -> pb.StartAttemptsResponse:
        """Start everything, when the test lets it."""
        self.starts += 1
        await self.passing.wait()
        if self.refuse_starts is not None:
            await context.abort(self.refuse_starts, "as the test wishes")
        return pb.StartAttemptsResponse(
            attempts=[
                pb.StartedAttempt(job_id=claim.job_id, attempt=1, fence=next(self._fences), kind="k", payload="null")
                for claim in request.claims
            ]
        )

    async def FinishAttempts(self, request: pb.FinishAttemptsRequest, context: Any) -> pb.FinishAttemptsResponse:
        """Answer each report with the chosen verdict."""
        if self.refuse_finishes is not None:
            await context.abort(self.refuse_finishes, "as the test wishes")
        await self.passing_reports.wait()
        self.reports.extend(request.reports)
        self.report_calls.append([report.job_id for report in request.reports])
        return pb.FinishAttemptsResponse(
            attempts=[
                pb.FinishedAttempt(
                    job_id=report.job_id,
                    verdict=pb.VERDICT_LOCKED if report.job_id in self.locked else self.verdict,
                    message=self.problem,
                )
                for report in request.reports
            ]
        )

    async def AppendLogs(self, request: pb.AppendLogsRequest, context: Any) -> pb.AppendLogsResponse:
        """Take no lines, as a release without logs, or none of those that are shown."""
        if not self.knows_logs:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return pb.AppendLogsResponse()


@asynccontextmanager
async def serving(scripted: Scripted) -> AsyncIterator[Scripted]:
    """Serve a scripted coordinator on a free port."""
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(scripted, server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield scripted
    finally:
        scripted.passing.set()
        scripted.passing_reports.set()
        await server.stop(0)


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[Scripted]:
    """Give a coordinator that answers at once."""
    async with serving(Scripted()) as scripted:
        yield scripted


@pytest_asyncio.fixture
async def etcd(etcd_server: EtcdServer) -> AsyncIterator[Etcd]:
    """Give a connection to the shared server."""
    connection = connect(etcd_server.endpoints)
    yield connection
    await connection.close()


@pytest.fixture
def keys(etcd_prefix: str) -> Keyspace:
    """Give the test's own keys."""
    return Keyspace(etcd_prefix)


class Station:
    """A link at work, and what it asked to be stopped."""

    def __init__(self, etcd: Etcd, keys: Keyspace, coordinators: Coordinators) -> None:
        self.etcd = etcd
        self.keys = keys
        self.coordinators = coordinators
        clock = SystemClock()
        self.keeper = LeaseKeeper(etcd, clock)
        self.stopped: list[tuple[str, StopCause]] = []
        self.link = DirectLink(
            etcd,
            keys,
            clock,
            self.keeper,
            coordinators,
            WORKER,
            idle_leases=10,
            room=lambda: 10,
            stop=lambda job, _fence, cause: self.stopped.append((job, cause)),
            touch=lambda: None,
            verify_s=0.1,
        )

    async def offer(self, jobs: int = 1, *, ttl_s: float = 10.0) -> list[str]:
        """Put offers into the inbox as a leader does."""
        ids = [str(new_id()) for _ in range(jobs)]
        offers = Offers(1, tuple(Offer(id, 0, ttl_s, "default", "k", "default") for id in ids))
        await self.etcd.txn(Txn((), (Put(self.keys.message(WORKER, 1), offers.to_json()),)))
        return ids

    async def claimed(self) -> set[str]:
        """Return the jobs that are claimed."""
        listing = await self.etcd.list(self.keys.claims, keys_only=True)
        return {self.keys.last(item.key) for item in listing.items}


@pytest_asyncio.fixture
async def station(etcd: Etcd, keys: Keyspace, coordinator: Scripted) -> AsyncIterator[Station]:
    """Give a link that runs."""
    async with AsyncExitStack() as stack:
        coordinators = Coordinators(lambda: [coordinator.address], SystemClock())
        stack.push_async_callback(coordinators.close)
        made = Station(etcd, keys, coordinators)
        tasks = [
            asyncio.ensure_future(body) for body in (made.keeper.run(), made.link.receive(), made.link.verify_forever())
        ]
        yield made
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await made.link.close()


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer of a check."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await check():
                return answer
            await asyncio.sleep(0.01)
