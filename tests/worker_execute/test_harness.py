"""The harness as a user of tenure would use it, and what it says when used wrongly."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
import structlog
from pydantic import BaseModel

from tenure.model.errors import ConfigurationError
from tenure.model.states import Outcome
from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import handler
from tenure.worker.harness import Harness, Reports


class Discovery(BaseModel):
    host: str
    depth: int = 1


@handler("insights-discovery")
async def discover(payload: Discovery, ctx: AsyncContext) -> dict[str, int]:
    done = ctx.checkpoint["done"] if ctx.checkpoint else 0
    for step in range(done, payload.depth):
        await ctx.save_checkpoint({"done": step + 1})
        await ctx.progress((step + 1) / payload.depth, f"step {step + 1}")
    ctx.log.info("discovered", host=payload.host)
    return {"steps": payload.depth - done, "attempt": ctx.attempt}


@handler("first")
@handler("second")
def named(ctx: Context) -> str:
    return ctx.kind


async def test_a_handler_is_tested_without_a_server() -> None:
    run = await Harness().run(discover, Discovery(host="a", depth=4), attempt=2, checkpoint={"done": 2})
    assert run.outcome is Outcome.COMPLETED
    assert run.result == {"steps": 2, "attempt": 2}
    assert run.checkpoints == [{"done": 3}, {"done": 4}]
    assert run.progress == [(0.75, "step 3"), (1.0, "step 4")]
    assert run.logs[0]["event"] == "discovered"
    assert run.logs[0]["host"] == "a"


async def test_a_moment_by_reports() -> None:
    run = await Harness().run(discover, {"host": "a", "depth": 10_000}, lose_claim_after=Reports(3))
    assert run.outcome is Outcome.RELEASED
    assert len(run.checkpoints) + len(run.progress) == 3


def test_sync() -> None:
    assert Harness().run_sync(discover, {"host": "a"}).result["steps"] == 1
    assert Harness().run_sync(named, kind="second").result == "second"


async def test_runs_at_the_same_time_do_not_mix() -> None:
    async with Harness() as harness:
        runs = await asyncio.gather(*(harness.run(discover, {"host": str(n), "depth": n}) for n in range(1, 20)))
    for number, run in enumerate(runs, 1):
        assert run.logs == [run.logs[0]]
        assert run.logs[0]["host"] == str(number)
        assert len(run.checkpoints) == number


async def test_what_cannot_be_run() -> None:
    for target, kind in ((named, None), (named, "third"), (print, None)):
        with pytest.raises(ConfigurationError, match="handlers"):
            await Harness().run(target, kind=kind)


async def test_bad_reports_are_refused_where_they_are_made() -> None:
    @handler("bad-reports")
    async def bad(payload: str, ctx: AsyncContext) -> None:
        match payload:
            case "progress":
                await ctx.progress(1.5)
            case "checkpoint":
                await ctx.save_checkpoint("x" * 300_000)
            case "child":
                await ctx.submit_child("bad kind!", {})

    async with Harness() as harness:
        for payload, says in (("progress", "fraction"), ("checkpoint", "checkpoint"), ("child", "kind")):
            run = await harness.run(bad, payload)
            assert run.error is not None
            assert run.error.type == "InvalidInput"
            assert says in run.error.message


async def test_throughput_is_of_the_right_order() -> None:
    """No timing is asserted beyond what a hundred times slower would miss."""

    @handler("nothing")
    async def nothing() -> None: ...

    began = time.monotonic()
    async with Harness() as harness:
        runs = await asyncio.gather(*(harness.run(nothing) for _ in range(2_000)))
    assert {run.outcome for run in runs} == {Outcome.COMPLETED}
    assert time.monotonic() - began < 60


async def test_what_a_handler_says_is_kept_whatever_the_level_of_the_process() -> None:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        run = await Harness().run(discover, Discovery(host="a", depth=4))
    finally:
        structlog.configure(**before)
    assert [line["event"] for line in run.logs] == ["discovered"]
