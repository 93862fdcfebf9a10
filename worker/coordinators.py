"""Calls from a worker to whichever coordinator answers: any of them can serve any call.

A coordinator that cannot be reached costs the time to try the next one; the list comes from the settings or from
etcd, where each coordinator registers.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import structlog

from tenure.model.clock import Clock
from tenure.model.errors import Unavailable
from tenure.v1.bearer import Bearer
from tenure.v1.dial import TLS, Dialer, warn_of_token_in_the_open
from tenure.v1.wire import error_from_status
from tenure.v1.worker_service_pb2_grpc import WorkerServiceStub
from tenure.worker.link import UnknownCall

log = structlog.get_logger(__name__)

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
    """A channel to each coordinator that was needed, and the one that calls go to now.

    A channel is never closed under the calls of others: that would cancel them. Those of failed coordinators stay, and
    reconnect by themselves when their turn comes again; those of coordinators that are listed no more are closed when
    another is opened. Those with TLS files that were renewed are put aside, and closed in the end.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        clock: Clock,
        *,
        tls: TLS | None = None,
        bearer: Bearer | None = None,
    ) -> None:
        self._addresses = addresses
        self._dialer = Dialer(tls)
        self._tls = tls
        self._clock = clock
        self._bearer = bearer or Bearer()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._old: list[grpc.aio.Channel] = []
        self._stubs: dict[str, Any] = {}
        """The methods over each channel: made once, since it takes as long as half a call to make them."""
        self._calls: Counter[str] = Counter()
        """How many calls to an address are under way."""
        self._chosen = ""
        self._failed: dict[str, float] = {}

    async def call(self, method: str, request: Any, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call a method of WorkerService on some coordinator, trying others while time lasts.

        Raises:
            Unavailable: none answered in time; the outcome is unknown. UnknownCall: the last one that did is of a
            release that does not have it.
            TenureError: the coordinator's refusal.
        """
        until = self._clock.monotonic() + timeout_s
        pause_s = 0.05
        is_unknown = False
        while True:
            remaining = until - self._clock.monotonic()
            if remaining <= 0 and is_unknown:
                raise UnknownCall(f"no coordinator that answered within {timeout_s:g} s knows {method}")
            if remaining <= 0:
                raise Unavailable(f"{method}: no coordinator answered within {timeout_s:g} s")
            address = self._choose()
            if address is None:
                await asyncio.sleep(min(0.2, remaining))
                continue
            try:
                # Half of what is left for one coordinator, so that a hanging one leaves time for another.
                return await self._ask(address, method, request, timeout_s=max(0.5, remaining / 2))
            except grpc.aio.AioRpcError as exc:
                # Of an older release, or a proxy with no coordinator behind it: another may know the call.
                is_unknown = exc.code() is grpc.StatusCode.UNIMPLEMENTED
                if not is_unknown and exc.code() not in _RETRY:
                    raise error_from_status(exc) from exc
                log.info("coordinator_failed", address=address, method=method, status=exc.code().name)
                self._failed[address] = self._clock.monotonic()
                if self._chosen == address:
                    self._chosen = ""
                if self._dialer.reread():
                    self._old += self._channels.values()
                    self._channels.clear()
                    self._stubs.clear()
                await asyncio.sleep(min(pause_s * random.uniform(0.5, 1.0), max(0.0, remaining)))
                pause_s = min(pause_s * 2, 1.0)

    async def close(self) -> None:
        """Close the channels."""
        channels, self._channels, self._old = [*self._channels.values(), *self._old], {}, []
        self._stubs.clear()
        for channel in channels:
            await channel.close()

    def turn_away(self) -> None:
        """Let the next calls go to another coordinator, if there is one: the one that answers now is of no use."""
        self._failed[self._chosen] = self._clock.monotonic()
        self._chosen = ""

    def _choose(self) -> str | None:
        if not self._chosen:
            addresses = list(self._addresses())
            random.shuffle(addresses)  # spread over the coordinators; those that failed last come last
            self._chosen = min(addresses, key=lambda address: self._failed.get(address, 0.0), default="")
        return self._chosen or None

    async def _ask(self, address: str, method: str, request: Any, *, timeout_s: float) -> Any:
        self._calls[address] += 1
        try:
            stub = self._stubs.get(address) or await self._open(address)
            return await getattr(stub, method)(request, timeout=timeout_s, metadata=self._bearer.metadata())
        finally:
            self._calls[address] -= 1

    async def _open(self, address: str) -> Any:
        warn_of_token_in_the_open(bool(self._bearer.metadata()), [address], self._tls)
        channel = self._channels[address] = self._dialer.channel(address, _OPTIONS)
        stub = self._stubs[address] = WorkerServiceStub(channel)
        await self._drop_unlisted()
        return stub

    async def _drop_unlisted(self) -> None:
        """Close and forget what belongs to coordinators that are gone, unless calls to them are under way."""
        self._calls = +self._calls
        kept = {*self._addresses(), *self._calls}
        self._failed = {address: at for address, at in self._failed.items() if address in kept}
        dropped = self._channels.keys() - kept
        for address in dropped:
            del self._stubs[address]
        for channel in [self._channels.pop(address) for address in dropped]:
            await channel.close()
