"""Limits and namespaces: what a thousand full limits cost the jobs beside them, and what many namespaces cost.

Each limit is one, its one slot held by a job, with more waiting for it. Beside them jobs without limits are drained by
another worker, and the rate is compared to that without any. Then as many jobs are drained of one namespace and of
thousands; for those the order is looked at, too: when half of all jobs have ended, how many each namespace had done.
"""

from __future__ import annotations

from tenure.bench.handlers import HOLD, NOOP
from tenure.bench.results import Results
from tenure.bench.stage import POOL, Stage, say
from tenure.client import NewJob

POOL_OF_LIMITED = "bench-limited"
TTL_S = 30.0
HALF = """
SELECT count(*) FILTER (WHERE done = 0), min(done), max(done)
FROM (SELECT count(*) FILTER (WHERE place <= total / 2) AS done
      FROM (SELECT namespace, row_number() OVER (ORDER BY finished_at, id) AS place, count(*) OVER () AS total
            FROM tenure.history) AS ended
      GROUP BY namespace) AS each
"""


async def limits(stage: Stage, results: Results) -> None:
    """Measure limits."""
    plan = stage.plan
    names = [f"bench-{number}" for number in range(plan.limits)]
    for run in range(plan.runs):
        say(f"limits: none, run {run + 1} of {plan.runs}")
        await stage.clear()
        alone = await _drain(stage, 0)
        results.case("limits", "drain, no limit").add({"jobs_per_s": alone, "of_none": 1.0})
        say(f"limits: {plan.limits:,} full, run {run + 1} of {plan.runs}")
        for name in names:
            await stage.client.put_limit(name, concurrent=1)
        await stage.clear()
        await stage.add_workers(1, 2 * plan.limits, pool=POOL_OF_LIMITED)
        held = [NewJob(kind=HOLD, route=POOL_OF_LIMITED, limits=(name,), ttl_s=TTL_S) for name in names]
        waiting = [NewJob(kind=HOLD, route=POOL_OF_LIMITED, limits=(name,), ttl_s=TTL_S) for name in names]
        await _submit(stage, held)
        await stage.begun(HOLD, plan.limits)
        for _ in range(plan.limited_each):
            await _submit(stage, waiting)
        beside = await _drain(stage, plan.limits * (1 + plan.limited_each))
        case = results.case("limits", f"drain, {plan.limits:,} limits full, {plan.limited_each} waiting for each")
        case.add({"jobs_per_s": beside, "of_none": beside / alone if alone else 0.0})
        await stage.client.cancel_many(kind=HOLD, reason="measured")
        await stage.empty()
        await stage.remove_workers()
    for name in names:
        await stage.client.delete_limit(name)


async def namespaces(stage: Stage, results: Results) -> None:
    """Measure namespaces."""
    plan = stage.plan
    for run in range(plan.runs):
        alone = 0.0
        for count in (1, plan.namespaces):
            say(f"namespaces: {count:,}, run {run + 1} of {plan.runs}")
            await stage.clear()
            jobs = [
                NewJob(kind=NOOP, route=POOL, namespace=f"bench-{number % count}") for number in range(plan.drain_jobs)
            ]
            last = await _submit(stage, jobs)
            await stage.settle()
            await stage.add_workers(1, plan.capacity)
            since = await stage.now()
            drained = await stage.drained(last, len(jobs), since)
            rate = drained.jobs / drained.seconds if drained.jobs else 0.0
            alone = alone or rate
            [(nothing, fewest, most)] = await stage.rows(HALF)
            results.case("namespaces", f"drain, {count:,} namespace(s)").add(
                {
                    "jobs_per_s": rate,
                    "of_one": rate / alone if alone else 0.0,
                    "at_half_without_any": float(nothing),
                    "at_half_fewest": float(fewest),
                    "at_half_most": float(most),
                }
            )
            await stage.remove_workers()


async def _drain(stage: Stage, beside: int) -> float:
    plan = stage.plan
    last = await stage.submit_bulk(plan.drain_jobs)
    await stage.settle()
    since = await stage.now()
    await stage.add_workers(1, plan.capacity)
    drained = await stage.drained(last, plan.drain_jobs, since, beside=beside)
    await stage.remove_newest_worker()
    return drained.jobs / drained.seconds if drained.jobs else 0.0


async def _submit(stage: Stage, jobs: list[NewJob]) -> str:
    last = ""
    for start in range(0, len(jobs), stage.plan.batch_jobs):
        last = (await stage.client.submit_many(jobs[start : start + stage.plan.batch_jobs]))[-1].id
    return last
