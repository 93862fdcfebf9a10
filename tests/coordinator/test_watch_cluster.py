"""WatchCluster: one look for all who watch, and the newest picture for whoever is slow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running

from tenure.client import AsyncClient, ClusterPicture
from tenure.coordinator import watch_cluster
from tenure.coordinator.api import cluster_service
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.worker_service import WorkerService
from tenure.model.errors import Unavailable
from tenure.store.etcd.keyspace import CoordinatorValue, LeaderValue
from tenure.store.etcd.port import Put, Txn


@pytest_asyncio.fixture
async def client(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setattr(watch_cluster, "LOOK_EVERY_S", 0.05)
    parts = alone
    jobs = parts.job_service()
    workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    server = GrpcServer((jobs, workers, parts.cluster_service()), listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with running(jobs.run(), parts.submitter.run(), parts.cluster_watch.run()):
        async with AsyncClient(server.address, outage_s=2.0) as made:
            yield made
        await server.stop(0)


def watching(client: AsyncClient) -> AsyncGenerator[ClusterPicture, None]:
    return cast("AsyncGenerator[ClusterPicture, None]", client.watch_cluster())


async def changed(pictures: AsyncIterator[ClusterPicture], **wanted: object) -> ClusterPicture:
    """Return the first picture that shows what is wanted."""
    async with asyncio.timeout(20):
        async for picture in pictures:
            if all(getattr(picture, name) == value for name, value in wanted.items()):
                return picture
    raise AssertionError("the stream ended")


async def test_it_shows_what_is_there_and_what_becomes_of_it(alone: Parts, client: AsyncClient) -> None:
    async with aclosing(watching(client)) as pictures:
        empty = await changed(pictures)
        assert (empty.coordinators, empty.leader, empty.workers, empty.pools) == ((), None, (), ())
        await alone.register("w1", capacity=3, pools=("a", "b"))
        [worker] = (await changed(pictures)).workers
        assert (worker.id, worker.capacity, worker.claims) == ("w1", 3, 0)
        await alone.register("w2", capacity=4, pools=("b",), draining=True)
        both = await changed(pictures)
        assert [(pool.path, pool.workers, pool.capacity) for pool in both.pools] == [("a", 1, 3), ("b", 2, 3)]
        job = await client.submit("k")
        await alone.claim(uuid.UUID(job.id))
        assert [worker.claims for worker in (await changed(pictures)).workers] == [1, 0]
        value = CoordinatorValue(grpc="127.0.0.1:1").to_json()
        await alone.etcd.txn(Txn((), (Put(alone.keys.coordinator("c1"), value),)))
        leader = LeaderValue(coordinator="c1", since="").to_json()
        await alone.etcd.txn(Txn((), (Put(alone.keys.leader, leader),)))
        [coordinator] = (await changed(pictures, leader="c1")).coordinators
        assert (coordinator.id, coordinator.is_leader) == ("c1", True)


async def test_watchers_share_looks_and_nobody_looks_for_none(
    alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = watch_cluster.look

    async def counted(*args: object) -> watch_cluster.Picture:
        nonlocal looks
        looks += 1
        return await look(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(watch_cluster, "look", counted)
    monkeypatch.setattr(watch_cluster, "LOOK_EVERY_S", 3600.0)
    watches = [watching(client) for _ in range(5)]
    for pictures in watches:
        await changed(pictures)
    assert looks == 1
    for pictures in watches:
        await pictures.aclose()


async def test_whoever_is_slow_is_given_the_newest(alone: Parts, client: AsyncClient) -> None:
    """Straight from the watch: between it and a client lie grpc's own buffers."""
    async with aclosing(alone.cluster_watch.pictures()) as pictures:
        await anext(pictures)
        async with aclosing(watching(client)) as others:
            for n in range(1, 4):
                await alone.register(f"w{n}")
                async with asyncio.timeout(20):
                    async for picture in others:
                        if len(picture.workers) == n:
                            break
        assert len((await anext(pictures)).workers) == 3


async def test_a_message_is_bounded(alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_service, "MAX_SHOWN", 2)
    for n in range(5):
        await alone.register(f"w{n}", pools=(f"p{n}",))
    async with aclosing(watching(client)) as pictures:
        picture = await changed(pictures, more_workers=3)
    assert [worker.id for worker in picture.workers] == ["w0", "w1"]
    assert [pool.path for pool in picture.pools] == ["p0", "p1"]


async def test_watchers_are_sent_elsewhere_when_it_stops_or_etcd_does_not_answer(
    alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unseen(*args: object) -> watch_cluster.Picture:
        raise Unavailable("etcd does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(watch_cluster, "look", unseen)
        with pytest.raises(Unavailable, match="etcd does not answer"):
            await anext(alone.cluster_watch.pictures())
    async with aclosing(alone.cluster_watch.pictures()) as pictures:
        await anext(pictures)
        alone.cluster_watch.close()
        with pytest.raises(Unavailable, match="stopping"):
            await anext(pictures)
    with pytest.raises(Unavailable, match="stopping"):
        await anext(alone.cluster_watch.pictures())
