"""What a watch promises: every change once and in order, over cuts, silence and compaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import pytest
from tests.etcd.conftest import Connector
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction

from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded
from tenure.store.etcd.grpc_transport import GrpcMember
from tenure.store.etcd.member import CallFailed
from tenure.store.etcd.options import Address
from tenure.store.etcd.port import Compacted, Delete, Etcd, Event, EventKind, Events, Put, Txn
from tenure.store.etcd.view import View

Servers = Callable[..., EmbeddedEtcd]


async def put(etcd: Etcd, key: str, value: bytes = b"v") -> int:
    return (await etcd.txn(Txn(then=(Put(key, value),)))).revision


async def take(watch: AsyncIterator[Events], count: int, timeout_s: float = 20.0) -> list[Event]:
    """Return the next ``count`` events."""
    found: list[Event] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < count:
            found.extend((await anext(watch)).events)
    return found


async def test_the_first_item_says_that_the_watch_stands(etcd: Etcd, etcd_prefix: str) -> None:
    before = await put(etcd, etcd_prefix + "before")
    watch = etcd.watch(etcd_prefix)
    first = await anext(watch)
    assert first.events == () and first.revision >= before
    revision = await put(etcd, etcd_prefix + "k")
    (event,) = await take(watch, 1)
    assert event.kind is EventKind.PUT and event.item.key == etcd_prefix + "k"
    assert event.item.create_revision == event.item.mod_revision == revision and event.previous is None
    await watch.aclose()  # type: ignore[attr-defined]


async def test_previous_values_come_where_asked_for(etcd: Etcd, etcd_prefix: str) -> None:
    key = etcd_prefix + "k"
    revision = await put(etcd, key, b"1")
    await put(etcd, key, b"2")
    await etcd.txn(Txn(then=(Delete(key),)))
    created, changed, deleted = await take(etcd.watch(etcd_prefix, start_revision=revision, previous=True), 3)
    assert created.previous is None and created.item.value == b"1"
    assert changed.previous is not None and changed.previous.value == b"1"
    assert deleted.kind is EventKind.DELETE and deleted.previous is not None and deleted.previous.value == b"2"
    assert deleted.item.key == key and deleted.item.mod_revision == revision + 2


async def test_one_transaction_is_one_item(etcd: Etcd, etcd_prefix: str) -> None:
    watch = etcd.watch(etcd_prefix)
    await anext(watch)
    await etcd.txn(Txn(then=tuple(Put(f"{etcd_prefix}{n:03d}", b"x" * 100) for n in range(100))))
    change = await anext(watch)
    assert [e.item.key for e in change.events] == [f"{etcd_prefix}{n:03d}" for n in range(100)]
    assert change.revision == change.events[0].item.mod_revision


async def test_other_prefixes_are_not_seen(etcd: Etcd, etcd_prefix: str) -> None:
    watch = etcd.watch(etcd_prefix + "a/")
    await anext(watch)
    for name in ("a", "a0", "b", "a/1"):
        await put(etcd, etcd_prefix + name)
    (event,) = await take(watch, 1)
    assert event.item.key == etcd_prefix + "a/1"


async def test_it_resumes_over_cuts_without_gap_or_repeat(
    connection: Connector, etcd_server: EtcdServer, etcd_prefix: str, proxy: ProxyFactory
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    watching_one = await connection(link.address)
    writing = await connection(f"{etcd_server.host}:{etcd_server.port}")
    watch = watching_one.watch(etcd_prefix)
    await anext(watch)
    total = 60

    async def write() -> None:
        for n in range(total):
            await put(writing, f"{etcd_prefix}{n:03d}")
            if n % 10 == 5:
                accepted = link.accepted
                await link.cut()
            if n % 10 == 8:
                await link.wait_for_connections(accepted + 1)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        events = await take(watch, total, timeout_s=40)
    assert [e.item.key for e in events] == [f"{etcd_prefix}{n:03d}" for n in range(total)]
    assert link.accepted > 3


async def test_a_watch_from_now_misses_nothing_after_a_cut(
    connection: Connector, etcd_server: EtcdServer, etcd_prefix: str, proxy: ProxyFactory
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    watching_one = await connection(link.address)
    writing = await connection(f"{etcd_server.host}:{etcd_server.port}")
    watch = watching_one.watch(etcd_prefix)
    await anext(watch)
    await link.refuse()  # down before the first event
    revision = await put(writing, etcd_prefix + "k")
    await link.accept()
    (event,) = await take(watch, 1)
    assert event.item.mod_revision == revision


async def test_deletions_that_nobody_wants_are_not_sent(etcd: Etcd, etcd_prefix: str) -> None:
    watch = etcd.watch(etcd_prefix, deletions=False)
    await anext(watch)
    await put(etcd, etcd_prefix + "a")
    await etcd.txn(Txn(then=(Delete(etcd_prefix + "a"),)))
    last = await put(etcd, etcd_prefix + "b")
    first, second = await take(watch, 2)
    assert [first.kind, second.kind] == [EventKind.PUT] * 2 and second.item.mod_revision == last


async def test_a_stream_that_has_ended_is_a_failure_to_whoever_writes_to_it(
    etcd_server: EtcdServer, proxy: ProxyFactory
) -> None:
    """By a loop that was blocked the end is not read before the next request for progress is written."""
    link = await proxy(etcd_server.port, etcd_server.host)
    host, _, port = link.address.rpartition(":")
    member = GrpcMember(Address(host, int(port), tls=False), None, None)
    watch, renewals = member.watch(None), member.keep_alive(None)
    try:
        await watch.open(rpc.WatchCreateRequest(key=b"k"))
        [_] = [answer async for answer in renewals.exchange([4711])]
        await link.cut()
        async with asyncio.timeout(30):
            await watch._call.code()
        with pytest.raises(CallFailed):
            await watch.ask()
        with pytest.raises(CallFailed):
            await anext(aiter(renewals.exchange([4711])))
    finally:
        renewals.close()
        await member.close()


@pytest.mark.slow
async def test_silence_is_noticed(
    connection: Connector, etcd_server: EtcdServer, etcd_prefix: str, proxy: ProxyFactory
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    watching_one = await connection(link.address, f"{etcd_server.host}:{etcd_server.port}")
    writing = await connection(f"{etcd_server.host}:{etcd_server.port}")
    watch = watching_one.watch(etcd_prefix)
    await anext(watch)
    link.blackhole(Direction.TO_CLIENT)  # the connection stays open; nothing comes any more
    await put(writing, etcd_prefix + "k")
    (event,) = await take(watch, 1, timeout_s=60)
    assert event.item.key == etcd_prefix + "k"


async def test_closing_ends_the_watch_quickly(etcd: Etcd, etcd_prefix: str, clock: SystemClock) -> None:
    watch = etcd.watch(etcd_prefix)
    await anext(watch)
    start = clock.monotonic()
    await watch.aclose()  # type: ignore[attr-defined]
    other = etcd.watch(etcd_prefix)
    await anext(other)
    task = asyncio.ensure_future(anext(other))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert clock.monotonic() - start < 8
    await etcd.close()
    assert clock.monotonic() - start < 9


async def test_closing_the_connection_ends_watches(etcd: Etcd, etcd_prefix: str) -> None:
    watch = etcd.watch(etcd_prefix)
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.05)
    await etcd.close()
    done, _ = await asyncio.wait((waiting,), timeout=5)
    assert done
    with pytest.raises((StopAsyncIteration, asyncio.CancelledError)):
        waiting.result()


async def test_history_that_is_gone_is_said(connection: Connector, own_etcd: Servers) -> None:
    server = own_etcd()
    etcd = await connection(server.endpoints[0].removeprefix("grpc://"))
    for n in range(10):
        revision = await put(etcd, f"/k{n}")
    await etcd.compact(revision)
    with pytest.raises(Compacted) as compacted:
        await take(etcd.watch("/k", start_revision=2), 1)
    assert compacted.value.revision == revision


@pytest.mark.parametrize("new_cluster_id", [True, False])
async def test_a_store_that_was_erased_is_noticed(
    connection: Connector, own_etcd: Servers, new_cluster_id: bool
) -> None:
    server = own_etcd()
    etcd = await connection(server.endpoints[0].removeprefix("grpc://"))
    for n in range(50):
        revision = await put(etcd, f"/k{n}")
    watch = etcd.watch("/k", start_revision=revision)
    await take(watch, 1)
    server.erase(new_cluster_id=new_cluster_id)
    server.start()
    with pytest.raises(Compacted):
        await take(watch, 1)


async def test_a_view_mirrors_through_cuts_compaction_and_deletion(
    connection: Connector, own_etcd: Servers, proxy: ProxyFactory, clock: SystemClock
) -> None:
    server = own_etcd()
    direct = await connection(server.endpoints[0].removeprefix("grpc://"))
    link = await proxy(int(server.endpoints[0].rpartition(":")[2]))
    await put(direct, "/v/old")
    told: dict[str, bytes] = {}
    changed = asyncio.Event()

    def on_change(events: Sequence[Event]) -> None:
        for event in events:
            assert (event.previous.value if event.previous else None) == told.get(event.item.key)
            if event.kind is EventKind.PUT:
                told[event.item.key] = event.item.value
            else:
                del told[event.item.key]
        changed.set()

    async def until(expected: dict[str, bytes]) -> None:
        async with asyncio.timeout(30):
            while told != expected:
                changed.clear()
                await changed.wait()
        assert {key: item.value for key, item in view.items.items()} == expected

    view = View(await connection(link.address), "/v/", clock, on_change)
    task = asyncio.ensure_future(view.run())
    try:
        async with asyncio.timeout(10):
            await view.ready.wait()
        await until({"/v/old": b"v"})
        await put(direct, "/v/new", b"1")
        await until({"/v/old": b"v", "/v/new": b"1"})
        await link.refuse()
        await put(direct, "/v/new", b"2")
        await direct.txn(Txn(then=(Delete("/v/old"),)))
        for _ in range(5):
            revision = await put(direct, "/other")
        await direct.compact(revision)  # what the view missed is forgotten: it must list again
        await link.accept()
        await until({"/v/new": b"2"})
        assert view.revision >= revision
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_a_view_outlasts_an_etcd_that_is_too_busy(
    etcd: Etcd, etcd_prefix: str, clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, listings = etcd._members.token, etcd.list  # type: ignore[attr-defined]
    refused: list[str] = []

    def once(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            if what not in refused:
                refused.append(what)
                raise BoundExceeded("etcdserver: too many requests")
            return await real(*args, **options)

        return call

    monkeypatch.setattr(etcd._members, "token", once("token", tokens))  # type: ignore[attr-defined]
    monkeypatch.setattr(etcd, "list", once("list", listings))
    seen = asyncio.Event()
    view = View(etcd, etcd_prefix, clock, lambda _events: seen.set())
    task = asyncio.ensure_future(view.run())
    async with asyncio.timeout(20):
        await view.ready.wait()
        await put(etcd, etcd_prefix + "k")
        await seen.wait()
    assert refused == ["list", "token"] and not task.done()
    task.cancel()
    await asyncio.wait((task,))


class LosesDeletes:
    """Etcd as it was before #18089 was fixed: watches never hear of a deletion."""

    def __init__(self, etcd: Etcd) -> None:
        self.list = etcd.list
        self._etcd = etcd

    async def watch(self, prefix: str, **options: Any) -> AsyncIterator[Events]:
        async for change in self._etcd.watch(prefix, **options):
            yield Events(tuple(e for e in change.events if e.kind is EventKind.PUT), change.revision)


async def test_a_view_lists_again_from_time_to_time(etcd: Etcd, etcd_prefix: str, clock: SystemClock) -> None:
    deleted = asyncio.Event()

    def on_change(events: Sequence[Event]) -> None:
        if any(e.kind is EventKind.DELETE and e.item.key == etcd_prefix + "k" for e in events):
            deleted.set()

    await put(etcd, etcd_prefix + "k")
    view = View(cast(Etcd, LosesDeletes(etcd)), etcd_prefix, clock, on_change, relist_s=0.0)
    task = asyncio.ensure_future(view.run())
    async with asyncio.timeout(20):
        await view.ready.wait()
        await etcd.txn(Txn(then=(Delete(etcd_prefix + "k"),)))
        await put(etcd, etcd_prefix + "tick")
        await deleted.wait()
    assert etcd_prefix + "k" not in view.items
    task.cancel()
    await asyncio.wait((task,))
