"""The connection to the coordinators: which one to ask, for how long, and when to ask again.

Owns the channels (one per address, made on first use, on the loop that uses them). Sticks to one coordinator and
moves on when it does not answer. Invariant: a call ends within its ``timeout_s``, and what is sent again is the
same request. Called by ``client.calls`` and ``client.resume``; knows nothing of jobs.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from tenure.client.errors import RETRYABLE, translate
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.model.listen import is_loopback
from tenure.v1 import (
    audit_service_pb2_grpc,
    cluster_service_pb2_grpc,
    job_service_pb2_grpc,
    kind_service_pb2_grpc,
    limit_service_pb2_grpc,
    namespace_service_pb2_grpc,
    pool_service_pb2_grpc,
    retention_service_pb2_grpc,
    schedule_service_pb2_grpc,
    token_service_pb2_grpc,
    workflow_service_pb2_grpc,
)
from tenure.v1.bearer import Bearer
from tenure.v1.dial import TLS as TLS
from tenure.v1.dial import Dialer, warn_of_token_in_the_open

DEFAULT_ADDRESS = "127.0.0.1:7070"
ADDRESS_VARIABLE = "TENURE_COORDINATOR"
OBJECT_STORE_CA_VARIABLE = "TENURE_OBJECT_STORE_CA"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of one coordinator. The generated stubs carry no types; each use states its answer's."""

    address: str
    channel: grpc.aio.Channel
    jobs: Any
    cluster: Any
    limits: Any
    pools: Any
    namespaces: Any
    schedules: Any
    workflows: Any
    kinds: Any
    tokens: Any
    audit: Any
    retention: Any


class Link:
    """Calls to whichever coordinator answers."""

    def __init__(
        self, addresses: Sequence[str], *, bearer: Bearer, tls: TLS | None, timeout_s: float, outage_s: float
    ) -> None:
        self._addresses = tuple(addresses)
        self.timeout_s = timeout_s
        """What a call may take that does not say otherwise."""
        self._outage_s = outage_s
        self._bearer = bearer
        warn_of_token_in_the_open(bool(bearer.metadata()), self._addresses, tls)
        self._dialer = Dialer(tls)
        self._tls = tls
        self._stubs: dict[str, Stubs] = {}
        self._old: list[Stubs] = []
        """Channels with credentials that were renewed; other calls may be under way on them."""
        self._current = 0
        self._closed = False
        self._has_answered = False

    def showing(self, bearer: Bearer) -> Link:
        """Return a link over the same connections whose calls are another caller's; to be closed with this one."""
        other = copy(self)
        other._bearer = bearer
        return other

    @property
    def patience_s(self) -> float:
        """How long to bear with silence: an outage is waited out longer than a wrong address."""
        return self._outage_s if self._has_answered else self.timeout_s

    async def unary(
        self,
        pick: Callable[[Stubs], Callable[..., Any]],
        request: Any,
        *,
        timeout_s: float | None = None,
        attempt_timeout_s: float | None = None,
    ) -> Any:
        """Call and return the answer; the first retry goes to the next address at once, later ones back off.

        Raises:
            TenureError: as ``client.errors.translate`` says; the last one when ``timeout_s`` ends the retries.
        """
        if timeout_s is None:
            timeout_s = self.timeout_s
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # Half of the time for one attempt, so that a coordinator that hangs leaves time for another one.
        attempt_s = attempt_timeout_s if attempt_timeout_s is not None else timeout_s / 2
        attempts = 0
        while True:
            stubs = self._peer()
            left_s = max(0.001, min(attempt_s, deadline - loop.time()))
            try:
                shown = self._bearer.metadata()
                return await self._attempt(stubs, pick(stubs)(request, timeout=left_s, metadata=shown))
            except RETRYABLE:
                attempts += 1
                pause_s = backoff_s(attempts, len(self._addresses))
                if loop.time() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)

    async def pages(self, pick: Callable[[Stubs], Callable[..., Any]], request: Any) -> AsyncIterator[Any]:
        """Yield the answers to a call that answers in pages, to the last one; ``request`` is turned to each page.

        Raises:
            TenureError: as ``unary``.
        """
        while True:
            answer = await self.unary(pick, request)
            yield answer
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                return

    async def stream(
        self, pick: Callable[[Stubs], Callable[..., Any]], request: Any, *, timeout_s: float
    ) -> AsyncGenerator[Any, None]:
        """Yield the messages of one stream from one coordinator; no retry here: ``client.resume`` makes the next.

        Raises:
            TenureError: as ``client.errors.translate`` says; the next call goes elsewhere.
        """
        stubs = self._peer()
        call = pick(stubs)(request, timeout=timeout_s, metadata=self._bearer.metadata())
        try:
            async for message in call:
                self._has_answered = True
                yield message
        except grpc.aio.AioRpcError as exc:
            raise self._failed(stubs, exc) from exc
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channels; calls under way fail. May be called twice."""
        self._closed = True
        stubs, self._stubs, self._old = [*self._stubs.values(), *self._old], {}, []
        for peer in stubs:
            await peer.channel.close()

    async def _attempt(self, stubs: Stubs, call: Any) -> Any:
        try:
            answer = await call
        except grpc.aio.AioRpcError as exc:
            raise self._failed(stubs, exc) from exc
        self._has_answered = True
        return answer

    def _failed(self, stubs: Stubs, exc: grpc.aio.AioRpcError) -> TenureError:
        error = translate(exc, stubs.address)
        if isinstance(error, RETRYABLE) and self._addresses[self._current] == stubs.address:
            self._current = (self._current + 1) % len(self._addresses)
        if isinstance(error, RETRYABLE) and self._dialer.reread():
            self._old += self._stubs.values()
            self._stubs = {}
        return error

    def ca_files(self) -> tuple[str, ...]:
        """Return the files of authorities that downloads may come from, beside the public ones."""
        found = (self._tls.ca_file if self._tls else None, os.environ.get(OBJECT_STORE_CA_VARIABLE))
        return tuple(os.fspath(file) for file in found if file)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The coordinators, in the order given."""
        return self._addresses

    def _peer(self) -> Stubs:
        if self._closed:
            raise TenureError("the client is closed")
        address = self._addresses[self._current]
        stubs = self._stubs.get(address)
        if stubs is None:
            stubs = self._stubs[address] = self._connect(address)
        return stubs

    def _connect(self, address: str) -> Stubs:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            # In gRPC this is also the time that one connect may take.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.primary_user_agent", "tenure-client"),
        ]
        if is_loopback(address):
            options.append(("grpc.enable_http_proxy", 0))
        channel = self._dialer.channel(address, options)
        return Stubs(
            address,
            channel,
            job_service_pb2_grpc.JobServiceStub(channel),
            cluster_service_pb2_grpc.ClusterServiceStub(channel),
            limit_service_pb2_grpc.LimitServiceStub(channel),
            pool_service_pb2_grpc.PoolServiceStub(channel),
            namespace_service_pb2_grpc.NamespaceServiceStub(channel),
            schedule_service_pb2_grpc.ScheduleServiceStub(channel),
            workflow_service_pb2_grpc.WorkflowServiceStub(channel),
            kind_service_pb2_grpc.KindServiceStub(channel),
            token_service_pb2_grpc.TokenServiceStub(channel),
            audit_service_pb2_grpc.AuditServiceStub(channel),
            retention_service_pb2_grpc.RetentionServiceStub(channel),
        )


def backoff_s(attempts: int, addresses: int) -> float:
    """Return the pause after the ``attempts``-th failed attempt in a row: none before each address was tried."""
    if attempts < addresses:
        return 0.0
    rounds = attempts // addresses - 1
    return random.uniform(0.5, 1.0) * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(rounds, 16))


def addresses_of(address: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read ``HOST:PORT`` addresses, comma-separated or listed; None reads TENURE_COORDINATOR or takes the default.

    Raises:
        InvalidInput: an address without a port, or with a scheme.
    """
    if address is None:
        address = os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    parts = address.split(",") if isinstance(address, str) else list(address)
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise InvalidInput([FieldViolation("address", "must name at least one coordinator as HOST:PORT")])
    for one in found:
        host, _, port = one.rpartition(":")
        if not one.startswith("unix:") and (not host or "/" in one or not port.isdigit() or not 0 < int(port) < 65536):
            raise InvalidInput(
                [FieldViolation("address", f"{one[:100]!r} is not HOST:PORT")], hint="for example 127.0.0.1:7070"
            )
    return found
