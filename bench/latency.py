"""Latency on an idle system: one job at a time, from the submit call to the handler's first line and to the answer.

The handler's stamp and the client's are of one clock (CLOCK_MONOTONIC), so nothing is subtracted or assumed.
"""

from __future__ import annotations

import time

from tenure.bench.results import Case, Results, percentile
from tenure.bench.stage import PATIENCE_S, POOL, Stage, say
from tenure.bench.stamp import STAMP
from tenure.client import AsyncClient

LEADER, ANOTHER = "asking the leader", "asking another coordinator"


async def latency(stage: Stage, results: Results) -> None:
    """Measure through the coordinator that leads and through one that does not."""
    plan = stage.plan
    await stage.add_workers(1, 32)
    leader, follower = await stage.leader(), await stage.follower()
    for run in range(plan.runs):
        for name, member in ((LEADER, leader), (ANOTHER, follower)):
            say(f"latency: {name}, run {run + 1} of {plan.runs}")
            await stage.clear()
            meter = await stage.meter()
            async with stage.client_of(member) as client:
                await idle_latency(client, results.case("latency", name), plan.latency_warmup, plan.latency_samples)
            results.case("latency", name).add({"others_cores": meter.stop().others_cores})
    await stage.remove_workers()


async def idle_latency(client: AsyncClient, case: Case, warmup: int, samples: int) -> None:
    """Measure one job at a time."""
    taken: dict[str, list[float]] = {"submit_ack": [], "submit_to_start": [], "submit_to_answer": []}
    for index in range(warmup + samples):
        called = time.monotonic_ns()
        job = await client.submit(STAMP, route=POOL)
        acknowledged = time.monotonic_ns()
        ended = await client.wait(job.id, PATIENCE_S)
        answered = time.monotonic_ns()
        if index >= warmup:
            for values, instant in zip(taken.values(), (acknowledged, ended.result, answered), strict=True):
                values.append((instant - called) / 1e6)
    for name, values in taken.items():
        case.add({f"{name}_p50_ms": percentile(values, 50), f"{name}_p99_ms": percentile(values, 99)})
        case.sample(f"{name}_ms", values)
