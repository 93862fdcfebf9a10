"""Recovery: SIGKILL a worker that holds a job, SIGKILL the leader, and see when work goes on.

Measured from the instant before the signal to the first line of the handler elsewhere, by one clock. The kill comes
at a random point of the KeepAlive cycle, since how much of the TTL is left decides. The promises that this is to be
read against: TTL + 1 s for a worker, the leader's TTL + 1 s for the leader. What workers have claimed when the leader
dies needs no leader: it ends as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import random
import time

from tenure.bench.handlers import HOLD
from tenure.bench.plan import Plan
from tenure.bench.results import BenchError, Results
from tenure.bench.stage import PATIENCE_S, POOL, Stage, say
from tenure.bench.stamp import STAMP
from tenure.cli.embedded.member import Member
from tenure.client import AsyncClient, Job, JobState, NewJob

SLEEP, SLEEP_S = "sleep", 0.2
JOBS_UNDER_WAY = 300
"""More than are offered at once, so that the leader dies in the middle."""


def worker_killed(ttl_s: float) -> str:
    """Name the case of a worker's end."""
    return f"worker killed, TTL {ttl_s:g} s"


def leader_killed(plan: Plan) -> str:
    """Name the case of the leader's end."""
    return f"leader killed, TTL {plan.leader_ttl_s:g} s"


async def failover(stage: Stage, results: Results) -> None:
    """Kill workers, per TTL, then leaders."""
    plan = stage.plan
    await stage.clear()
    await stage.add_workers(plan.failover_workers, 32)
    for run in range(plan.long_runs):
        for ttl_s in plan.ttls_s:
            say(f"failover: TTL {ttl_s:g} s, {plan.kills} kill(s), run {run + 1} of {plan.long_runs}")
            case = results.case("failover", worker_killed(ttl_s))
            for _ in range(plan.kills):
                case.sample("kill_to_restart_s", [await _kill_worker(stage, ttl_s)])
        say(f"failover: leader, {plan.kills} kill(s), run {run + 1} of {plan.long_runs}")
        case = results.case("failover", leader_killed(plan))
        for _ in range(plan.kills):
            resumed_s, ended_s = await _kill_leader(stage)
            case.sample("kill_to_restart_s", [resumed_s])
            case.sample("kill_to_end_of_claimed_s", [ended_s])
    await stage.remove_workers()


async def _kill_worker(stage: Stage, ttl_s: float) -> float:
    """Kill the worker that holds a job; return after how many seconds the job's second attempt began."""
    job = await _executing(stage, await stage.client.submit(HOLD, route=POOL, ttl_s=ttl_s))
    assert job.claim is not None
    holder = _member(stage, job.claim.worker)
    await asyncio.sleep(random.uniform(0.2, 0.2 + ttl_s))
    killed = time.monotonic_ns()
    await asyncio.to_thread(holder.kill)
    ended = await stage.client.wait(job.id, PATIENCE_S)
    await stage.restart(holder)
    if ended.state is not JobState.COMPLETED or ended.attempt != 2:
        raise BenchError(f"job {ended.id} ended as {ended.state} at attempt {ended.attempt}, not completed at the 2nd")
    return _seconds(killed, ended)


async def _kill_leader(stage: Stage) -> tuple[float, float]:
    """Kill the leader while jobs run, and submit one elsewhere at once.

    Returns:
        After how many seconds that one began, and after how many the last of those that were claimed had ended.
    """
    leader = await stage.leader()
    others = [member for member in stage.coordinators if member is not leader]
    async with stage.client_of(*others) as client:
        await client.wait((await client.submit(STAMP, route=POOL)).id, PATIENCE_S)  # all is well
        await asyncio.sleep(random.uniform(0.2, 0.2 + stage.plan.leader_ttl_s))
        await client.submit_many([NewJob(kind=SLEEP, route=POOL, payload={"seconds": SLEEP_S})] * JOBS_UNDER_WAY)
        await asyncio.sleep(random.uniform(0.0, SLEEP_S))
        claimed = await _claimed(client)
        since, killed = await stage.now(), time.monotonic_ns()
        await asyncio.to_thread(leader.kill)
        ended = await client.wait((await client.submit(STAMP, route=POOL, priority=9)).id, PATIENCE_S)
        ended_s = await stage.ended_s(claimed, since)
    await stage.restart(leader)
    return _seconds(killed, ended), ended_s


async def _claimed(client: AsyncClient) -> list[str]:
    """Return the jobs under way, once there are some."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if claimed := [claim.job_id for claim in await client.claims() if claim.kind == SLEEP]:
                return claimed


async def _executing(stage: Stage, job: Job) -> Job:
    async with asyncio.timeout(PATIENCE_S):
        async for seen in stage.client.watch(job.id):
            if seen.state is JobState.EXECUTING and seen.claim is not None:
                return seen
    raise BenchError(f"job {job.id} ended before its worker was killed")


def _member(stage: Stage, worker: str) -> Member:
    for member in stage.workers:
        if member.id == worker:
            return member
    raise BenchError(f"no worker here is called {worker}")


def _seconds(since_ns: int, ended: Job) -> float:
    return float(ended.result - since_ns) / 1e9
