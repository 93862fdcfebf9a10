"""Held claims: what one worker process takes to hold thousands of executing jobs, and that none of them is lost.

Measured twice over some seconds: while nothing else happens, and while other jobs pass through another worker. Counted
is the CPU of the process with its children, by the kernel, in percent of a core. A claim that is not there at the end
as it was made (its lease and revision) is lost; so is an attempt that is not the first or not executing, also where
that happened while the jobs were begun.
"""

from __future__ import annotations

import asyncio
import time

from tenure.bench.cpu import Meter, Usage
from tenure.bench.handlers import HOLD, NOOP
from tenure.bench.plan import Plan
from tenure.bench.results import Case, Results
from tenure.bench.stage import PATIENCE_S, POOL, Stage, say
from tenure.client import NewJob

POOL_OF_HELD = "bench-held"
STEP_S = 0.1
"""Passing jobs are submitted in batches, one each step."""


def alone(plan: Plan) -> str:
    """Name the case in which nothing passes."""
    return f"{plan.held_jobs:,} held at TTL {plan.held_ttl_s:g} s"


def beside(plan: Plan) -> str:
    """Name the case in which others pass."""
    return f"{alone(plan)}, {plan.passing_jobs_per_s:,} jobs/s pass beside them"


async def held(stage: Stage, results: Results) -> None:
    """Hold; then hold while others pass."""
    plan = stage.plan
    for run in range(plan.long_runs):
        await stage.clear()
        await stage.add_workers(1, plan.held_jobs, pool=POOL_OF_HELD)
        [holder] = stage.workers
        await stage.hold(plan.held_jobs, plan.held_ttl_s, POOL_OF_HELD)
        await stage.add_workers(1, plan.capacity)
        for name, jobs_per_s in ((alone(plan), 0), (beside(plan), plan.passing_jobs_per_s)):
            say(f"held: {name}, {plan.held_s:g} s, run {run + 1} of {plan.long_runs}")
            await _measure(stage, holder.pid, jobs_per_s, results.case("held", name))
        await stage.client.cancel_many(kind=HOLD, reason="measured")
        await stage.empty()
        await stage.remove_workers()


async def _measure(stage: Stage, holder: int, jobs_per_s: int, case: Case) -> None:
    plan = stage.plan
    claims = await stage.claims_of(HOLD)
    all_parts, meter = await stage.meter(), Meter({"holder": (holder,)})
    began = time.monotonic()
    passed = await _pass(stage, jobs_per_s, began + plan.held_s)
    seconds = time.monotonic() - began
    usage, all_usage = meter.stop(), all_parts.stop()
    still = await stage.claims_of(HOLD)
    case.add(
        {
            "held": float(len(claims)),
            "holder_percent": usage.cpu_s["holder"] / seconds * 100,
            "claims_lost": float(len(claims - still)),
            "attempts_lost": float(plan.held_jobs - await stage.first_attempts(HOLD)),
            "jobs_per_s": passed / seconds,
            **_percents(all_usage, seconds),
            "others_cores": all_usage.others_cores,
        }
    )


def _percents(usage: Usage, seconds: float) -> dict[str, float]:
    """Return what the other parts took, in percent of a core."""
    parts = {
        "etcd": ("etcd",),
        "postgres": ("postgres",),
        "coordinators": ("coordinator, leads", "coordinator, follows"),
    }
    return {
        f"{name}_percent": sum(usage.cpu_s[each] for each in group) / seconds * 100 for name, group in parts.items()
    }


async def _pass(stage: Stage, jobs_per_s: int, until: float) -> int:
    """Submit evenly until then, wait for the last, and return how many there were."""
    submitted, last = 0, ""
    size = round(jobs_per_s * STEP_S)
    at = time.monotonic()
    while at < until:
        if size:
            last = (await stage.client.submit_many([NewJob(kind=NOOP, route=POOL) for _ in range(size)]))[-1].id
            submitted += size
        at += STEP_S
        await asyncio.sleep(max(0.0, at - time.monotonic()))
    if last:
        await stage.client.wait(last, PATIENCE_S)
    return submitted
