"""docs/BACKUP.md, followed by the letter: a dump that is taken under load is restored beside an empty etcd.

Everything of before is killed, but for one worker that is frozen with an attempt in hand and wakes up afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from tests.docs.test_examples import blocks, environment
from tests.e2e.conftest import PATIENCE_S, Setting, Stage
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded.binaries import postgres_folder
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.client import AsyncClient, NewJob, NewSchedule, Retry
from tenure.model.errors import NotFound, TenureError, WrongState
from tenure.model.fence import epoch_of
from tenure.v1 import job_pb2, worker_service_pb2, worker_service_pb2_grpc

LARGE = 200_000
TTL_S = 3.0


def follow(step: str, folder: Path, env: dict[str, str]) -> str:
    """Run what the document says at a step."""
    [text] = [block.text for block in blocks("docs/BACKUP.md") if (block.role, block.name) == ("backup", step)]
    own = environment(env)
    own["PATH"] = f"{_programs()}:{own['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=own, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{step}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _programs() -> Path:
    """Return the folder of ``pg_dump`` of the release that the servers are of."""
    folder = postgres_folder()
    if not (folder / "pg_dump").exists():
        pytest.skip(f"no pg_dump in {folder}")
    return folder


async def story(client: AsyncClient, id: str) -> Any:
    """Return everything that is told of a job that has ended."""
    job = await client.get(id)
    lines = [(line.attempt, line.seq, line.level, line.message) async for line in client.logs(id)]
    result = await client.result(job) if job.state == "completed" else None
    return job, await client.attempts(id), lines, await client.artifacts(id), result


@asynccontextmanager
async def load(client: AsyncClient) -> AsyncIterator[list[str]]:
    """Submit all the time; give the ids of what was acknowledged."""
    acknowledged: list[str] = []

    async def submit() -> None:
        while True:
            acknowledged.extend(job.id for job in await client.submit_many([NewJob(kind="trace", payload=1)] * 20))
            await asyncio.sleep(0.02)

    submitting = asyncio.create_task(submit())
    yield acknowledged
    submitting.cancel()
    await asyncio.wait([submitting])


@contextmanager
def frozen(on: Stage, worker_id: str) -> Iterator[Any]:
    """Stop a worker with all its processes where it stands; it is killed at the end."""
    member = on.member(worker_id)
    member.pause()
    try:
        yield member
    finally:
        member.resume()
        member.kill(tree=True)


async def everything_ended(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection, asyncio.timeout(PATIENCE_S):
        while True:
            if not await (await connection.execute("SELECT 1 FROM tenure.job LIMIT 1")).fetchone():
                return
            await asyncio.sleep(0.1)


async def test_a_dump_restored_beside_an_empty_etcd_continues_the_queue(
    stage: Setting,
    deployment: DeploymentFactory,
    own_postgres: Callable[..., EmbeddedPostgres],
    tmp_path: Path,
) -> None:
    on = await stage(own_stores=True, coordinators=2, workers=2)
    before = on.deployment
    assert before.etcd is not None and before.postgres is not None
    client = on.client

    # Jobs in every state that there is.
    ended = [
        await client.submit("saves", {"result": LARGE}),
        await client.submit("trace", {"n": 1}),
        await client.submit("by-plan", {"fails": True}, retry=Retry(max_attempts=2, initial_backoff_s=0.1)),
        await client.submit("large", {"result": LARGE}),
    ]
    counted = await client.submit("counts", {"lines": 20, "pause_s": 0})
    await client.wait_many([job.id for job in (*ended, counted)])
    canceled = await client.submit("trace", delay_s=600)
    await client.cancel(canceled.id)
    await client.put_limit("one", concurrent=1)
    held = [await client.submit("hold-first", n, ttl_s=TTL_S) for n in range(3)]
    held.append(await client.submit("hold-first", ttl_s=TTL_S, limits=["one"]))
    for job in held:
        await on.executing(job.id)
    limited = [await client.submit("trace", n, limits=["one"]) for n in range(3)]
    [claimed] = await client.attempts(held[0].id)
    waiting = await client.submit("trace", depends_on=[held[0].id])
    ready = await client.submit("trace", route="later")
    scheduled = await client.submit("trace", delay_s=5)
    retried = await client.submit("flaky", {"succeeds_at": 2}, retry=Retry(initial_backoff_s=5))
    await client.create_schedule(NewSchedule(name="ticks", job=NewJob(kind="trace"), interval_s=1))

    told = {job.id: await story(client, job.id) for job in (*ended, counted)}
    assert [(await client.get(job.id)).state for job in limited] == ["ready"] * 3

    # The dump, under load.
    async with load(client) as acknowledged:
        await asyncio.sleep(0.5)
        certain = list(acknowledged)
        await asyncio.to_thread(follow, "take", tmp_path, before.env)
        late = await client.submit("trace", idempotency_key="late")
        await client.wait(late.id)
    fences_before = {line.fence for line in on.lines()}

    # Everything of before is gone, but for a worker that sleeps.
    with frozen(on, claimed.worker) as zombie:
        for member in (*before.workers, *before.coordinators):
            if member is not zombie:
                member.kill(tree=True)
        await asyncio.to_thread(before.postgres.kill)
        await asyncio.to_thread(before.etcd.kill)
        await asyncio.to_thread(before.etcd.erase)
        await asyncio.to_thread(before.etcd.start)

        new = await asyncio.to_thread(own_postgres)
        env = {**before.env, "NEW_POSTGRES_DSN": new.dsn}
        await asyncio.to_thread(follow, "restore", tmp_path, env)
        after = await asyncio.to_thread(
            deployment,
            coordinators=1,
            workers=1,
            postgres_dsn=new.dsn,
            etcd_endpoints=before.etcd.endpoints,
            etcd_prefix=before.env["TENURE_ETCD_PREFIX"],
            grpc=before.coordinator_addresses[0],
            http=before.http_addresses[0],
            worker_args=["--import", "tests.e2e.handlers", "--pool", "default", "--pool", "later"],
            env={
                "TENURE_TEST_TRACE": str(tmp_path / "trace"),
                "TENURE_LEADER_TTL_S": "2",
                "TENURE_OBJECT_STORE": before.env["TENURE_OBJECT_STORE"],
            },
        )
        env["TENURE_COORDINATOR"] = after.coordinator_addresses[0]
        async with AsyncClient(after.coordinator_addresses[0]) as client:
            epoch = (await client.cluster()).epoch
            assert epoch > 2, "it is above whatever the life before had reached"
            assert "epoch" in await asyncio.to_thread(follow, "look", tmp_path, env)

            # Nothing that had ended is different, and everything else ends.
            assert {id: await story(client, id) for id in told} == told
            assert (await client.get(canceled.id)).state == "canceled"
            unfinished = [*held, *limited, waiting, ready, scheduled, retried]
            done = await client.wait_many([*(job.id for job in unfinished), *certain], timeout_s=PATIENCE_S)
            assert {job.state for job in done} == {"completed"}
            assert len(done) == len(unfinished) + len(certain)
            with pytest.raises(NotFound):
                await client.get(late.id)
            again = await client.submit("trace", idempotency_key="late")
            assert (await client.wait(again.id)).state == "completed"
            for job in held:
                lost, completed = await client.attempts(job.id)
                assert (lost.outcome, completed.outcome) == ("lost", "completed")
                assert (epoch_of(lost.fence), epoch_of(completed.fence)) == (1, epoch)

            # Fences grow.
            fences_after = {line.fence for line in on.lines()} - fences_before
            assert min(fences_after) > max(fences_before)

            # The schedule goes on, each tick once.
            ticked = await client.get_schedule("ticks")

            async def ticks() -> bool:
                return (await client.get_schedule("ticks")).next_at != ticked.next_at

            await on.until(ticks)
            await client.pause_schedule("ticks")
            await everything_ended(new.dsn)

            # Whoever slept changes nothing, by itself or by its old fence.
            ends = {job.id: await client.get(job.id) for job in held}
            zombie.resume()
            async with grpc.aio.insecure_channel(after.coordinator_addresses[0]) as channel:
                stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
                report = worker_service_pb2.AttemptReport(
                    job_id=held[0].id, fence=claimed.fence, outcome=job_pb2.OUTCOME_COMPLETED, result='"stale"'
                )
                request = worker_service_pb2.FinishAttemptsRequest(worker=claimed.worker, reports=[report])
                [answer] = (await stub.FinishAttempts(request)).attempts
                assert answer.verdict == worker_service_pb2.VERDICT_LOST

            async def has_woken() -> bool:  # it registers anew where it finds nothing of its own
                return "ownership_lost" in zombie.output() or "claim_taken_away" in zombie.output()

            await on.until(has_woken)
            assert {job.id: await client.get(job.id) for job in held} == ends

            # A store that is older than the database: what is not there is said, and nothing else is harmed.
            of_namespaces = [each for each in (before.folder.path / "objects").iterdir() if each.name[0] not in "._"]
            for each in of_namespaces:
                await asyncio.to_thread(shutil.rmtree, each)
            assert (await client.get(ended[0].id)).result_object is not None
            with pytest.raises((NotFound, WrongState)):
                await client.result(ended[0].id)
            with pytest.raises(TenureError):
                await client.download(ended[0].id, "bytes.bin", tmp_path)
            assert (await client.wait((await client.submit("trace")).id)).state == "completed"

            # Where Postgres cannot know: harmless beside coordinators that run, too.
            await asyncio.to_thread(follow, "by-hand", tmp_path, env)
            assert (await client.cluster()).epoch == epoch + 1
            job = await client.wait((await client.submit("trace")).id)
            assert (job.state, epoch_of(job.fence)) == ("completed", epoch + 1)
        await asyncio.to_thread(after.stop)


async def test_beside_the_etcd_of_before_workers_go_on_with_what_the_dump_knows(
    stage: Setting, deployment: DeploymentFactory, own_postgres: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    """Only Postgres was lost: its workers live, one attempt is in the dump and one began after it."""
    on = await stage(own_stores=True, coordinators=1, workers=1)
    before = on.deployment
    known = await on.client.submit("says", {"lines": 1}, ttl_s=TTL_S)
    await on.executing(known.id)
    unknown = await on.client.submit("hold-first", ttl_s=TTL_S, delay_s=600)
    await asyncio.to_thread(follow, "take", tmp_path, before.env)
    async with await psycopg.AsyncConnection.connect(before.env["TENURE_POSTGRES_DSN"]) as connection:
        await connection.execute("UPDATE tenure.job SET activate_at = now() WHERE id = %s", [unknown.id])
    await on.executing(unknown.id)
    fences = {line.job_id: line.fence for line in on.lines()}
    before.coordinators[0].kill()

    new = await asyncio.to_thread(own_postgres)
    env = {**before.env, "NEW_POSTGRES_DSN": new.dsn}
    await asyncio.to_thread(follow, "restore", tmp_path, env)
    async with await psycopg.AsyncConnection.connect(new.dsn) as connection:
        await connection.execute("UPDATE tenure.job SET activate_at = now() WHERE id = %s", [unknown.id])
    after = await asyncio.to_thread(
        deployment,
        coordinators=1,
        workers=0,
        postgres_dsn=new.dsn,
        etcd_endpoints=before.env["TENURE_ETCD_ENDPOINTS"].split(","),
        etcd_prefix=before.env["TENURE_ETCD_PREFIX"],
        grpc=before.coordinator_addresses[0],
        http=before.http_addresses[0],
        env={"TENURE_LEADER_TTL_S": "2", "TENURE_OBJECT_STORE": before.env["TENURE_OBJECT_STORE"]},
    )
    async with AsyncClient(after.coordinator_addresses[0]) as client:

        async def begins_anew() -> bool:
            return len({epoch_of(line.fence) for line in on.lines(unknown.id)}) == 2

        await on.until(begins_anew)  # what began after the dump was stopped, and is refused
        await client.cancel(unknown.id)
        await asyncio.to_thread((tmp_path / "trace.over").touch)
        done = await client.wait(known.id, timeout_s=PATIENCE_S)
        assert (done.state, done.attempt, done.fence) == ("completed", 1, fences[known.id])
    await asyncio.to_thread(before.stop)
    await asyncio.to_thread(after.stop)
