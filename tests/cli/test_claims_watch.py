"""``tenure claims watch``: every change once and in order, over lost connections; a gap is said, and what differs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from tests.fixtures.etcd import EtcdServer
from tests.proxy import Proxy

from tenure.cli.claims import _teller
from tenure.cli.claims_watch import ClaimsWatch, Told, Wanted, Word, by_gateway
from tenure.cli.output import Format
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import ClaimValue, Keyspace
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.port import Delete, Etcd, Put, Txn

SOON_S = 40.0
NOW = "2026-11-22T10:00:00.000+00:00"
pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def direct(etcd_server: EtcdServer) -> AsyncIterator[Etcd]:
    """Give a connection that nothing disturbs."""
    etcd = connect(etcd_server.endpoints)
    yield etcd
    await etcd.close()


@pytest.fixture
def keys(etcd_prefix: str) -> Keyspace:
    return Keyspace(etcd_prefix)


async def claim(etcd: Etcd, keys: Keyspace, job: str, worker: str = "w1", kind: str = "k") -> None:
    value = ClaimValue(worker, "default", kind, "default", 7, NOW).to_json()
    await etcd.txn(Txn(then=(Put(keys.claim(job), value),)))


async def drop(etcd: Etcd, keys: Keyspace, job: str) -> None:
    await etcd.txn(Txn(then=(Delete(keys.claim(job)),)))


class Watching:
    """Reads what is told."""

    def __init__(self, told: AsyncGenerator[Told, None]) -> None:
        self._told = told

    async def next(self, *words: Word) -> Told:
        """Return the next that is one of the words; all others are passed over."""
        async with asyncio.timeout(SOON_S):
            while True:
                told = await anext(self._told)
                if told.event in words:
                    return told

    async def all(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(SOON_S):
            return [(told.event.value, told.job_id) for told in [await anext(self._told) for _ in range(count)]]


@asynccontextmanager
async def watching(address: str, transport: str, keys: Keyspace, **options: Any) -> AsyncIterator[Watching]:
    etcd = connect([f"{transport}://{address}"])
    wanted = options.pop("wanted", Wanted())
    try:
        async with aclosing(ClaimsWatch(etcd, keys.claims, wanted, **options).run()) as told:
            yield Watching(told)
    finally:
        await etcd.close()


def address_of(server: EtcdServer) -> str:
    return server.endpoints[0].removeprefix("grpc://")


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_claims_come_and_go(etcd_server: EtcdServer, direct: Etcd, keys: Keyspace, transport: str) -> None:
    await claim(direct, keys, "a")
    async with watching(address_of(etcd_server), transport, keys) as watch:
        assert await watch.all(2) == [("held", "a"), ("listed", "")]
        await claim(direct, keys, "b", "w2")
        told = await watch.next(Word.CLAIMED)
        assert (told.job_id, told.claim["worker"]) == ("b", "w2")
        await claim(direct, keys, "b", "w3")
        assert (await watch.next(Word.CHANGED)).claim["worker"] == "w3"
        await drop(direct, keys, "b")
        gone = await watch.next(Word.GONE)
        assert (gone.job_id, gone.claim["worker"]) == ("b", "w3")
        assert gone.claim_revision == told.claim_revision == told.revision < gone.revision


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_a_lost_connection_is_told_and_nothing_is_missed(
    etcd_server: EtcdServer, direct: Etcd, keys: Keyspace, transport: str
) -> None:
    async with (
        Proxy(etcd_server.port) as proxy,
        watching(proxy.address, transport, keys) as watch,
    ):
        await watch.next(Word.LISTED)
        waiting = asyncio.ensure_future(watch.next(Word.LOST))
        await claim(direct, keys, "seen")
        await proxy.wait_for_connections(1)
        await proxy.refuse()
        await proxy.cut()
        lost = await waiting
        assert lost.text
        await claim(direct, keys, "a")
        await drop(direct, keys, "a")
        await claim(direct, keys, "b")
        await proxy.accept()
        await watch.next(Word.BACK)
        told = [await watch.next(*Word)]
        while told[-1].job_id != "b":
            told.append(await watch.next(*Word))
        # The cut may have come before "seen".
        changes = [(one.event.value, one.job_id) for one in told if one.job_id != "seen"]
        assert changes == [("claimed", "a"), ("gone", "a"), ("claimed", "b")]


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_a_gap_is_told_and_what_differs(
    etcd_server: EtcdServer, direct: Etcd, keys: Keyspace, transport: str
) -> None:
    for job in ("stays", "goes", "again"):
        await claim(direct, keys, job)
    async with Proxy(etcd_server.port) as proxy, watching(proxy.address, transport, keys) as watch:
        await watch.next(Word.LISTED)
        waiting = asyncio.ensure_future(watch.next(Word.LOST))
        await claim(direct, keys, "seen")
        await proxy.wait_for_connections(1)
        await proxy.refuse()
        await proxy.cut()
        await waiting
        await drop(direct, keys, "goes")
        await drop(direct, keys, "again")
        await claim(direct, keys, "again")
        await claim(direct, keys, "new")
        await direct.compact((await direct.status()).revision)
        await proxy.accept()
        gap = await watch.next(Word.GAP)
        assert "before revision" in gap.text
        told = [await watch.next(*Word)]
        while told[-1].event is not Word.LISTED:
            told.append(await watch.next(*Word))
        assert all(one.is_after_gap for one in told[:-1])
        # The cut may have come before "seen".
        assert {(one.event.value, one.job_id) for one in told[:-1] if one.job_id != "seen"} == {
            ("gone", "goes"), ("gone", "again"), ("claimed", "again"), ("claimed", "new"),
        }  # fmt: skip
        await drop(direct, keys, "stays")
        assert (await watch.next(Word.GONE)).job_id == "stays"


async def test_it_goes_on_where_another_left_off(etcd_server: EtcdServer, direct: Etcd, keys: Keyspace) -> None:
    await claim(direct, keys, "before")
    revision = (await direct.list(keys.claims)).revision
    await claim(direct, keys, "a")
    await drop(direct, keys, "before")
    async with watching(address_of(etcd_server), "http", keys, since=revision) as watch:
        assert (await watch.next(*Word)).job_id == "a"
        gone = await watch.next(*Word)
        assert (gone.event, gone.job_id, gone.claim["worker"]) == (Word.GONE, "before", "w1")


async def test_only_what_is_wanted_is_told(etcd_server: EtcdServer, direct: Etcd, keys: Keyspace) -> None:
    await claim(direct, keys, "a", "w1", "one")
    await claim(direct, keys, "b", "w2", "two")
    async with watching(address_of(etcd_server), "http", keys, wanted=Wanted(worker="w2", kind="two")) as watch:
        assert (await watch.next(Word.HELD)).job_id == "b"
        assert (await watch.next(Word.LISTED)).text == "1"
        await drop(direct, keys, "a")
        await drop(direct, keys, "b")
        assert (await watch.next(Word.GONE)).job_id == "b"


async def test_a_claim_written_by_hand_is_told(etcd_server: EtcdServer, direct: Etcd, keys: Keyspace) -> None:
    await direct.txn(Txn(then=(Put(keys.claim("a"), b"\xff not JSON"),)))
    async with watching(address_of(etcd_server), "http", keys) as watch:
        told = await watch.next(Word.HELD)
        assert (told.job_id, told.claim) == ("a", {})


def test_the_gateway_is_on_the_same_port() -> None:
    given = EtcdOptions(("grpc://a:2379", "grpcs://b:2379", "http://c:1", "https://d:1", "e:2"))
    assert by_gateway(given).endpoints == ("http://a:2379", "https://b:2379", "http://c:1", "https://d:1", "http://e:2")


HOSTILE = "w\x1b[2J\u202e\n12:00:00  gone    forged"
VALUE = {"worker": HOSTILE, "kind": "k\r", "route": "pool\x9b", "claimed_at": NOW}


@pytest.mark.parametrize(
    ("told", "out", "err"),
    [
        (Told(Word.HELD, 5, "job-1", VALUE, 4), "held    job-1", ""),
        (Told(Word.LISTED, 5, text="1"), "", "1 claim at revision 5; watching, Ctrl-C ends"),
        (Told(Word.CLAIMED, 6, "job-1", VALUE, 6), "claimed job-1", ""),
        (Told(Word.CLAIMED, 6, "job-1", VALUE, 6, is_after_gap=True), "some time in the gap", ""),
        (Told(Word.CHANGED, 7, "job-1", VALUE, 6), "changed job-1", ""),
        (Told(Word.GONE, 8, "job-1", VALUE, 6), "gone    job-1", ""),
        (Told(Word.GONE, 8, "job-1", {**VALUE, "claimed_at": HOSTILE}, 6), "gone    job-1", ""),
        (Told(Word.GONE, 8, "job-1"), "gone    job-1", ""),
        (Told(Word.LOST, 8, text=HOSTILE), "", "connection lost after revision 8: w"),
        (Told(Word.BACK, 8), "", "connected again; nothing after revision 8 is left out"),
        (Told(Word.GAP, 8, text=HOSTILE), "", "gap after revision 8: w"),
    ],
)
def test_what_a_person_is_told(told: Told, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one line, and nothing in it acts on the terminal."""
    _teller(Format.TABLE)(told)
    said = capsys.readouterr()
    for words, text in ((out, said.out), (err, said.err)):
        assert words in text and bool(words) == bool(text)
        assert text.count("\n") == bool(words)
        assert text.removesuffix("\n").isprintable()
    if told.event is Word.CLAIMED:
        assert re.fullmatch(r"\d\d:\d\d:\d\d  claimed job-1  k\\r pool\\x9b by w\\x1b\[2J\\u202e.*\n", said.out)
    if told.event is Word.GONE and told.claim.get("claimed_at") == NOW:
        assert "  after " in said.out


def test_every_word_is_told_to_a_person() -> None:
    [parametrized] = test_what_a_person_is_told.pytestmark  # type: ignore[attr-defined]
    assert {told.event for told, _, _ in parametrized.args[1]} == set(Word)


async def test_the_command_goes_on_after_a_revision(etcd_server: EtcdServer, direct: Etcd, keys: Keyspace) -> None:
    await claim(direct, keys, "before")
    revision = (await direct.list(keys.claims)).revision
    await claim(direct, keys, "after", HOSTILE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tenure.cli", "claims", "watch", "--etcd-prefix", keys.prefix,
        "--etcd", etcd_server.endpoints[0], "--since", str(revision), stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("TENURE_")},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SOON_S):
            first = (await process.stdout.readline()).decode()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "claimed after  k default by w\\x1b[2J" in first, "the first that is told: what was before is passed over"
