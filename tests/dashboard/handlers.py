"""Handlers for pages to show."""

from __future__ import annotations

import asyncio

from tenure.worker.context import AsyncContext
from tenure.worker.handler import handler

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred\x1b[0m \u202eturned"


@handler("chatty")
async def chatty(payload: object, ctx: AsyncContext) -> object:
    """Log a line now and then, until canceled."""
    number = 0
    while True:
        number += 1
        ctx.log.info(f"line {number}")
        await ctx.progress(min(0.99, number / 1_000), f"at line {number}")
        await asyncio.sleep(0.2)


@handler("hostile")
async def hostile(payload: object, ctx: AsyncContext) -> object:
    """Say what no page must take for markup, and fail with it."""
    ctx.log.info(HOSTILE, what=HOSTILE)
    await ctx.progress(0.5, HOSTILE)
    raise ValueError(HOSTILE)


@handler("give-back")
async def give_back(payload: object, ctx: AsyncContext) -> object:
    """Give the payload back."""
    return payload


@handler("save")
async def save(payload: object, ctx: AsyncContext) -> object:
    """Log, save a file, and give the payload back."""
    ctx.log.info("saved soon", what="a file")
    await ctx.save_artifact("it.txt", b"some bytes\n", content_type="text/plain")
    return payload
