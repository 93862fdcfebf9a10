"""Half load: from submit to start while jobs come at half of the rate that the system carries from submit to end.

That rate is measured just before, by single submits of many clients, one in flight for each. Then jobs come at random
(Poisson: gaps of an exponential distribution, whose seed is the number of the run), from the clients in turn, whether
or not earlier ones were answered. What a job takes counts from the instant at which it was to be submitted, not from
the call, so that a stall is charged to every job that came meanwhile (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence

from tenure.bench.rates import single_rate
from tenure.bench.results import Results, percentile
from tenure.bench.stage import POOL, Stage, say
from tenure.bench.stamp import STAMP
from tenure.client import AsyncClient

AT_RANDOM = "SubmitJob at random instants"
AHEAD_NS = 50_000_000
"""So that the first job is not late."""


async def half_load(stage: Stage, results: Results) -> None:
    """Measure the whole rate, then latencies at half of it."""
    await stage.add_warm_worker()
    async with stage.callers(stage.plan.singles_in_flight[-1], apart=True) as clients:
        await _measure(stage, clients, results)
    await stage.remove_workers()


async def _measure(stage: Stage, clients: Sequence[AsyncClient], results: Results) -> None:
    plan = stage.plan
    for run in range(plan.runs):
        say(f"half-load: the whole load, run {run + 1} of {plan.runs}")
        whole = await single_rate(stage, clients)
        say(f"half-load: {whole / 2:,.0f} jobs/s for {plan.half_load_s:g} s, run {run + 1} of {plan.runs}")
        await stage.clear()
        meter = await stage.meter()
        instants_ns = list(_instants(run, whole / 2, plan.half_load_s))
        intended_ns, called_late_ms = await _submit_at(clients, instants_ns)
        began_ns = await stage.stamps(len(intended_ns))
        usage = meter.stop()
        taken_ms = [(began_ns[job] - instant) / 1e6 for job, instant in intended_ns.items()]
        results.case("half-load", AT_RANDOM).add(
            {
                "whole_jobs_per_s": whole,
                "jobs_per_s": len(intended_ns) / plan.half_load_s,
                "submit_to_start_p50_ms": percentile(taken_ms, 50),
                "submit_to_start_p99_ms": percentile(taken_ms, 99),
                "submit_to_start_max_ms": max(taken_ms),
                "called_late_p99_ms": percentile(called_late_ms, 99),
                "others_cores": usage.others_cores,
            },
            usage.us_per_job(len(intended_ns)),
        )


def _instants(seed: int, jobs_per_s: float, seconds: float) -> Iterator[int]:
    """Yield when jobs come, in nanoseconds from the beginning; at least one does."""
    chance = random.Random(seed)
    at_s = 0.0
    while True:
        yield round(at_s * 1e9)
        at_s += chance.expovariate(jobs_per_s)
        if at_s >= seconds:
            return


async def _submit_at(clients: Sequence[AsyncClient], instants_ns: Sequence[int]) -> tuple[dict[str, int], list[float]]:
    """Submit one job at each instant, by turns; return the instants by job, and how late each call was made."""
    intended_ns: dict[str, int] = {}
    late_ms: list[float] = []

    async def submit(client: AsyncClient, at_ns: int) -> None:
        late_ms.append((time.monotonic_ns() - at_ns) / 1e6)
        intended_ns[(await client.submit(STAMP, route=POOL)).id] = at_ns

    first_ns = time.monotonic_ns() + AHEAD_NS
    async with asyncio.TaskGroup() as group:
        for client, after_ns in zip(itertools.cycle(clients), instants_ns, strict=False):
            at_ns = first_ns + after_ns
            await asyncio.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
            group.create_task(submit(client, at_ns))
    return intended_ns, late_ms
