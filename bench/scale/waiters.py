"""Waiters: how soon those who wait hear that their job has ended, while thousands wait.

Jobs that sleep come at a steady rate; somebody waits for each of them with WaitJob, and some watch a few each with
WatchJobs. Each takes a call or a stream of its own, all of them over as many connections as there are client processes,
since a single client would be what is measured. What counts is the time from ``finished_at``, which Postgres takes
before it commits, to the answer, by one wall clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tenure.bench.results import BenchError, Results, percentile
from tenure.bench.stage import CALL_S, PATIENCE_S, POOL, Stage, say
from tenure.client import AsyncClient, Job, NewJob

SLEEP = "sleep"
STEP_S = 0.1
PROGRAM = "tenure.bench.scale.waiters"


async def waiters(stage: Stage, results: Results) -> None:
    """Measure at several rates."""
    plan = stage.plan
    await stage.clear()
    await stage.add_workers(plan.waited_workers, -(-2 * plan.waiters // plan.waited_workers))
    for jobs_per_s in plan.waited_jobs_per_s:
        say(f"waiters: {plan.waiters:,} wait, {plan.watchers:,} watch, {jobs_per_s:,} jobs/s")
        await stage.clear()
        await _measure(stage, results, jobs_per_s)
    await stage.remove_workers()


async def _measure(stage: Stage, results: Results, jobs_per_s: int) -> None:
    plan = stage.plan
    meter, began = await stage.meter(), time.monotonic()
    told = await _clients(
        plan.waiting_clients,
        {
            "coordinators": ",".join(member.grpc for member in stage.coordinators),
            "jobs_per_s": jobs_per_s / plan.waiting_clients,
            "job_s": plan.waiters / jobs_per_s,
            "watchers": plan.watchers / plan.waiting_clients,
            "seconds": plan.waited_s,
        },
    )
    usage, passed_s = meter.stop(), time.monotonic() - began
    jobs = sum(one["jobs"] for one in told)
    for name, key in ((f"{plan.waiters:,} WaitJob", "waited"), (f"{plan.watchers:,} WatchJobs", "watched")):
        late_ms = [value for one in told for value in one[f"{key}_ms"]]
        if not late_ms:
            raise BenchError(f"{name}: nobody was answered")
        results.case("waiters", f"{name}, {jobs_per_s:,} jobs/s").add(
            {
                "jobs_counted": float(jobs),
                "most_at_once": float(sum(one[f"most_{key}"] for one in told)),
                "end_to_answer_p50_ms": percentile(late_ms, 50),
                "end_to_answer_p99_ms": percentile(late_ms, 99),
                "end_to_answer_max_ms": max(late_ms),
                "busy_cores": sum(usage.cpu_s.values()) / passed_s + usage.others_cores,
            }
        )
    await stage.empty()


async def _clients(count: int, share: dict[str, Any]) -> list[dict[str, Any]]:
    """Run so many client processes to their end; return what each heard."""
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", PROGRAM, json.dumps(share), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(count)
    ]
    try:
        told = [json.loads((await program.communicate())[0] or b"null") for program in programs]
    finally:
        for program in programs:
            if program.returncode is None:
                program.kill()
    if None in told:
        raise BenchError("a client that waits has failed")
    return told


@dataclass
class Heard:
    """What one client process has seen."""

    waited_ms: list[float] = field(default_factory=list)
    watched_ms: list[float] = field(default_factory=list)
    waiting: int = 0
    watching: int = 0
    most_waiting: int = 0
    most_watching: int = 0
    jobs: int = 0


async def wait_and_watch(share: dict[str, float], coordinators: list[str]) -> Heard:
    """Submit at a rate for some seconds, wait and watch; return what was heard in the steady part."""
    heard = Heard()
    size = max(1, round(share["jobs_per_s"] * STEP_S))
    watched = max(1, round(share["watchers"] / (share["job_s"] / STEP_S)))
    since_s = time.time() + share["job_s"]  # until then ever more wait
    async with AsyncClient(coordinators, timeout_s=CALL_S) as client, asyncio.TaskGroup() as group:
        at = time.monotonic()
        until = at + share["job_s"] + share["seconds"]
        while at < until:
            batch = [NewJob(kind=SLEEP, route=POOL, payload={"seconds": share["job_s"]}) for _ in range(size)]
            group.create_task(_batch(client, batch, heard, watched, since_s))
            at += size / share["jobs_per_s"]
            await asyncio.sleep(max(0.0, at - time.monotonic()))
    return heard


async def _batch(client: AsyncClient, batch: list[NewJob], heard: Heard, watched: int, since_s: float) -> None:
    ids = [job.id for job in await client.submit_many(batch)]
    each = max(1, len(ids) // watched)
    async with asyncio.TaskGroup() as group:
        for id in ids:
            group.create_task(_wait(client, id, heard, since_s))
        for start in range(0, each * watched, each):
            group.create_task(_watch(client, ids[start : start + each], heard, since_s))


async def _wait(client: AsyncClient, id: str, heard: Heard, since_s: float) -> None:
    heard.waiting += 1
    heard.most_waiting = max(heard.most_waiting, heard.waiting)
    job = await client.wait(id, PATIENCE_S)
    heard.waiting -= 1
    if _late_ms(job, since_s, heard.waited_ms):
        heard.jobs += 1


async def _watch(client: AsyncClient, ids: list[str], heard: Heard, since_s: float) -> None:
    if not ids:
        return
    heard.watching += 1
    heard.most_watching = max(heard.most_watching, heard.watching)
    async for job in client.watch_many(ids):
        if job.is_terminal:
            _late_ms(job, since_s, heard.watched_ms)
    heard.watching -= 1


def _late_ms(job: Job, since_s: float, late_ms: list[float]) -> bool:
    assert job.finished_at is not None
    ended_s = job.finished_at.timestamp()
    if ended_s < since_s:
        return False
    late_ms.append((time.time() - ended_s) * 1_000)
    return True


def main() -> None:
    """Be one client process: the share as JSON in the first argument, what was heard as JSON on stdout."""
    share = json.loads(sys.argv[1])
    heard = asyncio.run(wait_and_watch(share, share.pop("coordinators").split(",")))
    print(
        json.dumps(
            {
                "waited_ms": heard.waited_ms,
                "watched_ms": heard.watched_ms,
                "most_waited": heard.most_waiting,
                "most_watched": heard.most_watching,
                "jobs": heard.jobs,
            }
        )
    )


if __name__ == "__main__":
    main()
