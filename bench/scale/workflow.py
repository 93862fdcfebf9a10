"""Workflow: what a graph of jobs costs by job, the larger it is.

The graph: one root, as many chains as the square root of its jobs, each beginning at the root, joined by tens, the
joins by tens again, up to one end. It is submitted in batches of ten thousand at most, later ones naming jobs of
earlier ones by id, and run by one worker. No step may cost more per job in a larger graph.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from tenure.bench.handlers import NOOP
from tenure.bench.results import Results
from tenure.bench.stage import POOL, Stage, say
from tenure.client import NewJob

BATCH = 10_000
JOIN = 10
Node = tuple[str, tuple[str, ...]]
"""A job's name, and what it depends on."""


async def workflow(stage: Stage, results: Results) -> None:
    """Measure graphs of growing size."""
    plan = stage.plan
    for run in range(plan.long_runs):
        first: dict[str, float] = {}
        for size in plan.workflow_jobs:
            say(f"workflow: {size:,} jobs, run {run + 1} of {plan.long_runs}")
            await stage.clear()
            nodes = list(graph(size))
            began = time.monotonic()
            last = await _submit(stage, nodes)
            submitted_s = time.monotonic() - began
            meter = await stage.meter()
            since = await stage.now()
            await stage.add_workers(1, plan.capacity)
            drained = await stage.drained(last, len(nodes), since)
            usage = meter.stop()
            figures = {
                "submit_us_per_job": submitted_s / len(nodes) * 1e6,
                "run_us_per_job": drained.seconds / max(1, drained.jobs) * 1e6,
            }
            for name, value in figures.items():
                first.setdefault(name, value)
            ratios = {
                f"{name.partition('_')[0]}_of_the_smallest": value / first[name] for name, value in figures.items()
            }
            results.case("workflow", f"{size:,} jobs").add(
                {
                    "jobs_per_s": 1e6 / figures["run_us_per_job"],
                    **figures,
                    **ratios,
                    "repeated_jobs": float(drained.repeated),
                },
                usage.us_per_job(len(nodes)),
            )
            await stage.remove_workers()


def graph(jobs: int) -> Iterator[Node]:
    """Yield so many jobs, each after those that it depends on."""
    joins = 0
    width = max(1, math.isqrt(jobs))
    layer = width
    while layer > 1:
        layer = -(-layer // JOIN)
        joins += layer
    left = jobs - 1 - joins
    yield "root", ()
    ends = []
    for chain in range(width):
        length = left // width + (chain < left % width)
        before = "root"
        for place in range(length):
            name = f"{chain}.{place}"
            yield name, (before,)
            before = name
        ends.append(before)
    height = 0
    while len(ends) > 1:
        height += 1
        joined = []
        for start in range(0, len(ends), JOIN):
            name = f"join-{height}.{start // JOIN}"
            yield name, tuple(dict.fromkeys(ends[start : start + JOIN]))
            joined.append(name)
        ends = joined


async def _submit(stage: Stage, nodes: list[Node]) -> str:
    """Submit the graph; return the id of its end."""
    ids: dict[str, str] = {}
    for start in range(0, len(nodes), BATCH):
        part = nodes[start : start + BATCH]
        batch = [
            NewJob(kind=NOOP, route=POOL, ref=name, depends_on=[ids.get(parent, parent) for parent in parents])
            for name, parents in part
        ]
        for (name, _), job in zip(part, await stage.client.submit_many(batch), strict=True):
            ids[name] = job.id
    return ids[nodes[-1][0]]
