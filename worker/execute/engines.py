"""The engines of a worker, put together: an attempt goes to the engine of its handler's mode.

Owns the timeouts of attempts. Called by the worker's control loop and by the harness. Invariant: engines of modes that
the registry does not use cost nothing; they are made when first needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tenure.model.clock import Clock, SystemClock
from tenure.worker.execute.async_engine import AsyncEngine
from tenure.worker.execute.call import Call, Ended, Execution, StopCause, timeout_s
from tenure.worker.execute.command_engine import CommandEngine
from tenure.worker.execute.forkserver import ForkServerProcess
from tenure.worker.execute.loops import LoopThread
from tenure.worker.execute.process_engine import ProcessEngine
from tenure.worker.execute.process_host import STOP_GRACE_S, ProcessHost
from tenure.worker.execute.thread_engine import ThreadEngine
from tenure.worker.handler import Mode, Registry


class _Engine(Protocol):
    def begin(self, call: Call, timeout_at: float | None = None) -> Execution: ...

    async def close(self, grace_s: float = 5.0) -> None: ...


class Engines:
    """Executes attempts of every mode. Made, and called, on the control loop.

    ``concurrency`` bounds the threads; how many attempts run at once is the caller's decision. ``modules`` are what the
    fork server imports, unless one that was started already is given.
    """

    def __init__(
        self,
        registry: Registry,
        concurrency: int = 64,
        clock: Clock | None = None,
        *,
        modules: Sequence[str] = (),
        forkserver: ForkServerProcess | None = None,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        self._clock = clock or SystemClock()
        self._loop = asyncio.get_running_loop()
        self._threads = max(1, concurrency)
        self._modules = tuple(modules)
        self._forkserver = forkserver
        self._stop_grace_s = stop_grace_s
        self._host: ProcessHost | None = None
        self._engines: dict[Mode, _Engine] = {}
        for mode in registry.modes():
            self._engine(mode)

    def begin(self, call: Call) -> Execution:
        """Start an attempt; never blocks. It times out after the job's or the handler's timeout, the shorter one."""
        handler, assignment = call.handler, call.assignment
        limit_s = timeout_s(handler, assignment)
        engine = self._engines.get(handler.mode) or self._engine(handler.mode)
        if limit_s is None:
            return engine.begin(call)
        timer = self._loop.call_later(limit_s, lambda: execution.stop(StopCause.TIMED_OUT))

        def on_ended(ended: Ended) -> None:
            timer.cancel()
            call.on_ended(ended)

        timed = call._replace(on_ended=on_ended)
        execution: Execution = engine.begin(timed, self._clock.monotonic() + limit_s)
        return execution

    def tick(self, now: float) -> None:
        """Renew the watchdog's deadlines now. Not needed: the process loop does so by itself, five times a second."""
        del now
        if self._host is not None:
            self._host.extend()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop what runs (RELEASED), kill what can be killed, free the threads and end the fork server; only once.

        Attempts whose handler outlives this (async and threads only) are never reported: their claims end with their
        leases. Wait for running attempts first, to drain.
        """
        engines = list({id(engine): engine for engine in self._engines.values()}.values())
        self._engines.clear()
        host, self._host = self._host, None
        forkserver, self._forkserver = self._forkserver, None
        async with asyncio.TaskGroup() as tasks:
            for engine in engines:
                if not isinstance(engine, ProcessEngine | CommandEngine):
                    tasks.create_task(engine.close(grace_s))
            if host is not None:
                tasks.create_task(host.close(grace_s))
            elif forkserver is not None:
                forkserver.control.close()

    def loops(self) -> list[LoopThread]:
        """Return the event loops beside the control loop; none any more once this is closed."""
        loops = [engine.thread for engine in self._engines.values() if isinstance(engine, AsyncEngine)]
        return loops if self._host is None else [*loops, self._host.thread]

    def _engine(self, mode: Mode) -> _Engine:
        engine: _Engine
        match mode:
            case Mode.ASYNC:
                engine = AsyncEngine(self._clock)
            case Mode.THREAD:
                engine = ThreadEngine(self._threads, self._clock)
            case Mode.PROCESS:
                engine = ProcessEngine(self._processes())
            case Mode.COMMAND:
                engine = CommandEngine(self._processes())
        self._engines[mode] = engine
        return engine

    def _processes(self) -> ProcessHost:
        if self._host is None:
            self._host = ProcessHost(
                self._clock, modules=self._modules, forkserver=self._forkserver, stop_grace_s=self._stop_grace_s
            )
        return self._host
