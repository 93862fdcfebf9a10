"""Mass loss: thousands of claims gone at once, with their workers or with all of etcd, and when all jobs run again.

Measured from the instant before the signal (etcd erased: from when it answers again) to the first line of the last
job's next attempt, by one clock. To be read against the promise: TTL + 1 s and a second per thousand claims, since etcd
revokes no faster; and another TTL, for which the leader offers nothing when three or more workers vanish together.
"""

from __future__ import annotations

import asyncio
import time

from tenure.bench.plan import Plan
from tenure.bench.results import BenchError, Case, Results
from tenure.bench.stage import Stage, say


def claims_lost(plan: Plan, workers: int) -> str:
    """Name the case of so many workers' end."""
    return f"{workers} workers killed, {plan.takeover_jobs:,} claims, TTL {plan.ttls_s[-1]:g} s"


async def takeover(stage: Stage, results: Results) -> None:
    """Kill all workers that hold claims; then erase etcd under as many."""
    plan = stage.plan
    ttl_s = plan.ttls_s[-1]
    for run in range(plan.long_runs):
        say(f"takeover: {plan.takeover_jobs:,} claims, TTL {ttl_s:g} s, run {run + 1} of {plan.long_runs}")
        for workers in plan.takeover_workers:
            case = results.case("takeover", claims_lost(plan, workers))
            await _kill_workers(stage, workers, ttl_s, case)
        case = results.case("takeover", f"etcd erased, {plan.takeover_jobs:,} claims, TTL {ttl_s:g} s")
        await _erase_etcd(stage, ttl_s, case)


async def _kill_workers(stage: Stage, workers: int, ttl_s: float, case: Case) -> None:
    await _all_held(stage, workers, ttl_s)
    victims = list(stage.workers)
    await _add_workers(stage, workers)
    lost = time.monotonic_ns()
    for victim in victims:
        await asyncio.to_thread(victim.kill)
    await _keep_restarts(stage, lost, case)


async def _erase_etcd(stage: Stage, ttl_s: float, case: Case) -> None:
    await _all_held(stage, stage.plan.takeover_workers[-1], ttl_s)
    await stage.erase_etcd()
    await _keep_restarts(stage, time.monotonic_ns(), case)


async def _all_held(stage: Stage, workers: int, ttl_s: float) -> None:
    await stage.clear()
    await _add_workers(stage, workers)
    held = await stage.hold(stage.plan.takeover_jobs, ttl_s)
    if held != stage.plan.takeover_jobs:
        raise BenchError(f"of {stage.plan.takeover_jobs} jobs {held} are held")


async def _add_workers(stage: Stage, workers: int) -> None:
    await stage.add_workers(workers, -(-stage.plan.takeover_jobs // workers))


async def _keep_restarts(stage: Stage, lost_ns: int, case: Case) -> None:
    restarted = await stage.restarted(stage.plan.takeover_jobs)
    await stage.remove_workers()
    began = {
        "first": restarted.first_ns,
        "half": restarted.half_ns,
        "99_percent": restarted.most_ns,
        "last": restarted.last_ns,
    }
    for which, began_ns in began.items():
        case.sample(f"loss_to_{which}_restart_s", [(began_ns - lost_ns) / 1e9])
    case.sample("jobs_lost_again", [restarted.lost_again])
