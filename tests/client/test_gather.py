"""Submits of one moment travel in one call, and each caller has an answer of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.client.service import Service

from tenure.client import AsyncClient, Conflict, InvalidInput, Unavailable
from tenure.client.gather import CALL_JOBS
from tenure.v1 import job_service_pb2 as pb


def _sizes(service: Service) -> list[int | None]:
    """Return how many jobs each call brought; None for a call of one."""
    return [len(call.jobs) if isinstance(call, pb.SubmitEachRequest) else None for call in service.calls]


async def _submitted(client: AsyncClient, *kinds: str) -> list[Any]:
    return await asyncio.gather(*(client.submit(kind) for kind in kinds), return_exceptions=True)


async def test_one_alone_is_a_call_of_its_own(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        assert (await client.submit("k")).kind == "k"
        assert (await client.submit("l")).kind == "l"
    assert _sizes(service) == [None, None]


async def test_those_of_one_moment_travel_together(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        jobs = await _submitted(client, *(f"k{n}" for n in range(10)))
    assert [job.kind for job in jobs] == [f"k{n}" for n in range(10)]
    assert len({job.id for job in jobs}) == 10
    assert all(job.created for job in jobs)
    assert _sizes(service) == [10]


async def test_a_call_takes_so_many_jobs_and_bytes(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        await _submitted(client, *["k"] * (CALL_JOBS + 1))
        assert sorted(_sizes(service), key=str) == [CALL_JOBS, None]
        service.calls.clear()
        await asyncio.gather(*(client.submit("k", "x" * 600_000) for _ in range(3)))
    assert _sizes(service) == [None] * 3


async def test_who_is_refused_is_refused_alone(service: Service) -> None:
    field = pb.RefusedField(field="job.kind", description="is not for you")
    service.refusals = {
        "bad": pb.JobRefusal(status="INVALID_ARGUMENT", message="invalid", fields=[field]),
        "held": pb.JobRefusal(status="ALREADY_EXISTS", message="the key is held", hint="use another"),
    }
    async with AsyncClient(service.address) as client:
        bad, good, held = await _submitted(client, "bad", "good", "held")
    assert isinstance(bad, InvalidInput)
    assert [violation.field for violation in bad.violations] == ["job.kind"]
    assert good.kind == "good"
    assert isinstance(held, Conflict)
    assert held.hint == "use another"


async def test_what_no_coordinator_answers_fails_for_all(service: Service) -> None:
    service.failures = [grpc.StatusCode.UNAVAILABLE] * 1_000
    async with AsyncClient(service.address, timeout_s=0.2) as client:
        assert [type(one) for one in await _submitted(client, "a", "b", "c")] == [Unavailable] * 3


async def test_a_coordinator_that_does_not_know_the_call_gets_one_for_each(service: Service) -> None:
    service.knows_each = False
    async with AsyncClient(service.address) as client:
        for _ in range(2):
            assert [job.kind for job in await _submitted(client, "a", "b", "c")] == ["a", "b", "c"]
    assert _sizes(service) == [3, *[None] * 6]


@pytest.mark.parametrize("gone", [0, 1])
async def test_a_caller_that_gives_up_takes_no_other_along(service: Service, gone: int) -> None:
    service.failures = [grpc.StatusCode.UNAVAILABLE]
    async with AsyncClient(service.address) as client:
        callers = [asyncio.create_task(client.submit(f"k{n}")) for n in range(3)]
        await service.entered.wait()
        callers[gone].cancel()
        outcomes: list[Any] = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(gone), asyncio.CancelledError)
    assert [job.kind for job in outcomes] == [f"k{n}" for n in range(3) if n != gone]


async def test_who_is_in_nobodys_way_but_cannot_be_written_now_asks_again_alone(service: Service) -> None:
    service.refusals = {"locked": pb.JobRefusal(status="UNAVAILABLE", message="somebody has locked its key")}
    async with AsyncClient(service.address) as client:
        jobs = await _submitted(client, "locked", "good", "locked")
    assert [job.kind for job in jobs] == ["locked", "good", "locked"]
    assert _sizes(service) == [3, None, None]


async def test_answers_that_are_too_much_for_one_message_are_asked_for_one_by_one(service: Service) -> None:
    service.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    async with AsyncClient(service.address) as client:
        assert [job.kind for job in await _submitted(client, "a", "b", "c")] == ["a", "b", "c"]
        await _submitted(client, "d", "e")
    assert _sizes(service) == [3, None, None, None, 2]
