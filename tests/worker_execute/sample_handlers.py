"""Handlers that the tests run in processes: each misbehaves in its own way. Importable by the fork server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tenure.model.jobs import JobSpec
from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import Fail, Reschedule, handler
from tenure.worker.upstream import UpstreamJob


class Size(BaseModel):
    """A payload with a type."""

    model_config = ConfigDict(extra="forbid")

    width: int
    name: str = "x"


@handler("plain", mode="process")
def plain(payload: Size, ctx: Context) -> dict[str, object]:
    return {"width": payload.width, "pid": os.getpid(), "sid": os.getsid(0), "checkpoint": ctx.checkpoint}


@handler("coroutine", mode="process")
async def coroutine(payload: Size, ctx: AsyncContext) -> int:
    await ctx.progress(0.5, "half")
    return payload.width


@handler("environment", mode="process")
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("TENURE_")}


@handler("requests", mode="process")
def requests(ctx: Context) -> str:
    ctx.progress(0.25, "begun")
    ctx.save_checkpoint({"row": 7})
    return ctx.submit_child("noop", {"n": 1}, priority=3)


@handler("polite", mode="process")
def polite(ctx: Context) -> str:
    ctx.progress(0.1)
    ctx.stopping.wait()
    return f"{ctx.cause}, lost: {ctx.lost.is_set()}"


@handler("interrupted", mode="process")
def interrupted(payload: str) -> None:
    """Takes no context: SIGTERM raises in it, and its clean-up runs."""
    path = Path(payload)
    try:
        path.write_text("running")
        time.sleep(60)
    finally:
        path.write_text("cleaned up")


@handler("cancelled", mode="process")
async def cancelled(payload: str, ctx: AsyncContext) -> None:
    try:
        await ctx.progress(0.1)
        await asyncio.sleep(60)
    finally:
        Path(payload).write_text(f"cleaned up: {ctx.cause}")  # noqa: ASYNC240 - a process of its own


@handler("stubborn", mode="process")
def stubborn(payload: str | None, ctx: Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if payload:
        Path(payload).write_text(str(os.getpid()))
    ctx.progress(0.1, str(os.getpid()))
    while True:
        time.sleep(1)


@handler("parent", mode="process")
def parent(payload: str, ctx: Context) -> None:
    """Starts a child in its group, a child in a session of its own, and a daemon that was forked twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    near = subprocess.Popen([sys.executable, "-S", "-c", sleep])
    far = subprocess.Popen([sys.executable, "-S", "-c", sleep], start_new_session=True)
    daemonize = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    subprocess.run([sys.executable, "-S", "-c", daemonize, payload], check=True)
    while not (Path(payload).exists() and (text := Path(payload).read_text())):
        time.sleep(0.01)
    ctx.progress(0.1, f"{os.getpid()} {near.pid} {far.pid} {text}")
    while True:
        time.sleep(1)


@handler("leaver", mode="process")
def leaver() -> int:
    """Ends well, but leaves a child behind."""
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"]).pid


@handler("segfault", mode="process")
def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


@handler("vanish", mode="process")
def vanish() -> None:
    os._exit(5)


@handler("killed", mode="process")
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@handler("exits", mode="process")
def exits() -> None:
    sys.exit("enough")


@handler("raises", mode="process", non_retryable=(KeyError,))
def raises(payload: str) -> None:
    if payload == "fail":
        raise Fail("for good", type="OutOfScope")
    if payload == "later":
        raise Reschedule(3.5)
    if payload == "spend":
        raise Reschedule(3.5, spend_budget=True)
    raise {"key": KeyError, "value": ValueError}[payload]("no")


@handler("huge", mode="process")
def huge() -> str:
    return "x" * 200_000_000


@handler("unserialisable", mode="process")
def unserialisable() -> object:
    return object()


@handler("chatty", mode="process")
def chatty(ctx: Context) -> int:
    for number in range(2_000):
        ctx.progress(number / 2_000, "x" * 500)
    return 2_000


@handler("linger", mode="process")
def linger() -> str:
    """Returns while a thread of it still runs."""
    import threading

    threading.Thread(target=time.sleep, args=(60,)).start()
    return "done"


@handler("remaining", mode="process")
def remaining(ctx: Context) -> list[float]:
    before = ctx.remaining_s()
    ctx.progress(0.5)
    return [before, ctx.remaining_s()]


@handler("counted")
class Counted:
    """A class: one instance, made at the first attempt."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.calls = 0

    async def run(self, payload: Size, ctx: AsyncContext) -> tuple[int, int]:
        self.calls += 1
        return type(self).made, self.calls


@handler("counted-process", mode="process")
class CountedInProcess:
    """A class in a process: one instance per process, so per attempt."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, payload: Size) -> int:
        self.calls += 1
        return self.calls


def _children(parts: int) -> list[JobSpec]:
    return [JobSpec(kind="part", ref=f"part-{n}") for n in range(parts)]


@handler("reads-large", mode="process")
def reads_large(ctx: Context) -> int:
    """Read a result that is not in a frame."""
    return len(ctx._link.load_result(ctx.upstream()[0].id).result())  # type: ignore[attr-defined,unused-ignore]


@handler("reads-large-and-dies", mode="process")
def reads_large_and_dies(ctx: Context) -> None:
    """Die while it is on its way."""
    ctx._link.load_result(ctx.upstream()[0].id)  # type: ignore[attr-defined,unused-ignore]
    ctx.progress(0.5)  # behind it
    os.kill(os.getpid(), signal.SIGKILL)


@handler("saves-and-dies", mode="process")
def saves_and_dies(ctx: Context) -> None:
    """Die with bytes on their way to the worker."""
    ctx._link.save_artifact("a", b"x" * 1_000_000, "a/b")  # type: ignore[attr-defined,unused-ignore]
    os.kill(os.getpid(), signal.SIGKILL)


def _summary(ctx: Context | AsyncContext, upstream: list[UpstreamJob]) -> dict[str, object]:
    return {
        "sum": sum(job.result for job in upstream if job.completed),
        "failed": [f"{job.key}: {job.error.type}: {job.error.message}" for job in upstream if job.error],
        "checkpoint": ctx.checkpoint,
        "ids": [job.id for job in upstream],
    }


@handler("parks-async")
async def parks_async(parts: int, ctx: AsyncContext) -> dict[str, object]:
    if ctx.resumed_from_park:
        return _summary(ctx, await ctx.upstream())
    if parts < 0:
        ctx.park([], checkpoint="x" * 300_000)
    ctx.park(await ctx.submit_children(_children(parts)), checkpoint={"parts": parts})


def _parks(parts: int, ctx: Context) -> dict[str, object]:
    if ctx.resumed_from_park:
        return _summary(ctx, ctx.upstream())
    if parts < 0:
        ctx.park([], checkpoint="x" * 300_000)
    ctx.park(ctx.submit_children(_children(parts)), checkpoint={"parts": parts})


@handler("parks-in-a-thread")
def parks_in_a_thread(parts: int, ctx: Context) -> dict[str, object]:
    return _parks(parts, ctx)


@handler("parks-in-a-process", mode="process")
def parks_in_a_process(parts: int, ctx: Context) -> dict[str, object]:
    return _parks(parts, ctx)


@handler("loquacious", mode="process")
def loquacious(payload: int, ctx: Context) -> None:
    """Log so many lines, faster than anybody reads them, and end."""
    for n in range(payload):
        ctx.log.info("line", n=n)
