"""A gRPC caller without manners: frames of its own making, and what it is sent it need not take."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

PATIENCE_S = 60.0


class RawCaller:
    """One connection."""

    def __init__(self, address: str, *, takes: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._takes = takes
        self._http.initiate_connection()
        self.statuses: dict[int, str] = {}
        """Of the streams that have ended: grpc-status, or "reset"."""
        self._flush()

    def begin(self, path: str, message: bytes, *, compressed: bool = False, ends: bool = True) -> int:
        """Open a stream and send one message on it, as fast as the other side takes it."""
        stream = self._http.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", self._address),
            ("te", "trailers"), ("content-type", "application/grpc"),
            *([("grpc-encoding", "gzip")] if compressed else []),
        ]  # fmt: skip
        self._http.send_headers(stream, headers)
        left = struct.pack(">BI", compressed, len(message)) + message
        while left and stream not in self.statuses:
            room = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size, len(left))
            if room > 0:
                self._http.send_data(stream, left[:room])
                left = left[room:]
            self._flush()
            if room <= 0:
                self.read()
        if ends and stream not in self.statuses:
            self._http.end_stream(stream)
            self._flush()
        return stream

    def read(self) -> None:
        """Take what has come."""
        got = self._socket.recv(1 << 20)
        if not got:
            raise ConnectionError("closed by the other side")
        for event in self._http.receive_data(got):
            if isinstance(event, ResponseReceived | TrailersReceived):
                for name, value in event.headers or ():
                    if str(name) == "grpc-status":
                        self.statuses[event.stream_id or 0] = str(value)
            elif isinstance(event, DataReceived) and self._takes:
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, StreamReset | StreamEnded):
                self.statuses.setdefault(event.stream_id or 0, "reset")
            elif isinstance(event, ConnectionTerminated):
                raise ConnectionError(f"closed by the other side: {event.error_code}")
        self._flush()

    def status(self, stream: int) -> str:
        """Read until a stream has ended, and return how."""
        while stream not in self.statuses:
            self.read()
        return self.statuses[stream]

    def fileno(self) -> int:
        """Let it be waited for with ``select``."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())


@contextmanager
def raw_caller(address: str, *, takes: bool = True) -> Iterator[RawCaller]:
    """Connect for the length of a block. Who does not take what it is sent gets 64 KiB, and no more."""
    caller = RawCaller(address, takes=takes)
    try:
        yield caller
    finally:
        caller.close()


def gzip_bomb(size: int) -> bytes:
    """Return zeros, packed: a thousandth of their size."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(1 << 20)
    return b"".join([*(packer.compress(zeros) for _ in range(size >> 20)), packer.flush()])
