"""What process and command handlers have in common: an attempt that is a process leading its own group.

Owns the process loop (a thread of its own, so that neither user code nor a busy control loop delays a kill) and the
life of such a process: started, asked with SIGTERM, killed when its grace is over, ended only when the process is gone.
Invariant: an attempt has ended when no process of it is left that the fork server can find.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog

from tenure.model.clock import Clock
from tenure.worker.execute import outcome
from tenure.worker.execute.bridge import Bridge
from tenure.worker.execute.call import Call, Ended, ErrorReport, StopCause
from tenure.worker.execute.channel import Channel
from tenure.worker.execute.forkserver import Exit, ForkServer, ForkServerProcess, describe_status
from tenure.worker.execute.forkserver_main import close_all
from tenure.worker.execute.loops import Census, LoopThread, Mailbox
from tenure.worker.execute.watchdog import GRACE_S, boottime

log = structlog.get_logger(__name__)
STOP_GRACE_S = 5.0
"""From SIGTERM to SIGKILL, unless the claim is lost: then ``watchdog.GRACE_S``."""


class ProcessHost:
    """The process loop with its fork server; shared by the process and the command engine of a worker."""

    def __init__(
        self,
        clock: Clock,
        *,
        modules: Sequence[str] = (),
        forkserver: ForkServerProcess | None = None,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        self.clock = clock
        self.stop_grace_s = stop_grace_s
        self.thread = LoopThread("tenure-processes")
        self.control = asyncio.get_running_loop()
        self.ended: Mailbox[tuple[ForkedExecution, Ended]] = Mailbox(self.control, self._deliver)
        self.unfinished: set[ForkedExecution] = set()
        self._census = Census()
        self.thread.start()
        self.forkserver = ForkServer(self.thread.loop, clock, modules, forkserver)
        self.thread.post(self._begin_extending)

    def begin(self, execution: ForkedExecution) -> None:
        """Start an attempt's process, from the control loop."""
        self.unfinished.add(execution)
        self._census.enter()
        self.thread.post(execution.launch)

    def extend(self) -> None:
        """Renew all deadlines now rather than at the next turn."""
        self.thread.post(self.forkserver.extend)

    async def close(self, grace_s: float) -> None:
        """Stop what runs as RELEASED, kill what does not, and end the fork server."""
        for execution in tuple(self.unfinished):
            execution.stop(StopCause.RELEASED)
        await self._census.empty(grace_s)
        for execution in tuple(self.unfinished):
            execution.kill()
        await self._census.empty(2.0)
        # Whatever is left now ends with the fork server.
        self.thread.post(self.forkserver.close)
        if not await self._census.empty(10.0):
            log.error("handlers_abandoned", mode="process", count=len(self.unfinished))
        await self.thread.close(5.0)

    def _begin_extending(self) -> None:
        self.thread.tasks.create_task(self.forkserver.keep_extending())

    def _deliver(self, item: tuple[ForkedExecution, Ended]) -> None:
        execution, ended = item
        self.unfinished.discard(execution)
        self._census.leave()
        execution.bridge.call.on_ended(ended)


class ForkedExecution(ABC):
    """One attempt that is a process. ``stop`` and ``kill`` are called on the control loop.

    All other methods run on the process loop.
    """

    def __init__(self, host: ProcessHost, call: Call, timeout_at: float | None) -> None:
        self.host = host
        self.bridge = Bridge(call, host.control, timeout_at)
        self.channel: Channel | None = None
        self.exit: Exit | None = None
        self._key: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was_killed = False
        self._is_over = False

    def stop(self, cause: StopCause) -> None:
        """Send SIGTERM to the group, and SIGKILL when the grace is over."""
        self.host.thread.post(partial(self._stop, cause))

    def kill(self) -> None:
        """Send SIGKILL to the group and to what has left it."""
        self.host.thread.post(self._kill)

    def launch(self) -> None:
        """Start the process; an attempt that cannot be started has failed."""
        try:
            self.start()
        except Exception as exc:  # the top of an attempt: whatever goes wrong here, it must end
            log.exception("process_not_started", **self.bridge.call.assignment.named)
            self.finish(outcome.failed("ProcessNotStarted", f"the process cannot be started: {exc}"))

    @abstractmethod
    def start(self) -> None:
        """Start the process (for the modes to define).

        Raises:
            OSError: it cannot be started.
        """

    @abstractmethod
    def take(self, frame: dict[str, Any]) -> None:
        """Handle a frame from the process (for the modes to define)."""

    @abstractmethod
    def conclude(self) -> None:
        """Judge after the process has ended (for the modes to define); ends in ``finish``."""

    def spawn(self, request: dict[str, Any], stdio: list[int]) -> None:
        """Have the process forked and send it its request. ``stdio`` are its descriptors, taken over.

        Raises:
            OSError: no socket is to be had, or the fork server cannot be started.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            close_all(stdio)
            raise
        self.channel = Channel(self.host.thread.loop, ours, self.take, self._kill)
        fds = [theirs.detach(), *stdio]
        self._key = self.host.forkserver.spawn(fds, self.bridge.deadline, self._exited)
        self.channel.send(request)

    def shared(self, instant: float | None) -> float | None:
        """Turn an instant of this process' clock into one that the child understands."""
        if instant is None or instant == float("inf"):
            return None
        return boottime() + (instant - self.host.clock.monotonic())

    def died(self) -> Ended:
        """Judge a process that ended without saying how its attempt did."""
        how = self.exit.error or describe_status(self.exit.status) if self.exit else ""
        cause = self.bridge.first_cause
        if cause is None and self.exit is not None and self.exit.is_expired:
            cause = StopCause.LOST
        if cause is not None:
            note = "killed: it did not stop when asked" if self._was_killed else how
            return outcome.stopped(cause, ErrorReport("Stopped", note))
        if self.exit is not None and self.exit.status == -signal.SIGKILL:
            how += " (not by this worker: out of memory?)"
        return outcome.failed("ProcessDied", f"the handler process ended without a result: {how}")

    def finish(self, ended: Ended) -> None:
        """Report the end, once."""
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self.channel is not None:
            self.channel.close()
        self.host.ended.put((self, ended))

    def _stop(self, cause: StopCause) -> None:
        if self._is_over or not self.bridge.note(cause):
            return
        if self.channel is not None:
            self.channel.send({"what": "stop", "cause": cause})
        if self._key is not None:
            self.host.forkserver.signal(self._key, signal.SIGTERM)
        if self._timer is not None:
            self._timer.cancel()
        grace_s = GRACE_S if cause is StopCause.LOST else self.host.stop_grace_s
        self._timer = self.host.thread.loop.call_later(grace_s, self._kill)

    def _kill(self) -> None:
        if not self._is_over and self._key is not None:
            self._was_killed = True
            self.host.forkserver.kill(self._key)

    def _exited(self, end: Exit) -> None:
        self.exit = end
        try:
            if self.channel is not None:
                self.channel.drain()
            self.conclude()
        except Exception as exc:  # the end of an attempt: it must be told, whatever was wrong with what it said
            log.exception("process_not_concluded", **self.bridge.call.assignment.named)
            self.finish(outcome.failed("ProcessDied", f"the end of the process cannot be judged: {exc}"))
