"""A worker's link to real stores and a real coordinator: which leases it may use again, and what it leaves alone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import WORKER, Parts, running, until
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction, Proxy

from tenure.coordinator.announce import Announcer
from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.finish import Finisher
from tenure.coordinator.revoke import Revoker
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import Offer, Offers
from tenure.store.etcd.leases import LeaseKeeper, LeasePool
from tenure.store.etcd.port import Etcd, Put, Txn
from tenure.store.postgres.migrate import SchemaStatus
from tenure.worker.claim import Claimed, Claimer
from tenure.worker.coordinators import Coordinators
from tenure.worker.direct import DirectLink
from tenure.worker.execute.call import Ended
from tenure.worker.link import Report, Started

TTL_S = 10.0
"""Long enough that no claim expires while etcd is out of reach."""


class FarWorker:
    """The claiming part of a worker, whose etcd is behind a proxy. ``near`` is etcd as others see it."""

    def __init__(self, parts: Parts, far: Etcd, link: Proxy) -> None:
        self.near = parts
        self.link = link
        self.keeper = LeaseKeeper(far, parts.clock)
        self.leases = LeasePool(far, self.keeper, lambda lease: None)
        self.claimer = Claimer(far, parts.keys, parts.clock, self.leases, WORKER)

    async def claim(self, id: uuid.UUID) -> list[Claimed]:
        """Claim a job, as offered in a message of its own."""
        return await self.claimer.claim(self.near.keys.message(WORKER, id.int % 1_000_000), [_offer(id)])

    async def spare_lease(self) -> int:
        """Return the one lease that is ready, so that the next claim needs no answer to a grant."""
        [grant] = await self.leases.acquire(TTL_S, 1)
        await self.leases.give_back(grant.lease)
        return grant.lease

    async def until_unclaimed(self, id: uuid.UUID) -> None:
        """Wait until nobody claims a job: its lease has been revoked, or was left to expire."""

        async def unclaimed() -> bool:
            return await self.near.claim_of(id) is None

        await until(unclaimed)


def _offer(id: uuid.UUID) -> Offer:
    return Offer(job=str(id), attempt=0, ttl_s=TTL_S, namespace="default", kind="k", route="default")


@pytest_asyncio.fixture
async def far(parts: Parts, etcd_server: EtcdServer, proxy: ProxyFactory) -> AsyncIterator[FarWorker]:
    link = await proxy(etcd_server.port, etcd_server.host)
    etcd = connect([f"grpc://{link.address}"], timeout_s=1.0)
    worker = FarWorker(parts, etcd, link)
    async with running(worker.keeper.run()):
        yield worker
    await etcd.close()


async def test_after_a_claim_of_unknown_outcome_the_lease_carries_no_other(far: FarWorker) -> None:
    """The claim was put, but the answer never came."""
    id, other = await far.near.submit(), await far.near.submit()
    spare = await far.spare_lease()
    far.link.blackhole(Direction.TO_CLIENT)
    claiming = asyncio.create_task(far.claim(id))

    async def put() -> bool:
        claim = await far.near.claim_of(id)
        return claim is not None and claim.lease == spare

    await until(put)
    assert await claiming == []
    far.link.heal()
    assert far.leases.idle == 0
    [won] = await far.claim(other)
    assert won.lease != spare
    await far.until_unclaimed(id)


async def test_after_a_release_of_unknown_outcome_the_lease_carries_no_other(far: FarWorker) -> None:
    """The release never arrived: the claim stands, and only the end of its lease takes it away."""
    id, other = await far.near.submit(), await far.near.submit()
    [claim] = await far.claim(id)
    await far.link.refuse()
    await far.claimer.release([claim])
    await far.link.accept()
    assert await far.near.claim_of(id) is not None, "not exercised: the claim was gone before"
    [won] = await far.claim(other)
    assert won.lease != claim.lease
    await far.until_unclaimed(id)


class Linked:
    """A whole link, on a coordinator whose announcements go through a proxy."""

    def __init__(self, parts: Parts, link: DirectLink, announcing: Proxy) -> None:
        self.parts = parts
        self.link = link
        self.announcing = announcing
        self._messages = 0

    async def offer(self, *ids: uuid.UUID) -> str:
        """Put a message into the worker's inbox; return its key."""
        self._messages += 1
        key = self.parts.keys.message(WORKER, self._messages)
        value = Offers(term=1, offers=tuple(map(_offer, ids))).to_json()
        await self.parts.etcd.txn(Txn((), (Put(key, value),)))
        return key

    async def started(self) -> Started:
        """Return the next attempt that starts, alone."""
        async with asyncio.timeout(30):
            [one] = await anext(aiter(self.link.attempts()))
            return one

    async def until_answered(self, message: str) -> None:
        """Wait until a message is gone."""

        async def gone() -> bool:
            return await self.parts.etcd.get(message) is None

        await until(gone)


@pytest.fixture
def room() -> int:
    """How many attempts the worker says it has room for."""
    return 10


@pytest_asyncio.fixture
async def linked(parts: Parts, etcd_server: EtcdServer, proxy: ProxyFactory, room: int) -> AsyncIterator[Linked]:
    announcing = await proxy(etcd_server.port, etcd_server.host)
    async with AsyncExitStack() as stack:
        announcers_etcd = connect([f"grpc://{announcing.address}"], timeout_s=1.0)
        stack.push_async_callback(announcers_etcd.close)
        announcer = Announcer(announcers_etcd, parts.keys, parts.clock, done_ttl_s=30.0)
        server = _server(parts, Finisher(parts.db, announcer, parts.dependants, parts.hints))
        await server.start()
        stack.push_async_callback(server.stop, 0)
        coordinators = Coordinators(lambda: [server.address], parts.clock)
        stack.push_async_callback(coordinators.close)
        keeper = LeaseKeeper(parts.etcd, parts.clock)
        link = DirectLink(
            parts.etcd,
            parts.keys,
            parts.clock,
            keeper,
            coordinators,
            WORKER,
            idle_leases=10,
            room=lambda: room,
            stop=lambda job, fence, cause: None,
            touch=lambda: None,
            verify_s=60.0,
        )
        await stack.enter_async_context(running(keeper.run(), link.receive()))
        yield Linked(parts, link, announcing)


def _server(parts: Parts, finisher: Finisher) -> GrpcServer:
    jobs = parts.job_service()
    workers = WorkerService(parts.db, parts.starter, finisher, parts.submitter)
    revoker = Revoker(parts.db, parts.etcd, parts.keys, finisher)
    schema = SchemaStatus("0003", "0003")
    cluster = ClusterService(
        parts.db, parts.etcd, parts.keys, schema, revoker, lambda lanes: True, parts.audit, parts.cluster_watch
    )
    return GrpcServer((jobs, workers, cluster), listen="127.0.0.1:0", with_reflection=False)


async def _finish(linked: Linked, started: Started) -> Any:
    [answer] = await linked.link.finish([Report(started, Ended(Outcome.COMPLETED, "1"))])
    return answer


async def test_a_lease_whose_claim_was_deleted_with_the_report_carries_the_next(linked: Linked) -> None:
    leases = []
    for _ in range(3):
        await linked.offer(await linked.parts.submit())
        started = await linked.started()
        assert (await _finish(linked, started)).recorded
        leases.append(started.lease)
    assert len(set(leases)) == 1


async def test_after_a_report_that_deleted_no_claim_the_lease_carries_no_other(linked: Linked) -> None:
    """Recorded in Postgres, but the coordinator reached no etcd: the claim of an ended job still stands."""
    id, other = await linked.parts.submit(), await linked.parts.submit()
    await linked.offer(id)
    first = await linked.started()
    await linked.announcing.refuse()
    assert (await _finish(linked, first)).recorded
    assert await linked.parts.state(id) is JobState.COMPLETED
    await linked.announcing.accept()
    await linked.offer(other)
    assert (await linked.started()).lease != first.lease

    async def unclaimed() -> bool:
        return await linked.parts.claim_of(id) is None

    await until(unclaimed)


async def test_who_drains_claims_nothing(linked: Linked) -> None:
    id = await linked.parts.submit()
    await linked.link.drain()
    await linked.until_answered(await linked.offer(id))
    assert await linked.parts.claim_of(id) is None
    assert await linked.parts.state(id) is JobState.READY


@pytest.mark.parametrize("room", [1])
async def test_what_does_not_fit_is_not_claimed(linked: Linked) -> None:
    ids = [await linked.parts.submit() for _ in range(3)]
    await linked.until_answered(await linked.offer(*ids))
    started = await linked.started()
    claimed = [id for id in ids if await linked.parts.claim_of(id) is not None]
    assert [str(id) for id in claimed] == [started.assignment.job_id]
