"""The port's operations as etcd's protobuf messages, and back. Pure; used by the client for both transports.

Written for speed: requests are filled in place, since the parts of a protobuf message are copied when assigned; a part
of an answer is a new object each time it is named, so that each is named once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.port import (
    Compare,
    Delete,
    DeleteResult,
    Event,
    EventKind,
    Field,
    GetResult,
    KeyValue,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Txn,
    TxnResult,
)
from tenure.store.etcd.ranges import prefix_range

_PUT = PutResult()
# Named once: to look up a member of an enumeration costs as much as to fill the field.
_CREATE, _LEASE, _MOD = Field.CREATE, Field.LEASE, Field.MOD
_WAS_PUT, _WAS_DELETED, _DELETED = EventKind.PUT, EventKind.DELETE, rpc.Event.DELETE
_BY_CREATE, _BY_LEASE = rpc.Compare.CREATE, rpc.Compare.LEASE


def fill_txn(message: rpc.TxnRequest, txn: Txn) -> None:
    """Write a transaction into an empty message."""
    add_compare = message.compare.add
    for compare in txn.compares:
        _fill_compare(add_compare(), compare)
    for branch, operations in ((message.success, txn.then), (message.failure, txn.otherwise)):
        add = branch.add
        for operation in operations:
            _fill_operation(add(), operation)


def _fill_compare(message: rpc.Compare, compare: Compare) -> None:
    message.key = compare.key.encode()
    if compare.field is _CREATE:
        message.target = _BY_CREATE
        message.create_revision = compare.number
    elif compare.field is _LEASE:
        message.target = _BY_LEASE
        message.lease = compare.number
    elif compare.field is _MOD:
        message.target = rpc.Compare.MOD
        message.mod_revision = compare.number
    else:
        message.version = compare.number


def _fill_operation(message: rpc.RequestOp, operation: Operation) -> None:
    if isinstance(operation, Put):
        put = message.request_put
        put.key = operation.key.encode()
        put.value = operation.value
        if operation.lease:
            put.lease = operation.lease
    elif isinstance(operation, Delete):
        delete = message.request_delete_range
        if operation.prefix:
            delete.key, delete.range_end = prefix_range(operation.key)
        else:
            delete.key = operation.key.encode()
    elif isinstance(operation, Txn):
        nested = message.request_txn
        nested.SetInParent()
        fill_txn(nested, operation)
    else:
        read = message.request_range
        if operation.prefix:
            read.key, read.range_end = prefix_range(operation.key)
        else:
            read.key = operation.key.encode()
        if operation.keys_only:
            read.keys_only = True


class _Results(Sequence[OperationResult]):
    """The results in an answer, read when they are looked at."""

    def __init__(self, messages: Sequence[rpc.ResponseOp]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> OperationResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[OperationResult]: ...
    def __getitem__(self, index: int | slice) -> OperationResult | Sequence[OperationResult]:
        if isinstance(index, slice):
            return _Results(self._messages[index])
        return _operation_result(self._messages[index])


def txn_result(message: rpc.TxnResponse) -> TxnResult:
    """Read the answer to a transaction."""
    return TxnResult(message.succeeded, _Results(message.responses), message.header.revision)


def _operation_result(message: rpc.ResponseOp) -> OperationResult:
    match message.WhichOneof("response"):
        case "response_txn":
            nested = message.response_txn
            return TxnResult(nested.succeeded, tuple(map(_operation_result, nested.responses)))
        case "response_put":
            return _PUT
        case "response_delete_range":
            return DeleteResult(message.response_delete_range.deleted)
        case _:
            return GetResult(key_values(message.response_range.kvs))


def key_value(message: rpc.KeyValue) -> KeyValue:
    """Read one key."""
    return KeyValue(
        message.key.decode(errors="replace"),
        message.value,
        message.create_revision,
        message.mod_revision,
        message.lease,
    )


def key_values(messages: Iterable[rpc.KeyValue]) -> tuple[KeyValue, ...]:
    """Read keys, in the order given."""
    return tuple(map(key_value, messages))


def event(message: rpc.Event) -> Event:
    """Read one change."""
    kind = _WAS_DELETED if message.type == _DELETED else _WAS_PUT
    previous = key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return Event(kind, key_value(message.kv), previous)
