"""Registration on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from tests.worker.conftest import until

from tenure.model.clock import SystemClock
from tenure.model.errors import Unauthenticated
from tenure.store.etcd.keyspace import Keyspace, WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Delete, Etcd, Grant, KeyValue, Txn, TxnResult
from tenure.store.etcd.sessions import Sessions
from tenure.worker import registration as module
from tenure.worker.registration import Registration

VALUE = WorkerValue(("default",), ("k",), 1, {})


@asynccontextmanager
async def _registered(etcd: Etcd, keys: Keyspace) -> AsyncIterator[Registration]:
    """Register; at the end the task is gone and the session left to itself, as by SIGKILL."""
    registration = Registration(
        Sessions(etcd, keys), SystemClock(), LeaseKeeper(etcd, SystemClock()), "w1", VALUE, 60.0
    )
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


async def test_a_session_that_is_lost_between_two_requests_leaves_no_key_without_a_lease(
    etcd: Etcd, keys: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a key would never expire: leaders would offer to a worker that is long gone."""
    keeper = LeaseKeeper(etcd, SystemClock())
    registration = Registration(Sessions(etcd, keys), SystemClock(), keeper, "w1", VALUE, 2.0)
    grant, txn, granted = etcd.grant, etcd.txn, list[int]()

    async def noting(ttl_s: float) -> Grant:
        one = await grant(ttl_s)
        granted.append(one.lease)
        return one

    async def losing(request: Txn) -> TxnResult:
        answer = await txn(request)
        if len(granted) == 1 and isinstance(request.then[0], Delete):
            await etcd.revoke(granted[0])

            async def told() -> bool:
                return keeper.trust(granted[0]) is None

            await until(told)
        return answer

    monkeypatch.setattr(etcd, "grant", noting)
    monkeypatch.setattr(etcd, "txn", losing)
    tasks = [asyncio.ensure_future(body) for body in (keeper.run(), registration.run())]
    await registration.registered.wait()
    assert (await _key(etcd, keys)).lease == granted[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await registration.close()


async def test_a_refusal_is_told_once_with_the_next_step(
    etcd: Etcd, keys: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker with a token that has expired fills its log."""
    asked = 0

    async def refusing(ttl_s: float) -> Grant:
        nonlocal asked
        asked += 1
        raise Unauthenticated("the credentials are not valid", hint="set TENURE_TOKEN")

    monkeypatch.setattr(etcd, "grant", refusing)
    monkeypatch.setattr(module, "REFUSED_PAUSE_S", 0.01)
    registration = Registration(
        Sessions(etcd, keys), SystemClock(), LeaseKeeper(etcd, SystemClock()), "w1", VALUE, 60.0
    )

    async def asked_often() -> bool:
        return asked >= 5

    with capture_logs() as logs:
        task = asyncio.ensure_future(registration.run())
        await until(asked_often)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    [told] = [line for line in logs if line["event"] == "registration_failed"]
    assert told["next_step"] == "set TENURE_TOKEN; it is tried again until then"
    assert registration.problem() == "not registered: the credentials are not valid"
