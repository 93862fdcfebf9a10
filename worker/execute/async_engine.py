"""Executes ``async def`` handlers on a loop in a thread of its own, so that none of them can delay a KeepAlive.

Invariant: a handler runs inside a task, so ``current_task()``, ``asyncio.timeout`` and ``TaskGroup`` behave as
anywhere, and sees the context variables of no other attempt. Tasks are reused: a *runner* awaits one handler after
the other, and one that never suspends costs no task of its own. A runner that was cancelled, or whose handler left
context variables changed, is retired. A handler that blocks its loop delays the other async handlers, nothing else.
Nothing here can kill: ``kill`` asks again.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from functools import partial

import structlog

from tenure.model.clock import Clock
from tenure.probes import tracing
from tenure.worker.context import AsyncContext
from tenure.worker.execute import outcome
from tenure.worker.execute.bridge import Bridge
from tenure.worker.execute.call import Call, Ended, StopCause
from tenure.worker.execute.loops import Census, LoopThread, Mailbox
from tenure.worker.log_capture import writes_to

log = structlog.get_logger(__name__)
MAX_IDLE_RUNNERS = 64
MAX_STREAK = 64
"""Handlers that one runner performs before it lets the loop look at its sockets and timers."""


class AsyncExecution:
    """One attempt on the handler loop."""

    __slots__ = ("_engine", "bridge", "context", "is_over", "task")

    def __init__(self, engine: AsyncEngine, bridge: Bridge) -> None:
        self._engine = engine
        self.bridge = bridge
        self.context: AsyncContext | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_over = False

    def stop(self, cause: StopCause) -> None:
        """Cancel the handler's task, from the control loop."""
        self._engine.thread.post(partial(self._stop, cause))

    def kill(self) -> None:
        """Ask again: a coroutine that ignores its cancellation cannot be killed."""
        self._engine.thread.post(self._cancel)

    def make_context(self) -> AsyncContext:
        """Build the handler's context, for handlers that take one."""
        self.context = AsyncContext(self.bridge.call.assignment, self.bridge, self._engine.clock, self.bridge.call.log)
        return self.context

    def _stop(self, cause: StopCause) -> None:
        if self.is_over or not self.bridge.note(cause):
            return
        if self.context is not None:
            self.context.notice()
        self._cancel()

    def _cancel(self) -> None:
        # With a task set, the runner is suspended inside the handler: the cancellation can hit nothing else.
        if self.task is not None:
            self.task.cancel()


class AsyncEngine:
    """Begins and stops attempts from the control loop (the one it is made on); runs them on the handler loop."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.thread = LoopThread("tenure-handlers")
        self._control = asyncio.get_running_loop()
        self._ended: Mailbox[tuple[Call, Ended]] = Mailbox(self._control, self._deliver)
        self._waiting: deque[AsyncExecution] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._running: set[AsyncExecution] = set()
        self._census = Census()
        self._is_kicked = False
        self._is_relaying = False
        self._width = 1
        self.thread.start()

    def begin(self, call: Call, timeout_at: float | None = None) -> AsyncExecution:
        """Start an attempt; never blocks."""
        execution = AsyncExecution(self, Bridge(call, self._control, timeout_at))
        self._census.enter()
        self._waiting.append(execution)
        if not self._is_kicked:
            self._is_kicked = True
            self._control.call_soon(self._wake)
        return execution

    async def close(self, grace_s: float = 5.0) -> None:
        """Cancel what runs as RELEASED and end the handler loop; a handler that ignores it is abandoned, unreported."""
        self.thread.post(self._stop_all)
        if not await self._census.empty(grace_s):
            abandoned = [one.bridge.call.assignment.job_id for one in tuple(self._running)]
            log.warning("handlers_abandoned", mode="async", jobs=abandoned[:20], count=len(self._census))
        await self.thread.close(1.0)

    def _stop_all(self) -> None:
        for execution in (*self._waiting, *self._running):
            execution._stop(StopCause.RELEASED)

    def _wake(self) -> None:
        """Wake the handler loop, once for all that began together: that costs more than a handler that does nothing."""
        self.thread.loop.call_soon_threadsafe(self._kick)

    def _kick(self) -> None:
        self._is_kicked = False
        self._width = 1
        if not self._is_relaying:
            self._relay()

    def _relay(self) -> None:
        """Wake runners while attempts wait: one first (it may finish them all), then twice as many each round."""
        self._is_relaying = False
        waiting = len(self._waiting)
        if not waiting:
            return
        for _ in range(min(self._width, waiting)):
            if self._idle:
                self._idle.pop().set_result(None)
            else:
                # An empty context: a runner must not inherit what the posting thread happened to have set.
                self.thread.tasks.create_task(self._run(), context=contextvars.Context())
        self._width = min(self._width * 2, 256)
        self._is_relaying = True
        self.thread.loop.call_soon(self._relay)

    async def _run(self) -> None:
        """A runner: performs waiting attempts one after the other, in one task."""
        me = asyncio.current_task()
        if me is None:  # for the type checker: a coroutine of a task group has a task
            return
        pristine = contextvars.copy_context()
        while True:
            streak = 0
            while self._waiting:
                await self._attempt(self._waiting.popleft(), me)
                # Comparing contexts that are unchanged compares two pointers.
                if me.cancelling() or contextvars.copy_context() != pristine:
                    return
                streak += 1
                if streak >= MAX_STREAK:
                    streak = 0
                    await asyncio.sleep(0)
            if len(self._idle) >= MAX_IDLE_RUNNERS:
                return
            wake = self.thread.loop.create_future()
            self._idle.append(wake)
            await wake

    async def _attempt(self, execution: AsyncExecution, me: asyncio.Task[None]) -> None:
        call = execution.bridge.call
        handler = call.handler
        if execution.bridge.first_cause is not None:
            ended = outcome.stopped(execution.bridge.first_cause)
        else:
            try:
                arguments = handler.arguments(call.assignment.payload, execution.make_context)
            except Exception as exc:  # ValueError or whatever a user's validator raises
                ended = outcome.invalid_payload(exc)
            else:
                execution.task = me
                self._running.add(execution)
                logged = writes_to.set(call.write)
                entered = None if call.run is None else tracing.enter(call.run)
                try:
                    ended = outcome.returned(await handler.function()(*arguments))
                except BaseException as exc:  # SystemExit of a handler ends its attempt, not the loop
                    ended = outcome.raised(exc, handler, execution.bridge.first_cause)
                tracing.leave(entered)
                writes_to.reset(logged)
                execution.task = None
                self._running.discard(execution)
        execution.is_over = True
        self._ended.put((call, ended))

    def _deliver(self, item: tuple[Call, Ended]) -> None:
        self._census.leave()
        item[0].on_ended(item[1])
