"""Live parts of pages, by server-sent events: one poll of the API for each thing that is watched, for all who watch it.

Viewers share a poll when they watch the same thing and may see the same: same role, same namespaces. Each viewer's own
credentials are asked after every few seconds, whoever's the poll uses. Invariants: viewers, and things watched, are
bounded; a viewer that takes nothing holds up nobody, is given the newest when it takes something, and is cut by
the HTTP server when it never does; a view that nobody watches is not polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping

import structlog
from markupsafe import escape
from starlette.responses import Response, StreamingResponse

from tenure.dashboard.visit import Visit, told
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, PermissionDenied, TenureError, Unauthenticated

log = structlog.get_logger(__name__)

MAX_VIEWERS = 200
MAX_VIEWS = 100
AGAIN_S = 5.0
"""A viewer's credentials are asked after that often."""
LONGEST_S = 600.0
"""A stream ends after so long; the browser opens the next one by itself."""
REST = 10
"""A view is left alone for so many times as long as its poll took: what is slow to find out is found out less often."""
MAX_REST_S = 15.0
TROUBLE = "trouble"
ENDED = "ended"
"""What is watched changes no more: told last, once all else was; then the browser closes the stream."""
Event = tuple[str, str]
Parts = Mapping[str, str]
"""HTML by the name of the event that brings it."""
Produce = Callable[[], Awaitable[Parts]]


class _View:
    """Something that is polled while somebody watches it."""

    def __init__(self, produce: Produce, every_s: float) -> None:
        self.produce = produce
        self.every_s = every_s
        self.parts: dict[str, str] = {}
        self.viewers = 0
        self.is_over = False
        self.changed = asyncio.Event()
        """Of what comes next: each change has its own, so that who took it before looking misses none."""
        self.task: asyncio.Task[None] | None = None

    async def run(self, clock: Clock) -> None:
        while True:
            began, rest_s = clock.monotonic(), 0.0
            try:
                found = {**await self.produce(), TROUBLE: ""}
                rest_s = min(MAX_REST_S, REST * (clock.monotonic() - began))
            except (Unauthenticated, PermissionDenied):
                return  # of whoever began it: those who stay begin anew, each with their own
            except TenureError as exc:
                found = {TROUBLE: escape(f"Not up to date: {told(exc)}")}
            except Exception:  # the top of a task
                log.exception("live_view_failed")
                found = {TROUBLE: "Not up to date: something went wrong here."}
            if any(self.parts.get(name) != html for name, html in found.items()):
                self.parts.update(found)
                self.tell()
            await clock.sleep(max(self.every_s, rest_s))

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Live:
    """The views that are watched now."""

    def __init__(self, clock: Clock, *, viewers: int = MAX_VIEWERS) -> None:
        """``viewers``: at a time, at most."""
        self._clock = clock
        self._most = min(viewers, MAX_VIEWERS)
        self._views: dict[Hashable, _View] = {}
        self._viewers = 0
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """End every stream; what was polled is polled no more when this returns."""
        self._closing.set()
        tasks = [view.task for view in self._views.values() if view.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def watch(
        self,
        visit: Visit,
        what: Hashable,
        produce: Produce,
        *,
        every_s: float = 1.0,
        beside: AsyncIterator[tuple[str, str]] | None = None,
    ) -> Response:
        """Answer with a stream of what changes; ``what`` names the thing, and ``produce`` shows it as it is now.

        ``beside`` are events for this viewer alone, which end by themselves.

        Raises:
            BoundExceeded: as many watch as may.
        """
        who = visit.caller
        key = (what, who.role, who.namespaces) if who is not None else (what,)
        view = self._views.get(key)
        if view is None and len(self._views) >= MAX_VIEWS:
            raise self._full()
        shown = self._shown(key, produce, every_s)
        return self.stream(visit, shown if beside is None else _together(shown, beside))

    def stream(self, visit: Visit, events: AsyncIterator[tuple[str, str]]) -> Response:
        """Answer with a stream of events, a name and HTML each, for as long as the visitor's credentials stand.

        Raises:
            BoundExceeded: as many watch as may.
        """
        if self._viewers >= self._most:
            raise self._full()
        return StreamingResponse(
            self._written(visit, events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _full(self) -> BoundExceeded:
        return BoundExceeded("as many live pages are open as may be", hint="load the page again now and then")

    async def _written(self, visit: Visit, events: AsyncIterator[tuple[str, str]]) -> AsyncIterator[bytes]:
        self._viewers += 1
        deadline = self._clock.monotonic() + LONGEST_S
        pending: asyncio.Task[tuple[str, str]] | None = None
        closing = asyncio.create_task(self._closing.wait())
        try:
            yield b"retry: 2000\n\n"
            asked_at = self._clock.monotonic()
            while self._clock.monotonic() < deadline:
                if pending is None:
                    pending = asyncio.create_task(_next(events))
                done, _ = await asyncio.wait((pending, closing), timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                if closing in done:
                    return
                if self._clock.monotonic() - asked_at >= AGAIN_S:
                    await visit.client.caller()
                    asked_at = self._clock.monotonic()
                if pending not in done:
                    yield b": still here\n\n"
                    continue
                name, html = pending.result()
                pending = None
                yield _event(name, html)
        except (Unauthenticated, PermissionDenied):
            yield _event(TROUBLE, "Not up to date: your session is over. Load the page again.")
        except TenureError:
            return  # the browser asks anew, and is told why not
        finally:
            self._viewers -= 1
            closing.cancel()
            if pending is not None:
                pending.cancel()
                await asyncio.wait((pending,))
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    async def _shown(self, key: Hashable, produce: Produce, every_s: float) -> AsyncIterator[tuple[str, str]]:
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = _View(produce, every_s)
            view.task = asyncio.create_task(view.run(self._clock))
            view.task.add_done_callback(lambda done: self._over(key, done))
        view.viewers += 1
        sent: dict[str, str] = {}
        try:
            while not view.is_over:
                changed = view.changed
                for name, html in list(view.parts.items()):
                    if sent.get(name) != html:
                        sent[name] = html
                        yield name, html
                if not view.is_over:
                    await changed.wait()
        finally:
            view.viewers -= 1
            if not view.viewers and view.task is not None:
                view.task.cancel()

    def _over(self, key: Hashable, done: asyncio.Task[None]) -> None:
        view = self._views.get(key)
        if view is not None and view.task is done:
            del self._views[key]
            view.is_over = True
            view.tell()


async def _together(shown: AsyncIterator[Event], beside: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """Yield the events of both as they come; that all has ended only when ``beside`` has."""
    waiting: asyncio.Queue[Event | None] = asyncio.Queue(1)

    async def read(events: AsyncIterator[Event]) -> None:
        try:
            async for event in events:
                await waiting.put(event)
        except TenureError as exc:
            await waiting.put((TROUBLE, escape(f"Not up to date: {told(exc)}")))
        await waiting.put(None)

    tasks = [asyncio.create_task(read(events)) for events in (shown, beside)]
    over: Event | None = None
    left = len(tasks)
    try:
        while left:
            event = await waiting.get()
            if event is None:
                left -= 1
                if tasks[0].done():  # without what is shown there is nothing to go on for
                    left = 0
            elif event[0] == ENDED:
                over = event
            else:
                yield event
            if over is not None and left < len(tasks):
                yield over
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for events in (shown, beside):
            await events.aclose()  # type: ignore[attr-defined]  # both are generators


async def _next(events: AsyncIterator[tuple[str, str]]) -> tuple[str, str]:
    try:
        return await anext(events)
    except StopAsyncIteration:
        raise _Over("there is no more") from None  # a task cannot end with StopAsyncIteration


class _Over(TenureError):
    """There are no more events."""


def _event(name: str, html: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
