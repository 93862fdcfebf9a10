"""The handlers of the chaos runs: one per way of running user code, each leaving its trace by itself.

Every attempt writes ``Effect`` events (begin, a tick every tenth of a second, end) to a fenced store and to the
history. A payload says how long to work, how many attempts fail, and how many children to submit. Imported by the
workers of a run (``--import tests.chaos.handlers``), by their fork servers and by the processes forked from those.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from pydantic import BaseModel
from tests.chaos import effects
from tests.chaos.effects import TICK_S, Work
from tests.chaos.history import Submit

from tenure.model.jobs import JobSpec
from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import command_handler, handler

ASYNC, THREAD, PROCESS, COMMAND, PARENT = (
    "chaos-async",
    "chaos-thread",
    "chaos-process",
    "chaos-command",
    "chaos-parent",
)
KILLABLE = frozenset({PROCESS, COMMAND})
"""Kinds whose handlers can be killed: they must have stopped before their lease can expire."""


class Task(BaseModel):
    """What a job asks for."""

    seconds: float = 0.0
    fails: int = 0
    """How many attempts fail."""
    children: int = 0


class Failing(RuntimeError):
    """The handler fails as asked."""


@handler(ASYNC)
async def work_on_the_loop(task: Task, ctx: AsyncContext) -> str:
    """Work in a coroutine."""
    return await _work(task, ctx)


async def _work(task: Task, ctx: AsyncContext) -> str:
    work = Work(ctx.job_id, ctx.fence)
    until = time.monotonic() + task.seconds
    work.begin()
    while time.monotonic() < until:
        await asyncio.sleep(TICK_S)
        work.tick()
    _fail(task, ctx.attempt)
    return work.end()


@handler(THREAD)
def work_in_a_thread(task: Task, ctx: Context) -> str:
    """Work in a thread that never looks whether it should stop."""
    return _toil(task, ctx)


@handler(PROCESS, mode="process")
def work_in_a_process(task: Task, ctx: Context) -> str:
    """Work in a process that never looks whether it should stop."""
    return _toil(task, ctx)


def _toil(task: Task, ctx: Context) -> str:
    work = Work(ctx.job_id, ctx.fence)
    until = time.monotonic() + task.seconds
    work.begin()
    while time.monotonic() < until:
        time.sleep(TICK_S)
        work.tick()
    _fail(task, ctx.attempt)
    return work.end()


@handler(PARENT)
async def submit_children(task: Task, ctx: AsyncContext) -> str:
    """Submit children, the last of which waits for the others; a repeated attempt must find the same ones."""
    refs = [f"child-{number}" for number in range(task.children)]
    specs = [JobSpec(kind=ASYNC, payload='{"seconds": 0.2}', ref=ref, ttl_s=2) for ref in refs]
    specs.append(JobSpec(kind=ASYNC, payload="{}", ref="last", depends_on=tuple(refs), ttl_s=2))
    keys = [f"{ctx.job_id}/{spec.ref}" for spec in specs]
    for key in keys:
        effects.record(Submit(at=time.monotonic(), key=key, outcome="info"))
    ids = await ctx.submit_children(specs)
    for key, job in zip(keys, ids, strict=True):
        parents = tuple(ids[:-1]) if job == ids[-1] else ()
        effects.record(Submit(at=time.monotonic(), key=key, outcome="ok", job=job, parents=parents))
    return await _work(task, ctx)


work_in_a_program = command_handler(
    COMMAND,
    [sys.executable, "-S", "-m", "tests.chaos.program"],
    cwd=str(Path(__file__).parents[2]),
    inherit_env=("PATH", effects.FOLDER, effects.WRITER),
)


def _fail(task: Task, attempt: int) -> None:
    if attempt <= task.fails:
        raise Failing(f"attempt {attempt} of {task.fails} that fail")


if "tenure.cli.worker" in sys.modules:  # in the worker itself, not in its fork server or the processes of handlers
    from tests.chaos import witness

    witness.install()
