"""Calls from a worker to whichever coordinator answers: any of them can serve any call.

A coordinator that cannot be reached costs the time to try the next one; the list comes from the settings or from
etcd, where each coordinator registers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import structlog

from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.v1.wire import error_from_status
from tenure.v1.worker_service_pb2_grpc import WorkerServiceStub

log = structlog.get_logger(__name__)

Response = TypeVar("Response")

CALL_TIMEOUT_S = 10.0
_RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Coordinators:
    """A channel to one coordinator, and the others to turn to."""

    def __init__(self, addresses: Callable[[], Sequence[str]], clock: Clock) -> None:
        self._addresses = addresses
        self._clock = clock
        self._address = ""
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._failed: dict[str, float] = {}

    async def call(self, method: str, request: Any, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call a method of WorkerService on some coordinator, trying others while time lasts.

        Raises:
            Unavailable: none answered in time; the outcome is unknown.
            TenureError: the coordinator's refusal.
        """
        until = self._clock.monotonic() + timeout_s
        pause_s = 0.05
        while True:
            stub = await self._connect()
            remaining = until - self._clock.monotonic()
            if remaining <= 0:
                raise Unavailable(f"{method}: no coordinator answered within {timeout_s:g} s")
            if stub is None:
                await asyncio.sleep(min(0.2, remaining))
                continue
            try:
                # Half of what is left for one coordinator, so that a hanging one leaves time for another.
                call: Awaitable[Any] = getattr(stub, method)(request, timeout=max(0.5, remaining / 2))
                return await call
            except grpc.aio.AioRpcError as exc:
                if exc.code() not in _RETRY:
                    raise error_from_status(exc) from exc
                log.info("coordinator_failed", address=self._address, method=method, status=exc.code().name)
                self._failed[self._address] = self._clock.monotonic()
                await self._disconnect()
                await asyncio.sleep(min(pause_s * random.uniform(0.5, 1.0), max(0.0, remaining)))
                pause_s = min(pause_s * 2, 1.0)

    async def close(self) -> None:
        """Close the channel."""
        await self._disconnect()

    async def _connect(self) -> Any:
        if self._stub is None:
            addresses = list(self._addresses())
            if not addresses:
                return None
            random.shuffle(addresses)  # spread over the coordinators; those that failed last come last
            self._address = min(addresses, key=lambda address: self._failed.get(address, 0.0))
            self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
            self._stub = WorkerServiceStub(self._channel)
        return self._stub

    async def _disconnect(self) -> None:
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()
