"""Executes plain functions in a bounded pool of threads.

Invariant: at most ``threads`` handlers run at once; the rest wait their turn in order. A thread cannot be killed:
``stop`` sets ``ctx.stopping`` (and ``ctx.lost``), ``kill`` does nothing more, and the attempt ends when the function
returns. What such a zombie writes through its context is refused by the fence. Threads are daemons, so that a stuck one
does not keep the worker from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import structlog

from tenure.model.clock import Clock
from tenure.probes import tracing
from tenure.worker.context import Context
from tenure.worker.execute import outcome
from tenure.worker.execute.bridge import Bridge
from tenure.worker.execute.call import Call, Ended, StopCause
from tenure.worker.execute.loops import Census, Mailbox
from tenure.worker.handler import Handler
from tenure.worker.log_capture import writes_to

log = structlog.get_logger(__name__)


class ThreadExecution:
    """One attempt in a thread, or waiting for one."""

    __slots__ = ("_engine", "bridge", "context")

    def __init__(self, engine: ThreadEngine, bridge: Bridge) -> None:
        self._engine = engine
        self.bridge = bridge
        self.context: Context | None = None

    def stop(self, cause: StopCause) -> None:
        """Set the events that the handler should look at."""
        if self.bridge.note(cause) and self.context is not None:
            self.context.notice()

    def kill(self) -> None:
        """Do nothing: a thread cannot be killed. Use ``mode="process"`` for functions that must be."""

    def make_context(self) -> Context:
        """Build the handler's context, for handlers that take one."""
        # Set before the function starts; `stop` notes its cause before it looks here, so one of the two sees the other.
        self.context = Context(self.bridge.call.assignment, self.bridge, self._engine.clock, self.bridge.call.log)
        return self.context


class ThreadEngine:
    """Begins and stops attempts from the control loop (the one it is made on)."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self.clock = clock
        self._limit = threads
        self._control = asyncio.get_running_loop()
        self._ended: Mailbox[tuple[ThreadExecution, Ended]] = Mailbox(self._control, self._deliver)
        self._queue: SimpleQueue[ThreadExecution | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[ThreadExecution] = set()
        self._census = Census()

    def begin(self, call: Call, timeout_at: float | None = None) -> ThreadExecution:
        """Start an attempt, or queue it while all threads are busy; never blocks."""
        execution = ThreadExecution(self, Bridge(call, self._control, timeout_at))
        self._unfinished.add(execution)
        self._census.enter()
        if len(self._unfinished) > len(self._threads) < self._limit and not self._add_thread() and not self._threads:
            message = "no thread can be started: does a handler of this worker use up the process ids?"
            self._ended.put((execution, outcome.failed("ThreadNotStarted", message)))
        else:
            self._queue.put(execution)
        return execution

    def _add_thread(self) -> bool:
        """Start one more thread; False if the system gives none, and the next attempt tries again."""
        thread = threading.Thread(target=self._work, name=f"tenure-handler-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            log.warning("thread_not_started", threads=len(self._threads), error=str(exc))
            return False
        self._threads.append(thread)
        return True

    async def close(self, grace_s: float = 5.0) -> None:
        """Ask all to stop as RELEASED and wait; a function that does not return is abandoned, unreported."""
        for execution in tuple(self._unfinished):
            execution.stop(StopCause.RELEASED)
        if not await self._census.empty(grace_s):
            jobs = [one.bridge.call.assignment.job_id for one in self._unfinished]
            log.warning("handlers_abandoned", mode="thread", jobs=jobs[:20], count=len(jobs))
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (execution := self._queue.get()) is not None:
            # A fresh context per attempt: context variables of one handler are not seen by the next.
            self._ended.put((execution, contextvars.Context().run(_perform, execution)))

    def _deliver(self, item: tuple[ThreadExecution, Ended]) -> None:
        execution, ended = item
        self._unfinished.discard(execution)
        self._census.leave()
        execution.bridge.call.on_ended(ended)


def _perform(execution: ThreadExecution) -> Ended:
    call = execution.bridge.call
    writes_to.set(call.write)
    tracing.enter(call.run)
    return perform(call.handler, call.assignment.payload, execution.bridge, execution.make_context)


class Causes(Protocol):
    """Why an attempt is to stop, as far as is known now."""

    @property
    def cause(self) -> StopCause | None:
        """The gravest cause so far."""
        ...

    @property
    def first_cause(self) -> StopCause | None:
        """The cause that decides the outcome."""
        ...


def perform(handler: Handler, payload: str, causes: Causes, make_context: Callable[[], Context]) -> Ended:
    """Run a plain function in the calling thread and judge how it ended."""
    if causes.first_cause is not None:
        return outcome.stopped(causes.first_cause)
    try:
        arguments = handler.arguments(payload, make_context)
    except Exception as exc:  # ValueError or whatever a user's validator raises
        return outcome.invalid_payload(exc)
    try:
        return outcome.returned(handler.function()(*arguments))
    except BaseException as exc:  # whatever user code raises ends the attempt, not the thread
        return outcome.raised(exc, handler, causes.first_cause)
