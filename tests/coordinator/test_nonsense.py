"""Whatever a caller sends, it is answered or refused with a reason, never with INTERNAL."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.coordinator.test_grpc import Service, service

from tenure.model.jobs import JobSpec, PlannedJob
from tenure.store.postgres.submit import write_jobs
from tenure.store.postgres.taken import KeyTaken
from tenure.v1 import cluster_service_pb2, job_service_pb2, worker_service_pb2

__all__ = ["service"]

READY, EXECUTING, FENCE = uuid.UUID(int=1), uuid.UUID(int=2), 5
METHODS = [
    (f"/{descriptor.full_name}/{method.name}", method.input_type, method.output_type)
    for file in (job_service_pb2, worker_service_pb2, cluster_service_pb2)
    for descriptor in file.DESCRIPTOR.services_by_name.values()
    for method in descriptor.methods
    if method.name != "WatchJob"
]
TIMEOUT_S = {"WaitJob": 0.25, "WatchCluster": 0.25}

_text = st.one_of(
    st.sampled_from(
        ["", "k", "default", "a/b", "null", "{}", "\x00", '"\\u0000"', "[1e999]", str(READY), str(EXECUTING)]
    ),
    st.text(st.characters(codec="utf-8"), max_size=20),
)


def _integers(bits: int) -> st.SearchStrategy[int]:
    edge = 2 ** (bits - 1)
    return st.one_of(st.sampled_from([0, 1, -1, FENCE, edge - 1, -edge]), st.integers(-edge, edge - 1))


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_INT32: _integers(32),
    FieldDescriptor.TYPE_INT64: _integers(64),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 12),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_BYTES: st.one_of(st.binary(max_size=40), st.just(bytes(32))),
}


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _message(field.message_type)
    return _SCALARS[field.type]


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if not field.is_repeated:
        return _value(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(_value(entry["key"]), _value(entry["value"]), max_size=3)
    return st.lists(_value(field), max_size=3)


def _message(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    make: Callable[..., Message] = GetMessageClass(descriptor)
    fields = {field.name: _field(field) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: make(**values))


_calls = st.sampled_from(METHODS).flatmap(lambda method: st.tuples(st.just(method), _message(method[1])))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(_calls, min_size=3, max_size=8))
async def test_no_message_is_an_internal_error(service: Service, calls: list[tuple[Any, Message]]) -> None:
    await _jobs_to_be_found(service)
    for (path, _, output), request in calls:
        await _call(service, path, output, request)


async def _call(service: Service, path: str, output: Descriptor, request: Message) -> None:
    method = service.channel.unary_unary(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(output).FromString,
    )
    try:
        await method(request, timeout=TIMEOUT_S.get(path.rpartition("/")[2], 30.0))
    except grpc.aio.AioRpcError as refusal:
        assert refusal.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), refusal.details()


async def _jobs_to_be_found(service: Service) -> None:
    """Make sure that there are jobs which a message can mean, one of them executing under a known fence."""
    for id in (READY, EXECUTING):
        if await service.parts.row(id) is None:
            try:
                await write_jobs(service.parts.db, [PlannedJob(id, JobSpec(kind="k"), (), b"")], [1])
            except KeyTaken:
                continue
    await service.parts.sql(
        "UPDATE tenure.job SET state = 'executing', fence = %s, worker = 'w', lease = 1, claim_revision = 1,"
        " attempt = 1, started_at = now(), cancel_requested = false WHERE id = %s",
        FENCE,
        EXECUTING,
    )
