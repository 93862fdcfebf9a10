"""Connections to the HTTP side that keep it waiting: each ends in time, and costs others nothing."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.coordinator.conftest import running, until
from tests.fixtures.certificates import Authority

from tenure.probes import connections
from tenure.probes.server import HttpServer, application
from tenure.probes.tls import ServerTLS

PATIENCE_S = 30.0
SOON_S = 0.3
NEVER_S = 600.0
LARGE = b"x" * (16 * 1024 * 1024)


@pytest.fixture(autouse=True)
def _deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """None comes by itself: each test shortens its own."""
    for name in ("HEAD_S", "BODY_S", "KEEP_ALIVE_S", "TAKE_S"):
        monkeypatch.setattr(connections, name, NEVER_S)


class Served:
    """A server, and how to call it."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.release = asyncio.Event()
        self.asked = 0
        self.host, _, port = server.address.rpartition(":")
        self.port = int(port)

    async def connect(self, *, receive_bytes: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and say nothing yet."""
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self.host, self.port))
        return await asyncio.open_connection(sock=sock, limit=2**16)

    async def is_alive(self) -> bool:
        """Probe over a new connection, as a kubelet does."""
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            return (await client.get(f"http://{self.host}:{self.port}/livez")).status_code == 200

    async def has_none(self) -> bool:
        """Say whether every connection has ended."""
        return not self._server._server.server_state.connections


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    """Serve probes, an answer that waits until it is told, and a large one."""

    async def slow(request: Request) -> Response:
        on.asked += 1
        await on.release.wait()
        return Response("at last")

    async def large(request: Request) -> Response:
        return Response(LARGE)

    routes = [Route("/slow", slow), Route("/large", large)]
    app = application({}, CollectorRegistry(), more=routes)
    server = HttpServer(app, listen="127.0.0.1:0", variable="-", **options)
    server.bind()
    on = Served(server)
    async with running(server.run()):
        yield on


def request(path: str, *, body_bytes: int = 0, method: str = "GET") -> bytes:
    """Return the head of a request."""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {body_bytes}\r\n\r\n".encode()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Wait for a connection's end; return what came before."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, byte: bytes) -> bytes:
    """Send a byte now and then, for ever, until the connection has ended; return what came before."""

    async def send() -> None:
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(SOON_S / 10)

    sending = asyncio.create_task(send())
    try:
        return await ended(reader)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_who_connects_and_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", SOON_S)
    async with served() as on:
        silent = [await on.connect() for _ in range(20)]
        assert [await ended(reader) for reader, _ in silent] == [b""] * 20
        assert await on.is_alive()


async def test_a_head_that_dribbles_in_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, and that of a later request over the same connection."""
    monkeypatch.setattr(connections, "HEAD_S", SOON_S)
    async with served() as on:
        reader, writer = await on.connect()
        writer.write(b"GET /livez HTTP/1.1\r\nx: ")
        assert await dribble(reader, writer, b"y") == b""
        reader, writer = await on.connect()
        writer.write(request("/livez") + b"GET /livez HTTP/1.1\r\nx: ")
        assert (await dribble(reader, writer, b"y")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/livez", "/nowhere"])
async def test_a_body_that_dribbles_in_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Also one that nobody reads: the answer was given long before."""
    monkeypatch.setattr(connections, "BODY_S", SOON_S)
    async with served() as on:
        reader, writer = await on.connect()
        writer.write(request(path, body_bytes=1_000_000))
        assert (await dribble(reader, writer, b"y")).startswith(b"HTTP/1.1 ")


async def test_a_long_body_that_comes_at_a_good_pace_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_S", 3.0)
    monkeypatch.setattr(connections, "BODY_BYTES", 1_000)
    pieces = 50
    async with served() as on:
        reader, writer = await on.connect()
        on.release.set()
        writer.write(request("/slow", body_bytes=pieces * 1_000))
        for _ in range(pieces):  # longer in all than a body may take, and each piece well within it
            writer.write(b"x" * 1_000)
            await writer.drain()
            await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE_S):
            assert b"at last" in await reader.readuntil(b"at last")
        writer.close()


async def test_a_connection_that_is_kept_and_not_used_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a body that came when the answer was given already: the server's own timer is off then."""
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", SOON_S)
    async with served() as on:
        reader, writer = await on.connect()
        writer.write(request("/livez", body_bytes=3))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abc")
        assert b'"ok"' in await ended(reader)


async def test_an_answer_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "BODY_S", "TAKE_S"):
        monkeypatch.setattr(connections, name, SOON_S)
    async with served() as on:
        reader, writer = await on.connect()
        writer.write(request("/slow"))
        await asyncio.sleep(5 * SOON_S)
        on.release.set()
        async with asyncio.timeout(PATIENCE_S):
            assert b"at last" in await reader.readuntil(b"at last")


async def test_an_answer_that_nobody_takes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKE_S", SOON_S)
    async with served() as on:
        _, writer = await on.connect(receive_bytes=4096)
        writer.write(request("/large"))
        closing = await on.connect(receive_bytes=4096)
        closing[1].write(request("/large").replace(b"host: x", b"host: x\r\nconnection: close"))
        await until(on.has_none)


async def test_an_answer_that_is_taken_slowly_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it takes longer than one that says nothing would be kept."""
    monkeypatch.setattr(connections, "TAKE_S", 3 * SOON_S)
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", SOON_S)
    async with served() as on:
        reader, writer = await on.connect()
        writer.write(request("/large"))
        got = 0
        async with asyncio.timeout(2 * PATIENCE_S):
            while part := await reader.read(512 * 1024):
                got += len(part)
                await asyncio.sleep(SOON_S / 5)
        assert got > len(LARGE)


async def test_more_connections_than_there_may_be_end_those_that_wait_longest() -> None:
    """Whoever is being answered stays, and probes get in all the time."""
    async with served(most=64) as on:
        reader, writer = await on.connect()
        writer.write(request("/slow"))
        kept = await on.connect()
        kept[1].write(request("/livez"))
        await kept[0].readuntil(b"}}")
        silent = []
        for round in range(10):
            silent += [await on.connect() for _ in range(30)]
            assert await on.is_alive(), round
        assert [await ended(one) for one, _ in silent[:200]] == [b""] * 200
        kept[1].write(request("/livez"))  # who once asked for something goes after all who did not
        assert b"200" in await kept[0].readuntil(b"}}")
        on.release.set()
        async with asyncio.timeout(PATIENCE_S):
            assert b"at last" in await reader.readuntil(b"at last")


async def test_where_all_are_answered_one_more_is_not_taken() -> None:
    async with served(most=3) as on:
        busy = [await on.connect() for _ in range(3)]
        for _, writer in busy:
            writer.write(request("/slow"))

        async def all_asked() -> bool:
            return on.asked == 3

        await until(all_asked)
        refused, _ = await on.connect()
        assert await ended(refused) == b""
        on.release.set()
        async with asyncio.timeout(PATIENCE_S):
            for reader, _ in busy:
                assert b"at last" in await reader.readuntil(b"at last")
        assert await on.is_alive()


async def test_a_handshake_that_does_not_come_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch, authority: Callable[[str], Authority]
) -> None:
    """Silence, half of one, something else; and they count among the connections that there may be."""
    monkeypatch.setattr(connections, "HEAD_S", SOON_S)
    ours = authority("ours")
    pair = ours.issue("/CN=coordinator")
    async with served(tls=ServerTLS(pair.cert, pair.key), most=64) as on:
        started = [await on.connect() for _ in range(3)]
        for (_, writer), words in zip(
            started, (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"), strict=True
        ):
            writer.write(words)
        for reader, _ in started:
            assert b"HTTP" not in await ended(reader)
        monkeypatch.setattr(connections, "HEAD_S", NEVER_S)
        silent = [await on.connect() for _ in range(100)]
        for reader, _ in silent[:30]:
            await ended(reader)


def test_no_more_than_half_of_the_files_are_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, expected in ((1_024, 512), (20_000, 4_096), (100, 64), (resource.RLIM_INFINITY, 4_096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert connections.fitting(4_096) == expected
