"""Handlers of the end-to-end tests. Each leaves a line in a file that it writes itself, apart from tenure."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path

from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import handler


def _note(word: str, ctx: AsyncContext | Context) -> None:
    path = Path(os.environ["TENURE_TEST_TRACE"])
    line = f"{word} {ctx.job_id} {ctx.attempt} {ctx.fence} {os.getpid()} {time.monotonic():.6f}\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def _sleep_until_over() -> None:
    over = Path(os.environ["TENURE_TEST_TRACE"] + ".over")
    until = time.monotonic() + 60.0
    while not over.exists() and time.monotonic() < until:
        time.sleep(0.05)


@handler("trace")
async def trace(payload: object, ctx: AsyncContext) -> object:
    """Leave a line and give the payload back."""
    _note("ran", ctx)
    return payload


@handler("hold-on")
async def hold_on(payload: dict[str, float], ctx: AsyncContext) -> str:
    """Run for a while, visibly."""
    _note("began", ctx)
    await asyncio.sleep(payload["seconds"])
    _note("ended", ctx)
    return "slept"


@handler("process-hold-on", mode="process")
def process_hold_on(payload: dict[str, float], ctx: Context) -> str:
    """Run for a while in a process, leaving a line every tenth of a second."""
    _note("began", ctx)
    until = time.monotonic() + payload["seconds"]
    while time.monotonic() < until:
        time.sleep(0.1)
        _note("lives", ctx)
    return "slept"


@handler("deaf")
def deaf(payload: object, ctx: Context) -> str:
    """Heed no request to stop, in a thread that nobody can kill, until a file says that it is over."""
    _note("began", ctx)
    _sleep_until_over()
    _note("ended", ctx)
    return "finished all the same"


@handler("blocking")
async def blocking(payload: object, ctx: AsyncContext) -> None:
    """Block the loop of all async handlers until a file says that it is over."""
    _note("began", ctx)
    _sleep_until_over()


@handler("flaky")
async def flaky(payload: dict[str, int], ctx: AsyncContext) -> int:
    """Fail until a given attempt."""
    if ctx.attempt < payload["succeeds_at"]:
        raise RuntimeError(f"attempt {ctx.attempt} fails")
    return ctx.attempt


@handler("parent")
async def parent(payload: dict[str, int], ctx: AsyncContext) -> list[str]:
    """Submit children, then fail once: the second attempt must find the same children."""
    from tenure.model.jobs import JobSpec

    specs = [JobSpec(kind="trace", ref=f"child-{n}") for n in range(payload["children"])]
    specs.append(JobSpec(kind="trace", ref="after", depends_on=tuple(f"child-{n}" for n in range(payload["children"]))))
    ids = await ctx.submit_children(specs)
    if ctx.attempt == 1:
        raise RuntimeError("after the children were submitted")
    return ids


@handler("hold-first")
async def hold_first(payload: object, ctx: AsyncContext) -> object:
    """Hold the first attempt until it is taken away; a later one ends at once."""
    _note("began", ctx)
    if ctx.attempt == 1:
        await asyncio.sleep(600)
    return payload


@handler("by-plan")
async def by_plan(payload: dict[str, bool]) -> str:
    """Fail or complete, as asked for."""
    if payload["fails"]:
        raise RuntimeError("as planned")
    return "done"


@handler("gather")
async def gather(payload: dict[str, int], ctx: AsyncContext) -> dict[str, object]:
    """Submit children, park on them, and hold the first attempt that resumes until it is taken away."""
    from tenure.model.jobs import JobSpec

    _note("began", ctx)
    if not ctx.resumed_from_park:
        many = payload["children"]
        specs = [JobSpec(kind="trace", payload=str(n), ref=f"child-{n}") for n in range(many)]
        specs.append(JobSpec(kind="hold-first", payload=str(many), ref="held"))
        ctx.park(await ctx.submit_children(specs), checkpoint={"asked": many + 1})
    found = await ctx.upstream()
    if ctx.attempt == 2:
        await asyncio.sleep(600)
    return {"sum": sum(job.result for job in found), "checkpoint": ctx.checkpoint}


@handler("says")
async def says(payload: dict[str, int], ctx: AsyncContext) -> str:
    """Log some lines, wait until a file says that it is over, and log the last one."""
    _note("began", ctx)
    for n in range(payload["lines"]):
        ctx.log.info("by ctx", n=n)
    logging.getLogger("tests.says").warning("by %s", "logging")
    await asyncio.to_thread(_sleep_until_over)
    _note("ended", ctx)
    ctx.log.error("last words")
    return "said"


@handler("says-process", mode="process")
def says_process(payload: object, ctx: Context) -> str:
    """The same in a process."""
    ctx.log.info("by ctx")
    logging.getLogger("tests.says").warning("by %s", "logging")
    _sleep_until_over()
    ctx.log.error("last words")
    return "said"


@handler("counts")
def counts(payload: dict[str, float], ctx: Context) -> int:
    """Log a line every ``pause_s``, heeding no request to stop, ``lines`` of them at most, until it is over."""
    _note("began", ctx)
    over = Path(os.environ["TENURE_TEST_TRACE"] + ".over")
    said = 0
    while said < payload["lines"] and not over.exists():
        ctx.log.info(f"{ctx.attempt}-{said}")
        said += 1
        time.sleep(payload["pause_s"])
    _note("ended", ctx)
    return said


def _large(payload: dict[str, int]) -> str:
    return "x" * payload["result"]


@handler("large")
async def large(payload: dict[str, int]) -> str:
    """Return a large result."""
    return _large(payload)


@handler("logs-and-large")
async def logs_and_large(payload: dict[str, int], ctx: AsyncContext) -> str:
    """Log some lines, wait until a file says that it is over, and return a large result."""
    for number in range(10):
        ctx.log.info(f"line {number}")
    await asyncio.to_thread(_sleep_until_over)
    return _large(payload)


@handler("saves")
async def saves(payload: dict[str, int], ctx: AsyncContext) -> str:
    """Save bytes and a file, and return a large result."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"from a file")
        file.flush()
        await ctx.save_artifact("bytes.bin", bytes(range(256)) * 1_000)
        await ctx.save_artifact("file.txt", Path(file.name), content_type="text/plain")
    return _large(payload)


def _saves(payload: dict[str, int], ctx: Context) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"from a file")
        file.flush()
        ctx.save_artifact("bytes.bin", bytes(range(256)) * 1_000)
        ctx.save_artifact("file.txt", file.name, content_type="text/plain")
    return _large(payload)


@handler("saves-in-thread")
def saves_in_thread(payload: dict[str, int], ctx: Context) -> str:
    """The same in a thread."""
    return _saves(payload, ctx)


@handler("saves-in-process", mode="process")
def saves_in_process(payload: dict[str, int], ctx: Context) -> str:
    """The same in a process."""
    return _saves(payload, ctx)


@handler("saves-then-holds-first")
async def saves_then_holds_first(payload: dict[str, int], ctx: AsyncContext) -> str:
    """Save something; hold the first attempt until it is taken away."""
    await ctx.save_artifact("first", f"attempt {ctx.attempt}".encode())
    if ctx.attempt == 1:
        await asyncio.sleep(600)
    return _large(payload)
