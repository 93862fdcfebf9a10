"""Connections to the HTTP side of a process: how many there may be, and how long one may keep it waiting.

Whoever connects holds a file of this process, long before anybody can ask who that is. Invariants: a connection that
waits for its client (for a handshake, for the head or the body of a request, for the next one, or for an answer to be
taken) ends by a deadline; at most ``most`` are open, and one more takes the place of the one that has waited longest,
those that never asked for anything first, so that probes get in whatever others do. A request that is being answered
has no deadline here and loses its place to nobody: a long poll takes as long as it takes. How many of those there may
be is for the application to say.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from contextlib import suppress
from enum import Enum

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tenure.probes.tls import subjects

log = structlog.get_logger(__name__)

HEAD_S = 10.0
"""For a handshake, and for the head of a request: from the connection, or from the first byte of a later head."""
BODY_BYTES = 1024 * 1024
BODY_S = 60.0
"""For so many bytes of a request's body, or what is left of it. The application refuses a slow one before, with words;
this is for bodies that nobody reads."""
KEEP_ALIVE_S = 75
"""How long a connection may say nothing: longer than runners and usual proxies keep one, so that they never use one
that is just being closed."""
TAKE_S = 30.0
TAKE_BYTES = 16 * 1024
"""So much of an answer that waits to be sent is taken in that time, or the rest is dropped."""
MOST = 1_000
FOR_PROBES = 32
"""Places that an application leaves to its probes, when it bounds how many other requests it answers at a time."""
LEAST = 2 * FOR_PROBES
_PAUSE_S = 1.0
"""After a connection that could not be taken, for want of a file."""


class Phase(Enum):
    """What a connection is at."""

    HEAD = "waits for the head of a request"
    BODY = "waits for the body"
    ANSWER = "the request is being answered"
    IDLE = "answered; waits for another request"
    LEAVING = "is being closed, once what was written is taken"


def fitting(most: int) -> int:
    """Return how many connections there may be: ``most``, but no more than half of the files that may be open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else min(most, max(LEAST, files // 2))


class Door:
    """Takes connections from a listening socket. ``run`` is the body of a task."""

    def __init__(
        self,
        listener: socket.socket,
        config: uvicorn.Config,
        state: ServerState,
        *,
        most: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._config = config
        self._state = state
        self._most = most
        self._tls = tls
        self._open: set[socket.socket] = set()
        # Those that wait, longest first: a dict keeps the order in which they came.
        self._strangers: dict[socket.socket, None] = {}
        self._known: dict[socket.socket, None] = {}

    async def run(self) -> None:
        """Take connections until cancelled."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._listener)
                except ConnectionAbortedError:
                    continue
                except OSError as exc:
                    log.warning("http_connection_not_taken", error=str(exc))
                    self._make_room()
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if len(self._open) >= self._most and not self._make_room():
                    client.close()
                    continue
                self._open.add(client)
                self._strangers[client] = None
                group.create_task(self._greet(client))
                await asyncio.sleep(0)  # a flood of connections lets others have their turn

    def placed(self, client: socket.socket, phase: Phase, *, is_stranger: bool) -> None:
        """Note what a connection is at from now on."""
        self._strangers.pop(client, None)
        self._known.pop(client, None)
        if phase is not Phase.ANSWER:
            (self._strangers if is_stranger else self._known)[client] = None

    def gone(self, client: socket.socket) -> None:
        """Forget a connection that has ended."""
        self._open.discard(client)
        self._strangers.pop(client, None)
        self._known.pop(client, None)

    async def _greet(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._config, self._state, self, client),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=HEAD_S if self._tls else None,
            )
        except OSError:  # it spoke something else, showed a certificate of another authority, or nothing came
            self.gone(client)
        except Exception:  # the top of a task: one connection ends no other
            log.exception("http_connection_failed")
            self.gone(client)
        if client.fileno() < 0:  # ended during the handshake, of which a protocol is not told
            self.gone(client)

    def _make_room(self) -> bool:
        """End the connection that has waited longest; False if none waits."""
        for waiting in (self._strangers, self._known):
            for client in waiting:
                del waiting[client]
                with suppress(OSError):  # it has ended already
                    client.shutdown(socket.SHUT_RDWR)
                return True
        return False


class Connection(H11Protocol):
    """A connection that is waited for only so long; over TLS it knows whose certificate its client showed."""

    def __init__(self, config: uvicorn.Config, state: ServerState, door: Door, client: socket.socket) -> None:
        super().__init__(config, state, {})
        self._door = door
        self._socket = client
        self._phase = Phase.HEAD
        self._came = 0
        """Bytes of a body since its time began."""
        self._deadline: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is not None:
            self.app_state = {"subjects": subjects(transport.get_extra_info("peercert"))}
        self._enter(Phase.HEAD)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        super().data_received(data)
        self._came += len(data)
        if self._came >= BODY_BYTES and self._now() is Phase.BODY is self._phase:
            self._enter(Phase.BODY)  # it comes at a good pace: its time begins anew
        else:
            self._look()

    def on_response_complete(self) -> None:
        """Called when the application has given its whole answer."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().pause_writing()
        self._expect_taking()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        if self._phase is not Phase.LEAVING:
            _cancel(self._taking)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        _cancel(self._deadline)
        _cancel(self._taking)
        self._door.gone(self._socket)
        super().connection_lost(exc)

    def _look(self) -> None:
        if (phase := self._now()) is not self._phase:
            self._enter(phase)

    def _now(self) -> Phase:
        if self.transport.is_closing():
            return Phase.LEAVING
        match self.conn.their_state:
            case h11.IDLE:
                return Phase.HEAD if self.cycle is None or self.conn.trailing_data[0] else Phase.IDLE
            case h11.SEND_BODY:
                return Phase.BODY
        return Phase.ANSWER

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._came = 0
        self._door.placed(self._socket, phase, is_stranger=self.cycle is None)
        _cancel(self._deadline)
        match phase:
            case Phase.HEAD:
                self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)
            case Phase.BODY:
                self._deadline = self.loop.call_later(BODY_S, self.transport.abort)
            case Phase.IDLE:  # the server's own timer is gone once something came that asked for nothing
                self._deadline = self.loop.call_later(KEEP_ALIVE_S, self._leave)
            case Phase.LEAVING:
                self._expect_taking()

    def _leave(self) -> None:
        self.transport.close()
        self._enter(Phase.LEAVING)

    def _expect_taking(self) -> None:
        _cancel(self._taking)
        left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(TAKE_S, self._drop_unless_taken, left)

    def _drop_unless_taken(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < TAKE_BYTES:
            self.transport.abort()
        else:
            self._expect_taking()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
