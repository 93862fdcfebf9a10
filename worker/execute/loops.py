"""Crossing threads in batches: items put by one thread, delivered on the event loop of another.

Invariant: an item that was put is delivered once, in order, however many threads put; a batch costs one wake-up
(a write to the loop's socket, some microseconds, and a switch of the interpreter's lock), not one per item.
Used by the engines in both directions.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Mailbox(Generic[T]):
    """Delivers items on ``loop``. ``put`` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[T], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._scheduled = False

    def put(self, item: T) -> None:
        """Have an item delivered soon. Dropped, with a log line, once the loop is closed."""
        self._items.append(item)
        # Two threads may both schedule: harmless. None can be missed: `_drain` clears the flag before it looks.
        if not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                log.warning("mailbox_closed", dropped=len(self._items))

    def _drain(self) -> None:
        self._scheduled = False
        items = self._items
        for _ in range(len(items)):
            try:
                self._deliver(items.popleft())
            except Exception:  # one item's fault must not lose the others of its batch
                log.exception("mailbox_item_failed")


class Census:
    """Counts what is under way, on one loop, and tells when nothing is."""

    def __init__(self) -> None:
        self._count = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return self._count

    def enter(self) -> None:
        """One more."""
        self._count += 1
        if self._count == 1:
            self._empty.clear()

    def leave(self) -> None:
        """One less."""
        self._count -= 1
        if self._count == 0:
            self._empty.set()

    async def empty(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; False if that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True


class LoopThread:
    """An event loop in a thread of its own, with a ``TaskGroup`` in which its tasks are born."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self.loop: asyncio.AbstractEventLoop
        self.tasks: asyncio.TaskGroup
        self._posts: Mailbox[Callable[[], None]]
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._asked_at: float | None = None

    def start(self) -> None:
        """Start the thread and wait until its loop takes posts (a few milliseconds)."""
        self._thread.start()
        self._ready.wait()

    def post(self, callback: Callable[[], None]) -> None:
        """Run a callback on this loop soon, in the order of the posts."""
        self._posts.put(callback)

    @property
    def has_ended(self) -> bool:
        """Say whether nothing runs on this loop any more: closed, or broken by what ran on it."""
        return not self._thread.is_alive()

    def blocked_s(self, now: float) -> float:
        """Return for how long the loop has not answered; asks by itself, so what it says begins with the first call."""
        if self._asked_at is None:
            self._asked_at = now
            self.post(self._answer)
            return 0.0
        return now - self._asked_at

    def _answer(self) -> None:
        self._asked_at = None

    async def close(self, timeout_s: float) -> bool:
        """Cancel the loop's tasks and end the thread; False if it does not end in time (user code blocks it).

        A thread that does not end is a daemon: it ends with the process.
        """
        if not self._thread.is_alive():
            return True
        self.loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:  # the top of this thread
            log.exception("loop_thread_failed", thread=self.name)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._posts = Mailbox(self.loop, lambda callback: callback())
        async with asyncio.TaskGroup() as self.tasks:
            self._ready.set()
            await self._stop.wait()
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
