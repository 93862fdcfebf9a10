"""Limits end to end: never exceeded by the handlers' own account, though leaders are killed with offers in flight."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.e2e.conftest import Setting, Stage

from tenure.client import NewJob

JOBS = 90


def most_at_once(on: Stage, jobs: set[str]) -> int:
    """Return how many of some jobs ran at the same time at most, by what their handlers wrote."""
    edges = sorted(
        (line.at, 1 if line.word == "began" else -1)
        for line in on.lines()
        if line.job_id in jobs and line.word in ("began", "ended")
    )
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


@pytest.mark.timeout(240)
async def test_limits_hold_while_leaders_are_killed(stage: Setting) -> None:
    on = await stage(coordinators=2, workers=3, args=("--capacity", "40"))
    await on.client.put_limit("narrow", concurrent=3)
    await on.client.put_limit("tenant:*", concurrent=2)
    jobs: dict[str, set[str]] = {}
    for tenant in ("acme", "globex"):
        batch = [
            NewJob(kind="hold-on", payload={"seconds": 0.15}, limits=("narrow", f"tenant:{tenant}"))
            for _ in range(JOBS // 2)
        ]
        jobs[tenant] = {job.id for job in await on.client.submit_many(batch)}
    everything = set().union(*jobs.values())

    async def kill_leaders() -> None:
        for _ in range(3):
            await asyncio.sleep(1.5)
            cluster = await on.client.cluster()
            for member in on.deployment.coordinators:
                if member.id == cluster.leader:
                    await asyncio.to_thread(member.kill)
                    await asyncio.to_thread(member.start)

    killing = asyncio.create_task(kill_leaders())
    done = await on.client.wait_many(sorted(everything))
    await killing
    assert Counter(job.state for job in done) == {"completed": JOBS}
    assert most_at_once(on, everything) == 3
    for tenant, mine in jobs.items():
        assert most_at_once(on, mine) == 2, tenant
    assert {limit.name: dict(limit.held) for limit in await on.client.limits()} == {"narrow": {}, "tenant:*": {}}


async def test_a_saturated_limit_stalls_nobody_else(stage: Setting) -> None:
    """Many jobs of a higher priority wait for one slot; the others are done long before them."""
    on = await stage(workers=2)
    await on.client.put_limit("one", concurrent=1)
    held = await on.client.submit("hold-on", {"seconds": 600}, limits=["one"])
    await on.executing(held.id)
    await on.client.submit_many([NewJob(kind="trace", priority=9, limits=("one",)) for _ in range(2_000)])
    free = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(200)])
    done = await on.client.wait_many([job.id for job in free])
    assert {job.state for job in done} == {"completed"}
    assert set(on.runs()) == {job.id for job in free}
    why = await on.client.why((await anext(on.client.list(states=["ready"], limit=1))).id)
    assert [one.code for one in why.obstacles] == ["limit"]


async def test_a_killed_workers_slots_come_back(stage: Setting) -> None:
    on = await stage(workers=2)
    await on.client.put_limit("one", concurrent=1)
    first = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=2, max_crashes=1, limits=["one"])
    executing = await on.executing(first.id)
    second = await on.client.submit("trace", limits=["one"])
    assert executing.claim is not None
    on.member(executing.claim.worker).kill()
    assert (await on.client.wait(second.id)).state == "completed"
    assert (await on.client.wait(first.id)).state == "failed"  # reaped a moment after its lease has gone
