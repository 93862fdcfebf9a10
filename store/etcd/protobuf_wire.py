"""The port's operations as etcd's protobuf messages, and back. Pure; used by the client for both transports.

Written for speed: requests are filled in place, since the parts of a protobuf message are copied when assigned; a part
of an answer is a new object each time it is named, so that each is named once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.port import (
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
_DELETED = rpc.Event.DELETE
_COMPARED = {
    Field.CREATE: (rpc.Compare.CREATE, "create_revision"),
    Field.MOD: (rpc.Compare.MOD, "mod_revision"),
    Field.VERSION: (rpc.Compare.VERSION, "version"),
    Field.LEASE: (rpc.Compare.LEASE, "lease"),
}


def fill_txn(message: rpc.TxnRequest, txn: Txn) -> None:
    """Write a transaction into an empty message."""
    add_compare: Any = message.compare.add
    for compare in txn.compares:
        target, number = _COMPARED[compare.field]
        add_compare(key=compare.key.encode(), target=target, **{number: compare.number})
    for branch, operations in ((message.success, txn.then), (message.failure, txn.otherwise)):
        add = branch.add
        for operation in operations:
            _fill_operation(add(), operation)


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
    kind = EventKind.DELETE if message.type == _DELETED else EventKind.PUT
    previous = key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return Event(kind, key_value(message.kv), previous)
