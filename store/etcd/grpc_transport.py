"""The port over etcd's own gRPC API: the default transport.

Owns: the calls and when they may be repeated. Reads and other calls that do no harm twice are tried on every endpoint
until the time is over; a transaction that writes is sent again only if it certainly was not done. Channels and
tokens are in ``grpc_endpoints``, KeepAlives in ``grpc_keepalive``, watches in ``grpc_watch``. One instance belongs to
one event loop; channels are opened on first use.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.errors import Unavailable
from tenure.store.etcd.faults import Known
from tenure.store.etcd.grpc_endpoints import Endpoints
from tenure.store.etcd.grpc_keepalive import KeepAliveStreams
from tenure.store.etcd.grpc_watch import Watch
from tenure.store.etcd.options import Address, EtcdOptions
from tenure.store.etcd.port import (
    Compacted,
    Events,
    Get,
    Grant,
    KeyValue,
    Listing,
    Operation,
    Refusal,
    Refused,
    Renewal,
    Status,
    Txn,
    TxnResult,
)
from tenure.store.etcd.protobuf_wire import fill_txn, key_value, txn_result
from tenure.store.etcd.ranges import after, prefix_range

PAGE_KEYS = 1000
RETRY_S = 0.02
MAX_RETRY_S = 0.25
_ALARM = re.compile(r"alarm:(\w+)")


class GrpcEtcd:
    """``port.Etcd`` over gRPC."""

    def __init__(self, addresses: tuple[Address, ...], options: EtcdOptions) -> None:
        self._clock = options.clock
        self._timeout_s = options.timeout_s
        self._endpoints = Endpoints(addresses, options)
        self._keep_alive = KeepAliveStreams(self._endpoints, options.clock)

    async def txn(self, txn: Txn, *, timeout_s: float | None = None) -> TxnResult:
        """Run a transaction. Not repeated after an unknown outcome, unless it only reads."""
        request = rpc.TxnRequest()
        fill_txn(request, txn)
        return txn_result(await self._call("txn", request, timeout_s, repeatable=_only_reads(txn)))

    async def get(self, key: str, *, timeout_s: float | None = None) -> KeyValue | None:
        """Read one key, linearizable."""
        answer = await self._call("range", rpc.RangeRequest(key=key.encode()), timeout_s)
        return key_value(answer.kvs[0]) if answer.kvs else None

    async def list(
        self, prefix: str, *, revision: int = 0, keys_only: bool = False, timeout_s: float | None = None
    ) -> Listing:
        """Read every key under a prefix, in pages, all at one revision (the newest if 0)."""
        deadline = self._clock.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                return await self._list(prefix, revision, keys_only, deadline)
            except Compacted:
                # The newest revision was forgotten between two of our pages: begin anew, while there is time.
                if revision or self._clock.monotonic() >= deadline:
                    raise

    async def _list(self, prefix: str, revision: int, keys_only: bool, deadline: float) -> Listing:
        start, end = prefix_range(prefix)
        items: list[KeyValue] = []
        while True:
            request = rpc.RangeRequest(
                key=start, range_end=end, limit=PAGE_KEYS, revision=revision, keys_only=keys_only
            )
            answer = await self._call("range", request, max(deadline - self._clock.monotonic(), 0.0))
            items.extend(map(key_value, answer.kvs))
            revision = revision or answer.header.revision
            if not answer.more:
                return Listing(tuple(items), revision)
            start = after(answer.kvs[-1].key)

    async def grant(self, ttl_s: float, *, timeout_s: float | None = None) -> Grant:
        """Grant a lease; whole seconds, rounded up. After an unknown outcome another is granted: the first expires."""
        sent_at = self._clock.monotonic()  # of the first try: too early at worst
        answer = await self._call("grant", rpc.LeaseGrantRequest(ttl=math.ceil(ttl_s)), timeout_s)
        return Grant(answer.id, float(answer.ttl), sent_at)

    async def revoke(self, lease: int, *, timeout_s: float | None = None) -> bool:
        """Revoke a lease and delete its keys. False if it was gone already."""
        try:
            await self._call("revoke", rpc.LeaseRevokeRequest(id=lease), timeout_s)
        except Refused as exc:
            if exc.reason is Refusal.LEASE_GONE:
                return False
            raise
        return True

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """Send a KeepAlive for each lease (all distinct) and collect the answers that come within the timeout."""
        return await self._keep_alive.renew(leases, timeout_s)

    def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False, progress: bool = False
    ) -> AsyncIterator[Events]:
        """Stream changes under a prefix from a revision on (0: from now), over reconnects without gap or repeat."""
        return Watch(self._endpoints, self._clock, prefix, start_revision, previous, progress).run()

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """Ask the current endpoint for its status."""
        endpoint = self._endpoints.current
        answer = await self._call("status", rpc.StatusRequest(), timeout_s)
        return Status(
            cluster_id=answer.header.cluster_id,
            member_id=answer.header.member_id,
            leader_id=answer.leader,
            revision=answer.header.revision,
            version=answer.version,
            db_size_bytes=answer.db_size,
            endpoint=endpoint.name,
            alarms=tuple(sorted({name for text in answer.errors for name in _ALARM.findall(text)})),
        )

    async def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Forget history before a revision. Done already counts as done."""
        try:
            await self._call("compact", rpc.CompactionRequest(revision=revision), timeout_s)
        except Compacted:
            return

    async def close(self) -> None:
        """Close connections; watches end."""
        await self._keep_alive.close()
        await self._endpoints.close()

    async def _call(self, name: str, request: Any, timeout_s: float | None, *, repeatable: bool = True) -> Any:
        """Send a request until it is answered, refused, or the time is over."""
        endpoints = self._endpoints
        budget_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = self._clock.monotonic() + budget_s
        left_s, tries, tokens = budget_s, 0, 0
        while True:
            metadata = await endpoints.authenticated()
            endpoint = endpoints.current
            # One member that hangs must not use up the time of a call that may be tried elsewhere.
            share = max(len(endpoints) - tries, 1) if repeatable else 1
            try:
                return await getattr(endpoint, name)(request, timeout=left_s / share, metadata=metadata)
            except grpc.aio.AioRpcError as exc:
                found = endpoints.translate(exc, endpoint)
                if found.known is Known.FINAL or (found.known is Known.UNKNOWN and not repeatable):
                    raise found.error from exc
                if found.known is Known.TOKEN:
                    tokens += 1
                    if tokens > 2:
                        raise found.error from exc
                    await endpoints.authenticate(metadata)
                cause = exc
            tries += 1
            if tries >= len(endpoints):
                pause = min(RETRY_S * 2 ** min(tries - len(endpoints), 6), MAX_RETRY_S)
                await self._clock.sleep(pause * random.uniform(0.5, 1.0))
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                raise found.error if found.known is not Known.TOKEN else Unavailable(str(found.error)) from cause


def _only_reads(txn: Txn) -> bool:
    return all(_is_read(operation) for operation in (*txn.then[:1], *txn.otherwise[:1])) and all(
        _is_read(operation) for operation in (*txn.then, *txn.otherwise)
    )


def _is_read(operation: Operation) -> bool:
    return isinstance(operation, Get) or (isinstance(operation, Txn) and _only_reads(operation))
