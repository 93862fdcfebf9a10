"""A TCP proxy whose network can be made bad: late, one-way, cut, refused.

Bytes are never lost in an open connection, as TCP would not lose them: a blackhole holds them back until ``heal``.
Used by the fault tests through the ``proxy`` fixture; it knows nothing of what flows through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from tenure.cli.embedded import ports

CHUNK_BYTES = 65536
QUEUED_CHUNKS = 64


class Direction(StrEnum):
    """Which way bytes flow."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


@dataclass
class Weather:
    """What happens to the bytes of one direction, on every connection."""

    latency_s: float = 0.0
    reset_after_bytes: int | None = None
    """Reset the connection once this many more bytes have been passed on (counted over all connections)."""
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    passed_bytes: int = 0


class Proxy:
    """Forwards 127.0.0.1:``port`` to ``host``:``server_port``. An async context manager."""

    def __init__(self, server_port: int, host: str = "127.0.0.1") -> None:
        self.port = ports.choose()
        self.accepted = 0
        self._target = (host, server_port)
        self._weather = {direction: Weather() for direction in Direction}
        for weather in self._weather.values():
            weather.passing.set()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._changed = asyncio.Condition()

    @property
    def server_port(self) -> int:
        """The port behind."""
        return self._target[1]

    def redirect(self, server_port: int) -> None:
        """Forward new connections to another port from now on, as a failover moves an address."""
        self._target = (self._target[0], server_port)

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def passed_bytes(self, direction: Direction) -> int:
        """How many bytes were passed on in a direction so far."""
        return self._weather[direction].passed_bytes

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Stop listening and cut every connection: new ones are refused, on the same port, until ``accept``."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.cut()

    async def close(self) -> None:
        """Stop for good."""
        await self.refuse()

    async def cut(self) -> int:
        """Reset every open connection now; new ones are welcome. Returns how many were cut."""
        links = dict(self._links)
        for task, writers in links.items():
            for writer in writers:
                _reset(writer)
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        return len(links)

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Make every byte late by ``seconds``, in one direction or both."""
        for weather in self._chosen(direction):
            weather.latency_s = seconds

    def blackhole(self, direction: Direction | None = None) -> None:
        """Hold everything back in one direction or both; connections stay open, new ones are accepted."""
        for weather in self._chosen(direction):
            weather.passing.clear()

    def reset_after(self, count: int, direction: Direction) -> None:
        """Reset the connection that carries the ``count``-th byte from now on, right after that byte."""
        self._weather[direction].reset_after_bytes = count

    def heal(self) -> None:
        """Good weather again: what was held back flows."""
        for weather in self._weather.values():
            weather.latency_s = 0.0
            weather.reset_after_bytes = None
            weather.passing.set()

    async def wait_for_connections(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until ``count`` connections have been accepted since the start."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: self.accepted >= count)

    def _chosen(self, direction: Direction | None) -> list[Weather]:
        return list(self._weather.values()) if direction is None else [self._weather[direction]]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:  # accepted just before ``refuse``, which has not seen it
            _reset(writer)
            return
        self._links[task] = (writer,)
        ended_in_peace = False
        try:
            async with self._changed:
                self.accepted += 1
                self._changed.notify_all()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            self._links[task] = (writer, server_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, self._weather[Direction.TO_SERVER]))
                group.create_task(self._pump(server_reader, writer, self._weather[Direction.TO_CLIENT]))
            ended_in_peace = True
        except* OSError:
            pass  # either side went away, or a reset was asked for: the other side is told below
        except* asyncio.CancelledError:
            pass  # cut or closed: the task ends here in any case, and asyncio logs an error for cancelled ones
        finally:
            for each in self._links.pop(task):
                each.close() if ended_in_peace else _reset(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: Weather) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(queue, writer, weather))
            clock = asyncio.get_running_loop().time
            while True:
                chunk = await reader.read(CHUNK_BYTES)
                await queue.put((clock() + weather.latency_s, chunk))
                if not chunk:
                    return

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, weather: Weather
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due_at, chunk = await queue.get()
            await asyncio.sleep(max(0.0, due_at - clock()))
            await weather.passing.wait()
            if not chunk:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            allowed = chunk if weather.reset_after_bytes is None else chunk[: weather.reset_after_bytes]
            writer.write(allowed)
            await writer.drain()
            weather.passed_bytes += len(allowed)
            if weather.reset_after_bytes is not None:
                weather.reset_after_bytes -= len(allowed)
                if weather.reset_after_bytes == 0:
                    weather.reset_after_bytes = None
                    raise ConnectionResetError("as asked for")


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, what is unsent dropped."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
