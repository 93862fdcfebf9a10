"""Messages of any kind, and bytes that are none, for every call that the descriptors know."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from hypothesis import strategies as st

from tenure import v1

HOSTILE = (
    "",
    "k",
    "default",
    "a/b",
    "%",
    "_",
    "\\",
    "'; DROP TABLE tenure.job; --",
    "../../etc/passwd",
    "$(touch x)",
    "{}",
    "null",
    "[1e999]",
    "[" * 2_000,
    '"\\u0000"',
    "\x00",
    "a\nb",
    "\x1b[2J",
    "\u202egnp",
    "\N{PILE OF POO}",
    "x" * 70_000,
    "00000000-0000-0000-0000-000000000000",
    "* * * * *",
    "0 0 31 2 *",
    "Europe/Berlin",
    "Zm9v",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a service."""

    path: str
    asked: Descriptor
    answered: Descriptor
    is_stream_in: bool
    is_stream_out: bool

    @property
    def name(self) -> str:
        """Its name within its service."""
        return self.path.rpartition("/")[2]


def calls() -> list[Call]:
    """Return every call of every service of tenure, as the generated files have them, and the health service's."""
    modules = [
        importlib.import_module(f"tenure.v1.{found.name}")
        for found in pkgutil.iter_modules(v1.__path__)
        if found.name.endswith("_service_pb2")
    ]
    return [
        Call(f"/{service.full_name}/{method.name}", method.input_type, method.output_type,
             method.client_streaming, method.server_streaming)
        for module in (*modules, health_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]  # fmt: skip


def messages(descriptor: Descriptor, known: Sequence[str]) -> st.SearchStrategy[Message]:
    """Return messages of a type with any values; ``known`` are texts that mean something to the one who is asked."""
    make: Callable[..., Message] = GetMessageClass(descriptor)
    fields = {field.name: _field(field, known) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: make(**values))


def malformed(descriptor: Descriptor, known: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Return bytes that are hardly ever a message of the type: any, and messages cut, changed or run together."""
    whole = messages(descriptor, known).map(lambda message: message.SerializeToString())
    cut = st.tuples(whole, st.integers(1, 20)).map(lambda pair: pair[0][: -pair[1]])
    changed = st.tuples(whole, st.integers(0, 1_000), st.binary(min_size=1, max_size=4)).map(_changed)
    return st.one_of(st.binary(max_size=200), cut, changed, st.tuples(whole, whole).map(b"".join))


def _changed(parts: tuple[bytes, int, bytes]) -> bytes:
    data, at, other = parts
    at %= len(data) + 1
    return data[:at] + other + data[at + len(other) :]


def _integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([0, 1, least, most, max(least, -1)]), st.integers(least, most))


_NUMBERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_INT32: _integers(32),
    FieldDescriptor.TYPE_INT64: _integers(64),
    FieldDescriptor.TYPE_UINT32: _integers(32, signed=False),
    FieldDescriptor.TYPE_UINT64: _integers(64, signed=False),
    FieldDescriptor.TYPE_ENUM: st.one_of(st.integers(-1, 12), _integers(32)),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=64),
}


def _value(field: FieldDescriptor, known: Sequence[str]) -> st.SearchStrategy[Any]:
    if (descriptor := field.message_type) is not None:
        return st.deferred(lambda: messages(descriptor, known))
    if field.type == FieldDescriptor.TYPE_STRING:
        any_text = st.text(st.characters(codec="utf-8"), max_size=20)
        return st.one_of(st.sampled_from([*HOSTILE, *known]), st.sampled_from(known), any_text)
    return _NUMBERS[field.type]


def _field(field: FieldDescriptor, known: Sequence[str]) -> st.SearchStrategy[Any]:
    if not field.is_repeated:
        return _value(field, known)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(_value(entry["key"], known), _value(entry["value"], known), max_size=40)
    return st.lists(_value(field, known), max_size=4)
