"""The tests' TCP proxy does what the fault tests rely on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction


@pytest_asyncio.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, timeout_s: float = 5) -> bytes:
    writer.write(data)
    async with asyncio.timeout(timeout_s):
        return await reader.readexactly(len(data))


async def test_bytes_pass_and_ends_are_passed_on(proxy: ProxyFactory, echo_port: int) -> None:
    through = await proxy(echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    data = bytes(range(256)) * 4096
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(10):
        assert await reader.read(-1) == data
    assert through.passed_bytes(Direction.TO_SERVER) == through.passed_bytes(Direction.TO_CLIENT) == len(data)
    writer.close()


async def test_latency_is_added_in_one_direction(proxy: ProxyFactory, echo_port: int) -> None:
    through = await proxy(echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    through.delay(0.2, Direction.TO_CLIENT)
    began = time.monotonic()
    assert await ask(reader, writer, b"x") == b"x"
    assert time.monotonic() - began >= 0.2
    writer.close()


async def test_a_cut_resets_and_a_new_connection_is_welcome(proxy: ProxyFactory, echo_port: int) -> None:
    through = await proxy(echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    assert await ask(reader, writer, b"x") == b"x"
    assert await through.cut() == 1
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(reader, writer, b"y")
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    assert await ask(reader, writer, b"z") == b"z"
    await through.wait_for_connections(2)
    writer.close()


@pytest.mark.parametrize("direction", [None, *Direction])
async def test_a_blackhole_holds_bytes_back_until_healed(
    proxy: ProxyFactory, echo_port: int, direction: Direction | None
) -> None:
    through = await proxy(echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    through.blackhole(direction)
    with pytest.raises(TimeoutError):
        await ask(reader, writer, b"x", timeout_s=0.1)
    assert through.passed_bytes(Direction.TO_SERVER) == (1 if direction is Direction.TO_CLIENT else 0)
    through.heal()
    async with asyncio.timeout(5):
        assert await reader.readexactly(1) == b"x"
    writer.close()


async def test_a_reset_comes_after_so_many_bytes(proxy: ProxyFactory, echo_port: int) -> None:
    through = await proxy(echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    assert await ask(reader, writer, b"12345") == b"12345"
    through.reset_after(3, Direction.TO_SERVER)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(reader, writer, b"67890")
    assert through.passed_bytes(Direction.TO_SERVER) == 8


async def test_refused_until_accepted(proxy: ProxyFactory, echo_port: int) -> None:
    through = await proxy(echo_port)
    await through.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", through.port)
    await through.accept()
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    assert await ask(reader, writer, b"x") == b"x"
    writer.close()
