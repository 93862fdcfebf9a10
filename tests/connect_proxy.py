"""An HTTP proxy as companies have them: CONNECT to one name and port, behind which it spreads the connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Self


class ConnectProxy:
    """Takes CONNECT for ``name`` (host:port) alone, and goes on to the next of ``targets`` that can be reached."""

    def __init__(self, name: str, targets: Sequence[str], *, host: str) -> None:
        self._name = name
        self._targets = list(targets)
        self._next = itertools.count()
        self._host = host
        self._server: asyncio.Server | None = None
        self.taken = 0
        """How many connections were made."""
        self.refused: list[str] = []
        """What else was asked for."""

    @property
    def address(self) -> str:
        """``host:port`` of the proxy."""
        assert self._server is not None
        return f"{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            asked = head.split(b"\r\n", 1)[0].decode()
            if asked != f"CONNECT {self._name} HTTP/1.1":
                self.refused.append(asked)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            found = await self._connect()
            if found is None:
                writer.write(b"HTTP/1.1 503 Nobody There\r\nContent-Length: 0\r\n\r\n")
                return
            self.taken += 1
            writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            await asyncio.gather(_pump(reader, found[1]), _pump(found[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        start = next(self._next)
        for number in range(len(self._targets)):
            host, _, port = self._targets[(start + number) % len(self._targets)].rpartition(":")
            with suppress(OSError):
                return await asyncio.open_connection(host, int(port))
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with suppress(OSError):
            writer.close()
