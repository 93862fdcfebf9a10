"""Full: everything a user does, on an empty database and on one with a long history and a million ready jobs.

Both are written by SQL, as ``history`` and ``backlog`` do it; the ready jobs are of another pool. Beside rates and
times it tells what each process has resident, how many rows were read by full scans, and what autovacuum left dead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import httpx

from tenure.bench.handlers import NOOP
from tenure.bench.history import fill, read_times
from tenure.bench.latency import idle_latency
from tenure.bench.rates import by_batches, in_batches, one_by_one, singly, submit_rate
from tenure.bench.results import Case, Results, percentile
from tenure.bench.scale.memory import resident_mib
from tenure.bench.stage import STAMPS, Stage, say
from tenure.client import NewJob

ANOTHER_POOL = "bench-nobody"
LATENCY_CAPACITY = 32
PAGES = {"overview": "/ui/", "jobs": "/ui/jobs", "failed jobs of a kind": "/ui/jobs?kind=kind-3&state=failed"}
PAGE_TIMES = 10
SCANNED = """
SELECT coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint,
       coalesce(sum(n_live_tup), 0)::bigint
FROM pg_stat_user_tables WHERE schemaname = 'tenure'
"""
EMPTY = "empty"


async def full(stage: Stage, results: Results) -> None:
    """Measure the empty one, fill it, and measure again."""
    plan = stage.plan
    await stage.clear()
    before = await _everything(stage, results, EMPTY, {})
    say(f"full: writing {plan.history_jobs:,} jobs that have ended and {plan.backlog_jobs:,} that are ready")
    await stage.clear()
    await fill(stage.postgres_dsn, plan)
    await stage.fill(NewJob(kind=NOOP, route=ANOTHER_POOL), plan.backlog_jobs)
    await stage.settle()
    name = f"{plan.history_jobs:,} ended, {plan.backlog_jobs:,} ready"
    await _everything(stage, results, name, before)
    await stage.clear()


async def _everything(
    stage: Stage, results: Results, name: str, before: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Measure everything once; return the figures by what was done, with ratios to those of before where there are."""
    say(f"full: {name}")
    [(scanned, *_)] = await stage.rows(SCANNED)
    memory = await _memory(stage)
    found = await _rates(stage)
    await stage.add_workers(1, LATENCY_CAPACITY, handlers=STAMPS)
    case = Case("", "")
    async with stage.client_of(await stage.follower()) as client:
        await idle_latency(client, case, stage.plan.latency_warmup, stage.plan.latency_samples)
    await stage.remove_workers()
    found["submit to start"] = {each: case.figures[f"submit_to_start_{each}"][0] for each in ("p50_ms", "p99_ms")}
    found |= await read_times(stage)
    found |= await _pages(stage)
    for what, figures in found.items():
        ratios = {
            f"{figure}_of_empty": value / before[what][figure]
            for figure, value in figures.items()
            if before.get(what, {}).get(figure)
        }
        results.case("full", f"{what}: {name}").add({**figures, **ratios})
    [(scanned_after, dead, live)] = await stage.rows(SCANNED)
    grown = {f"{part}_grown": value - memory[part] for part, value in (await _memory(stage)).items()}
    results.case("full: processes and tables", name).add(
        {
            **memory,
            **grown,
            "rows_read_by_full_scans": float(scanned_after - scanned),
            "dead_rows": float(dead),
            "live_rows": float(live),
        }
    )
    return found


async def _rates(stage: Stage) -> dict[str, dict[str, float]]:
    """Submit for some seconds in two ways, then drain what came, and that some times: the medians."""
    plan = stage.plan
    found: dict[str, list[float]] = {}
    for _ in range(plan.runs):
        jobs = 0
        for what, in_flight, way in (
            (singly(plan.submits_in_flight[-1]), plan.submits_in_flight[-1], one_by_one),
            (in_batches(plan), 1, by_batches),
        ):
            rate, submitted = await submit_rate(stage, [stage.client] * in_flight, way)
            found.setdefault(what, []).append(rate)
            jobs += submitted
        await stage.settle()
        since = await stage.now()
        await stage.add_workers(1, plan.capacity)
        seconds = await stage.all_ended_since(jobs, since)
        await stage.remove_workers()
        found.setdefault("drain, 1 worker", []).append(jobs / seconds)
    return {what: {"jobs_per_s": median(rates)} for what, rates in found.items()}


async def _memory(stage: Stage) -> dict[str, float]:
    return resident_mib(
        {
            "leader": [(await stage.leader()).pid],
            "other_coordinator": [(await stage.follower()).pid],
            "etcd": [stage.etcd_pid],
        }
    )


async def _pages(stage: Stage) -> dict[str, dict[str, float]]:
    """Ask for pages of the dashboard."""
    address = (await stage.follower()).http
    found = {}
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60.0) as browser:
        for what, path in PAGES.items():
            took_ms = []
            for _ in range(1 + PAGE_TIMES):
                began = time.monotonic()
                (await browser.get(path)).raise_for_status()
                took_ms.append((time.monotonic() - began) * 1_000)
            found[f"dashboard, {what}"] = {"p50_ms": percentile(took_ms[1:], 50)}
    return found
