"""Claims: all or nothing per job, alone in a batch, released by identity."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from tests.etcd.conftest import Connector
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction

from tenure.model.errors import BoundExceeded
from tenure.store.etcd.claims import (
    ClaimOutcome,
    ClaimRequest,
    Release,
    claim_batch,
    release_batch,
    verify_batch,
)
from tenure.store.etcd.keyspace import ClaimValue, HoldValue, Keyspace, slot_name
from tenure.store.etcd.port import Etcd, Get, Put, Txn, TxnResult

WON, HELD, GONE = ClaimOutcome.WON, ClaimOutcome.HELD, ClaimOutcome.LEASE_GONE


def job() -> str:
    return str(uuid.uuid4())


def _nested(txn: Txn) -> bool:
    return any(isinstance(operation, Txn) for operation in txn.then)


@pytest.fixture
def sent(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> list[Txn]:
    """Give the transactions that are sent from now on."""
    txn, sent = etcd.txn, []

    async def note(transaction: Txn, **options: Any) -> TxnResult:
        sent.append(transaction)
        return await txn(transaction, **options)

    monkeypatch.setattr(etcd, "txn", note)
    return sent


async def request(etcd: Etcd, job_id: str, *slots: str, lease: int = 0) -> ClaimRequest:
    lease = lease or (await etcd.grant(30)).lease
    value = ClaimValue("worker", "default", "noop", "default", lease, "2026-01-01T00:00:00.000+00:00")
    return ClaimRequest(job_id, lease, value.to_json(), slots)


async def test_a_claim_is_won_once(etcd: Etcd, keys: Keyspace) -> None:
    one = job()
    first, second = await request(etcd, one, "db/0", "db/1"), await request(etcd, one)
    (won,) = await claim_batch(etcd, keys, [first])
    assert won.outcome is WON
    claim = await etcd.get(keys.claim(one))
    assert claim is not None and claim.create_revision == won.create_revision and claim.lease == first.lease
    assert ClaimValue.from_json(claim.value).lease == first.lease
    for slot in first.slots:
        item = await etcd.get(keys.slot(slot))
        assert item is not None and item.lease == first.lease and item.create_revision == won.create_revision
    assert [r.outcome for r in await claim_batch(etcd, keys, [second])] == [HELD]


async def test_jobs_in_a_batch_succeed_or_fail_alone(etcd: Etcd, keys: Keyspace) -> None:
    jobs = [job() for _ in range(5)]
    await claim_batch(etcd, keys, [await request(etcd, jobs[0], slot_name("db", 0))])
    await etcd.txn(Txn(then=(Put(keys.hold(jobs[1]), HoldValue("stop").to_json()),)))
    requests = [
        await request(etcd, jobs[0]),  # held by a worker
        await request(etcd, jobs[1]),  # held by an operator
        await request(etcd, jobs[2], "db/0"),  # its slot is taken
        await request(etcd, jobs[3], "db/1"),
        await request(etcd, jobs[4]),
    ]
    results = await claim_batch(etcd, keys, requests)
    assert [r.outcome for r in results] == [HELD, HELD, HELD, WON, WON]
    assert [r.job for r in results] == jobs
    assert await etcd.get(keys.claim(jobs[2])) is None


async def test_the_offer_is_deleted_with_the_claims(etcd: Etcd, keys: Keyspace) -> None:
    inbox = keys.message("worker", 1)
    await etcd.txn(Txn(then=(Put(inbox, b"{}"),)))
    (won,) = await claim_batch(etcd, keys, [await request(etcd, job())], inbox_key=inbox)
    assert won.outcome is WON and await etcd.get(inbox) is None
    await etcd.txn(Txn(then=(Put(inbox, b"{}"),)))
    assert await claim_batch(etcd, keys, [], inbox_key=inbox) == []
    assert await etcd.get(inbox) is None


async def test_a_dead_lease_fails_alone_and_the_offer_is_answered_once(etcd: Etcd, keys: Keyspace) -> None:
    inbox = keys.message("worker", 7)
    await etcd.txn(Txn(then=(Put(inbox, b"{}"),)))
    requests = [await request(etcd, job()) for _ in range(7)]
    requests[2] = await request(etcd, job(), lease=4711)
    requests[6] = await request(etcd, job(), lease=4712)
    results = await claim_batch(etcd, keys, requests, inbox_key=inbox)
    assert [r.outcome for r in results] == [WON, WON, GONE, WON, WON, WON, GONE]
    assert await etcd.get(inbox) is None


async def test_a_slot_named_twice_goes_to_one(etcd: Etcd, keys: Keyspace) -> None:
    requests = [await request(etcd, job(), "db/0") for _ in range(3)]
    outcomes = [r.outcome for r in await claim_batch(etcd, keys, requests)]
    assert outcomes == [WON, HELD, HELD]


async def test_large_batches_are_split(etcd: Etcd, keys: Keyspace) -> None:
    grants = await asyncio.gather(*(etcd.grant(30, timeout_s=20) for _ in range(250)))
    requests = [await request(etcd, job(), f"l/{n}", f"m/{n}", lease=g.lease) for n, g in enumerate(grants)]
    results = await claim_batch(etcd, keys, requests)
    assert all(r.outcome is WON for r in results)
    assert [r.job for r in results] == [r.job for r in requests]
    held = [(r.job, r.create_revision, q.lease) for r, q in zip(results, requests, strict=True)]
    assert await verify_batch(etcd, keys, held) == {r.job for r in results}
    (name, revision, lease), (other, again, another), *rest = held
    wrong = [(name, revision + 1, lease), (other, again, another + 1), (job(), 0, 0), (job(), 5, 5), *rest]
    assert await verify_batch(etcd, keys, wrong) == {name for name, _, _ in rest}
    releases = [Release(r.job, r.create_revision, q.lease, q.slots) for r, q in zip(results, requests, strict=True)]
    assert await release_batch(etcd, keys, releases) == [True] * 250
    assert list((await etcd.list(keys.prefix)).items) == []


async def test_a_batch_is_one_flat_transaction_and_goes_apart_only_if_a_demand_is_not_met(
    etcd: Etcd, keys: Keyspace, sent: list[Txn]
) -> None:
    requests = [await request(etcd, job(), f"db/{n}") for n in range(20)]
    won = await claim_batch(etcd, keys, requests, inbox_key=keys.message("worker", 1))
    held = [(r.job, r.create_revision, q.lease) for r, q in zip(won, requests, strict=True)]
    assert len(await verify_batch(etcd, keys, held)) == 20
    releases = [
        Release(r.job, r.create_revision, q.lease, q.slots, Put(keys.announcement(r.job), b"{}"))
        for r, q in zip(won, requests, strict=True)
    ]
    assert await release_batch(etcd, keys, releases) == [True] * 20
    assert len(sent) == 3 and not any(map(_nested, sent))
    again = await claim_batch(etcd, keys, requests)
    assert [r.outcome for r in again] == [WON] * 20
    sent.clear()
    assert [r.outcome for r in await claim_batch(etcd, keys, requests)] == [HELD] * 20
    assert [_nested(txn) for txn in sent] == [False, True]
    sent.clear()
    assert await release_batch(etcd, keys, releases) == [False] * 20
    assert [_nested(txn) for txn in sent] == [False, True]


async def test_claims_are_verified_by_a_transaction_that_etcd_answers_linearizably(
    etcd: Etcd, keys: Keyspace, sent: list[Txn]
) -> None:
    """One without any read is answered by a member from what it happens to have."""
    mine = await request(etcd, job())
    [won] = await claim_batch(etcd, keys, [mine])
    sent.clear()
    assert await verify_batch(etcd, keys, [(mine.job, won.create_revision, mine.lease)]) == {mine.job}
    [txn] = sent
    assert any(isinstance(operation, Get) for operation in (*txn.then, *txn.otherwise))


async def test_a_job_without_a_claim_is_announced_and_nothing_of_it_deleted(etcd: Etcd, keys: Keyspace) -> None:
    """Canceled before it was started: somebody may have claimed it meanwhile."""
    mine, other = await request(etcd, job()), await request(etcd, job())
    [won, _] = await claim_batch(etcd, keys, [mine, other])
    releases = [
        Release(other.job, 0, 0, (), Put(keys.announcement(other.job), b"{}")),
        Release(mine.job, won.create_revision, mine.lease, (), Put(keys.announcement(mine.job), b"{}")),
        Release(job(), 0, 0),
    ]
    assert await release_batch(etcd, keys, releases) == [False, True, False]
    assert [item.key for item in (await etcd.list(keys.claims)).items] == [keys.claim(other.job)]
    assert len((await etcd.list(keys.done)).items) == 2
    # Together with one that is not there, each apart.
    assert await release_batch(etcd, keys, releases) == [False, False, False]
    assert [item.key for item in (await etcd.list(keys.claims)).items] == [keys.claim(other.job)]


async def test_a_race_has_one_winner(etcd: Etcd, keys: Keyspace) -> None:
    jobs = [job() for _ in range(20)]
    batches = [[await request(etcd, name) for name in jobs] for _ in range(4)]
    answers = await asyncio.gather(*(claim_batch(etcd, keys, batch) for batch in batches))
    for index in range(len(jobs)):
        assert sorted(a[index].outcome.value for a in answers) == ["held", "held", "held", "won"]


async def test_release_is_by_identity(etcd: Etcd, keys: Keyspace) -> None:
    mine, theirs = job(), job()
    a, b = await request(etcd, mine, "db/0"), await request(etcd, theirs, "db/1")
    won = await claim_batch(etcd, keys, [a, b])
    done = Put(keys.announcement(theirs), b"{}")
    releases = [
        Release(mine, won[0].create_revision, a.lease, a.slots),
        Release(theirs, won[1].create_revision - 1, b.lease, b.slots, done),
        Release(theirs, won[1].create_revision, a.lease, b.slots),
        Release(job(), 5, 5, (), None),
    ]
    assert await release_batch(etcd, keys, releases) == [True, False, False, False]
    left = {item.key for item in (await etcd.list(keys.prefix)).items}
    assert left == {keys.claim(theirs), keys.slot("db/1"), keys.announcement(theirs)}
    assert await release_batch(etcd, keys, releases[:1]) == [False]  # once only
    assert await release_batch(etcd, keys, []) == []


async def test_an_announcement_that_is_refused_does_not_stop_the_release(etcd: Etcd, keys: Keyspace) -> None:
    requests = [await request(etcd, job()) for _ in range(3)]
    won = await claim_batch(etcd, keys, requests)
    releases = [
        Release(r.job, r.create_revision, q.lease, (), Put(keys.announcement(r.job), b"{}", 4711 if n == 1 else 0))
        for n, (r, q) in enumerate(zip(won, requests, strict=True))
    ]
    assert await release_batch(etcd, keys, releases) == [True] * 3
    announced = [item.key for item in (await etcd.list(keys.done)).items]
    assert sorted(announced) == sorted(keys.announcement(won[n].job) for n in (0, 2))


@pytest.mark.parametrize("takes_deletes", [True, False])
async def test_an_etcd_that_takes_no_more_is_not_asked_for_each_release_alone(
    etcd: Etcd, keys: Keyspace, monkeypatch: pytest.MonkeyPatch, takes_deletes: bool
) -> None:
    """Too much is asked of it, or it is out of space, when it still deletes."""
    requests = [await request(etcd, job()) for _ in range(8)]
    won = await claim_batch(etcd, keys, requests)
    txn, sizes = etcd.txn, []

    async def refuse(transaction: Txn, **options: Any) -> TxnResult:
        sizes.append(len(transaction.then))
        if takes_deletes and not any(isinstance(operation, Put) for operation in transaction.then):
            return await txn(transaction, **options)
        raise BoundExceeded("etcdserver: as the test wishes")

    monkeypatch.setattr(etcd, "txn", refuse)
    releases = [
        Release(one.job, one.create_revision, asked.lease, (), Put(keys.announcement(one.job), b"{}"))
        for one, asked in zip(won, requests, strict=True)
    ]
    unannounced: list[str] = []
    assert await release_batch(etcd, keys, releases, on_unannounced=unannounced.append) == [takes_deletes] * 8
    assert unannounced == [one.job for one in won]
    assert sizes == [16, 8]


async def test_a_claim_whose_answer_is_lost_is_unknown_and_not_sent_again(
    connection: Connector, etcd: Etcd, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory
) -> None:
    """Another member would answer. But a first sending that arrives late must find its lease revoked, not in use."""
    links = [await proxy(etcd_server.port, etcd_server.host) for _ in range(2)]
    far = await connection(*(link.address for link in links))
    mine = await request(far, job(), "db/0")
    links[0].blackhole(Direction.TO_SERVER)
    [result] = await claim_batch(far, keys, [mine], timeout_s=1.0)
    assert result.outcome is ClaimOutcome.UNKNOWN
    assert await etcd.revoke(mine.lease)  # as whoever gets this answer does
    links[0].heal()
    await asyncio.sleep(0.5)
    assert list((await etcd.list(keys.prefix)).items) == []


async def test_a_release_whose_answer_is_lost_is_sent_again_and_told_as_none(
    connection: Connector, etcd: Etcd, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory
) -> None:
    links = [await proxy(etcd_server.port, etcd_server.host) for _ in range(2)]
    far = await connection(*(link.address for link in links))
    mine = await request(far, job(), "db/0")
    [won] = await claim_batch(far, keys, [mine])
    links[0].blackhole(Direction.TO_CLIENT)
    assert await release_batch(far, keys, [Release(mine.job, won.create_revision, mine.lease, mine.slots)]) == [False]
    assert list((await etcd.list(keys.prefix)).items) == []


@pytest.mark.parametrize("direction", list(Direction))
async def test_no_answer_is_unknown(
    connection: Connector, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory, direction: Direction
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    far = await connection(link.address)
    requests = [await request(far, job()) for _ in range(3)]
    link.blackhole(direction)
    results = await claim_batch(far, keys, requests, timeout_s=0.5)
    assert [r.outcome for r in results] == [ClaimOutcome.UNKNOWN] * 3
    assert await release_batch(far, keys, [Release(requests[0].job, 1, 1)], timeout_s=0.5) == [False]
