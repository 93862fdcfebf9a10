"""Calls to whichever coordinator answers."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.worker.conftest import Scripted, serving, until

from tenure.model.clock import SystemClock
from tenure.model.errors import ConfigurationError, TenureError, Unavailable
from tenure.v1 import worker_service_pb2 as pb
from tenure.worker.coordinators import Coordinators
from tenure.worker.link import UnknownCall

START = pb.StartAttemptsRequest(worker="w1")


async def start_that_waits(at: Scripted, coordinators: Coordinators) -> asyncio.Future[pb.StartAttemptsResponse]:
    """Return a call that has arrived at a coordinator and waits there until that lets it pass."""
    at.passing.clear()
    waiting = asyncio.ensure_future(coordinators.call("StartAttempts", START, timeout_s=30))

    async def arrived() -> bool:
        return at.starts == 1

    await until(arrived)
    return waiting


async def test_a_call_that_fails_does_not_end_others_on_the_same_channel() -> None:
    """Two calls at one coordinator: one is refused and turns to the other; the first is left alone."""
    async with serving(Scripted()) as slow, serving(Scripted()) as other:
        listed = [slow.address]
        coordinators = Coordinators(lambda: listed, SystemClock())
        waiting = await start_that_waits(slow, coordinators)
        listed.append(other.address)
        slow.refuse_finishes = grpc.StatusCode.UNAVAILABLE
        answer = await coordinators.call("FinishAttempts", pb.FinishAttemptsRequest(), timeout_s=10)
        assert answer == pb.FinishAttemptsResponse()
        assert not waiting.done()
        slow.passing.set()
        assert await waiting == pb.StartAttemptsResponse()
        assert (slow.starts, other.starts) == (1, 0), "the call that waited was neither cut nor repeated"
        await coordinators.close()


async def test_channels_to_coordinators_that_are_gone_are_closed_when_their_calls_have_ended() -> None:
    async with serving(Scripted()) as busy, serving(Scripted()) as second, serving(Scripted()) as third:
        listed = [busy.address]
        coordinators = Coordinators(lambda: listed, SystemClock())
        waiting = await start_that_waits(busy, coordinators)

        async def move(old: Scripted, new: Scripted) -> None:
            listed[:] = [new.address]
            old.refuse_finishes = grpc.StatusCode.UNAVAILABLE
            await coordinators.call("FinishAttempts", pb.FinishAttemptsRequest(), timeout_s=10)

        await move(busy, second)
        assert set(coordinators._channels) == {busy.address, second.address}
        busy.passing.set()
        assert await waiting == pb.StartAttemptsResponse()
        await move(second, third)
        assert set(coordinators._channels) == {third.address}
        assert set(coordinators._failed) == set(), "those that failed are listed no more"
        await coordinators.close()


async def test_when_none_answers_in_time_the_outcome_is_unknown() -> None:
    async with serving(Scripted()) as refusing:
        refusing.refuse_starts = grpc.StatusCode.UNAVAILABLE
        coordinators = Coordinators(lambda: [refusing.address, "127.0.0.1:1"], SystemClock())
        with pytest.raises(Unavailable):
            await coordinators.call("StartAttempts", START, timeout_s=1.5)
        assert refusing.starts >= 1
        await coordinators.close()


async def test_a_call_that_one_does_not_know_is_tried_at_another() -> None:
    """As during a rolling upgrade: the first is of an older release, and gives what any gRPC server gives."""
    async with serving(Scripted()) as old, serving(Scripted()) as new:
        new.knows_logs = True
        listed = [old.address]
        coordinators = Coordinators(lambda: listed, SystemClock())
        await coordinators.call("StartAttempts", START)
        assert old.starts == 1
        with pytest.raises(UnknownCall):
            await coordinators.call("AppendLogs", pb.AppendLogsRequest(), timeout_s=1.0)
        listed.append(new.address)
        assert await coordinators.call("AppendLogs", pb.AppendLogsRequest()) == pb.AppendLogsResponse()
        await coordinators.close()


async def test_a_refusal_is_not_tried_elsewhere() -> None:
    async with serving(Scripted()) as refusing, serving(Scripted()) as other:
        refusing.refuse_starts = other.refuse_starts = grpc.StatusCode.PERMISSION_DENIED
        coordinators = Coordinators(lambda: [refusing.address, other.address], SystemClock())
        with pytest.raises(TenureError) as caught:
            await coordinators.call("StartAttempts", START, timeout_s=5)
        assert not isinstance(caught.value, Unavailable | ConfigurationError)
        assert refusing.starts + other.starts == 1
        await coordinators.close()
