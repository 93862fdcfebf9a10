"""One watch over gRPC: a stream that is opened again, elsewhere if need be, from where it broke.

Invariant: every change after the start revision is yielded once, in order, or ``Compacted`` is raised. Faults of etcd
that this guards against: repeated events (dropped by revision), a silent stream (progress is asked for), a store that
went back in time (restored or wiped: reported as ``Compacted``, for the caller has to list again).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.store.etcd.faults import Known, fault
from tenure.store.etcd.grpc_endpoints import Endpoint, Endpoints
from tenure.store.etcd.port import Compacted, Events
from tenure.store.etcd.protobuf_wire import event
from tenure.store.etcd.ranges import prefix_range

log = structlog.get_logger(__name__)

QUIET_S = 5.0
"""Silence after which the member is asked for a sign of life; as much again, and the stream is given up."""
RETRY_S = 0.05
MAX_RETRY_S = 1.0
_PROGRESS = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())


class _Broken(Exception):
    """This stream is of no more use; open another."""


class Watch:
    """The state of one watch over its streams. ``run`` is the async generator that the port promises."""

    def __init__(
        self, endpoints: Endpoints, clock: Clock, prefix: str, start_revision: int, previous: bool, progress: bool
    ) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._prefix = prefix
        self._next = start_revision
        """The first revision not yet yielded; 0 until the first stream is established."""
        self._previous = previous
        self._progress = progress
        self._noticed = 0
        """Revision of the last progress notice."""
        self._established = False
        self._cluster_id = 0
        self._refused = False

    async def run(self) -> AsyncIterator[Events]:
        """Yield changes for ever.

        Raises:
            Compacted: the next revision is forgotten.
            ConfigurationError: reading the prefix is not allowed.
        """
        failures = 0
        while True:
            endpoint = self._endpoints.current
            call: Any = None
            reading: asyncio.Task[Any] | None = None
            try:
                call = endpoint.watch(metadata=await self._endpoints.authenticated())
                await call.write(self._request())
                quiet = False
                while True:
                    reading = reading or asyncio.ensure_future(call.read())
                    done, _ = await asyncio.wait((reading,), timeout=QUIET_S)
                    if not done:
                        if quiet:
                            raise _Broken("silent")
                        quiet = True
                        await asyncio.wait_for(call.write(_PROGRESS), QUIET_S)
                        continue
                    answer, reading, quiet = reading.result(), None, False
                    events = await self._take(answer, endpoint)
                    failures = 0
                    if events is not None:
                        yield events
            except (_Broken, TimeoutError, Unavailable) as exc:
                self._endpoints.failed(endpoint)
                log.debug("etcd watch broken", prefix=self._prefix, endpoint=endpoint.name, reason=str(exc))
            except grpc.aio.AioRpcError as exc:
                await self._failed(exc, endpoint)
            finally:
                if reading is not None:
                    reading.cancel()
                if call is not None:
                    call.cancel()
            failures += 1
            pause = min(RETRY_S * 2 ** min(failures, 8), MAX_RETRY_S)
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))

    def _request(self) -> rpc.WatchRequest:
        start, end = prefix_range(self._prefix)
        return rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=start, range_end=end, start_revision=self._next, prev_kv=self._previous
            )
        )

    async def _take(self, answer: Any, endpoint: Endpoint) -> Events | None:
        if answer is grpc.aio.EOF:
            raise _Broken("ended by the member")
        if answer.canceled:
            await self._canceled(answer, endpoint)
        if answer.created:
            return await self._created(answer, endpoint)
        if not answer.events:
            return self._notice(answer.header.revision)
        self._refused = False
        # Some versions repeat events after a reconnect (etcd PR 15274): what was yielded once is dropped.
        fresh = tuple(event(e) for e in answer.events if e.kv.mod_revision >= self._next)
        if not fresh:
            return None
        self._next = fresh[-1].item.mod_revision + 1
        return Events(fresh, self._next - 1)

    async def _created(self, answer: rpc.WatchResponse, endpoint: Endpoint) -> Events | None:
        revision = answer.header.revision
        if self._cluster_id not in (0, answer.header.cluster_id):
            raise Compacted(revision)
        self._cluster_id = answer.header.cluster_id
        if self._next == 0:
            self._next = revision + 1
        elif revision < self._next - 1:
            await self._check_not_rewound(endpoint)
        if self._established:
            return None
        self._established = True
        return Events((), self._next - 1)

    async def _check_not_rewound(self, endpoint: Endpoint) -> None:
        # A member that lags is behind us too: only a linearizable read tells the two apart.
        start, _ = prefix_range(self._prefix)
        answer = await endpoint.range(
            rpc.RangeRequest(key=start, count_only=True), timeout=QUIET_S, metadata=self._endpoints.metadata
        )
        if answer.header.revision < self._next - 1:
            raise Compacted(answer.header.revision)

    def _notice(self, revision: int) -> Events | None:
        # Before 3.4.25 and 3.5.8 a notice may overtake events (etcd #15220): believed when the next one comes.
        believed, self._noticed = self._noticed, revision
        self._next = max(self._next, min(believed, revision) + 1)
        return Events((), self._next - 1) if self._progress else None

    async def _canceled(self, answer: rpc.WatchResponse, endpoint: Endpoint) -> None:
        if answer.compact_revision:
            raise Compacted(answer.compact_revision)
        reason = answer.cancel_reason
        if "permission denied" in reason or "auth" in reason:
            # A member says this also when the token is old: try once with a new one.
            if self._refused:
                raise fault(grpc.StatusCode.PERMISSION_DENIED.value[0], reason, endpoint.name).error
            self._refused = True
            await self._endpoints.authenticate(self._endpoints.metadata)
        raise _Broken(reason)

    async def _failed(self, exc: grpc.aio.AioRpcError, endpoint: Endpoint) -> None:
        found = self._endpoints.translate(exc, endpoint)
        if found.known is Known.TOKEN:
            await self._endpoints.authenticate(self._endpoints.metadata)
        elif found.known is Known.FINAL:
            raise found.error from exc
        log.debug("etcd watch broken", prefix=self._prefix, endpoint=endpoint.name, reason=exc.details())
