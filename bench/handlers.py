"""What the measured workers run; ``tenure.bench.stamp`` is apart, for a worker that serves it alone."""

from __future__ import annotations

import asyncio
import time

from tenure.worker.context import AsyncContext
from tenure.worker.handler import handler

NOOP = "bench.noop"
HOLD = "bench.hold"
HOLD_S = 3_600.0


@handler(NOOP)
async def noop() -> None:
    """Do nothing: what remains is the cost of the scheduler."""


@handler(HOLD)
async def hold(ctx: AsyncContext) -> int:
    """Keep the first attempt until its worker dies; a later one returns the instant at which it began."""
    began = time.monotonic_ns()
    if ctx.attempt == 1:
        await asyncio.sleep(HOLD_S)
    return began
