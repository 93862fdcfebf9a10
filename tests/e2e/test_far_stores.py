"""Stores that are far away cost time, and nothing else: no attempt is lost, no job runs twice, no call gives up.

Postgres and etcd at a round trip of 20 ms for coordinators and workers, the S3 server at half a second. What becomes of
rates is for ``make bench-scale`` to say.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from tests.e2e.conftest import PATIENCE_S, Setting
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.s3 import S3Server
from tests.proxy import Proxy

from tenure.client import AsyncClient, NewJob

ROUND_TRIP_S = 0.02
OBJECTS_S = 0.5
JOBS, SAVING, HELD = 300, 6, 5
TTL_S = 3.0
LARGE = 300_000


async def test_far_stores_lose_nothing(stage: Setting, database: str, etcd_server: EtcdServer, s3: S3Server) -> None:
    postgres = urlsplit(database)
    async with Proxy(postgres.port or 5432) as to_postgres, Proxy(etcd_server.port) as to_etcd, Proxy(s3.port) as to_s3:
        for proxy in (to_postgres, to_etcd):
            proxy.delay(ROUND_TRIP_S / 2)
        to_s3.delay(OBJECTS_S / 2)
        on = await stage(
            coordinators=2,
            workers=2,
            postgres_dsn=database.replace(f":{postgres.port}/", f":{to_postgres.port}/"),
            etcd_endpoints=[f"grpc://{to_etcd.address}"],
            env={
                **s3.env,
                "TENURE_OBJECT_STORE": s3.store_url("far"),
                "TENURE_OBJECT_STORE_ENDPOINT": f"http://{to_s3.address}",
            },
        )
        held = [await on.client.submit("hold-first", ttl_s=TTL_S) for _ in range(HELD)]
        for job in held:
            await on.executing(job.id)
        saving = [await on.client.submit("saves", {"result": LARGE}) for _ in range(SAVING)]
        noops = await on.client.submit_many([NewJob(kind="noop") for _ in range(JOBS)])
        ended = await on.client.wait_many([job.id for job in (*noops, *saving)], timeout_s=4 * PATIENCE_S)
        assert {(job.state, job.attempt) for job in ended} == {("completed", 1)}
        for job in ended[JOBS:]:
            assert job.result_lost is None
            assert await on.client.result(job) == "x" * LARGE
        await asyncio.sleep(2 * TTL_S)
        still = [await on.client.get(job.id) for job in held]
        assert {(job.state, job.attempt) for job in still} == {("executing", 1)}
        await on.client.cancel_many(kind="hold-first")
        async with AsyncClient(on.deployment.coordinator_addresses[1]) as client:
            assert {job.state for job in await client.wait_many([job.id for job in held])} == {"canceled"}
