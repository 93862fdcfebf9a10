"""Backlog: how fast jobs are drained, and how soon one starts on an idle system, while a million others are ready.

In every run with none, with the backlog in a pool that nobody serves, and with it in the pool that is served. For the
drain those are of the same kind and of a lower priority: they wait behind what is drained in the same lane, and what of
them is run meanwhile counts, too. For the latency they are the ones left over, and the worker serves another kind: it
would not be idle else. The backlog is written by SQL after one job that the service wrote, then vacuumed and analysed,
as autovacuum would have done by the time that there are so many.
"""

from __future__ import annotations

from tenure.bench.handlers import NOOP
from tenure.bench.latency import idle_latency
from tenure.bench.plan import Plan
from tenure.bench.results import Case, Results
from tenure.bench.stage import POOL, STAMPS, Stage, say
from tenure.client import NewJob

FIRST, BEHIND = 9, 0
"""The priorities of what is drained and of the backlog."""
LATENCY_CAPACITY = 32


def backlogs(plan: Plan) -> dict[str, tuple[int, str]]:
    """Return by name how many jobs are ready, and where."""
    return {
        "none waiting": (0, POOL),
        f"{plan.backlog_jobs:,} waiting in another pool": (plan.backlog_jobs, "bench-nobody"),
        f"{plan.backlog_jobs:,} waiting in the same pool": (plan.backlog_jobs, POOL),
    }


async def backlog(stage: Stage, results: Results) -> None:
    """Measure rates and latencies, and their ratios to those without a backlog."""
    plan = stage.plan
    for run in range(plan.runs):
        alone: dict[str, float] = {}
        for name, (jobs, pool) in backlogs(plan).items():
            say(f"backlog: {name}, run {run + 1} of {plan.runs}")
            await stage.clear()
            if jobs:
                await stage.fill(NewJob(kind=NOOP, route=pool, priority=BEHIND), jobs)
            rate = await _drain_rate(stage)
            alone.setdefault("jobs_per_s", rate)
            ratio = rate / alone["jobs_per_s"] if alone["jobs_per_s"] else 0.0
            results.case("backlog", f"drain, {name}").add({"jobs_per_s": rate, "of_none": ratio})
            figures = await _latency(stage)
            for figure, value in figures.items():
                alone.setdefault(figure, value)
            ratios = {
                f"none_of_{figure.removesuffix('_ms')}": alone[figure] / value for figure, value in figures.items()
            }
            results.case("backlog", f"latency, {name}").add({**figures, **ratios})
    await stage.clear()


async def _drain_rate(stage: Stage) -> float:
    plan = stage.plan
    last = await stage.submit_bulk(plan.drain_jobs, FIRST)
    await stage.settle()
    await stage.add_workers(1, plan.capacity)
    since = await stage.now()
    jobs, seconds = await stage.drained_first(last, plan.drain_jobs, FIRST, since)
    await stage.remove_workers()
    return jobs / seconds if jobs else 0.0


async def _latency(stage: Stage) -> dict[str, float]:
    plan, case = stage.plan, Case("", "")
    await stage.settle()
    await stage.add_workers(1, LATENCY_CAPACITY, handlers=STAMPS)
    async with stage.client_of(await stage.follower()) as client:
        await idle_latency(client, case, plan.latency_warmup, plan.latency_samples)
    await stage.remove_workers()
    return {name: values[0] for name, values in case.figures.items() if name.startswith("submit_to_start")}
