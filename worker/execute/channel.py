"""The worker's end of the connection to a handler process: frames, without ever blocking the process loop.

Invariant: a child that does not read costs bounded memory (what may be dropped is, while earlier frames wait), and one
that floods is read a little at a time. Used by ``process_host`` on the process loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tenure.worker.execute import frames

_READ_BYTES = 256 * 1024


class Channel:
    """A stream of frames in both directions; ``on_broken`` is called if the other side sends what is no frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_frame: Callable[[dict[str, Any]], None],
        on_broken: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._on_frame = on_frame
        self._on_broken = on_broken
        self._decoder = frames.Decoder()
        self._out = bytearray()
        self._is_open = True
        loop.add_reader(connection, self._read)

    def send(self, frame: dict[str, Any], *, may_drop: bool = False) -> None:
        """Send a frame, or queue it; nothing once the other side is gone."""
        if not self._is_open or (may_drop and self._out):
            return
        self._out += frames.encode(frame)
        self._write()

    def drain(self) -> None:
        """Take what the other side sent before it ended, then close."""
        while self._is_open and self._read():
            pass
        self.close()

    def close(self) -> None:
        """Close; may be called again."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()

    def _read(self) -> bool:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        try:
            for frame in self._decoder.feed(data):
                self._on_frame(frame)
        except (frames.BrokenFrame, KeyError, TypeError, ValueError):
            self.close()
            self._on_broken()
            return False
        return True

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Gone: its exit will be told by the fork server. What it sent before stays readable.
            self._out.clear()
            self._loop.remove_writer(self._connection)
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)
