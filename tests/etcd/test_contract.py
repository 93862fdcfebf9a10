"""What ``port.Etcd`` promises, call by call, on both transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tests.etcd.conftest import Connector
from tests.fixtures.etcd import EtcdServer

from tenure.cli.embedded import ports
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdSettings
from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded, ConfigurationError, Unavailable
from tenure.store.etcd.connect import connect
from tenure.store.etcd.port import (
    Compacted,
    Compare,
    Delete,
    DeleteResult,
    Etcd,
    Event,
    Events,
    Field,
    Get,
    GetResult,
    KeyValue,
    Put,
    PutResult,
    Refusal,
    Refused,
    TooLarge,
    Txn,
    TxnResult,
)

Servers = Callable[..., EmbeddedEtcd]


async def put(etcd: Etcd, key: str, value: bytes = b"v", lease: int = 0) -> int:
    return (await etcd.txn(Txn(then=(Put(key, value, lease),)))).revision


async def test_get_of_an_absent_key_is_none(etcd: Etcd, etcd_prefix: str) -> None:
    assert await etcd.get(etcd_prefix + "absent") is None


async def test_put_then_get_gives_value_revisions_and_lease(etcd: Etcd, etcd_prefix: str) -> None:
    grant = await etcd.grant(30)
    created = await put(etcd, etcd_prefix + "k", b"\x00\xff{}", grant.lease)
    assert await etcd.get(etcd_prefix + "k") == KeyValue(
        etcd_prefix + "k", b"\x00\xff{}", created, created, grant.lease
    )
    changed = await put(etcd, etcd_prefix + "k", b"")
    assert changed > created
    assert await etcd.get(etcd_prefix + "k") == KeyValue(etcd_prefix + "k", b"", created, changed, 0)


async def test_keys_may_be_any_text(etcd: Etcd, etcd_prefix: str) -> None:
    key = etcd_prefix + "ключ-☃ /x"
    await put(etcd, key)
    assert [item.key for item in (await etcd.list(etcd_prefix)).items] == [key]


@pytest.mark.parametrize("field", list(Field))
async def test_each_compare_sees_absence_and_presence(etcd: Etcd, etcd_prefix: str, field: Field) -> None:
    key = etcd_prefix + "k"
    assert (await etcd.txn(Txn((Compare(key, field, 0),)))).succeeded
    grant = await etcd.grant(30)
    await put(etcd, key, b"1", grant.lease)
    await put(etcd, key, b"2", grant.lease)
    item = await etcd.get(key)
    assert item is not None
    number = {
        Field.CREATE: item.create_revision,
        Field.MOD: item.mod_revision,
        Field.VERSION: 2,
        Field.LEASE: grant.lease,
    }[field]
    assert (await etcd.txn(Txn((Compare(key, field, number),)))).succeeded
    assert not (await etcd.txn(Txn((Compare(key, field, number + 1),)))).succeeded


async def test_transactions_nest_and_answer_in_their_shape(etcd: Etcd, etcd_prefix: str) -> None:
    a, b, c = (etcd_prefix + name for name in "abc")
    await put(etcd, c, b"old")
    answer = await etcd.txn(
        Txn(
            (Compare(a, Field.CREATE, 0),),
            (
                Put(a, b"1"),
                Txn((Compare(c, Field.CREATE, 0),), (Put(b + "/no", b""),), (Get(c), Txn(then=(Put(b, b"2"),)))),
                Get(etcd_prefix, prefix=True, keys_only=True),
                Delete(c),
            ),
            (Delete(etcd_prefix, prefix=True),),
        )
    )
    assert answer.succeeded and answer.revision > 0
    first, nested, listing, deleted = answer.results
    assert first == PutResult()
    assert isinstance(nested, TxnResult) and not nested.succeeded and nested.revision == 0
    read, deeper = nested.results
    assert isinstance(read, GetResult) and read.items[0].value == b"old"
    assert deeper == TxnResult(True, (PutResult(),))
    assert isinstance(listing, GetResult) and [i.key for i in listing.items] == [a, b, c]
    assert all(item.value == b"" for item in listing.items)
    assert deleted == DeleteResult(1)
    assert [item.key for item in (await etcd.list(etcd_prefix)).items] == [a, b]


async def test_the_other_branch_is_taken_when_a_compare_fails(etcd: Etcd, etcd_prefix: str) -> None:
    for name in "abc":
        await put(etcd, etcd_prefix + name)
    answer = await etcd.txn(
        Txn((Compare(etcd_prefix + "a", Field.CREATE, 0),), (), (Delete(etcd_prefix, prefix=True),))
    )
    assert not answer.succeeded
    assert list(answer.results) == [DeleteResult(3)]


async def test_an_empty_transaction_succeeds(etcd: Etcd) -> None:
    assert (await etcd.txn(Txn())).succeeded
    assert list((await etcd.txn(Txn(then=(Txn(),)))).results) == [TxnResult(True, ())]


async def test_a_key_named_twice_refuses_the_whole(etcd: Etcd, etcd_prefix: str) -> None:
    key = etcd_prefix + "k"
    txn = Txn(then=(Put(etcd_prefix + "other", b""), Txn(then=(Put(key, b"1"),)), Txn(then=(Put(key, b"2"),))))
    with pytest.raises(Refused) as refused:
        await etcd.txn(txn)
    assert refused.value.reason is Refusal.DUPLICATE_KEY
    assert (await etcd.list(etcd_prefix)).items == ()


async def test_a_dead_lease_refuses_the_whole(etcd: Etcd, etcd_prefix: str) -> None:
    with pytest.raises(Refused) as refused:
        await etcd.txn(Txn(then=(Put(etcd_prefix + "a", b""), Put(etcd_prefix + "b", b"", 4711))))
    assert refused.value.reason is Refusal.LEASE_GONE
    assert (await etcd.list(etcd_prefix)).items == ()


async def test_too_many_operations_or_bytes_are_too_large(etcd: Etcd, etcd_prefix: str) -> None:
    with pytest.raises(TooLarge):
        await etcd.txn(Txn(then=tuple(Put(f"{etcd_prefix}{n}", b"") for n in range(129))))
    with pytest.raises(TooLarge):
        await etcd.txn(Txn(then=(Put(etcd_prefix + "k", bytes(1_700_000)),)))
    assert (await etcd.list(etcd_prefix)).items == ()


async def test_list_keeps_to_whole_prefixes(etcd: Etcd, etcd_prefix: str) -> None:
    for name in ("a", "a/", "a/1", "a/\x7f", "a0", "b"):
        await put(etcd, etcd_prefix + name)
    listing = await etcd.list(etcd_prefix + "a/")
    assert [item.key.removeprefix(etcd_prefix) for item in listing.items] == ["a/", "a/1", "a/\x7f"]
    assert [i.key for i in (await etcd.list(etcd_prefix + "z")).items] == []


async def test_the_empty_prefix_is_everything(etcd: Etcd, etcd_prefix: str) -> None:
    await put(etcd, etcd_prefix + "k")
    assert etcd_prefix + "k" in {item.key for item in (await etcd.list("", keys_only=True)).items}


async def test_a_long_list_is_complete_and_at_one_revision(etcd: Etcd, etcd_prefix: str) -> None:
    count = 2345
    for start in range(0, count, 120):
        end = min(start + 120, count)
        await etcd.txn(Txn(then=tuple(Put(f"{etcd_prefix}{n:05d}", b"x" * 50) for n in range(start, end))))
    listing = await etcd.list(etcd_prefix, keys_only=True)
    assert [item.key for item in listing.items] == [f"{etcd_prefix}{n:05d}" for n in range(count)]
    await etcd.txn(Txn(then=(Delete(etcd_prefix, prefix=True),)))
    old = await etcd.list(etcd_prefix, revision=listing.revision)
    assert old.revision == listing.revision and len(old.items) == count
    assert old.items[0].value == b"x" * 50


async def test_grants_are_whole_seconds_of_at_least_the_minimum(etcd: Etcd, clock: SystemClock) -> None:
    before = clock.monotonic()
    short, odd = await etcd.grant(1), await etcd.grant(7.2)
    assert short.ttl_s == 2.0  # etcd's minimum: 1.5 elections
    assert odd.ttl_s == 8.0
    assert before <= short.sent_at <= odd.sent_at <= clock.monotonic()
    assert short.lease != odd.lease


async def test_revoke_takes_the_keys_along_and_tells_if_it_was_gone(etcd: Etcd, etcd_prefix: str) -> None:
    grant = await etcd.grant(30)
    await put(etcd, etcd_prefix + "k", b"", grant.lease)
    assert await etcd.revoke(grant.lease)
    assert await etcd.get(etcd_prefix + "k") is None
    assert not await etcd.revoke(grant.lease)


async def test_a_leases_time_to_live_is_told_and_not_renewed(etcd: Etcd) -> None:
    grant = await etcd.grant(30)
    first = await etcd.time_to_live(grant.lease)
    assert first is not None and (first.granted_s, 20 <= first.remaining_s <= 30) == (30.0, True)
    await asyncio.sleep(1.1)
    second = await etcd.time_to_live(grant.lease)
    assert second is not None and second.remaining_s < first.remaining_s
    await etcd.revoke(grant.lease)
    assert await etcd.time_to_live(grant.lease) is None
    assert await etcd.time_to_live(4711) is None


async def test_renew_answers_for_each_lease_and_zero_for_the_dead(etcd: Etcd, clock: SystemClock) -> None:
    grants = [await etcd.grant(ttl) for ttl in (5, 30)]
    before = clock.monotonic()
    answers = {r.lease: r for r in await etcd.renew([*(g.lease for g in grants), 4711], timeout_s=5)}
    after = clock.monotonic()
    assert {lease: r.ttl_s for lease, r in answers.items()} == {grants[0].lease: 5.0, grants[1].lease: 30.0, 4711: 0.0}
    assert all(before <= r.sent_at <= after for r in answers.values())


async def test_renew_of_many_leases_in_one_call(etcd: Etcd) -> None:
    grants = await asyncio.gather(*(etcd.grant(60, timeout_s=20) for _ in range(600)))
    answers = await etcd.renew([grant.lease for grant in grants], timeout_s=20)
    assert {a.lease for a in answers} == {g.lease for g in grants}
    assert all(a.ttl_s == 60 for a in answers)
    assert await etcd.renew([], timeout_s=1) == []


async def test_renew_may_run_concurrently_for_distinct_leases(etcd: Etcd) -> None:
    grants = [await etcd.grant(30) for _ in range(8)]
    answers = await asyncio.gather(*(etcd.renew([grant.lease], timeout_s=5) for grant in grants))
    assert [a[0].lease for a in answers] == [g.lease for g in grants]


async def test_a_lease_expires_with_its_keys_unless_renewed(etcd: Etcd, etcd_prefix: str, clock: SystemClock) -> None:
    dies, lives = await etcd.grant(2), await etcd.grant(2)
    await put(etcd, etcd_prefix + "dies", b"", dies.lease)
    revision = await put(etcd, etcd_prefix + "lives", b"", lives.lease)
    watch = etcd.watch(etcd_prefix, start_revision=revision + 1, previous=True)
    async with asyncio.timeout(8):
        waiting = asyncio.ensure_future(_first_event(watch))
        while not waiting.done():
            await etcd.renew([lives.lease], timeout_s=1)
            await asyncio.wait((waiting,), timeout=0.3)
        event = waiting.result()
    assert event.item.key == etcd_prefix + "dies"
    assert event.previous is not None and event.previous.lease == dies.lease
    assert 1.9 <= clock.monotonic() - dies.sent_at < 8
    assert {r.lease: r.ttl_s for r in await etcd.renew([dies.lease, lives.lease], timeout_s=5)} == {
        dies.lease: 0.0,
        lives.lease: 2.0,
    }


async def _first_event(watch: AsyncIterator[Events]) -> Event:
    while True:
        change = await anext(watch)
        if change.events:
            return change.events[0]


async def test_reading_forgotten_history_says_compacted(connection: Connector, own_etcd: Servers) -> None:
    server = own_etcd()
    etcd = await connection(server.endpoints[0].removeprefix("grpc://"))
    for _ in range(5):
        revision = await put(etcd, "/k")
    await etcd.compact(revision)
    await etcd.compact(revision)  # again: done already
    with pytest.raises(Compacted):
        await etcd.list("/k", revision=1)
    assert (await etcd.list("/k", revision=revision)).items


async def test_status_tells_the_cluster(etcd: Etcd, etcd_server: EtcdServer, etcd_prefix: str) -> None:
    revision = await put(etcd, etcd_prefix + "k")
    status = await etcd.status()
    assert status.cluster_id and status.member_id and status.leader_id == status.member_id
    assert status.revision >= revision and status.version == etcd_server.version
    assert status.db_size_bytes > 0 and status.alarms == ()


async def test_no_space_is_a_bound(connection: Connector, own_etcd: Servers) -> None:
    server = own_etcd(settings=EtcdSettings(fsync=False, quota_bytes=1 << 20))
    etcd = await connection(server.endpoints[0].removeprefix("grpc://"))
    with pytest.raises(BoundExceeded) as bound:
        for n in range(200):
            await put(etcd, f"/k{n}", bytes(100_000))
    assert not isinstance(bound.value, TooLarge)
    assert (await etcd.status()).alarms == ("NOSPACE",)
    assert await etcd.get("/k0") is not None  # reading goes on


async def test_nobody_there_is_unavailable_in_time(connection: Connector, clock: SystemClock) -> None:
    etcd = await connection(f"127.0.0.1:{ports.choose()}")
    start = clock.monotonic()
    with pytest.raises(Unavailable):
        await etcd.get("/k", timeout_s=0.5)
    with pytest.raises(Unavailable):
        await etcd.txn(Txn(then=(Put("/k", b""),)), timeout_s=0.5)
    assert await etcd.renew([1], timeout_s=0.5) == []
    assert clock.monotonic() - start < 5


@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"5", b"[1]", b'{"result":{}}', b'{"code":"down"}'])
async def test_the_page_of_a_proxy_is_no_answer(page: bytes, clock: SystemClock) -> None:
    """Answered with 200, for the gateway's sake: whoever waits goes on trying."""
    asked: list[bytes] = []
    again = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) > 2:
            again.set()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        etcd = connect([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], clock=clock, timeout_s=1.0)
        with pytest.raises(Unavailable):
            await etcd.grant(5)
        assert await etcd.renew([4711], timeout_s=1) == []
        asked.clear()
        again.clear()
        watch = etcd.watch("k")
        watching = asyncio.ensure_future(anext(watch))
        async with asyncio.timeout(30):
            await again.wait()
        assert not watching.done()
        watching.cancel()
        await asyncio.wait((watching,))
        await etcd.close()


async def test_a_closed_connection_is_unavailable(etcd: Etcd) -> None:
    await etcd.status()
    await etcd.close()
    with pytest.raises(Unavailable):
        await etcd.get("/k")


@pytest.mark.parametrize(
    "endpoints",
    [[], ["ftp://x:1"], ["grpc://"], ["grpc://a:1", "http://b:1"], ["grpc://a:port"], ["http://user:pass@a:1"]],
)
def test_bad_endpoints_are_refused(endpoints: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        connect(endpoints)
