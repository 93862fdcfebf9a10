"""The stream of KeepAlives against a peer that answers as etcd, or a proxy before it, may and rarely does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.errors import Unavailable
from tenure.store.etcd import http2_stream
from tenure.store.etcd.faults import Known
from tenure.store.etcd.http2_stream import Http2KeepAliveStream
from tenure.store.etcd.member import CallFailed
from tenure.store.etcd.options import Address

OK = [(":status", "200"), ("content-type", "application/grpc")]
Answer = Callable[[H2Connection, int], None]


def message(lease: int) -> bytes:
    """Return an answer as it stands in the stream."""
    data = rpc.LeaseKeepAliveResponse(id=lease, ttl=10).SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


async def exchange(answer: Answer, leases: range, *, piece: int = 1 << 20) -> tuple[list[int], CallFailed | None]:
    """Exchange with a peer that answers so, in pieces of so many bytes; return whose answers came, and the failure."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Connection(H2Configuration(client_side=False))
        peer.initiate_connection()
        while data := await reader.read(65536):
            for event in peer.receive_data(data):
                if isinstance(event, DataReceived):
                    answer(peer, event.stream_id)
            told = peer.data_to_send()
            for at in range(0, len(told), piece):
                writer.write(told[at : at + piece])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = Http2KeepAliveStream(Address("127.0.0.1", port, tls=False), None, [("hasleader", "true")])
        came: list[int] = []
        try:
            async with asyncio.timeout(20):
                async for one in stream.exchange(leases):
                    came.append(one.id)
        except CallFailed as exc:
            return came, exc
        finally:
            stream.close()
        return came, None


def refuse(status: str, reason: str) -> Answer:
    return lambda peer, stream: peer.send_headers(
        stream, [*OK, ("grpc-status", status), ("grpc-message", reason)], end_stream=True
    )


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
async def test_answers_are_put_together_however_they_arrive(piece: int) -> None:
    leases = range(1, 201)

    def answer(peer: H2Connection, stream: int) -> None:
        peer.send_headers(stream, OK)
        told = b"".join(map(message, leases))
        for at in range(0, len(told), 50):
            peer.send_data(stream, told[at : at + 50])

    assert await exchange(answer, leases, piece=piece) == (list(leases), None)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (refuse("14", "etcdserver: no leader"), Known.NOT_DONE),
        (refuse("16", "etcdserver: invalid auth token"), Known.TOKEN),
        (refuse("7", "etcdserver: permission denied%2C by rule"), Known.FINAL),
        (refuse("0", ""), Known.UNKNOWN),
        (lambda peer, stream: peer.send_headers(stream, [(":status", "503")], end_stream=True), Known.UNKNOWN),
        (lambda peer, stream: peer.reset_stream(stream, 2), Known.UNKNOWN),
        (lambda peer, stream: peer.close_connection(11), Known.UNKNOWN),
    ],
    ids=["no leader", "old token", "not allowed", "ended", "a proxy's page", "reset", "goes away"],
)
async def test_what_ends_a_stream_is_told_as_what_it_is(answer: Answer, known: Known) -> None:
    came, failure = await exchange(answer, range(1, 3))
    assert came == []
    assert failure is not None and failure.fault.known is known
    if known is Known.FINAL:
        assert "permission denied, by rule" in str(failure)


async def test_answers_that_came_before_the_end_count() -> None:
    def answer(peer: H2Connection, stream: int) -> None:
        peer.send_headers(stream, OK)
        peer.send_data(stream, message(1))
        peer.send_headers(stream, [("grpc-status", "14"), ("grpc-message", "etcdserver: no leader")], end_stream=True)

    came, failure = await exchange(answer, range(1, 3))
    assert came == [1] and failure is not None and failure.fault.known is Known.NOT_DONE


async def test_a_member_that_does_not_listen_was_sent_nothing() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    stream = Http2KeepAliveStream(Address("127.0.0.1", port, tls=False), None, [])
    with pytest.raises(CallFailed) as failed:
        async for _ in stream.exchange([1]):
            pass
    assert failed.value.fault.known is Known.NOT_DONE and isinstance(failed.value.fault.error, Unavailable)


async def test_of_a_name_with_a_silent_address_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is gone answers no SYN; etcd behind one name has as many addresses as members."""
    monkeypatch.setattr(http2_stream, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.2", 0), backlog=0) as silent, ExitStack() as waiting:
        for _ in range(3):  # its queue is full: the kernel drops what else comes
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        port = silent.getsockname()[1]
        took = asyncio.Event()
        async with await asyncio.start_server(lambda _r, _w: took.set(), "127.0.0.1", port):
            loop = asyncio.get_running_loop()
            resolved = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")
            ]

            async def getaddrinfo(host: str, *args: object, **options: object) -> object:
                return [one for one in resolved if host in ("etcd", one[-1][0])]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            stream = Http2KeepAliveStream(Address("etcd", port, tls=False), None, [])
            exchanging = asyncio.ensure_future(anext(aiter(stream.exchange([1]))))
            async with asyncio.timeout(20):
                await took.wait()
            exchanging.cancel()
            await asyncio.wait([exchanging])
            stream.close()
