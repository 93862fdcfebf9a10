"""Callers who ask for too much at a time: what they cost is bounded, and others are served as before."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tests.coordinator.conftest import Parts, running, until
from tests.coordinator.raw_http2 import gzip_bomb, raw_caller
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded.deployment import Deployment
from tenure.client import BoundExceeded, Client
from tenure.coordinator.api.call_bounds import CallBounds
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.v1 import job_service_pb2 as pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub

Code = grpc.StatusCode
TIMEOUT_S = 60.0
MIB = 1024 * 1024
SUBMIT, WATCH = "/tenure.v1.JobService/SubmitJob", "/tenure.v1.JobService/WatchJobs"
STREAM = "/tenure.v1.JobService/StreamSubmitJobs"
CANCELED = str(Code.CANCELLED.value[0])
RESOURCE_EXHAUSTED = str(Code.RESOURCE_EXHAUSTED.value[0])


@asynccontextmanager
async def served(parts: Parts, bounds: CallBounds) -> AsyncIterator[JobServiceStub]:
    jobs = parts.job_service()
    server = GrpcServer([jobs], listen="127.0.0.1:0", with_reflection=False, bounds=bounds)
    await server.start()
    async with running(parts.submitter.run(), jobs.run()), grpc.aio.insecure_channel(server.address) as channel:
        try:
            yield JobServiceStub(channel)
        finally:
            await server.stop(0)


async def code_of(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_watches_beyond_the_bound_are_refused_until_one_has_ended(parts: Parts) -> None:
    asked = pb.WatchJobRequest(id=str(await parts.submit()))
    async with served(parts, CallBounds(watches=2)) as jobs:
        first, second = (jobs.WatchJob(asked, timeout=TIMEOUT_S) for _ in range(2))
        await first.read()
        await second.read()
        assert await code_of(jobs.WatchJob(asked, timeout=TIMEOUT_S).read()) is Code.RESOURCE_EXHAUSTED
        assert (await jobs.GetJob(pb.GetJobRequest(id=asked.id), timeout=TIMEOUT_S)).job.id == asked.id
        first.cancel()

        async def room() -> bool:
            try:
                return bool(await jobs.WatchJob(asked, timeout=TIMEOUT_S).read())
            except grpc.aio.AioRpcError as refusal:
                assert refusal.code() is Code.RESOURCE_EXHAUSTED
                return False

        await until(room)


async def test_streams_of_submits_beyond_the_bound_are_refused(parts: Parts) -> None:
    async with served(parts, CallBounds(submit_streams=1)) as jobs:
        first = jobs.StreamSubmitJobs(timeout=TIMEOUT_S)
        await first.write(pb.StreamSubmitJobsRequest(jobs=[{"kind": "k"}], sequences=[1]))
        await first.read()
        assert await code_of(jobs.StreamSubmitJobs(timeout=TIMEOUT_S).read()) is Code.RESOURCE_EXHAUSTED


async def test_calls_beyond_the_bound_are_refused_until_one_has_ended(parts: Parts) -> None:
    asked = pb.WaitJobRequest(id=str(await parts.submit()))
    async with served(parts, CallBounds(calls=3)) as jobs:
        waiting = [asyncio.ensure_future(jobs.WaitJob(asked, timeout=TIMEOUT_S)) for _ in range(3)]

        async def is_full() -> bool:
            try:
                await jobs.GetJob(pb.GetJobRequest(id=asked.id), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as refusal:
                assert refusal.code() is Code.RESOURCE_EXHAUSTED
                return True
            return False

        async def all_wait() -> bool:
            return len(parts.waiters._waiting.get(asked.id, ())) == 3

        await until(all_wait)
        assert await is_full()
        waiting[0].cancel()

        async def has_room() -> bool:
            return not await is_full()

        await until(has_room)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def resident(deployment: Deployment) -> int:
    """Return the memory of the coordinator, in bytes."""
    [coordinator] = deployment.coordinators
    return int(Path(f"/proc/{coordinator.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_a_bomb_and_readers_that_take_nothing_cost_bounded_memory(deployment: DeploymentFactory) -> None:
    """A coordinator, a worker and a client at work, beside a caller who sends a gigabyte in a megabyte and one who
    watches large jobs thousands of times and reads nothing."""
    made = deployment(env={"TENURE_MAX_WATCHES": "300", "TENURE_MAX_SUBMIT_STREAMS": "20"})
    [address] = made.coordinator_addresses
    with Client(address) as client, ExitStack() as callers:
        held = client.submit("sleep", {"seconds": 5})
        large = [client.submit("nobody", "x" * 200_000).id for _ in range(4)]
        before = resident(made)

        bomber = callers.enter_context(raw_caller(address))
        bomb = gzip_bomb(1024 * MIB)
        for _ in range(3):
            assert bomber.status(bomber.begin(SUBMIT, bomb, compressed=True)) == RESOURCE_EXHAUSTED
        assert resident(made) < before + 400 * MIB

        asked = pb.WatchJobsRequest(ids=large).SerializeToString()
        watchers = [callers.enter_context(raw_caller(address, takes=False)) for _ in range(4)]
        streams = [watcher.begin(WATCH, asked) for _ in range(500) for watcher in watchers]
        submitter = callers.enter_context(raw_caller(address))
        opened = [submitter.begin(STREAM, b"", ends=False) for _ in range(50)]
        while len(submitter.statuses) < len(opened):  # the first for what it sent, the others for the bound
            submitter.read()
        while sum(len(watcher.statuses) for watcher in watchers) < len(streams) - 300:
            readable, _, _ = select.select(watchers, [], [], TIMEOUT_S)
            assert readable
            for watcher in readable:
                watcher.read()
        refused = [status for watcher in watchers for status in watcher.statuses.values()]
        assert set(refused) <= {RESOURCE_EXHAUSTED, CANCELED}  # grpc itself cancels some of so many at once

        for number in range(20):
            done = client.submit("noop", {"n": number})
            assert client.wait(done.id, timeout_s=TIMEOUT_S).state == "completed"
        assert resident(made) < before + 800 * MIB
        ended = client.wait(held.id, timeout_s=TIMEOUT_S)
        assert (ended.state, ended.attempt) == ("completed", 1)
    with Client(address) as client:  # what they held is let go
        watched = client.submit("noop", {})
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                assert [job.state for job in client.watch(watched.id)][-1] == "completed"
                break
            except BoundExceeded:
                assert time.monotonic() < deadline
                time.sleep(0.1)
