"""KeepAlives over gRPC on an HTTP/2 connection of their own, framed here: the native transport's ``KeepAliveStream``.

grpcio takes a message at a time, some 100 microseconds for each that is written and again for each that is read. A
worker that holds thousands of leases would do little else. Here a batch is written as one piece and read as it comes.
Frames, flow control and headers are the library's (h2); owned here are gRPC's five bytes before each message and its
status in the trailers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from struct import Struct
from typing import cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.store.etcd.faults import fault, unreachable
from tenure.store.etcd.member import KEEP_ALIVE, CallFailed
from tenure.store.etcd.options import Address

CONNECT_S = 1.0
"""How long one attempt to connect may take, as for all other calls (see ``grpc_transport``)."""
_PREFIX = Struct(">BI")
"""Before each message: not compressed, and its length."""


class Http2KeepAliveStream:
    """``member.KeepAliveStream``: one connection with one bidirectional stream, made when it is first used."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, metadata: Sequence[tuple[str, str]]) -> None:
        self._address = address
        self._tls = tls
        self._metadata = metadata
        self._connection: _Connection | None = None

    async def exchange(self, leases: Sequence[int]) -> AsyncIterator[rpc.LeaseKeepAliveResponse]:
        """Write all, then yield as many answers."""
        connection = self._connection = self._connection or await self._connect()
        connection.send([rpc.LeaseKeepAliveRequest(id=lease).SerializeToString() for lease in leases])
        left = len(leases)
        while left:
            messages = await connection.receive()
            for message in messages:
                yield rpc.LeaseKeepAliveResponse.FromString(message)
            left -= len(messages)

    async def _connect(self) -> _Connection:
        """Try each address of the host, none for long: a name may stand for several members, one of them silent."""
        loop = asyncio.get_running_loop()
        reason = "has no address"
        try:
            found = await loop.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            for *_, place in found:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        _, connection = await loop.create_connection(
                            lambda: _Connection(self._address, self._metadata),
                            str(place[0]),
                            self._address.port,
                            ssl=self._tls,
                            server_hostname=self._address.host if self._tls else None,
                        )
                    return connection
                except OSError as exc:  # of which a TimeoutError is one
                    reason = str(exc) or f"took no connection within {CONNECT_S:g} s"
        except OSError as exc:
            reason = str(exc)
        raise CallFailed(unreachable(reason, self._address.target, sent=False))

    def close(self) -> None:
        """Cut the connection."""
        if self._connection is not None:
            self._connection.close()


class _Connection(asyncio.Protocol):
    """Messages out and in. Once it has failed, each further use says so."""

    def __init__(self, address: Address, metadata: Sequence[tuple[str, str]]) -> None:
        self._transport: asyncio.Transport | None = None
        self._name = address.target
        self._headers = [
            (":method", "POST"),
            (":scheme", "https" if address.tls else "http"),
            (":path", f"/etcdserverpb.{KEEP_ALIVE.grpc}"),
            (":authority", address.target),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        self._http = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._stream = 0
        self._pending = b""
        """The beginning of a message."""
        self._received = 0
        """Bytes that are not acknowledged yet: etcd sends each answer in a frame of its own."""
        self._messages: list[bytes] = []
        self._failure: CallFailed | None = None
        self._something = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._http.initiate_connection()
        self._stream = self._http.get_next_available_stream_id()
        self._http.send_headers(self._stream, self._headers)
        self._flush()

    def send(self, messages: Sequence[bytes]) -> None:
        """Write messages, without waiting. Raises ``CallFailed``."""
        if self._failure is not None:
            raise self._failure
        try:
            self._http.send_data(self._stream, b"".join([_PREFIX.pack(0, len(m)) + m for m in messages]))
        except ProtocolError as exc:  # etcd has not taken what was sent long before
            raise CallFailed(unreachable(str(exc), self._name, sent=True)) from exc
        self._flush()

    async def receive(self) -> Sequence[bytes]:
        """Wait for messages and return those that have come. Raises ``CallFailed``."""
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            self._something.clear()
            await self._something.wait()
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(self._http.data_to_send())

    def data_received(self, data: bytes) -> None:
        self._received = 0
        try:
            for event in self._http.receive_data(data):
                self._take(event)
            if self._received:
                self._http.acknowledge_received_data(self._received, self._stream)
        except ProtocolError as exc:
            self._fail(str(exc))
        self._flush()
        self._something.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._split(event.data or b"")
            self._received += event.flow_controlled_length or 0
        elif isinstance(event, ResponseReceived | TrailersReceived):
            self._take_headers({str(name): str(value) for name, value in event.headers or ()})
        elif isinstance(event, StreamEnded):
            self._fail("ended the KeepAlive stream")
        elif isinstance(event, StreamReset | ConnectionTerminated):
            self._fail(f"cut the KeepAlive stream (code {event.error_code})")

    def _split(self, data: bytes) -> None:
        data = self._pending + data
        at = 0
        while len(data) - at >= _PREFIX.size:
            _, size = _PREFIX.unpack_from(data, at)
            end = at + _PREFIX.size + size
            if end > len(data):
                break
            self._messages.append(data[at + _PREFIX.size : end])
            at = end
        self._pending = data[at:]

    def _take_headers(self, headers: Mapping[str, str]) -> None:
        if headers.get("grpc-status", "0") != "0":
            code, message = int(headers["grpc-status"]), unquote(headers.get("grpc-message", ""))
            self._failure = self._failure or CallFailed(fault(code, message, self._name))
        elif headers.get(":status", "200") != "200":
            self._fail(f"answered with HTTP status {headers[':status']}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc or "closed the connection"))
        self._something.set()

    def _fail(self, message: str) -> None:
        # What was learned first tells most.
        self._failure = self._failure or CallFailed(unreachable(message, self._name, sent=True))
