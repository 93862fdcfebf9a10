"""The worker's side of the fork server: has processes started, signalled, watched and their ends told.

Owns the fork server's process and socket. Lives on the process loop (``process_host``); every method is called
there but ``start_forkserver``, which the worker's main calls first thing, so that the user's modules are imported while
the rest of the worker starts. Invariants: every started process gets exactly one ``Exit``, also when the fork server
itself dies; deadlines are renewed here, every ``EXTEND_EVERY_S``, from what the reporters trust, whatever the state of
the control loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tenure.model.clock import Clock
from tenure.worker.execute.forkserver_main import MAX_MESSAGE_BYTES, close_all, processes, stat_fields
from tenure.worker.execute.watchdog import shared_instant

log = structlog.get_logger(__name__)
EXTEND_EVERY_S = 0.2
_EXTENSIONS_PER_MESSAGE = 1_000
_END_S = 2.0
"""How long a fork server may take to end when its worker closes."""


@dataclass(frozen=True, slots=True)
class ForkServerProcess:
    """A fork server that runs, and the socket to it."""

    process: subprocess.Popen[bytes]
    control: socket.socket


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process. ``status`` is its exit code, or minus the signal that ended it; None: not known."""

    status: int | None
    error: str = ""
    is_expired: bool = False
    """True: the watchdog killed it, because its deadline was not extended."""


@dataclass(slots=True)
class _Running:
    deadline: Callable[[], float]
    on_exit: Callable[[Exit], None]
    pid: int = 0
    is_expired: bool = False


def start_forkserver(modules: Sequence[str] = ()) -> ForkServerProcess:
    """Start a fork server that imports ``modules``; returns at once. It ends by itself when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "tenure.worker.execute.forkserver_main",
                str(theirs.fileno()),
                str(os.getpid()),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # A session of its own: what stops or interrupts the worker's group must not reach the watchdog.
            start_new_session=True,
        )
    ours.setblocking(False)
    ours.send(json.dumps({"path": sys.path, "modules": list(modules)}).encode())
    return ForkServerProcess(process, ours)


class ForkServer:
    """Starts processes. A fork server that died is replaced when the next process is wanted."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, modules: Sequence[str], started: ForkServerProcess | None
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._modules = tuple(modules)
        self._server: ForkServerProcess | None = None
        self._running: dict[int, _Running] = {}
        self._key = 0
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        if started is not None:
            # From another thread, before the loop is asked for anything else.
            loop.call_soon_threadsafe(self._adopt, started)

    def spawn(self, fds: list[int], deadline: Callable[[], float], on_exit: Callable[[Exit], None]) -> int:
        """Have a process forked that owns ``fds`` (taken over and closed here); return its key.

        ``deadline`` is asked again and again, by this process' clock; once it has passed the process is killed.

        Raises:
            OSError: the fork server cannot be started.
        """
        if self._server is None:
            try:
                self._adopt(start_forkserver(self._modules))
            except OSError:
                close_all(fds)
                raise
        self._key += 1
        self._running[self._key] = _Running(deadline, on_exit)
        instant = shared_instant(deadline(), self._clock.monotonic())
        self._send({"op": "start", "key": self._key, "deadline": instant}, fds)
        return self._key

    def signal(self, key: int, number: signal.Signals) -> None:
        """Signal a process' group; nothing if it has ended."""
        if key in self._running:
            self._send({"op": "signal", "key": key, "signal": int(number)})

    def kill(self, key: int) -> None:
        """Kill a process' group and all that it started; nothing if it has ended."""
        if key in self._running:
            self._send({"op": "kill", "key": key})

    def extend(self) -> None:
        """Renew the deadlines of all processes."""
        now = self._clock.monotonic()
        instants = ((key, shared_instant(one.deadline(), now)) for key, one in self._running.items())
        finite = [(key, round(instant, 3)) for key, instant in instants if instant is not None]
        # With requests queued the server is behind: a newer extension will follow, none must pile up.
        if finite and not self._outbox:
            for start in range(0, len(finite), _EXTENSIONS_PER_MESSAGE):
                self._send({"op": "extend", "deadlines": finite[start : start + _EXTENSIONS_PER_MESSAGE]})

    async def keep_extending(self) -> None:
        """Renew the deadlines for ever."""
        while True:
            await asyncio.sleep(EXTEND_EVERY_S)
            self.extend()

    def close(self) -> None:
        """End the fork server, and with it every process that still runs; blocks the process loop for a moment."""
        server = self._server
        if server is None:
            return
        # The end of the stream is its order to kill all and end; one that still imports modules would not see it.
        server.control.shutdown(socket.SHUT_RDWR)
        try:
            server.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            server.process.kill()
        self._bury(server, "the worker closes")

    def _adopt(self, server: ForkServerProcess) -> None:
        self._server = server
        self._loop.add_reader(server.control, self._receive)

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        self._outbox.append((json.dumps(message, separators=(",", ":")).encode(), fds or []))
        self._flush()

    def _flush(self) -> None:
        if self._server is None:
            return
        control = self._server.control
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                socket.send_fds(control, [data], fds)
            except BlockingIOError:
                self._loop.add_writer(control, self._flush)
                return
            except OSError:
                # It died: the reader sees the end of the stream and cleans up.
                return
            self._outbox.popleft()
            close_all(fds)
        self._loop.remove_writer(control)

    def _receive(self) -> None:
        if self._server is None:
            return
        for _ in range(64):
            try:
                data = self._server.control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose_server(self._server)
                return
            self._handle(json.loads(data))

    def _handle(self, message: dict[str, Any]) -> None:
        one = self._running.get(message["key"])
        if one is None:
            return
        match message["event"]:
            case "started":
                one.pid = message["pid"]
            case "expired":
                one.is_expired = True
            case "exited":
                del self._running[message["key"]]
                one.on_exit(Exit(message.get("status"), message.get("error", ""), one.is_expired))

    def _lose_server(self, server: ForkServerProcess) -> None:
        status = server.process.wait()
        lost = len(self._running)
        self._bury(server, f"the fork server died ({describe_status(status)})")
        log.error("forkserver_died", status=status, processes=lost)

    def _bury(self, server: ForkServerProcess, reason: str) -> None:
        """Clean up after a fork server that ended: its children died with it, theirs may not have."""
        self._server = None
        self._loop.remove_reader(server.control)
        self._loop.remove_writer(server.control)
        server.control.close()
        server.process.wait()
        while self._outbox:
            close_all(self._outbox.popleft()[1])
        running, self._running = self._running, {}
        kill_sessions({one.pid for one in running.values() if one.pid})
        for one in running.values():
            one.on_exit(Exit(None, reason, one.is_expired))


def kill_sessions(sessions: set[int]) -> None:
    """Kill every process of some sessions. A session's number is not given out again while it has members."""
    for pid in processes() if sessions else ():
        fields = stat_fields(pid)
        if len(fields) > 3 and int(fields[3]) in sessions:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def describe_status(status: int | None) -> str:
    """Say in words how a process ended."""
    if status is None:
        return "unknown status"
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
