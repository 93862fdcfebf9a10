"""The port's operations as etcd's protobuf messages, and back. Pure; used by the client for both transports.

Written for speed: requests are filled in place, since the parts of a protobuf message are copied when assigned.
"""

from __future__ import annotations

from collections.abc import Iterable

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.port import (
    Compare,
    Delete,
    DeleteResult,
    Event,
    EventKind,
    Field,
    Get,
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
    match compare.field:
        case Field.CREATE:
            message.target = rpc.Compare.CREATE
            message.create_revision = compare.number
        case Field.MOD:
            message.target = rpc.Compare.MOD
            message.mod_revision = compare.number
        case Field.VERSION:
            message.version = compare.number
        case Field.LEASE:
            message.target = rpc.Compare.LEASE
            message.lease = compare.number


def _fill_operation(message: rpc.RequestOp, operation: Operation) -> None:
    match operation:
        case Txn():
            nested = message.request_txn
            nested.SetInParent()
            fill_txn(nested, operation)
        case Put():
            put = message.request_put
            put.key = operation.key.encode()
            put.value = operation.value
            if operation.lease:
                put.lease = operation.lease
        case Delete():
            delete = message.request_delete_range
            if operation.prefix:
                delete.key, delete.range_end = prefix_range(operation.key)
            else:
                delete.key = operation.key.encode()
        case Get():
            read = message.request_range
            if operation.prefix:
                read.key, read.range_end = prefix_range(operation.key)
            else:
                read.key = operation.key.encode()
            if operation.keys_only:
                read.keys_only = True


def txn_result(message: rpc.TxnResponse) -> TxnResult:
    """Read the answer to a transaction."""
    revision = message.header.revision if message.HasField("header") else 0
    return TxnResult(message.succeeded, tuple(_operation_result(r) for r in message.responses), revision)


def _operation_result(message: rpc.ResponseOp) -> OperationResult:
    match message.WhichOneof("response"):
        case "response_txn":
            nested = message.response_txn
            return TxnResult(nested.succeeded, tuple(_operation_result(r) for r in nested.responses))
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
    kind = EventKind.DELETE if message.type == rpc.Event.DELETE else EventKind.PUT
    previous = key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return Event(kind, key_value(message.kv), previous)
