"""Where blocking clients run their asyncio: one event loop on one daemon thread per process, shared by them all.

Owns that thread. Shared, because gRPC's asyncio polls once per process and is noisy under many loops. Started with
the first call, stopped with the last client, made afresh in a forked child; a client that was used before the fork
is of no use there, since its connections are the parent's. Called by the generated ``sync_client``.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from tenure.model.errors import TenureError

CLOSE_S = 5.0

Result = TypeVar("Result")


class _Thread:
    """The loop's thread and how many portals use it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.users = 0
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="tenure-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @property
    def is_elsewhere(self) -> bool:
        """Say whether it is a parent's: threads are not forked, and a call would wait for ever."""
        return self._pid != os.getpid()

    def stop(self) -> None:
        """End the loop and wait for the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self.loop.close()


_lock = threading.Lock()
_shared: _Thread | None = None


class Portal:
    """One client's way to the shared loop. Every method blocks the calling thread and may be used from any."""

    def __init__(self) -> None:
        self._thread: _Thread | None = None
        self._closed = False

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and return its result; an interrupt cancels it."""
        try:
            loop = self._enter().loop
        except TenureError:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            # KeyboardInterrupt arrives here, not on the loop's thread: the call must not run on unseen.
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[Result]) -> Iterator[Result]:
        """Yield what an async generator yields; closing this one closes that one."""
        steps = _Steps(items)
        try:
            while True:
                try:
                    yield self.call(steps.next())
                except StopAsyncIteration:
                    return
        finally:
            if not self._closed:
                self.call(steps.end())

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Run a client's last coroutine and leave the loop; the last to leave stops it. May be called twice."""
        with _lock:
            thread, self._thread = self._thread, None
            self._closed = True
        if thread is None or thread.is_elsewhere:
            return
        future = asyncio.run_coroutine_threadsafe(_await(last), thread.loop)
        try:
            future.result(CLOSE_S)
        except concurrent.futures.TimeoutError:
            future.cancel()
        _leave(thread)

    def _enter(self) -> _Thread:
        global _shared
        with _lock:
            if self._closed:
                raise TenureError("the client is closed")
            if self._thread is None:
                if _shared is None:
                    _shared = _Thread()
                self._thread = _shared
                _shared.users += 1
            if self._thread.is_elsewhere:
                raise TenureError(
                    "the client was used before this process was forked", hint="make a client in each process"
                )
            return self._thread


def _leave(thread: _Thread) -> None:
    global _shared
    with _lock:
        thread.users -= 1
        if thread.users:
            return
        if _shared is thread:
            _shared = None
    thread.stop()


class _Steps(Generic[Result]):
    """The steps of an async iterator, on the loop's thread."""

    def __init__(self, items: AsyncIterator[Result]) -> None:
        self._items = items
        self._step: asyncio.Task[Any] | None = None

    async def next(self) -> Result:
        """Return the next item."""
        self._step = asyncio.current_task()
        return await anext(self._items)

    async def end(self) -> None:
        """Close the iterator, where it can be closed.

        An interrupt may have come just when a step had been handed over: that runs on unseen, and must end first.
        """
        if self._step is not None and not self._step.done():
            self._step.cancel()
            await asyncio.wait((self._step,))
        aclose = getattr(self._items, "aclose", None)
        if aclose is not None:
            await aclose()


async def _await(last: Callable[[], Awaitable[None]]) -> None:
    await last()


def _at_exit() -> None:
    """Stop the loop of clients that nobody closed, before the interpreter takes gRPC apart under it."""
    global _shared
    with _lock:
        thread, _shared = _shared, None
    if thread is not None:
        thread.stop()


def _after_fork() -> None:
    # The thread is not in the child; its lock may be held there for ever.
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
