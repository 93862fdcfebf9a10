"""The pipes of a command: its output read and cut to a bounded tail, its input written as it is taken.

Invariant: a command that prints a gigabyte costs the worker the tail's size in memory; one that reads no input costs
the input's. Lives on the process loop.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from tenure.model.bounds import DEFAULT_BOUNDS

_READ_BYTES = 16 * 1024
"""Little at a time: as short lines it is thousands, and what else this loop does must not wait for them."""
_READS_PER_TURN = 16
_LINES_PER_TURN = 500
MAX_LINE_BYTES = DEFAULT_BOUNDS.log_line_bytes - 64
"""Of a line of output; with room for the note that it was cut."""


class Lines:
    """Cuts output into lines, each of bounded length, and hands them on as long as somebody takes them.

    ``takes`` is asked before each piece of output: while it says no, lines are only counted, and ``drop`` is told.
    """

    def __init__(self, write: Callable[[str], None], takes: Callable[[], bool], drop: Callable[[int], None]) -> None:
        self._write = write
        self._takes = takes
        self._drop = drop
        self._begun = bytearray()
        """A line without an end so far."""
        self._over = 0
        """Bytes of it beyond the bound."""

    def feed(self, data: bytes) -> int:
        """Take output; return how many lines were written."""
        if not self._takes():
            ends = data.count(b"\n")
            if ends:
                self._drop(ends)
                self._begun = bytearray()
                self._over = 0
                data = data[data.rindex(b"\n") + 1 :]
            self._add(data)
            return 0
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._flush()
        self._add(rest)
        return len(whole)

    def end(self) -> None:
        """Write what has no line end."""
        if self._begun:
            self._flush()

    def _add(self, part: bytes) -> None:
        room = max(0, MAX_LINE_BYTES - len(self._begun))
        self._begun += part[:room]
        self._over += max(0, len(part) - room)

    def _flush(self) -> None:
        text = bytes(self._begun.removesuffix(b"\r")).decode("utf-8", "replace")
        self._write(f"{text} [cut: {self._over} more bytes]" if self._over else text)
        self._begun = bytearray()
        self._over = 0


class Tail:
    """Reads a descriptor to its end and keeps the last ``limit_bytes``; ``on_end`` is called once.

    ``lines`` is given all of it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, limit_bytes: int, on_end: Callable[[], None], lines: Lines
    ) -> None:
        os.set_blocking(fd, False)
        self.total_bytes = 0
        self.is_open = True
        self._loop = loop
        self._fd = fd
        self._limit = limit_bytes
        self._on_end = on_end
        self._lines = lines
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
            self._lines.end()
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        written = 0
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
            written += self._lines.feed(data)
            if written > _LINES_PER_TURN:
                return  # the rest is there at the next turn

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
