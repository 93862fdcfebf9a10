"""Looks at the stores: what readiness asks, and what the gauges tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.coordinator.conftest import MakeParts, Parts, running, until
from tests.fixtures.network import ProxyFactory

from tenure.cli.embedded.etcd import EtcdCluster
from tenure.coordinator.looks import Looks
from tenure.coordinator.metrics import REGISTRY
from tenure.store.etcd.connect import connect


def told(check: str) -> float | None:
    return REGISTRY.get_sample_value("tenure_coordinator_ready", {"check": check})


async def test_a_member_without_a_quorum_is_no_etcd(parts: Parts, etcd_cluster: EtcdCluster) -> None:
    """It still tells its status."""
    etcd = connect(etcd_cluster.endpoints[:1])
    looks = Looks(parts.db, etcd, parts.keys, parts.clock)
    try:
        assert (await looks.etcd_problem(), told("etcd")) == (None, 1.0)
        for member in etcd_cluster.members[1:]:
            await asyncio.to_thread(member.stop)

        async def has_a_problem() -> bool:
            return await looks.etcd_problem() is not None

        await until(has_a_problem)
        assert told("etcd") == 0.0
        await etcd.status()
        assert (await looks.postgres_problem(), told("postgres")) == (None, 1.0)
    finally:
        await etcd.close()


async def test_postgres_is_looked_at_again_and_again(
    make_parts: MakeParts, database: str, proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenure.coordinator.looks.EVERY_S", 0.05)
    address = database.rpartition("@")[2].partition("/")[0]
    road = await proxy(int(address.rpartition(":")[2]), address.rpartition(":")[0])
    parts = await make_parts(database.replace(address, road.address))

    def is_told(postgres: float) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return (told("postgres"), told("etcd")) == (postgres, 1.0)

        return check

    async with running(Looks(parts.db, parts.etcd, parts.keys, parts.clock).run()):
        await until(is_told(1.0))
        await road.refuse()
        await until(is_told(0.0))
        await road.accept()
        await until(is_told(1.0))
