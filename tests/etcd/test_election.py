"""The election: one term at a time, handed over at once or within TTL + 1 s, and guarded writes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.etcd.conftest import Connector
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction

from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded
from tenure.store.etcd.election import RESIGN_TIMEOUT_S, Election, Term, current_leader
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Delete, Etcd, Put, Txn

TTL_S = 2.0


class Candidate:
    """A coordinator that does nothing but lead."""

    def __init__(self, etcd: Etcd, keys: Keyspace, name: str, clock: SystemClock) -> None:
        self._election = Election(etcd, keys, name, TTL_S, clock)
        self._clock = clock
        self._changed = asyncio.Event()
        self.name = name
        self.term: Term | None = None
        self.elected_at = 0.0
        self.lost_at = 0.0
        self.step_down = asyncio.Event()

    async def run(self) -> None:
        async for term in self._election.terms():
            await term.lead(self._lead(term))

    async def _lead(self, term: Term) -> None:
        self.term, self.elected_at = term, self._clock.monotonic()
        self._changed.set()
        try:
            await self.step_down.wait()
        finally:
            self.term, self.lost_at = None, self._clock.monotonic()
            self.step_down.clear()
            self._changed.set()

    async def until(self, state: Callable[[], bool], timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not state():
                self._changed.clear()
                await self._changed.wait()

    async def elected(self, timeout_s: float = 15.0) -> Term:
        await self.until(lambda: self.term is not None, timeout_s)
        assert self.term is not None
        return self.term


@asynccontextmanager
async def running(*candidates: Candidate) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(candidate.run()) for candidate in candidates]
        yield tasks
        for task in tasks:
            task.cancel()


async def test_one_leads_and_the_other_follows_at_once_when_it_steps_down(
    etcd: Etcd, keys: Keyspace, clock: SystemClock
) -> None:
    a, b = Candidate(etcd, keys, "a", clock), Candidate(etcd, keys, "b", clock)
    async with running(a) as tasks:
        first = await a.elected()
        leader = await current_leader(etcd, keys)
        assert leader is not None and (leader[0].coordinator, leader[1]) == ("a", first.number)
        async with running(b):
            await asyncio.sleep(TTL_S + 0.7)  # longer than the lease: it is kept
            assert a.term is first and b.term is None
            tasks[0].cancel()
            second = await b.elected()
            assert b.elected_at - a.lost_at < 1.0
            assert second.number > first.number
            assert not (await etcd.txn(Txn((first.guard(),), (Put(keys.prefix + "x", b""),)))).succeeded
            assert (await etcd.txn(Txn((second.guard(),), (Put(keys.prefix + "x", b""),)))).succeeded
    assert await current_leader(etcd, keys) is None


async def test_a_body_that_ends_steps_down_and_campaigns_again(etcd: Etcd, keys: Keyspace, clock: SystemClock) -> None:
    a = Candidate(etcd, keys, "a", clock)
    async with running(a):
        first = await a.elected()
        a.step_down.set()
        await a.until(lambda: a.term is not None and a.term.number > first.number)


async def test_what_the_body_raises_is_raised(etcd: Etcd, keys: Keyspace, clock: SystemClock) -> None:
    async def body() -> None:
        raise ZeroDivisionError

    election = Election(etcd, keys, "a", TTL_S, clock)
    with pytest.raises(ExceptionGroup) as raised:
        async for term in election.terms():
            await term.lead(body())
    assert raised.group_contains(ZeroDivisionError)
    assert await current_leader(etcd, keys) is None


async def test_an_operator_can_depose_by_deleting_the_key(etcd: Etcd, keys: Keyspace, clock: SystemClock) -> None:
    a = Candidate(etcd, keys, "a", clock)
    async with running(a):
        first = await a.elected()
        await etcd.txn(Txn(then=(Delete(keys.leader),)))
        await a.until(lambda: a.term is not None and a.term.number > first.number)


async def test_other_keys_with_the_same_beginning_do_not_matter(etcd: Etcd, keys: Keyspace, clock: SystemClock) -> None:
    await etcd.txn(Txn(then=(Put(keys.leader + "board", b""),)))
    a = Candidate(etcd, keys, "a", clock)
    async with running(a):
        first = await a.elected()
        await etcd.txn(Txn(then=(Delete(keys.leader + "board"),)))
        await asyncio.sleep(0.3)
        assert a.term is first


async def test_a_leader_cut_off_gives_up_before_another_leads(
    connection: Connector, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory, clock: SystemClock
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    a = Candidate(await connection(link.address), keys, "a", clock)
    b = Candidate(await connection(f"{etcd_server.host}:{etcd_server.port}"), keys, "b", clock)
    async with running(a):
        await a.elected()
        async with running(b):
            link.blackhole()
            cut_at = clock.monotonic()
            await b.elected()
            assert b.elected_at - cut_at < TTL_S + 1.0 + 0.5
            assert a.term is None and cut_at < a.lost_at < b.elected_at
            link.heal()


async def test_a_leader_that_lost_its_proof_takes_its_key_away_once_it_can(
    connection: Connector, etcd: Etcd, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory, clock: SystemClock
) -> None:
    """The lease lives on, as after an election of etcd's own: nobody could lead until it has expired."""
    link = await proxy(etcd_server.port, etcd_server.host)
    a = Candidate(await connection(link.address), keys, "a", clock)
    async with running(a):
        first = await a.elected()
        key = await etcd.get(keys.leader)
        assert key is not None and key.create_revision == first.number
        await link.refuse()
        kept = asyncio.create_task(_keep_alive(etcd, key.lease))
        await a.until(lambda: a.term is None)
        await asyncio.sleep(RESIGN_TIMEOUT_S + 0.5)  # stepping down, it found nobody to tell
        left = await etcd.get(keys.leader)
        assert left is not None and left.create_revision == first.number
        await link.accept()
        second = await a.elected()
        assert second.number > first.number
        assert await kept == 0, "it was revoked"


async def test_who_is_told_to_stop_stops_though_etcd_is_too_busy_to_take_the_key_back(
    etcd: Etcd, keys: Keyspace, clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_busy(lease: int, *, timeout_s: float | None = None) -> bool:
        raise BoundExceeded("etcdserver: too many requests")

    a = Candidate(etcd, keys, "a", clock)
    leading = asyncio.create_task(a.run())
    term = await a.elected()
    monkeypatch.setattr(etcd, "revoke", too_busy)
    leading.cancel()
    await asyncio.wait((leading,), timeout=30)
    assert leading.cancelled()
    assert term.left_behind


async def _keep_alive(etcd: Etcd, lease: int) -> float:
    """Renew a lease in its owner's stead until it is gone; return its TTL then."""
    while True:
        [renewal] = await etcd.renew([lease], timeout_s=10)
        if renewal.ttl_s <= 0:
            return renewal.ttl_s
        await asyncio.sleep(TTL_S / 8)


async def test_a_candidate_whose_answer_was_lost_leads(
    connection: Connector, etcd: Etcd, etcd_server: EtcdServer, keys: Keyspace, proxy: ProxyFactory, clock: SystemClock
) -> None:
    """The key was created and nobody heard: the second sending finds it on the candidate's own lease."""
    links = [await proxy(etcd_server.port, etcd_server.host) for _ in range(2)]
    far = await connection(*(link.address for link in links))
    grant = await far.grant(30)
    links[0].blackhole(Direction.TO_CLIENT)
    term = await Election(far, keys, "a", 30.0, clock)._create(grant)
    key = await etcd.get(keys.leader)
    assert key is not None and (key.create_revision, key.lease) == (term, grant.lease)
    assert await Election(etcd, keys, "b", 30.0, clock)._create(await etcd.grant(30)) == 0


CHILD = """
import asyncio, sys
from tenure.model.clock import SystemClock
from tenure.store.etcd.connect import connect
from tenure.store.etcd.election import Election
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Put, Txn

async def lead(etcd, keys, term):
    print("elected", term.number, flush=True)
    while True:
        # Guarded, but deliberately without a look at the trust: what a paused leader does when it goes on.
        answer = await etcd.txn(Txn((term.guard(),), (Put(keys.prefix + "written", b"by the child"),)))
        print("wrote" if answer.succeeded else "refused", term.number, flush=True)

async def main(endpoint, prefix):
    etcd, keys = connect([endpoint]), Keyspace(prefix)
    async for term in Election(etcd, keys, "child", 2.0, SystemClock()).terms():
        await term.lead(lead(etcd, keys, term))

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def child(endpoint: str, keys: Keyspace, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    program = tmp_path / "candidate.py"
    program.write_text(CHILD)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), endpoint, keys.prefix, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, word: str, timeout_s: float = 30.0) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(timeout_s):
        while not (line := await process.stdout.readline()).startswith(word.encode()):
            assert line, f"the child ended before it said {word!r}"
        return line


async def test_after_sigkill_another_leads_within_the_ttl_and_a_second(
    etcd: Etcd, etcd_server: EtcdServer, transport: str, keys: Keyspace, clock: SystemClock, tmp_path: Path
) -> None:
    endpoint = f"{transport}://{etcd_server.host}:{etcd_server.port}"
    async with child(endpoint, keys, tmp_path) as process:
        await said(process, "wrote")
        b = Candidate(etcd, keys, "b", clock)
        async with running(b):
            process.kill()
            killed_at = clock.monotonic()
            await b.elected()
            assert b.elected_at - killed_at < TTL_S + 1.0


async def test_a_paused_leader_writes_nothing_when_it_goes_on(
    etcd: Etcd, etcd_server: EtcdServer, transport: str, keys: Keyspace, clock: SystemClock, tmp_path: Path
) -> None:
    endpoint = f"{transport}://{etcd_server.host}:{etcd_server.port}"
    async with child(endpoint, keys, tmp_path) as process:
        await said(process, "wrote")
        b = Candidate(etcd, keys, "b", clock)
        async with running(b):
            os.kill(process.pid, signal.SIGSTOP)
            term = await b.elected()
            before = await etcd.get(keys.prefix + "written")
            assert before is not None and before.mod_revision < term.number
            os.kill(process.pid, signal.SIGCONT)
            while b.term is term:
                now = await etcd.get(keys.prefix + "written")
                assert now is not None and now.mod_revision == before.mod_revision
                if clock.monotonic() - b.elected_at > 2.0:
                    break
