"""A worker parted from its claim, by the network or by hand: its handler stops, and no later than it may."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Line, Setting, Stage
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction, Proxy
from tests.worker_execute.processes import is_running

from tenure.cli.embedded.member import Member, Role
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import ClaimValue, Keyspace
from tenure.store.etcd.port import Etcd, KeyValue, Put, Txn

LONGER_S = 1.0
"""How long a handler is looked at after the moment at which it must have stopped: it writes ten lines a second."""


class Scene:
    """A stage, etcd as others see it, and a worker whose etcd is behind a proxy."""

    def __init__(self, on: Stage, link: Proxy, etcd: Etcd) -> None:
        self.on = on
        self.link = link
        self.etcd = etcd
        self.keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])

    async def claim(self, job_id: str) -> KeyValue | None:
        """Read a job's claim."""
        return await self.etcd.get(self.keys.claim(job_id))

    async def first_runs_until_the_claim_is_gone(self, job_id: str) -> tuple[float, list[Line]]:
        """Wait for the end of the first claim; return when it was seen to be gone, and what its handler wrote."""
        before = await self.claim(job_id)
        assert before is not None, "not exercised: the claim was gone before"

        async def gone() -> bool:
            claim = await self.claim(job_id)
            return claim is None or claim.create_revision != before.create_revision

        await self.on.until(gone)
        gone_at = time.monotonic()
        await asyncio.sleep(LONGER_S)
        return gone_at, [line for line in self.on.lines(job_id) if line.attempt == 1]


async def _scene(stage: Setting, etcd_server: EtcdServer, proxy: ProxyFactory, trace: Path) -> Scene:
    on = await stage(workers=0)
    link = await proxy(etcd_server.port, etcd_server.host)
    env = {
        **os.environ,
        **on.deployment.env,
        "TENURE_ETCD_ENDPOINTS": f"grpc://{link.address}",
        "TENURE_TEST_TRACE": str(trace),
    }
    log = on.deployment.folder.path / "log" / "far.log"
    member = Member(Role.WORKER, 1, ["--import", "tests.e2e.handlers"], env, log)
    member.start()
    on.deployment.workers.append(member)  # which stops it, and shows its log if the test fails
    await asyncio.to_thread(on.deployment.wait_for_worker, member)
    return Scene(on, link, connect(etcd_server.endpoints))


@pytest.mark.slow
async def test_a_worker_cut_off_from_etcd_stops_its_handler_before_the_claim_expires(
    stage: Setting, etcd_server: EtcdServer, proxy: ProxyFactory, tmp_path: Path
) -> None:
    """Nothing passes in either direction, and nobody tells the worker that its claim is lost."""
    scene = await _scene(stage, etcd_server, proxy, tmp_path / "trace")
    job = await scene.on.client.submit("process-hold-on", {"seconds": 600}, ttl_s=4)
    await scene.on.executing(job.id)
    scene.link.blackhole()
    gone_at, lines = await scene.first_runs_until_the_claim_is_gone(job.id)
    assert max(line.at for line in lines) < gone_at
    scene.link.heal()
    await scene.on.executing(job.id, attempt=2)
    first, _ = await scene.on.client.attempts(job.id)
    assert first.outcome in ("released", "lost")  # the worker says so itself where its coordinator hears it in time


@pytest.mark.slow
async def test_late_answers_of_etcd_let_no_handler_outlive_its_claim(
    stage: Setting, etcd_server: EtcdServer, proxy: ProxyFactory, tmp_path: Path
) -> None:
    """Answers come late by more than the margin of trust; then requests do not arrive any more."""
    scene = await _scene(stage, etcd_server, proxy, tmp_path / "trace")
    job = await scene.on.client.submit("process-hold-on", {"seconds": 600}, ttl_s=8)
    await scene.on.executing(job.id)
    scene.link.delay(2.2, Direction.TO_CLIENT)
    await asyncio.sleep(9.0)  # longer than the TTL: what the worker trusts in now is a late answer
    assert (await scene.on.client.get(job.id)).attempt == 1, "not exercised: no late answer was taken"
    scene.link.blackhole(Direction.TO_SERVER)
    gone_at, lines = await scene.first_runs_until_the_claim_is_gone(job.id)
    assert max(line.at for line in lines) < gone_at


async def _replace_claim(etcd: Etcd, keys: Keyspace, job_id: str) -> int:
    """Put a stranger's claim in the place of a job's; return its lease. The job's own lease lives on."""
    lease = (await etcd.grant(600)).lease
    value = ClaimValue("stranger", "default", "k", "default", lease, "2026-01-01T00:00:00.000+00:00")
    await etcd.txn(Txn((), (Put(keys.claim(job_id), value.to_json(), lease),)))
    return lease


async def test_a_claim_that_became_anothers_stops_the_handler(stage: Setting) -> None:
    """The lease lives on, so trust does too: only by reading its claims does the worker learn of it."""
    on = await stage(workers=1, env={"TENURE_WORKER_VERIFY_S": "0.5"})
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    job = await on.client.submit("process-hold-on", {"seconds": 600}, ttl_s=60)
    await on.executing(job.id)

    async def running() -> list[Line]:
        return on.lines(job.id)

    pid = (await on.until(running))[0].pid
    await _replace_claim(etcd, keys, job.id)

    async def stopped() -> bool:
        return not is_running(pid)

    await on.until(stopped)
    assert {line.attempt for line in on.lines(job.id)} == {1}, "not exercised: a newer attempt stops the older one, too"
    await etcd.close()


async def test_a_job_is_taken_over_though_a_foreign_claim_stands_in_its_place(stage: Setting) -> None:
    """Its worker is paused and its own claim is gone, but a claim of that name is there: by identity it is lost."""
    on = await stage(workers=2)
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    job = await on.client.submit("hold-on", {"seconds": 600}, ttl_s=5)
    first = await on.executing(job.id)
    assert first.claim is not None
    zombie = on.member(first.claim.worker)
    zombie.pause()
    foreign = await _replace_claim(etcd, keys, job.id)

    async def ended() -> bool:  # its session is fresh still: the claim was taken, not lost
        return [one.outcome for one in await on.client.attempts(job.id)] == ["released"]

    await on.until(ended)
    assert (await on.client.get(job.id)).attempt == 1
    await etcd.revoke(foreign)
    second = await on.executing(job.id, attempt=2)
    assert second.claim is not None and second.claim.worker != first.claim.worker
    zombie.resume()
    await etcd.close()
