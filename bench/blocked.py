"""Blocked: how fast jobs are drained with a large backlog in front of them that cannot run now, and without it.

The backlog is of a higher priority than what is drained and blocked in six ways: a route that nobody serves, a full
limit, a paused pool, kind and namespace, and an activation time that lies ahead. Both cases are measured in every run,
one after the other, so that their ratio is that of the same machine at nearly the same time.
"""

from __future__ import annotations

from tenure.bench.handlers import HOLD, NOOP
from tenure.bench.results import Results
from tenure.bench.stage import POOL, Drained, Stage, say
from tenure.client import NewJob

FULL = "bench-full"
PAUSED = "bench-paused"
AHEAD_S = 86_400.0
WAYS = (
    NewJob(kind=NOOP, route="bench-nobody"),
    NewJob(kind=NOOP, route=POOL, priority=9, limits=(FULL,)),
    NewJob(kind=NOOP, route=f"{POOL}/{PAUSED}", priority=9),
    NewJob(kind=HOLD, route=POOL, priority=9),
    NewJob(kind=NOOP, route=POOL, priority=9, namespace=PAUSED),
    NewJob(kind=NOOP, route=POOL, priority=9, delay_s=AHEAD_S),
)


async def blocked(stage: Stage, results: Results) -> None:
    """Measure the rates and their ratio."""
    plan = stage.plan
    await stage.client.put_limit(FULL, concurrent=0)
    await stage.client.pause(pool=f"{POOL}/{PAUSED}")
    await stage.client.pause(kind=HOLD)
    await stage.client.pause(namespace=PAUSED)
    drains, ratios = f"{plan.drain_jobs:,} jobs", f"behind {plan.blocked_jobs:,} that cannot run"
    for run in range(plan.runs):
        rates = []
        for jobs in (0, plan.blocked_jobs):
            say(f"blocked: {drains} behind {jobs:,} that cannot run, run {run + 1} of {plan.runs}")
            await stage.clear()
            for way in WAYS:
                await _submit(stage, way, jobs // len(WAYS))
            drained = await _drain(stage, jobs // len(WAYS) * len(WAYS))
            rates.append(drained.jobs / drained.seconds if drained.jobs else 0.0)
        for name, rate in zip((f"{drains} alone", f"{drains} {ratios}"), rates, strict=True):
            figures = {"jobs_per_s": rate, "of_the_rate_alone": rate / rates[0] if rates[0] else 0.0}
            results.case("blocked", name).add(figures, {})
    await stage.clear()
    await stage.client.resume(pool=f"{POOL}/{PAUSED}")
    await stage.client.resume(kind=HOLD)
    await stage.client.resume(namespace=PAUSED)
    await stage.client.delete_limit(FULL)


async def _submit(stage: Stage, job: NewJob, jobs: int) -> None:
    for start in range(0, jobs, stage.plan.batch_jobs):
        await stage.client.submit_many([job] * min(stage.plan.batch_jobs, jobs - start))


async def _drain(stage: Stage, beside: int) -> Drained:
    plan = stage.plan
    last = await stage.submit_bulk(plan.drain_jobs)
    await stage.add_workers(1, plan.capacity)
    since = await stage.now()
    drained = await stage.drained(last, plan.drain_jobs, since, beside=beside)
    await stage.remove_workers()
    return drained
