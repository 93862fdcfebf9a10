"""The start of a coordinator: waits for what time may heal, and says what for.

Owns: the repetition of a first step that finds its store away. Only ``Unavailable`` is waited for; what is refused (a
password, a schema) ends the start at once, since waiting would hide it. Called by ``coordinator``, which ends the
waiting by cancelling it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import Unavailable

log = structlog.get_logger(__name__)

RETRY_S = 0.25
MAX_RETRY_S = 5.0

T = TypeVar("T")


class Opening:
    """What a coordinator waits for before it serves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._problem = "starting"

    async def problem(self) -> str:
        """Say what is waited for: a check of ``/readyz``, until there are better ones."""
        return self._problem

    async def until(self, store: str, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, again and again while its store does not answer; return its result.

        Raises: what the step raises, but ``Unavailable``.
        """
        pause_s = RETRY_S
        while True:
            try:
                return await step()
            except Unavailable as exc:
                wait_s = pause_s * random.uniform(0.5, 1.0)
                self._problem = f"waiting for {store}: {exc.message}"
                log.warning(
                    "waiting_for_store", store=store, error=exc.message, next_step=exc.hint, again_in_s=round(wait_s, 2)
                )
            await self._clock.sleep(wait_s)
            pause_s = min(2 * pause_s, MAX_RETRY_S)
