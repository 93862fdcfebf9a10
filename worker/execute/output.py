"""The pipes of a command: its output read and cut to a bounded tail, its input written as it is taken.

Invariant: a command that prints a gigabyte costs the worker the tail's size in memory; one that reads no input costs
the input's. Lives on the process loop.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

_READ_BYTES = 64 * 1024
_READS_PER_TURN = 4


class Tail:
    """Reads a descriptor to its end and keeps the last ``limit_bytes``; ``on_end`` is called once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, limit_bytes: int, on_end: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self.total_bytes = 0
        self.is_open = True
        self._loop = loop
        self._fd = fd
        self._limit = limit_bytes
        self._on_end = on_end
        self._chunks: deque[bytes] = deque()
        self._kept = 0
        loop.add_reader(fd, self._read)

    @property
    def is_cut(self) -> bool:
        """Whether more was written than is kept."""
        return self.total_bytes > self._limit

    def text(self) -> str:
        """Return what is kept, as text that Postgres can hold."""
        data = b"".join(self._chunks)[-self._limit :] if self._limit else b""
        return data.decode("utf-8", "replace").replace("\0", "\ufffd")

    def close(self) -> None:
        """Read no more."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                self._on_end()
                return
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._chunks.append(data)
        self._kept += len(data)
        while self._chunks and self._kept - len(self._chunks[0]) >= self._limit:
            self._kept -= len(self._chunks.popleft())
        if len(self._chunks) > 2 * _READS_PER_TURN and self._kept < len(self._chunks) * 1024:
            # A byte at a time: as objects they would take far more room than as bytes.
            self._chunks = deque([b"".join(self._chunks)])


class Input:
    """Writes bytes to a descriptor as fast as they are taken, then closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, data: bytes) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._left = memoryview(data)
        self._is_open = True
        loop.add_writer(fd, self._write)

    def close(self) -> None:
        """Write no more."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_writer(self._fd)
            os.close(self._fd)

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
        except BlockingIOError:
            return
        except OSError:
            # It reads no more; that is its right.
            pass
        self.close()
