"""Frames between the worker and a handler process: four bytes of length, then JSON. Never pickle.

Invariant: what a child sends is data of bounded size; nothing in it can name code to run. Blocking and incremental
readers are here; the sockets belong to the callers (``child`` and ``channel``).
"""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH_BYTES = 4


class BrokenFrame(Exception):
    """The other side sent what is no frame; the connection is of no more use."""


def encode(value: dict[str, Any]) -> bytes:
    """Return a frame."""
    body = json.dumps(value, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {len(body)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read(connection: socket.socket) -> dict[str, Any] | None:
    """Read a frame, blocking; None at the end of the stream.

    Raises:
        BrokenFrame: it is malformed.
    """
    head = _exactly(connection, _LENGTH_BYTES)
    body = head and _exactly(connection, _length(head))
    return _parse(body) if body else None


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take some bytes and return the frames that they complete.

        Raises:
            BrokenFrame: one is malformed.
        """
        buffer = self._buffer
        buffer += data
        found = []
        while len(buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + _length(buffer[:_LENGTH_BYTES])
            if len(buffer) < end:
                break
            found.append(_parse(bytes(buffer[_LENGTH_BYTES:end])))
            del buffer[:end]
        return found


def _length(head: bytes | bytearray) -> int:
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return length


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BrokenFrame(f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BrokenFrame("not an object")
    return value


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)
