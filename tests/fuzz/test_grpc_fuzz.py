"""Whatever is sent to whichever call, a coordinator answers or refuses it with a reason, and lives on.

Never INTERNAL, which would be a defect of ours, nor UNKNOWN. ``TENURE_FUZZ_EXAMPLES`` says how many messages each
call is sent (10 by default).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.messages import Call, calls, malformed, messages

from tenure.cli.embedded.deployment import Deployment
from tenure.client import Client, NewJob, NewSchedule

EXAMPLES = int(os.environ.get("TENURE_FUZZ_EXAMPLES", "10"))
CALLS = calls()
PATIENCE_S = 30.0
WAITS_S = 0.2
"""For calls that last as long as who calls wants."""
TAKEN = 5
"""Answers of a stream that are read before it is left."""
DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
_settings = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Fuzzed:
    """A coordinator under fuzzing: a channel that carries bytes, and names of what there is."""

    def __init__(self, channel: grpc.Channel, known: list[str]) -> None:
        self.channel = channel
        self.known = known

    def send(self, call: Call, *data: bytes) -> grpc.StatusCode:
        """Send bytes as the message of a call; return what became of it. Answers must be messages."""
        waits = call.is_stream_out or call.name.startswith(("Wait", "Watch"))
        kind = f"{'stream' if call.is_stream_in else 'unary'}_{'stream' if call.is_stream_out else 'unary'}"
        method = getattr(self.channel, kind)(call.path)
        request = iter(data) if call.is_stream_in else data[0]
        read = GetMessageClass(call.answered).FromString
        try:
            answer = method(request, timeout=WAITS_S if waits else PATIENCE_S)
            if not call.is_stream_out:
                read(answer)
                return grpc.StatusCode.OK
            for _, one in zip(range(TAKEN), answer, strict=False):
                read(one)
            answer.cancel()
        except grpc.RpcError as refusal:
            code: grpc.StatusCode = refusal.code()
            assert code not in DEFECTS, f"{call.path}: {code} {refusal.details()}"
            assert waits or code is not grpc.StatusCode.DEADLINE_EXCEEDED, call.path
            return code
        return grpc.StatusCode.OK

    def is_well(self) -> bool:
        """Ask for the coordinator's health."""
        ask: Any = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = health_pb2.HealthCheckResponse.FromString(ask(b"", timeout=PATIENCE_S))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def fuzzed(target: Deployment) -> Iterator[Fuzzed]:
    [address] = target.coordinator_addresses
    with Client(address) as client, grpc.insecure_channel(address) as channel:
        done = client.submit("noop", {})
        assert client.wait(done.id, timeout_s=PATIENCE_S).state == "completed"
        waiting = client.submit("nobody-handles-this", {}, route="default")
        workflow = client.submit_many([NewJob(kind="noop")], workflow="w").workflow_id
        schedule = client.create_schedule(NewSchedule(name="nightly", job=NewJob(kind="noop"), cron="0 3 * * *"))
        yield Fuzzed(channel, [done.id, waiting.id, str(workflow), schedule.id, "nightly", "noop", "default"])
        [coordinator] = target.coordinators
        said = coordinator.output()
        assert "call_failed" not in said
        assert "Traceback" not in said


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path.lstrip("/"))
def test_any_message_is_answered_or_refused(fuzzed: Fuzzed, call: Call) -> None:
    @_settings
    @given(st.lists(messages(call.asked, fuzzed.known), min_size=1, max_size=3 if call.is_stream_in else 1))
    def check(sent: list[Message]) -> None:
        fuzzed.send(call, *(message.SerializeToString() for message in sent))

    check()
    assert fuzzed.is_well()


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path.lstrip("/"))
def test_bytes_that_are_no_message_are_refused(fuzzed: Fuzzed, call: Call) -> None:
    @_settings
    @given(malformed(call.asked, fuzzed.known))
    def check(data: bytes) -> None:
        fuzzed.send(call, data)

    check()
    if call.is_stream_out and call.is_stream_in:
        return
    assert fuzzed.send(call, b"\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT
    assert fuzzed.is_well()
