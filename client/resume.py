"""Calls that outlive their streams: when a stream ends before its time, the next one is opened, and when to give up.

Owns the reckoning of an outage: it lasts from the end of the last stream that said something. The time that the caller
takes over a message is none. What to ask the next stream for is the caller's: only it knows what it has seen.
Called by ``client.calls``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from tenure.client.errors import RETRYABLE
from tenure.client.link import Link, Stubs, backoff_s
from tenure.model.errors import DeadlineExceeded

STREAM_STEP_S = 60.0
"""How long one stream lasts before it is asked afresh: bounds the harm of a connection that died silently."""


class Resumption:
    """The streams of one call, one after the other. ``awaits_answers``: whether silence is a coordinator's fault."""

    def __init__(self, link: Link, awaits_answers: Callable[[], bool] = lambda: True) -> None:
        self._link = link
        self._awaits_answers = awaits_answers
        self._silent_since = asyncio.get_running_loop().time()
        self._failures = 0
        self._has_heard = False
        """From the stream that is open."""

    @asynccontextmanager
    async def stream(
        self, pick: Callable[[Stubs], Callable[..., Any]], request: Any
    ) -> AsyncIterator[AsyncGenerator[Any, None]]:
        """Open the next stream, after a pause where the last one failed, and give its messages.

        An error that another stream may mend ends the ``async with`` quietly; what follows the messages inside it is
        reached only where the coordinator has ended the stream.

        Raises:
            TenureError: one that no other stream mends, or nobody answered for the link's ``patience_s``.
        """
        if self._failures:
            await asyncio.sleep(backoff_s(self._failures, len(self._link.addresses)))
        self._has_heard = False
        stream = self._link.stream(pick, request, timeout_s=STREAM_STEP_S)
        error: Exception | None = None
        try:
            async with aclosing(stream), aclosing(self._noting(stream)) as messages:
                yield messages
        except RETRYABLE as exc:
            if self._is_silent() and asyncio.get_running_loop().time() - self._silent_since > self._link.patience_s:
                raise
            error = exc
        self._count(error)

    def _count(self, error: Exception | None) -> None:
        if self._has_heard:
            self._failures = 0
        if self._is_silent():
            self._failures += 1
            return
        self._silent_since = asyncio.get_running_loop().time()
        was_its_time_up = isinstance(error, DeadlineExceeded)
        had_no_more_to_say = error is None and not self._awaits_answers()
        if not was_its_time_up and not had_no_more_to_say:
            self._failures += 1

    def _is_silent(self) -> bool:
        return not self._has_heard and self._awaits_answers()

    async def _noting(self, stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        async for message in stream:
            self._has_heard = True
            yield message
