"""Many claims lost at once: every job runs again and is recorded once. How long it takes is told, not asserted.

In full size (5,000) with ``--long``; the same is measured by ``make bench ARGS=takeover``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from tests.e2e.conftest import Setting, Stage

from tenure.client import NewJob
from tenure.client.records import Job

SIZES = [300, pytest.param(5_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
TTL_S = 4.0
PATIENCE_S = 300.0
BATCH = 1_000
VICTIMS = 3
"""As many as make the leader take it for etcd's fault, so that the brake is in the figure."""


@pytest.mark.parametrize("claims", SIZES)
async def test_workers_with_many_claims_die_together(
    stage: Setting, claims: int, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL to all workers that hold anything: others run every job again."""
    ttl_s = TTL_S if claims < 1_000 else 10.0
    on = await stage(coordinators=2, workers=VICTIMS, args=("--capacity", str(claims // VICTIMS + 1)))
    jobs = await submit(on, "hold-first", claims, ttl_s=ttl_s)
    await executing(on, claims)
    for _ in range(2):
        args = ["--import", "tests.e2e.handlers", "--pool", "default", "--capacity", str(claims)]
        await asyncio.to_thread(on.deployment.add_worker, args)
    killed_at = time.monotonic()
    for victim in on.deployment.workers[:VICTIMS]:
        victim.kill()
    await all_recorded_once(on, jobs)
    took_s = max(line.at for line in on.lines() if line.attempt > 1) - killed_at
    bound_s = ttl_s + 1 + claims / 1_000 + ttl_s
    record_property("takeover_s", took_s)
    with capsys.disabled():
        print(f"\n{claims} claims of {VICTIMS} workers lost, TTL {ttl_s:g} s: all began again after {took_s:.1f} s")
        print(f"(TTL + 1 s + 1 s per 1,000 claims + the brake of one TTL: {bound_s:.1f} s)")
    assert await count(on, "SELECT count(*) FROM tenure.attempt WHERE outcome = 'lost'") >= claims


@pytest.mark.parametrize("jobs", SIZES)
async def test_etcd_is_erased_under_many_jobs(
    stage: Setting, jobs: int, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the jobs execute, half are ready, when every key of etcd is lost: all are done, from Postgres alone."""
    ttl_s = TTL_S if jobs < 1_000 else 10.0
    half = jobs // 2
    on = await stage(own_stores=True, coordinators=2, workers=2, args=("--capacity", str(half // 2)))
    etcd = on.deployment.etcd
    assert etcd is not None
    held = await submit(on, "hold-first", half, ttl_s=ttl_s)
    await executing(on, half)
    ready = await submit(on, "trace", half, ttl_s=ttl_s)
    await asyncio.to_thread(etcd.kill)
    await asyncio.to_thread(etcd.erase)
    await asyncio.to_thread(etcd.start)
    back_at = time.monotonic()
    await all_recorded_once(on, [*held, *ready])
    took_s = max(line.at for line in on.lines()) - back_at
    record_property("recovery_s", took_s)
    with capsys.disabled():
        print(f"\netcd erased under {half} executing and {half} ready jobs, TTL {ttl_s:g} s: done {took_s:.1f} s later")
    assert (await on.client.cluster()).epoch == 2
    assert set(on.runs()) == {job.id for job in ready}


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a check to be true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await check():
                return
            await asyncio.sleep(0.1)


async def submit(on: Stage, kind: str, jobs: int, *, ttl_s: float) -> list[Any]:
    """Submit jobs in batches."""
    submitted: list[Any] = []
    for start in range(0, jobs, BATCH):
        size = min(BATCH, jobs - start)
        batch = [NewJob(kind=kind, payload=start + n, ttl_s=ttl_s) for n in range(size)]
        submitted.extend(await on.client.submit_many(batch))
    return submitted


async def executing(on: Stage, jobs: int) -> None:
    """Wait until so many handlers run, by their own account."""

    async def all_run() -> bool:
        return sum(line.word == "began" for line in on.lines()) >= jobs

    await until(all_run)


async def all_recorded_once(on: Stage, jobs: list[Job]) -> None:
    """Wait until nothing is left to do, and see that each job completed, recorded once."""

    async def nothing_left() -> bool:
        return await count(on, "SELECT count(*) FROM tenure.job") == 0

    await until(nothing_left)
    ids = {job.id for job in jobs}
    async with await psycopg.AsyncConnection.connect(on.deployment.env["TENURE_POSTGRES_DSN"]) as connection:
        ended = await (await connection.execute("SELECT id::text, state FROM tenure.history")).fetchall()
        attempts = await (
            await connection.execute(
                "SELECT count(*) FILTER (WHERE outcome = 'completed'), count(*), count(DISTINCT fence)"
                " FROM tenure.attempt"
            )
        ).fetchone()
    assert len(ended) == len(ids) and dict(ended) == dict.fromkeys(ids, "completed")
    assert attempts is not None
    completed, all_attempts, fences = attempts
    assert completed == len(ids) and all_attempts == fences


async def count(on: Stage, query: Any) -> int:
    """Return the one number that a query gives."""
    return int(await on.postgres(query))
