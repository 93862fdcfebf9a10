"""A write that the fence refuses, before anybody has told the worker to stop: the handler is the first to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tenure.model.errors import OwnershipLost
from tenure.model.jobs import JobSpec
from tenure.model.states import Outcome
from tenure.worker.artifact import Artifact, Source
from tenure.worker.context import AsyncContext, Context
from tenure.worker.execute.call import Assignment, Call, Ended
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Registry, define
from tenure.worker.upstream import UpstreamPage


class Refusing:
    """A reporter whose fence is old. Nobody stops the attempt."""

    def deadline(self) -> float:
        return float("inf")

    async def progress(self, fraction: float, message: str) -> None:
        raise OwnershipLost("old fence")

    async def save_checkpoint(self, text: str) -> None:
        raise OwnershipLost("old fence")

    async def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        raise OwnershipLost("old fence")

    async def read_upstream(self, after: str) -> UpstreamPage:
        raise OwnershipLost("old fence")

    async def load_result(self, job: str) -> bytes:
        raise OwnershipLost("old fence")

    async def save_artifact(self, name: str, source: Source, content_type: str) -> Artifact:
        raise OwnershipLost("old fence")


async def _waits(ctx: AsyncContext) -> str:
    assert not ctx.lost.is_set()
    with pytest.raises(OwnershipLost):
        await ctx.progress(0.5)
    return f"{ctx.cause} {ctx.lost.is_set()}"


def _blocks(ctx: Context) -> str:
    assert not ctx.lost.is_set()
    with pytest.raises(OwnershipLost):
        ctx.save_checkpoint(1)
    return f"{ctx.cause} {ctx.lost.is_set()}"


@pytest.mark.parametrize("target", [_waits, _blocks])
async def test_a_refused_write_sets_lost_though_nobody_told_the_worker(target: Callable[..., Any]) -> None:
    handler = define("writes", target)
    engines = Engines(Registry([handler]))
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    assignment = Assignment("job", 1, 1, "default", handler.kind, "default", "null")
    engines.begin(Call(handler, assignment, Refusing(), ended.set_result))
    async with asyncio.timeout(30):
        one = await ended
    await engines.close()
    assert (one.outcome, one.result) == (Outcome.COMPLETED, '"lost True"')
