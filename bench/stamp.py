"""The handler that says when it began, by CLOCK_MONOTONIC, which all processes of one machine share."""

from __future__ import annotations

import time

from tenure.worker.handler import handler

STAMP = "bench.stamp"


@handler(STAMP)
async def stamp() -> int:
    """Return the instant at which the handler began, in nanoseconds."""
    return time.monotonic_ns()
