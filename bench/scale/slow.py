"""Slow stores: what round trips of 20 ms to Postgres, to etcd and to both do to rates, leases and latencies.

A second deployment on the stage's stores, which it reaches through proxies that make bytes late. In every case, one of
them without delay, jobs are drained and a few are run one at a time; then some are held for a while, through more than
two TTLs. No attempt may be lost and no job run twice: nothing times out because a store is far.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from tenure.bench.handlers import HOLD, NOOP
from tenure.bench.latency import idle_latency
from tenure.bench.results import BenchError, Case, Results
from tenure.bench.stage import CALL_S, HANDLERS, PATIENCE_S, POOL, Stage, say
from tenure.cli.embedded import ports
from tenure.cli.embedded.deployment import Deployment
from tenure.client import AsyncClient, NewJob

FAR_MS = 20.0
"""Round trip."""
PLACES = {
    "both near": (0.0, 0.0),
    "Postgres 20 ms away": (FAR_MS, 0.0),
    "etcd 20 ms away": (0.0, FAR_MS),
    "both 20 ms away": (FAR_MS, FAR_MS),
}
PREFIX = "/tenure-far/v1/"
PROGRAM = "tenure.bench.scale.delay"
HELD, HELD_TTL_S = 200, 10.0


async def slow(stage: Stage, results: Results) -> None:
    """Measure each place."""
    plan = stage.plan
    async with stage.rest():  # the stage's own coordinators would be at the same jobs
        near = 0.0
        for name, (postgres_ms, etcd_ms) in PLACES.items():
            say(f"slow: {name}")
            await stage.clear()
            async with _far(stage, postgres_ms, etcd_ms) as client:
                rate, repeated = await _drain(stage, client)
                near = near or rate
                case = Case("", "")
                await idle_latency(client, case, plan.latency_warmup, plan.latency_samples)
                lost = await _held(stage, client)
            results.case("slow", name).add(
                {
                    "jobs_per_s": rate,
                    "of_near": rate / near,
                    "repeated_jobs": float(repeated),
                    "held_attempts_lost": float(lost),
                    **{key: case.figures[key][0] for key in ("submit_to_start_p50_ms", "submit_to_start_p99_ms")},
                }
            )


@contextlib.asynccontextmanager
async def _far(stage: Stage, postgres_ms: float, etcd_ms: float) -> AsyncIterator[AsyncClient]:
    """Give a client of a deployment whose stores are that far away; one worker serves the bench's pool."""
    postgres = urlsplit(stage.postgres_dsn)
    endpoint = stage.etcd_endpoints[0]
    scheme, _, address = endpoint.rpartition("//")
    async with (
        _delayed(postgres.port or 5432, postgres_ms) as postgres_port,
        _delayed(int(address.rpartition(":")[2]), etcd_ms) as etcd_port,
    ):
        user, at, _ = postgres.netloc.rpartition("@")
        dsn = urlunsplit(postgres._replace(netloc=f"{user}{at}127.0.0.1:{postgres_port}"))
        imported = [part for module in HANDLERS for part in ("--import", module)]
        deployment = Deployment(
            stage.folder / f"far-{postgres_ms:g}-{etcd_ms:g}",
            coordinators=2,
            workers=1,
            worker_args=[*imported, "--pool", POOL, "--capacity", str(stage.plan.capacity)],
            postgres_dsn=dsn,
            etcd_endpoints=[f"{scheme}//127.0.0.1:{etcd_port}"],
            etcd_prefix=PREFIX,
            env={"TENURE_LEADER_TTL_S": f"{stage.plan.leader_ttl_s:g}"},
        )
        await asyncio.to_thread(deployment.start)
        try:
            async with AsyncClient(deployment.coordinator_addresses, timeout_s=CALL_S) as client:
                yield client
        finally:
            await asyncio.to_thread(deployment.stop)


@contextlib.asynccontextmanager
async def _delayed(port: int, round_trip_ms: float) -> AsyncIterator[int]:
    listen = ports.choose()
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROGRAM, str(listen), str(port), f"{round_trip_ms / 2:g}", stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    if not await program.stdout.readline():
        raise BenchError("the proxy did not start")
    try:
        yield listen
    finally:
        program.kill()
        await program.wait()


async def _drain(stage: Stage, client: AsyncClient) -> tuple[float, int]:
    """Return jobs a second from the first end to the last, and how many jobs took more than one attempt."""
    jobs = stage.plan.slow_jobs
    await client.wait((await client.submit(NOOP, route=POOL)).id, PATIENCE_S)
    await stage.clear()
    began = time.monotonic()
    for start in range(0, jobs, stage.plan.batch_jobs):
        size = min(stage.plan.batch_jobs, jobs - start)
        await client.submit_many([NewJob(kind=NOOP, route=POOL)] * size)
    await stage.empty()
    [(finished, failed, repeated)] = await stage.rows(
        "SELECT count(*), count(*) FILTER (WHERE state <> 'completed'), count(*) FILTER (WHERE attempt <> 1)"
        " FROM tenure.history"
    )
    if finished != jobs or failed:
        raise BenchError(f"of {jobs} jobs {finished} finished, {failed} of them failed")
    return jobs / (time.monotonic() - began), repeated


async def _held(stage: Stage, client: AsyncClient) -> int:
    """Hold jobs for more than two TTLs; return how many attempts were lost."""
    held = min(HELD, stage.plan.capacity // 2)
    await client.submit_many([NewJob(kind=HOLD, route=POOL, ttl_s=HELD_TTL_S)] * held)
    await stage.begun(HOLD, held)
    await asyncio.sleep(stage.plan.slow_held_s)
    lost = held - await stage.first_attempts(HOLD)
    await client.cancel_many(kind=HOLD, reason="measured")
    await stage.empty()
    return lost
