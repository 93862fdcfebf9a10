"""A runner's side of the wire, against servers and proxies that do not answer as a coordinator does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tenure.model.clock import SystemClock
from tenure.model.errors import TenureError, Unavailable
from tenure.v1 import runner_api as wire
from tenure.v1.bearer import Bearer
from tenure.worker.remote.api import Api
from tenure.worker.remote.leases import RemoteLeases

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""Of a path and a body: the bytes of a whole response."""


def response(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """Write an HTTP response; the length may be a lie."""
    stated = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {stated}\r\nconnection: close\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """Serve HTTP by hand; yield the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        path = head.split(" ")[1].rpartition("/")[2]
        try:
            for byte_or_all in (await answer(path, body)).split(b"\x00"):  # a zero byte: a moment's pause
                writer.write(byte_or_all)
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://127.0.0.1:{}".format(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def calling(*urls: str) -> AsyncIterator[Api]:
    """Give what calls these addresses."""
    api = Api(urls, SystemClock(), bearer=Bearer())
    try:
        yield api
    finally:
        await api.close()


STRANGE = {
    "a page of a proxy": response(b"<html>Please log in</html>", headers="content-type: text/html\r\n"),
    "cut off": response(b'{"leases": [{"ttl_s": 1', length=23),
    "less than was promised": response(b'{"leases": [', length=5_000),
    "not unpacked": response(b"<html>no gzip at all</html>", headers="content-encoding: gzip\r\n"),
    "no text": response(b'{"leases": [{"ttl_s": 9, "stop": "\xff"}]}'),
    "another number of leases": response(b'{"leases": []}'),
    "elsewhere": response(b"", status="302 Found", headers="location: http://127.0.0.1:1/\r\n"),
    "bad gateway": response(b"<html>Bad gateway</html>", status="502 Bad Gateway"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_whatever_answers_a_renewal_it_counts_as_not_answered(strange: str) -> None:
    """A keeper of leases that an answer ends would take the runner and all of its jobs with it."""

    async def answer(path: str, body: bytes) -> bytes:
        return STRANGE[strange]

    async with answering(answer) as url, calling(url) as api:
        leases = RemoteLeases(api)
        leases.hold(1, "token")
        assert await leases.renew([1], timeout_s=5.0) == []


@pytest.mark.parametrize("strange", set(STRANGE) - {"elsewhere", "another number of leases"})
async def test_another_coordinator_is_asked_when_something_on_the_way_answered(strange: str) -> None:
    """The outcome is unknown: the first may have done it. All but ``once`` may be repeated."""

    async def odd(path: str, body: bytes) -> bytes:
        return STRANGE[strange]

    async def well(path: str, body: bytes) -> bytes:
        return response(b'{"attempts": []}')

    async with answering(odd) as first, answering(well) as second, calling(first, second) as api:
        api._urls = [first, second]
        started, _ = await api.call("start", wire.Start(("token",)), wire.Started)
        assert started == wire.Started()


async def test_a_renewal_that_trickles_in_ends_in_time() -> None:
    """One batch is outstanding at a time: one that does not end would keep every lease from its next renewal."""

    async def answer(path: str, body: bytes) -> bytes:
        return b"\x00".join([bytes([byte]) for byte in response(b" " * 400 + b'{"leases": [{"ttl_s": 9}]}')])

    async with answering(answer) as url, calling(url) as api:
        leases = RemoteLeases(api)
        leases.hold(1, "token")
        async with asyncio.timeout(10.0):  # byte by byte it takes 25 s
            assert await leases.renew([1], timeout_s=0.5) == []


async def test_a_refusal_on_the_way_is_told_as_such() -> None:
    async def answer(path: str, body: bytes) -> bytes:
        return STRANGE["elsewhere"]

    async with answering(answer) as url, calling(url) as api:
        with pytest.raises(TenureError, match="HTTP 302") as refused:
            await api.call("start", wire.Start(("token",)), wire.Started)
        assert not isinstance(refused.value, Unavailable)
