"""Hints: telling the leader that jobs became ready, so that it need not wait for its next poll.

A hint grants nothing and may be lost. While one is under way, and for a moment after, the next ones gather into one: a
call costs both coordinators as much as several submits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import structlog

from tenure.model.errors import TenureError
from tenure.v1 import cluster_service_pb2 as pb
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tenure.v1.dial import TLS, Dialer

log = structlog.get_logger(__name__)

HINT_TIMEOUT_S = 1.0
PAUSE_S = 0.005
"""After a hint, until the next."""
EVERYWHERE: frozenset[int] = frozenset()
"""On the wire, and to the leader, no lane means all of them."""


class Hints:
    """Collects lanes and sends them to whoever leads."""

    def __init__(
        self,
        leader_address: Callable[[], str | None],
        deliver_here: Callable[[frozenset[int]], bool],
        *,
        tls: TLS | None = None,
        own_token: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """``deliver_here`` takes the hint if this process leads; else it goes to ``leader_address()``.

        ``own_token`` gives what coordinators show each other, where credentials are asked for.
        """
        self._own_token = own_token
        self._dialer = Dialer(tls)
        self._leader_address = leader_address
        self._deliver_here = deliver_here
        self._lanes: set[int] = set()
        self._everywhere = False
        self._some = asyncio.Event()

    def ready(self, lanes: Iterable[int]) -> None:
        """Note that jobs became ready in these lanes."""
        gathered = frozenset(lanes)
        if gathered and not self._deliver_here(gathered):
            self._lanes |= gathered
            self._some.set()

    def everywhere(self) -> None:
        """Note that rules changed: the leader reads them, and looks into every lane."""
        if not self._deliver_here(EVERYWHERE):
            self._everywhere = True
            self._some.set()

    async def run(self) -> None:
        """Send what gathers until cancelled: the body of a task."""
        address: str | None = None
        channel: grpc.aio.Channel | None = None
        stub: Any = None
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                lanes, self._lanes = self._lanes, set()
                everywhere, self._everywhere = self._everywhere, False
                if everywhere:
                    lanes = set()
                leader = self._leader_address()
                if leader is None or self._deliver_here(frozenset(lanes)):
                    continue  # nobody leads: the next leader reads everything anyway
                if leader != address or channel is None:
                    if channel is not None:
                        await channel.close()
                    address, channel = leader, self._dialer.channel(leader)
                    stub = ClusterServiceStub(channel)  # once: making its methods takes as long as half a call
                try:
                    shown = (("authorization", f"Bearer {await self._own_token()}"),) if self._own_token else ()
                    await stub.HintReady(pb.HintReadyRequest(lanes=lanes), timeout=HINT_TIMEOUT_S, metadata=shown)
                except grpc.aio.AioRpcError as exc:
                    log.debug("hint_lost", leader=leader, status=exc.code().name)
                    if self._dialer.reread():
                        address = None  # the next one goes over a channel of its own
                except TenureError as exc:
                    log.debug("hint_lost", leader=leader, reason=exc.message)
                await asyncio.sleep(PAUSE_S)
        finally:
            if channel is not None:
                await channel.close()
