"""Schedules while leaders die: every tick becomes exactly one job, and runs."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row
from tests.e2e.conftest import Setting, Stage

from tenure.client import AsyncClient, NewJob, NewSchedule

LEADERS = 7
SECOND = timedelta(seconds=1)


@pytest.mark.slow
async def test_each_tick_is_one_job_though_leaders_are_killed_at_ticks(stage: Setting) -> None:
    """Three schedules that tick every second; leaders get SIGKILL, or are stopped and come back as zombies."""
    on = await stage(coordinators=3, workers=1, args=("--capacity", "100"))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for name, rule in {
        "interval": {"interval_s": 1.0},
        "cron": {"cron": "* * * * * *", "time_zone": "Europe/Berlin"},
        "jittered": {"cron": "* * * * * *", "jitter_s": 0.5},
    }.items():
        job = NewJob(kind="trace", namespace="default")
        await on.client.create_schedule(NewSchedule(name=name, job=job, misfire="all", **rule))  # type: ignore[arg-type]
    leader = await _next_leader(on, "")
    for number in range(LEADERS):
        await asyncio.sleep(chance.uniform(1.0, 2.0))
        await _shortly_around_a_tick(on, chance)
        member = next(one for one in on.deployment.coordinators if one.id == leader)
        is_zombie = number % 3 == 2
        if is_zombie:
            member.pause()
        else:
            member.kill()
        leader = await _next_leader(on, leader)
        if is_zombie:
            member.resume()  # it wakes up in the middle of what it was about to write
        else:
            member.restart()
    await _two_more_ticks(on)
    rows = await _rows(
        on, "UPDATE tenure.schedule SET paused = true, turn = turn + 1 RETURNING id, name, fired, next_at, last_tick"
    )

    async def all_ran() -> bool:
        [row] = await _rows(on, "SELECT count(*) AS left FROM tenure.job")
        return bool(row.left == 0)

    await on.until(all_ran)
    runs = on.runs()
    for schedule in rows:
        jobs = [job for job in await _jobs(on) if job.schedule_id == schedule.id]
        ticks = [job.scheduled_at for job in jobs]
        assert ticks == _seconds(ticks[0], len(ticks)), f"{schedule.name}, seed {seed}"
        assert (schedule.fired, schedule.last_tick, schedule.next_at) == (len(ticks), ticks[-1], ticks[-1] + SECOND)
        assert len(ticks) > 2 * LEADERS
        assert {job.state for job in jobs} == {"completed"}
        assert {runs[str(job.id)] for job in jobs} == {1}


def _seconds(first: datetime, count: int) -> list[datetime]:
    return [first + n * SECOND for n in range(count)]


async def _rows(on: Stage, query: str) -> list[Any]:
    dsn = on.deployment.env["TENURE_POSTGRES_DSN"]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=namedtuple_row) as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def _jobs(on: Stage) -> list[Any]:
    return await _rows(on, "SELECT id, schedule_id, scheduled_at, state FROM tenure.jobs ORDER BY scheduled_at")


async def _next_leader(on: Stage, before: str) -> str:
    async def other() -> str:
        [row] = await _rows(on, "SELECT leader FROM tenure.cluster")
        return row.leader if row.leader != before else ""

    leader: str = await on.until(other)
    return leader


async def _shortly_around_a_tick(on: Stage, chance: random.Random) -> None:
    """Sleep until between 30 ms before a full second of Postgres' clock and 60 ms after it."""
    [row] = await _rows(on, "SELECT 1 - extract(epoch FROM now())::numeric % 1 AS left_s")
    await asyncio.sleep(max(0.0, float(row.left_s) + chance.uniform(-0.03, 0.06)))


async def _two_more_ticks(on: Stage) -> None:
    [before] = await _rows(on, "SELECT max(last_tick) AS tick FROM tenure.schedule")

    async def ticked() -> bool:
        [row] = await _rows(on, "SELECT min(last_tick) AS tick FROM tenure.schedule")
        return bool(row.tick >= before.tick + 2 * SECOND)

    await on.until(ticked)


async def test_overlaps_on_real_workers(stage: Setting) -> None:
    """A job that takes longer than its schedule's interval: skipped ticks, or the previous one canceled."""
    on = await stage(workers=1, args=("--capacity", "10"))
    slow = NewJob(kind="sleep", payload={"seconds": 60})
    await on.client.create_schedule(NewSchedule(name="skips", interval_s=1, job=slow, overlap="skip"))
    await on.client.create_schedule(NewSchedule(name="cancels", interval_s=1, job=slow, overlap="cancel_previous"))

    async def both() -> bool:
        skips, cancels = await on.client.get_schedule("skips"), await on.client.get_schedule("cancels")
        return skips.skipped >= 2 and cancels.fired >= 4

    await on.until(both)
    skips = await on.client.pause_schedule("skips")
    cancels = await on.client.pause_schedule("cancels")
    assert skips.fired == 1
    jobs = [job async for job in on.client.list() if job.schedule_id == cancels.id]

    async def one_left() -> bool:
        states = [(await on.client.get(job.id)).state for job in jobs[1:]]
        return set(states) == {"canceled"}

    await on.until(one_left)
    assert (await on.client.get(jobs[0].id)).state in ("ready", "executing")
    for job in (cancels.last_job_id, skips.last_job_id):
        assert job is not None
        await on.client.cancel(job)


async def test_a_schedule_made_at_one_coordinator_ticks_at_the_other(stage: Setting) -> None:
    """Each coordinator serves schedules; whoever leads fires them."""
    on = await stage(coordinators=2)
    for number, address in enumerate(on.deployment.coordinator_addresses):
        async with AsyncClient(address) as client:
            await client.create_schedule(NewSchedule(name=f"s{number}", interval_s=1, job=NewJob(kind="trace")))

    async def both() -> bool:
        return all([schedule.fired >= 2 async for schedule in on.client.schedules()])

    await on.until(both)
