"""The port, implemented once over members of either transport.

Owns: the translation between the port's vocabulary and etcd's messages, and which calls may be repeated. A client
belongs to the event loop that first uses it. Made by ``connect``.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Sequence

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.keepalive import KeepAlives
from tenure.store.etcd.member import COMPACT, GRANT, RANGE, REVOKE, STATUS, TIME_TO_LIVE, TXN, Member
from tenure.store.etcd.members import Members
from tenure.store.etcd.options import EtcdOptions
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
    TimeToLive,
    Txn,
    TxnResult,
)
from tenure.store.etcd.protobuf_wire import fill_txn, key_value, txn_result
from tenure.store.etcd.ranges import after, prefix_range
from tenure.store.etcd.watching import Watch

PAGE_KEYS = 1000
_ALARM = re.compile(r"alarm:(\w+)")


class EtcdClient:
    """``port.Etcd``; see there for what each call promises."""

    def __init__(self, open_members: Callable[[], Sequence[Member]], count: int, options: EtcdOptions) -> None:
        self._clock = options.clock
        self._timeout_s = options.timeout_s
        self._members = Members(open_members, count, options)
        self._keep_alives = KeepAlives(self._members, options.clock)

    async def txn(self, txn: Txn, *, timeout_s: float | None = None, repeatable: bool = False) -> TxnResult:
        """Run a transaction. Repeated after an unknown outcome if it only reads or is said to be repeatable."""
        request = rpc.TxnRequest()
        fill_txn(request, txn)
        repeatable = repeatable or _only_reads(txn)
        return txn_result(await self._members.call(TXN, request, timeout_s=timeout_s, repeatable=repeatable))

    async def get(self, key: str, *, timeout_s: float | None = None) -> KeyValue | None:
        """Read one key, linearizable."""
        answer = await self._members.call(RANGE, rpc.RangeRequest(key=key.encode()), timeout_s=timeout_s)
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
            left_s = max(deadline - self._clock.monotonic(), 0.0)
            answer = await self._members.call(RANGE, request, timeout_s=left_s)
            items.extend(map(key_value, answer.kvs))
            revision = revision or answer.header.revision
            if not answer.more:
                return Listing(tuple(items), revision)
            start = after(answer.kvs[-1].key)

    async def grant(self, ttl_s: float, *, timeout_s: float | None = None) -> Grant:
        """Grant a lease; whole seconds, rounded up. After an unknown outcome another is granted: the first expires."""
        sent_at = self._clock.monotonic()  # of the first try: too early at worst
        request = rpc.LeaseGrantRequest(ttl=math.ceil(ttl_s))
        answer = await self._members.call(GRANT, request, timeout_s=timeout_s)
        return Grant(answer.id, float(answer.ttl), sent_at)

    async def revoke(self, lease: int, *, timeout_s: float | None = None) -> bool:
        """Revoke a lease and delete its keys. False if it was gone already."""
        try:
            await self._members.call(REVOKE, rpc.LeaseRevokeRequest(id=lease), timeout_s=timeout_s)
        except Refused as exc:
            if exc.reason is Refusal.LEASE_GONE:
                return False
            raise
        return True

    async def time_to_live(self, lease: int, *, timeout_s: float | None = None) -> TimeToLive | None:
        """Ask how long a lease has left, without renewing it. None if it is gone."""
        try:
            answer = await self._members.call(TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(id=lease), timeout_s=timeout_s)
        except Refused as exc:
            if exc.reason is Refusal.LEASE_GONE:
                return None
            raise
        return TimeToLive(float(answer.ttl), float(answer.granted_ttl)) if answer.ttl >= 0 else None

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """Send a KeepAlive for each lease (all distinct) and collect the answers that come within the timeout."""
        return await self._keep_alives.renew(leases, timeout_s)

    def watch(
        self,
        prefix: str,
        *,
        start_revision: int = 0,
        previous: bool = False,
        progress: bool = False,
        deletions: bool = True,
        on_broken: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Events]:
        """Stream changes under a prefix from a revision on (0: from now), over reconnects without gap or repeat."""
        return Watch(
            self._members,
            self._clock,
            prefix,
            start_revision,
            previous=previous,
            progress=progress,
            deletions=deletions,
            on_broken=on_broken,
        ).run()

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """Ask a member for its status."""
        answer = await self._members.call(STATUS, rpc.StatusRequest(), timeout_s=timeout_s)
        return Status(
            cluster_id=answer.header.cluster_id,
            member_id=answer.header.member_id,
            leader_id=answer.leader,
            revision=answer.header.revision,
            version=answer.version,
            db_size_bytes=answer.db_size,
            endpoint=self._members.current.name,
            alarms=tuple(sorted({name for text in answer.errors for name in _ALARM.findall(text)})),
        )

    async def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Forget history before a revision. Done already counts as done."""
        try:
            await self._members.call(COMPACT, rpc.CompactionRequest(revision=revision), timeout_s=timeout_s)
        except Compacted:
            return

    async def close(self) -> None:
        """Close connections; watches end."""
        self._keep_alives.close()
        await self._members.close()


def _only_reads(txn: Txn) -> bool:
    return all(map(_is_read, txn.then)) and all(map(_is_read, txn.otherwise))


def _is_read(operation: Operation) -> bool:
    return isinstance(operation, Get) or (isinstance(operation, Txn) and _only_reads(operation))
