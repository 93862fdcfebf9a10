"""Announcing while etcd does not answer: reports are recorded by then, and their workers are not to wait for it."""

from __future__ import annotations

import asyncio
import uuid

from tests.coordinator.conftest import Parts
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory

from tenure.coordinator.announce import SILENCE_S, Announcer, Ended
from tenure.model.states import JobState
from tenure.store.etcd.connect import connect


async def test_an_etcd_that_does_not_answer_holds_up_no_report(
    alone: Parts, etcd_server: EtcdServer, proxy: ProxyFactory
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    far = connect([f"grpc://{link.address}"], timeout_s=600.0)
    announcer = Announcer(far, alone.keys, alone.clock, done_ttl_s=30.0)
    first, second, third = [uuid.uuid4() for _ in range(3)]
    try:
        assert await announcer.announce([Ended(str(first), JobState.COMPLETED, 1)]) == set()
        assert await alone.done(first) is not None
        link.blackhole()
        async with asyncio.timeout(60):
            assert await announcer.announce([Ended(str(second), JobState.COMPLETED, 1)]) == set()
        await announcer.announce([Ended(str(second), JobState.COMPLETED, 1)])  # it does not even try
        link.heal()
        await asyncio.sleep(SILENCE_S)
        async with asyncio.timeout(60):
            while await alone.done(third) is None:
                await announcer.announce([Ended(str(third), JobState.COMPLETED, 1)])
                await asyncio.sleep(0.1)
    finally:
        await far.close()
