"""Terms: who leads, what a new leader finds and mends, and the chores of one; on real stores."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts, leader_of, running, until
from tests.fixtures.network import ProxyFactory

from tenure.coordinator.upkeep import Upkeep
from tenure.model.errors import Unavailable
from tenure.model.states import JobState
from tenure.store.etcd.keyspace import LeaderValue, parse_inbox
from tenure.store.etcd.port import Delete, Put, Txn


async def test_jobs_are_activated_when_their_time_comes(alone: Parts) -> None:
    soon, later = await alone.submit(delay_s=0.05), await alone.submit(delay_s=3_600.0)
    alone.hinted.clear()
    upkeep = Upkeep(alone.db, alone.clock, alone.dependants, alone.hints)
    async with running(upkeep.activate_forever()):

        async def due() -> bool:
            rows = await alone.sql("SELECT due FROM tenure.job WHERE id = %s", soon)
            return bool(rows[0].due)

        await until(due)
        await until(_truth(alone.hinted))
    rows = await alone.sql("SELECT due FROM tenure.job WHERE id = %s", later)
    assert rows[0].due is False


def _truth(things: list[Any]) -> Any:
    async def check() -> bool:
        return bool(things)

    return check


async def test_partitions_are_made_ahead_once(alone: Parts) -> None:
    [[made]] = await alone.db.fetch("make_partitions", {"weeks": 6})
    assert made == 4  # four weeks came with the schema: two more, of two tables
    assert (await alone.db.fetch("make_partitions", {"weeks": 6}))[0][0] == 0
    await alone.finish(*_id_and_fence(await alone.execute(await alone.submit())))
    [row] = await alone.sql("SELECT tableoid::regclass::text AS part FROM tenure.history")
    assert row.part != "tenure.history_default"


def _id_and_fence(started: Any) -> tuple[uuid.UUID, int]:
    return started.id, started.fence


async def _leading(parts: Parts) -> str | None:
    key = await parts.etcd.get(parts.keys.leader)
    return LeaderValue.from_json(key.value).coordinator if key else None


async def test_one_of_two_leads_and_the_other_takes_over(make_parts: MakeParts, database: str) -> None:
    one, two = await make_parts(database), await make_parts(database)
    await one.register("w1")
    first, second = asyncio.create_task(leader_of(one, "c1").run()), asyncio.create_task(leader_of(two, "c2").run())
    try:
        name = await until(lambda: _leading(one))
        job = await one.submit()
        inbox = one.keys.inbox("w1")

        async def offers() -> int:
            return len((await one.etcd.list(inbox)).items)

        await until(offers)
        leading, waiting = (first, second) if name == "c1" else (second, first)
        leading.cancel()

        async def other() -> bool:
            return await _leading(one) not in (None, name)

        await until(other)
        [row] = await one.db.fetch("cluster")
        assert not waiting.done()
        assert row.epoch == 1

        async def recorded() -> bool:
            return bool((await one.db.fetch("cluster"))[0].leader == await _leading(one))

        await until(recorded)
        assert await one.state(job) is JobState.READY
    finally:
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    assert await _leading(one) is None


async def test_a_leader_that_cannot_reach_postgres_makes_way(
    make_parts: MakeParts, database: str, proxy: ProxyFactory
) -> None:
    """It holds its lease, but can neither dispatch nor reap: another leads, and jobs are offered again."""
    address = database.rpartition("@")[2].partition("/")[0]
    road = await proxy(int(address.rpartition(":")[2]), address.rpartition(":")[0])
    one, two = await make_parts(database.replace(address, road.address)), await make_parts(database)
    await two.register("w1")
    tasks = [asyncio.create_task(leader_of(one, "c1").run())]
    try:

        async def led_by(name: str) -> bool:
            [row] = await two.db.fetch("cluster")
            return bool(row.leader == name)

        await until(lambda: led_by("c1"))
        tasks.append(asyncio.create_task(leader_of(two, "c2").run()))
        await road.refuse()
        await until(lambda: led_by("c2"))
        job = await two.submit()
        await _offered(two, "w1", job)
        await road.accept()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_deleting_the_leader_key_starts_another_term(alone: Parts) -> None:
    leader = leader_of(alone, "c1")
    async with running(leader.run()):
        await until(lambda: _leading(alone))
        before = await alone.etcd.get(alone.keys.leader)
        assert before is not None
        await alone.etcd.txn(Txn((), (Delete(alone.keys.leader),)))

        async def later() -> bool:
            now = await alone.etcd.get(alone.keys.leader)
            return now is not None and now.create_revision > before.create_revision

        await until(later)


async def test_keys_that_nobody_can_read_do_not_end_a_term(alone: Parts) -> None:
    job = await alone.submit()
    async with running(leader_of(alone, "c1").run()):
        await until(lambda: _leading(alone))
        before = await alone.etcd.get(alone.keys.leader)
        junk = [
            Put(alone.keys.worker("junk"), b"junk"),
            Put(alone.keys.worker("odd"), b'{"pools": 5, "kinds": [], "capacity": 1}'),
            Put(alone.keys.worker("vast"), b'{"pools": ["p"], "kinds": [], "capacity": 1e999}'),
            Put(alone.keys.slot("db/0"), b'{"job": {}}'),
            Put(alone.keys.claim("junk"), b"junk"),
            Put(alone.keys.message("junk", 1), b"[]"),
            Put(alone.keys.inboxes + "x", b""),
        ]
        await alone.etcd.txn(Txn((), tuple(junk)))
        await alone.register("w1")

        async def offered() -> int:
            return len((await alone.etcd.list(alone.keys.inbox("w1"))).items)

        await until(offered)
        await alone.etcd.txn(Txn((), tuple(Delete(put.key) for put in junk)))
        other = await alone.submit()
        started = await alone.execute(other, worker="dead")
        await alone.lose_claim(started.id)

        async def restarting() -> bool:
            return await alone.state(other) is JobState.RESTARTING

        await until(restarting)
        after = await alone.etcd.get(alone.keys.leader)
    assert before is not None and after is not None
    assert after.create_revision == before.create_revision
    assert await alone.state(job) is JobState.READY


async def test_offers_of_an_earlier_term_stand_until_they_are_overdue(alone: Parts) -> None:
    job = await alone.submit()
    await alone.register("w1")
    first = leader_of(alone, "c1", offer_timeout_s=60.0)

    async def offers() -> list[str]:
        return [item.key for item in (await alone.etcd.list(alone.keys.inbox("w1"))).items]

    async with running(first.run()):
        [old] = await until(offers)
    assert await offers() == [old]
    await alone.register("w2")
    async with running(leader_of(alone, "c2", offer_timeout_s=0.2).run()):

        async def withdrawn() -> bool:
            return old not in await offers()

        await until(withdrawn)

        async def to_the_other() -> list[Any]:
            listing = await alone.etcd.list(alone.keys.inbox("w2"))
            return [message for item in listing.items if (message := parse_inbox(item.value))]

        [message] = await until(to_the_other)
    assert [one.job for one in message.offers] == [str(job)]


async def test_a_pool_whose_jobs_could_not_be_moved_is_tried_again(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered, but the move failed: without another try the jobs stay in a lane that nobody serves."""
    job = await alone.submit(route="p/q")
    refit = alone.lanes.refit
    failures: list[Any] = []

    async def fail_once(pools: Any) -> int:
        if not failures:
            failures.append(pools)
            raise Unavailable("Postgres went away")
        return await refit(pools)

    monkeypatch.setattr(alone.lanes, "refit", fail_once)
    await _served(alone, "p/q", job)
    assert failures


async def test_a_pool_registered_by_a_leader_that_died_is_fitted_by_the_next(alone: Parts) -> None:
    job = await alone.submit(route="p/q")
    await alone.lanes.register_pools(["p/q"])  # and no refit
    await _served(alone, "p/q", job)


async def test_a_second_pool_need_not_wait_for_the_first_to_settle(alone: Parts) -> None:
    one, two = await alone.submit(route="p/q"), await alone.submit(route="r/s")
    async with running(leader_of(alone, "c1").run()):
        await alone.register("w1", pools=("p/q",))
        await _offered(alone, "w1", one)
        before = alone.clock.monotonic()
        await alone.register("w2", pools=("r/s",))
        await _offered(alone, "w2", two)
    assert alone.clock.monotonic() - before < 8.0


async def _served(parts: Parts, pool: str, job: uuid.UUID) -> None:
    await parts.register("w1", pools=(pool,))
    async with running(leader_of(parts, "c1").run()):
        await _offered(parts, "w1", job)


async def _offered(parts: Parts, worker: str, job: uuid.UUID) -> None:
    async def check() -> bool:
        listing = await parts.etcd.list(parts.keys.inbox(worker))
        return any(str(job).encode() in item.value for item in listing.items)

    await until(check)
