"""Rates: how fast jobs are taken in, drained, and carried from submit to end; with CPU per job by process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from tenure.bench.handlers import NOOP
from tenure.bench.plan import Plan
from tenure.bench.results import Case, Results
from tenure.bench.stage import PATIENCE_S, POOL, Stage, say
from tenure.client import AsyncClient, NewJob

STREAM = "StreamSubmitJobs, one stream"
Submit = Callable[[AsyncClient, Plan, float], Coroutine[Any, Any, int]]
"""Submits until an instant of the monotonic clock, and returns how many jobs were acknowledged."""


def singly(in_flight: int, *, apart: bool = False) -> str:
    """Name the case of single submits; ``apart``: each by a client of its own, so that no two of them share a call."""
    return f"SubmitJob, {in_flight} in flight" + (f" from {in_flight} clients" if apart else "")


def in_batches(plan: Plan, in_flight: int = 1) -> str:
    """Name the case of batches, one call after the other or so many at a time."""
    return f"SubmitJobs, batches of {plan.batch_jobs:,}" + (f", {in_flight} in flight" if in_flight > 1 else "")


def draining(plan: Plan, workers: int) -> str:
    """Name the case of a drain."""
    return f"{plan.drain_jobs:,} jobs, {workers} worker{'s' if workers > 1 else ''}"


async def submit(stage: Stage, results: Results) -> None:
    """Measure submits that nobody works off: unary calls with so many in flight, batches, and one endless stream."""
    plan = stage.plan
    most = plan.submits_in_flight[-1]
    ways: dict[str, tuple[int, bool, Submit]] = {
        **{singly(in_flight): (in_flight, False, one_by_one) for in_flight in plan.submits_in_flight},
        singly(most, apart=True): (most, True, one_by_one),
        **{in_batches(plan, in_flight): (in_flight, False, by_batches) for in_flight in plan.batches_in_flight},
        STREAM: (1, False, _stream),
    }
    for run in range(plan.runs):
        for name, (in_flight, apart, way) in ways.items():
            say(f"submit: {name}, run {run + 1} of {plan.runs}")
            async with stage.callers(in_flight, apart=apart) as clients:
                await _submit_for(stage, results.case("submit", name), clients, way)


async def _submit_for(stage: Stage, case: Case, clients: Sequence[AsyncClient], way: Submit) -> None:
    await stage.clear()
    await stage.client.submit(NOOP, route=POOL)  # so that the lane is known
    meter = await stage.meter()
    jobs_per_s, submitted = await submit_rate(stage, clients, way)
    usage = meter.stop()
    case.add({"jobs_per_s": jobs_per_s, "others_cores": usage.others_cores}, usage.us_per_job(submitted))


async def submit_rate(stage: Stage, clients: Sequence[AsyncClient], way: Submit) -> tuple[float, int]:
    """Submit for ``submit_s``, one in flight for each client; return jobs a second, and how many there were."""
    began = time.monotonic()
    until = began + stage.plan.submit_s
    async with asyncio.TaskGroup() as group:
        submitting = [group.create_task(way(client, stage.plan, until)) for client in clients]
    submitted = sum(task.result() for task in submitting)
    return submitted / (time.monotonic() - began), submitted


async def one_by_one(client: AsyncClient, plan: Plan, until: float) -> int:
    """Submit job after job, each by a call of its own."""
    submitted = 0
    while time.monotonic() < until:
        await client.submit(NOOP, route=POOL)
        submitted += 1
    return submitted


async def by_batches(client: AsyncClient, plan: Plan, until: float) -> int:
    """Submit batch after batch."""
    submitted = 0
    while time.monotonic() < until:
        submitted += len(await client.submit_many([NewJob(kind=NOOP, route=POOL) for _ in range(plan.batch_jobs)]))
    return submitted


async def _stream(client: AsyncClient, plan: Plan, until: float) -> int:
    """Give jobs as fast as they are taken; each that is counted has its answer."""
    submitted = 0
    async for answer in client.submit_stream(_endless(until)):
        if answer.error is not None:
            raise answer.error
        submitted += 1
    return submitted


def _endless(until: float) -> Iterator[NewJob]:
    while time.monotonic() < until:
        yield NewJob(kind=NOOP, route=POOL)


async def drain(stage: Stage, results: Results) -> None:
    """Measure how fast workers work off jobs that were there before them.

    Counted are the jobs that finish after all workers have registered, from that instant on.
    """
    plan = stage.plan
    for run in range(plan.runs):
        rates: list[float] = []
        for workers in plan.drain_workers:
            say(f"drain: {plan.drain_jobs:,} jobs, {workers} worker(s), run {run + 1} of {plan.runs}")
            await stage.clear()
            last = await stage.submit_bulk(plan.drain_jobs)
            await stage.add_workers(workers, plan.capacity)
            since = await stage.now()
            meter = await stage.meter()
            drained = await stage.drained(last, plan.drain_jobs, since)
            usage = meter.stop()
            rates.append(drained.jobs / drained.seconds if drained.jobs else 0.0)
            results.case("drain", draining(plan, workers)).add(
                {
                    "jobs_per_s": rates[-1],
                    "of_the_fewest": rates[-1] / rates[0] if rates[0] else 0.0,
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
    most = plan.singles_in_flight[-1]
    ways = {
        **{singly(in_flight): (in_flight, False, False) for in_flight in plan.singles_in_flight},
        singly(most, apart=True): (most, True, False),
        f"SubmitJob then WaitJob, {most} in flight": (most, False, True),
    }
    await stage.add_warm_worker()
    for run in range(plan.runs):
        for name, (in_flight, apart, waiting) in ways.items():
            say(f"end-to-end: {name}, run {run + 1} of {plan.runs}")
            case = results.case("end-to-end", name)
            async with stage.callers(in_flight, apart=apart) as clients:
                await _carry_through(stage, case, plan.singles, _singles(plan, clients, waiting=waiting))
        say(f"end-to-end: {in_batches(plan)}, run {run + 1} of {plan.runs}")
        case = results.case("end-to-end", in_batches(plan))
        await _carry_through(stage, case, plan.bulk_jobs, stage.submit_bulk(plan.bulk_jobs))
    await stage.remove_workers()


async def single_rate(stage: Stage, clients: Sequence[AsyncClient]) -> float:
    """Return how many submits a second, one in flight for each client, a warm worker carries to their ends."""
    case = Case("", "")
    await _carry_through(stage, case, stage.plan.singles, _singles(stage.plan, clients))
    return case.figures["jobs_per_s"][0]


async def _carry_through(stage: Stage, case: Case, jobs: int, submitting: Coroutine[Any, Any, str]) -> None:
    """Measure one way of submitting, which returns the last job's id."""
    await stage.clear()
    since = await stage.now()
    meter = await stage.meter()
    last = await submitting
    submitted_s = time.monotonic()
    drained = await stage.drained(last, jobs, since)
    behind_s = time.monotonic() - submitted_s
    usage = meter.stop()
    case.add(
        {
            "jobs_per_s": jobs / drained.seconds,
            "last_end_after_last_ack_s": behind_s,
            "repeated_jobs": float(drained.repeated),
            "others_cores": usage.others_cores,
        },
        usage.us_per_job(jobs),
    )


async def _singles(plan: Plan, clients: Sequence[AsyncClient], *, waiting: bool = False) -> str:
    """Submit jobs one by one, one in flight for each client, and wait for each where told to; return the last's id."""
    left, last = plan.singles, ""

    async def one_after_the_other(client: AsyncClient) -> None:
        nonlocal left, last
        while left > 0:
            left -= 1
            last = (await client.submit(NOOP, route=POOL)).id
            if waiting:
                await client.wait(last, PATIENCE_S)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(one_after_the_other(client))
    return last
