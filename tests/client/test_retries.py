"""What the client sends again, to whom, for how long; and how it resumes waits and watches."""

from __future__ import annotations

import asyncio
import socket
import time

import grpc
import pytest
from tests.client.service import COMPLETED, EXECUTING, READY, Service, serving

from tenure.client import AsyncClient, JobState, NewJob
from tenure.client.link import addresses_of, backoff_s
from tenure.model.errors import (
    BoundExceeded,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    TenureError,
    Unavailable,
)
from tenure.v1 import job_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_submit_is_sent_again_with_the_same_key(service: Service) -> None:
    service.failures = [UNAVAILABLE, UNAVAILABLE]
    async with AsyncClient(service.address) as client:
        job = await client.submit("noop", {"n": 1})
    assert job.created
    assert len(service.calls) == 3
    assert len({call.job.idempotency_key for call in service.calls}) == 1


async def test_an_answer_lost_after_the_commit_doubles_nothing(service: Service) -> None:
    service.lose_answers = 1
    async with AsyncClient(service.address) as client:
        job = await client.submit("noop")
    assert len(service.jobs) == 1
    assert job.created, "nobody else knows the key that the client made"


async def test_the_callers_key_tells_whether_it_created(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        assert (await client.submit("noop", idempotency_key="k")).created
        assert (await client.submit("noop", idempotency_key="k")).created is False


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, Conflict),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, BoundExceeded),
        (grpc.StatusCode.INTERNAL, TenureError),
        (grpc.StatusCode.UNKNOWN, TenureError),
    ],
)
async def test_other_statuses_are_not_sent_again(
    service: Service, status: grpc.StatusCode, error: type[TenureError]
) -> None:
    service.failures = [status]
    async with AsyncClient(service.address) as client:
        with pytest.raises(error):
            await client.get("x")
    assert len(service.calls) == 1


async def test_bad_fields_are_named(service: Service) -> None:
    service.violations = {"job.route": "must not be empty", "job.ttl": "at least 2 s"}
    async with AsyncClient(service.address) as client:
        with pytest.raises(InvalidInput) as caught:
            await client.submit("noop", route="")
    assert {v.field: v.description for v in caught.value.violations} == service.violations


async def test_the_next_coordinator_is_asked(service: Service) -> None:
    async with AsyncClient([f"127.0.0.1:{closed_port()}", service.address], timeout_s=10) as client:
        assert (await client.get("x")).state is JobState.READY


async def test_a_hung_coordinator_leaves_time_for_another(service: Service) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with AsyncClient([f"127.0.0.1:{silent.getsockname()[1]}", service.address], timeout_s=4) as client:
            assert (await client.get("x")).id == "x"


async def test_retries_end_with_the_callers_time() -> None:
    began = time.monotonic()
    async with AsyncClient(f"127.0.0.1:{closed_port()}", timeout_s=1) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get("x")
    assert time.monotonic() - began < 3
    assert caught.value.hint and "TENURE_COORDINATOR" in caught.value.hint


async def test_wait_is_asked_again_over_a_lost_coordinator() -> None:
    async with serving() as first:
        port = first.port
        client = AsyncClient(first.address)
        waiting = asyncio.create_task(client.wait("x"))
        await first.entered.wait()
    async with serving(lambda s: s.finished.set(), port=port):
        job = await waiting
    assert job.state is JobState.COMPLETED
    await client.close()


async def test_wait_says_in_time_that_it_is_not_over(service: Service) -> None:
    began = time.monotonic()
    async with AsyncClient(service.address) as client:
        with pytest.raises(DeadlineExceeded, match=r"still executing after 0\.2 s") as caught:
            await client.wait("x", timeout_s=0.200123)
    assert caught.value.hint == "tenure jobs wait x"
    assert time.monotonic() - began < 3


async def test_wait_many_raises_what_one_raises(service: Service) -> None:
    service.failures = [grpc.StatusCode.NOT_FOUND]
    async with AsyncClient(service.address) as client:
        with pytest.raises(NotFound):
            await client.wait_many(["a", "b", "c"])
        service.finished.set()
        assert [job.id for job in await client.wait_many(["a", "b", "c"])] == ["a", "b", "c"]


async def test_watch_resumes_without_repeating(service: Service) -> None:
    def told(state: job_pb2.JobState, attempt: int = 0) -> job_pb2.Job:
        return job_pb2.Job(id="x", state=state, attempt=attempt)

    service.streams = [
        [told(READY), told(EXECUTING, 1)],
        [told(EXECUTING, 1), told(EXECUTING, 2)],
        [told(EXECUTING, 2), told(COMPLETED, 2)],
    ]
    async with AsyncClient(service.address) as client:
        seen = [(job.state.value, job.attempt) async for job in client.watch("x")]
    assert seen == [("ready", 0), ("executing", 1), ("executing", 2), ("completed", 2)]


async def test_the_callers_own_time_is_no_outage(service: Service) -> None:
    service.streams = [[job_pb2.Job(id="x", state=READY)], [job_pb2.Job(id="x", state=COMPLETED)]]
    async with AsyncClient(service.address, outage_s=0) as client:
        seen = []
        async for job in client.watch("x"):
            seen.append(job.state.value)
            await asyncio.sleep(0.05)
    assert seen == ["ready", "completed"]


async def test_a_watch_gives_up_once_an_outage_has_lasted() -> None:
    async with serving() as service:
        service.streams = [[job_pb2.Job(id="x", state=READY)], []]
        client = AsyncClient(service.address, outage_s=0.3)
        watching = client.watch("x")
        await anext(watching)
    with pytest.raises(Unavailable):
        await anext(watching)
    await client.close()


async def test_list_fetches_pages_as_needed(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        assert [job.id async for job in client.list(page_size=10)] == [str(i) for i in range(25)]
        assert [call.page_size for call in service.calls] == [10, 10, 10]
        service.calls.clear()
        assert len([job async for job in client.list(page_size=10, limit=12)]) == 12
        assert [call.page_size for call in service.calls] == [10, 2]


async def test_a_closed_client_says_so(service: Service) -> None:
    client = AsyncClient(service.address)
    await client.get("x")
    await client.close()
    await client.close()
    with pytest.raises(TenureError, match="closed"):
        await client.get("x")


async def test_a_batch_names_the_member(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        with pytest.raises(InvalidInput) as caught:
            await client.submit_many([NewJob(kind="a"), NewJob(kind="b", payload={"x": [1, {2, 3}]})])
    assert caught.value.violations[0].field == "jobs[1].payload.x[1]"
    assert not service.calls


def test_addresses() -> None:
    assert addresses_of("a:1, b:2,a:1") == ("a:1", "b:2")
    for bad in ("a", "http://a:1", "a:0", ":1", "", "a:99999"):
        with pytest.raises(InvalidInput):
            addresses_of(bad)


def test_backoff_tries_every_address_first_and_stays_bounded() -> None:
    assert [backoff_s(n, 3) for n in (1, 2)] == [0, 0]
    assert 0 < backoff_s(3, 3) <= 0.1
    assert backoff_s(10_000, 1) <= 2.0
