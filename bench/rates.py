"""Rates: how fast jobs are taken in, drained, and carried from submit to end; with CPU per job by process."""

from __future__ import annotations

import asyncio
import time

from tenure.bench.handlers import NOOP
from tenure.bench.results import Case, Results
from tenure.bench.stage import PATIENCE_S, POOL, Stage, say
from tenure.client import NewJob


async def submit(stage: Stage, results: Results) -> None:
    """Measure submits that nobody works off: unary calls with so many in flight, then batches."""
    plan = stage.plan
    for run in range(plan.runs):
        for in_flight in plan.submits_in_flight:
            case = results.case("submit", f"SubmitJob, {in_flight} in flight")
            say(f"submit: {in_flight} in flight, run {run + 1} of {plan.runs}")
            await _submit_for(stage, case, in_flight, batch_jobs=0)
        case = results.case("submit", f"SubmitJobs, batches of {plan.batch_jobs:,}")
        say(f"submit: batches, run {run + 1} of {plan.runs}")
        await _submit_for(stage, case, 1, batch_jobs=plan.batch_jobs)


async def _submit_for(stage: Stage, case: Case, in_flight: int, *, batch_jobs: int) -> None:
    await stage.clear()
    await stage.client.submit(NOOP, route=POOL)  # connected, and the lane is known
    submitted = 0
    meter = await stage.meter()
    began = time.monotonic()
    until = began + stage.plan.submit_s

    async def one_after_the_other() -> None:
        nonlocal submitted
        while time.monotonic() < until:
            if batch_jobs:
                await stage.client.submit_many([NewJob(kind=NOOP, route=POOL) for _ in range(batch_jobs)])
            else:
                await stage.client.submit(NOOP, route=POOL)
            submitted += batch_jobs or 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(one_after_the_other())
    seconds = time.monotonic() - began
    usage = meter.stop()
    case.add({"jobs_per_s": submitted / seconds, "others_cores": usage.others_cores}, usage.us_per_job(submitted))


async def drain(stage: Stage, results: Results) -> None:
    """Measure how fast workers work off jobs that were there before them.

    Counted are the jobs that finish after all workers have registered, from that instant on.
    """
    plan = stage.plan
    for run in range(plan.runs):
        for workers in plan.drain_workers:
            say(f"drain: {plan.drain_jobs:,} jobs, {workers} worker(s), run {run + 1} of {plan.runs}")
            case = results.case("drain", f"{plan.drain_jobs:,} jobs, {workers} worker{'s' if workers > 1 else ''}")
            await stage.clear()
            last = await stage.submit_bulk(plan.drain_jobs)
            await stage.add_workers(workers, plan.capacity)
            since = await stage.now()
            meter = await stage.meter()
            drained = await stage.drained(last, plan.drain_jobs, since)
            usage = meter.stop()
            case.add(
                {
                    "jobs_per_s": drained.jobs / drained.seconds if drained.jobs else 0.0,
                    "jobs_counted": float(drained.jobs),
                    "repeated_jobs": float(drained.repeated),
                    "others_cores": usage.others_cores,
                },
                usage.us_per_job(drained.jobs or 1),
            )
            await stage.remove_workers()


async def end_to_end(stage: Stage, results: Results) -> None:
    """Measure from the first submit to the last end, with one worker that stands ready."""
    plan = stage.plan
    await stage.add_workers(1, plan.capacity)
    await stage.client.wait((await stage.client.submit(NOOP, route=POOL)).id, PATIENCE_S)  # a warm worker
    for run in range(plan.runs):
        for name, jobs, waiting in (
            (f"SubmitJob, {plan.singles_in_flight} in flight", plan.singles, False),
            (f"SubmitJob then WaitJob, {plan.singles_in_flight} in flight", plan.singles, True),
            (f"SubmitJobs, batches of {plan.batch_jobs:,}", plan.bulk_jobs, None),
        ):
            say(f"end-to-end: {name}, {jobs:,} jobs, run {run + 1} of {plan.runs}")
            await stage.clear()
            since = await stage.now()
            meter = await stage.meter()
            last = await (stage.submit_bulk(jobs) if waiting is None else _singles(stage, jobs, waiting=waiting))
            submitted_s = time.monotonic()
            drained = await stage.drained(last, jobs, since)
            behind_s = time.monotonic() - submitted_s
            usage = meter.stop()
            results.case("end-to-end", name).add(
                {
                    "jobs_per_s": jobs / drained.seconds,
                    "last_end_after_last_ack_s": behind_s,
                    "repeated_jobs": float(drained.repeated),
                    "others_cores": usage.others_cores,
                },
                usage.us_per_job(jobs),
            )
    await stage.remove_workers()


async def _singles(stage: Stage, jobs: int, *, waiting: bool) -> str:
    """Submit jobs one by one with so many in flight, waiting for each where told to; return the last one's id."""
    left, last = jobs, ""

    async def one_after_the_other() -> None:
        nonlocal left, last
        while left > 0:
            left -= 1
            last = (await stage.client.submit(NOOP, route=POOL)).id
            if waiting:
                await stage.client.wait(last, PATIENCE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(stage.plan.singles_in_flight):
            group.create_task(one_after_the_other())
    return last
