"""The whole flow with the least rights: a coordinator and a worker as users of their own, in Postgres and in etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.e2e.secured import Secured

from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.client import AsyncClient, NewJob, NewSchedule, Retry

PATIENCE_S = 60.0


@pytest.fixture
def secured(
    tmp_path: Path, own_postgres: Callable[..., EmbeddedPostgres], own_etcd: Callable[..., EmbeddedEtcd]
) -> Iterator[Secured]:
    made = Secured(tmp_path, own_postgres(), own_etcd())
    made.set_up()
    yield made
    made.close()


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await check():
                return answer
            await asyncio.sleep(0.05)


def test_the_flow_with_the_least_rights(secured: Secured) -> None:
    """Submit, start, finish, retry, fail, cancel, limits, rules, schedules, partitions, a killed worker, compaction."""
    compact = {
        "TENURE_COMPACT_EVERY_S": "1",
        "TENURE_COMPACT_EVERY_REVISIONS": "1000",
        "TENURE_COMPACT_KEEP_REVISIONS": "1000",
    }
    coordinator = secured.coordinator(**compact)
    secured.until_ready(coordinator)
    worker = secured.worker()
    secured.until_ready(worker)
    asyncio.run(_flow(secured))
    worker.kill(tree=True)
    secured.until_ready(secured.worker())
    asyncio.run(_goes_on(secured))
    for member in secured.members:
        said = member.log.read_text()
        refusals = [line for line in said.splitlines() if "permission denied" in line]
        assert all("compaction_refused" in line for line in refusals), said  # by etcds that leave it to root
    with psycopg.connect(secured.postgres.dsn) as admin:
        made = admin.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname LIKE 'history_2%'").fetchall()
    assert len(made) >= 5 and set(made) == {("tenure_migrator",)}


async def _flow(secured: Secured) -> None:
    async with AsyncClient(secured.grpc) as client:
        done = await client.wait((await client.submit("trace", {"a": 1}, idempotency_key="once")).id)
        assert (done.state, done.result) == ("completed", {"a": 1})
        assert (await client.submit("trace", {"a": 1}, idempotency_key="once")).id == done.id
        retry = Retry(max_attempts=3, initial_backoff_s=0.1)
        flaky = await client.wait((await client.submit("flaky", {"succeeds_at": 2}, retry=retry)).id)
        assert (flaky.state, flaky.attempt) == ("completed", 2)
        never = Retry(max_attempts=1)
        failed = await client.wait((await client.submit("flaky", {"succeeds_at": 9}, retry=never)).id)
        assert failed.state == "failed"
        again = await client.retry(failed.id)
        assert (await client.wait(again.id)).state == "failed"
        await client.put_limit("narrow", concurrent=1, rate=50)
        parent = NewJob(kind="trace", ref="first", limits=("narrow",))
        child = NewJob(kind="trace", depends_on=("first",), limits=("narrow",))
        for job in await client.submit_many([parent, child], workflow="two"):
            assert (await client.wait(job.id)).state == "completed"
        long = await client.submit("hold-on", {"seconds": 60}, unique_key="u")
        await until(lambda: _is(client, long.id, "executing"))
        assert [claim.job_id for claim in await client.claims()] == [long.id]
        await client.cancel(long.id)
        assert (await client.wait(long.id)).state == "canceled"
        later = await client.submit("trace", None, delay_s=3600)
        await client.cancel(later.id)
        await client.delete(later.id)
        await client.pause(pool="default", reason="a test")
        await client.resume(pool="default")
        schedule = NewSchedule(name="each", job=NewJob(kind="trace"), interval_s=1.0)
        made = await client.create_schedule(schedule)

        async def ticked() -> Any:
            return [job async for job in client.list(kind="trace") if job.schedule_id == made.id]

        ticks = await until(ticked)
        assert (await client.wait(ticks[0].id)).state == "completed"
        await client.delete_schedule(made.id)
        await client.delete_limit("narrow")


async def _is(client: AsyncClient, job_id: str, state: str) -> bool:
    return (await client.get(job_id)).state == state


async def _goes_on(secured: Secured) -> None:
    async with AsyncClient(secured.grpc) as client:
        done = await client.wait((await client.submit("trace", 2)).id, timeout_s=PATIENCE_S)
        assert done.state == "completed"
