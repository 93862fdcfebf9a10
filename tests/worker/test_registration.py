"""Registration on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.worker.conftest import until

from tenure.model.clock import SystemClock
from tenure.store.etcd.keyspace import Keyspace, WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Etcd, KeyValue
from tenure.worker.registration import Registration

VALUE = WorkerValue(("default",), ("k",), 1, {})


@asynccontextmanager
async def _registered(etcd: Etcd, keys: Keyspace) -> AsyncIterator[Registration]:
    """Register; at the end the task is gone and the session left to itself, as by SIGKILL."""
    registration = Registration(etcd, keys, SystemClock(), LeaseKeeper(etcd, SystemClock()), "w1", VALUE, 60.0)
    task = asyncio.ensure_future(registration.run())
    await registration.registered.wait()
    yield registration
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _key(etcd: Etcd, keys: Keyspace) -> KeyValue:
    item = await etcd.get(keys.worker("w1"))
    assert item is not None
    return item


async def test_a_new_session_is_a_new_key_although_the_old_one_stands(etcd: Etcd, keys: Keyspace) -> None:
    """By the create revision the reaper knows which claims are older than the session: those of a dead process are."""
    async with _registered(etcd, keys):
        before = await _key(etcd, keys)
    async with _registered(etcd, keys) as again:
        after = await _key(etcd, keys)
        assert after.lease != before.lease
        assert after.create_revision > before.create_revision
        await again.close()


async def test_a_change_within_a_session_keeps_the_key(etcd: Etcd, keys: Keyspace) -> None:
    async with _registered(etcd, keys) as registration:
        before = await _key(etcd, keys)
        registration.drain()

        async def draining() -> bool:
            return WorkerValue.from_json((await _key(etcd, keys)).value).draining

        await until(draining)
        after = await _key(etcd, keys)
        assert (after.create_revision, after.lease) == (before.create_revision, before.lease)
        await registration.close()
