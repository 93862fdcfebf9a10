"""The keeper: trust, lost versus unreachable. The pool: what may be used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

import pytest
import pytest_asyncio
from tests.etcd.conftest import Connector
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction

from tenure.model.clock import SystemClock
from tenure.model.errors import BoundExceeded
from tenure.store.etcd.leases import IDLE_TTLS, WARM, LeaseKeeper, LeasePool
from tenure.store.etcd.port import Etcd, Grant, Put, Renewal, Txn


class Lost:
    """Collects what was told to be lost."""

    def __init__(self) -> None:
        self.leases: list[int] = []
        self._told = asyncio.Event()

    def __call__(self, lease: int) -> None:
        self.leases.append(lease)
        self._told.set()

    async def wait(self, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self._told.wait()


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest_asyncio.fixture
async def keeper(etcd: Etcd, clock: SystemClock) -> AsyncIterator[LeaseKeeper]:
    keeper = LeaseKeeper(etcd, clock)
    task = asyncio.ensure_future(keeper.run())
    yield keeper
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled(), "the keeper's task ended by itself"


async def too_busy(*_args: object, **_options: object) -> NoReturn:
    """Refuse as etcd does when more is asked for than it can apply."""
    raise BoundExceeded("etcdserver: too many requests")


async def until_trusted_past(keeper: LeaseKeeper, lease: int, instant: float, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while (trust := keeper.trust(lease)) is None or trust.sent_at <= instant:  # noqa: ASYNC110 - the keeper tells of losses only
            await asyncio.sleep(0.02)


async def test_a_kept_lease_outlives_its_ttl(
    etcd: Etcd, keeper: LeaseKeeper, lost: Lost, clock: SystemClock, etcd_prefix: str
) -> None:
    grant = await etcd.grant(2)
    await etcd.txn(Txn(then=(Put(etcd_prefix + "k", b"", grant.lease),)))
    keeper.add(grant, lost)
    async with asyncio.timeout(20):
        while clock.monotonic() < grant.sent_at + 2 * grant.ttl_s:
            trust = keeper.trust(grant.lease)
            assert trust is not None and trust.holds(clock.monotonic())
            await asyncio.sleep(0.1)
    assert await etcd.get(etcd_prefix + "k") is not None
    assert lost.leases == []


class Suspended(SystemClock):
    """A clock that counts a suspend of the machine, as the loop's does not."""

    slept_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept_s


async def test_a_lease_that_fell_due_while_the_machine_was_suspended_is_renewed_at_once(
    connection: Connector, etcd_server: EtcdServer, lost: Lost
) -> None:
    clock = Suspended()
    etcd = await connection(f"{etcd_server.host}:{etcd_server.port}", clock=clock)
    keeper = LeaseKeeper(etcd, clock)
    grant = await etcd.grant(600)
    keeper.add(grant, lost)
    task = asyncio.ensure_future(keeper.run())
    await asyncio.sleep(0.1)  # it waits for the lease to fall due, in 200 s
    clock.slept_s = 300.0
    await until_trusted_past(keeper, grant.lease, grant.sent_at + 300.0)
    task.cancel()
    await asyncio.wait((task,))
    await etcd.revoke(grant.lease)
    assert lost.leases == []


async def test_a_session_is_renewed_at_the_pace_of_the_shortest_lease(
    etcd: Etcd, keeper: LeaseKeeper, lost: Lost
) -> None:
    session = await etcd.grant(60)
    keeper.add(session, lost, is_session=True)
    claim = await etcd.grant(4)
    keeper.add(claim, lost)
    for _ in range(4):  # far earlier than its own TTL would have it
        trust = keeper.trust(session.lease)
        assert trust is not None
        await until_trusted_past(keeper, session.lease, trust.sent_at, timeout_s=10)
    keeper.remove(claim.lease)
    assert lost.leases == []


async def test_a_revoked_lease_is_lost_once_and_forgotten(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    grant, other = await etcd.grant(2), await etcd.grant(2)
    keeper.add(grant, lost)
    keeper.add(other, lost)
    await etcd.revoke(grant.lease)
    await lost.wait(5)
    assert keeper.trust(grant.lease) is None and keeper.trust(other.lease) is not None
    await until_trusted_past(keeper, other.lease, other.sent_at + 1.0)
    assert lost.leases == [grant.lease] and len(keeper) == 1


async def test_a_young_lease_said_to_be_gone_is_asked_for_once_more(
    keeper: LeaseKeeper, lost: Lost, clock: SystemClock
) -> None:
    now = clock.monotonic()
    keeper.add(Grant(4711, 0.3, now), lost)  # due at once, never granted
    await lost.wait(5)
    assert clock.monotonic() - now >= 0.15  # twice asked
    assert lost.leases == [4711]


async def test_unreachable_is_not_lost(
    connection: Connector,
    etcd_server: EtcdServer,
    proxy: ProxyFactory,
    lost: Lost,
    clock: SystemClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    far = await connection(link.address)
    renew, unanswered = far.renew, asyncio.Event()

    async def watched(leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        answers = await renew(leases, timeout_s=timeout_s)
        if not answers:
            unanswered.set()
        return answers

    monkeypatch.setattr(far, "renew", watched)
    keeper = LeaseKeeper(far, clock)
    grant = await far.grant(9)  # due after a third, given up after another: a third is left for the next
    keeper.add(grant, lost)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run())
        await until_trusted_past(keeper, grant.lease, grant.sent_at)
        await link.refuse()
        trust = keeper.trust(grant.lease)
        assert trust is not None
        async with asyncio.timeout(15):
            await unanswered.wait()
        assert keeper.trust(grant.lease) == trust  # grows no older, is not forgotten
        assert lost.leases == []
        await link.accept()
        await until_trusted_past(keeper, grant.lease, trust.sent_at)
        task.cancel()
    assert lost.leases == []


async def test_late_answers_do_not_stretch_trust(
    connection: Connector, etcd_server: EtcdServer, proxy: ProxyFactory, clock: SystemClock
) -> None:
    # H2: requests arrive, answers are held back. Trust counts from the sending of what was answered.
    link = await proxy(etcd_server.port, etcd_server.host)
    far = await connection(link.address)
    grant = await far.grant(30)
    await far.renew([grant.lease], timeout_s=5)
    link.delay(1.0, Direction.TO_CLIENT)
    before = clock.monotonic()
    answers = await far.renew([grant.lease], timeout_s=10)
    assert clock.monotonic() - before >= 1.0
    assert answers and answers[0].sent_at - before < 0.9
    link.delay(3.0, Direction.TO_CLIENT)
    assert await far.renew([grant.lease], timeout_s=0.3) == []
    link.heal()
    before = clock.monotonic()
    (answer,) = await far.renew([grant.lease], timeout_s=10)
    assert answer.sent_at >= before  # never the answer to the request before


async def test_many_leases_are_kept_by_one_task(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    # The TTL bears a slow machine: the first lease waits until the last is granted before anybody keeps it.
    grants = await asyncio.gather(*(etcd.grant(30, timeout_s=20) for _ in range(700)))
    for grant in grants:
        keeper.add(grant, lost)
    latest = max(grant.sent_at for grant in grants)
    for grant in grants:
        await until_trusted_past(keeper, grant.lease, latest + 1.0, timeout_s=40)
    assert lost.leases == []


async def test_leases_given_back_are_used_again(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    pool = LeasePool(etcd, keeper, lost, max_idle=2)
    first = await pool.acquire(5, 3)
    assert len({grant.lease for grant in first}) == 3 and all(grant.ttl_s == 5 for grant in first)
    for grant in first:
        await pool.give_back(grant.lease)
    assert pool.idle == 2 and len(keeper) == 2  # the surplus one is revoked
    again = await pool.acquire(5, 2)
    assert {g.lease for g in again} < {g.lease for g in first}
    assert {g.lease for g in await pool.acquire(6, 1)}.isdisjoint(g.lease for g in first)
    await pool.close()
    assert len(keeper) == 0
    answers = await etcd.renew([g.lease for g in first], timeout_s=5)
    assert [a.ttl_s for a in answers] == [0.0] * 3
    assert lost.leases == []


async def test_idle_leases_that_nobody_needs_are_left_to_expire(
    etcd: Etcd, keeper: LeaseKeeper, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = LeasePool(etcd, keeper, lost)
    grants = await pool.acquire(5, WARM + 4)
    out, *rest = grants
    for grant in rest:
        await pool.give_back(grant.lease)
    assert pool.idle == WARM + 3
    later = keeper.now() + 5 * IDLE_TTLS
    monkeypatch.setattr(keeper, "now", lambda: later)
    async with asyncio.timeout(60):
        while pool.idle > WARM or len(keeper) > WARM + 1:  # noqa: ASYNC110 - nobody is told of idle leases
            await asyncio.sleep(0.05)
        (gone, *_) = [grant.lease for grant in rest if keeper.trust(grant.lease) is None]
        while await etcd.time_to_live(gone) is not None:  # noqa: ASYNC110 - nor of those that expire
            await asyncio.sleep(0.1)
    monkeypatch.undo()
    assert pool.idle == WARM and pool.out == 1 and keeper.trust(out.lease) is not None
    assert len(await pool.acquire(5, WARM)) == WARM and pool.idle == 0
    await pool.close()
    assert lost.leases == []


async def test_leases_of_many_ttls_are_no_more_than_of_one(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    pool = LeasePool(etcd, keeper, lost, max_idle=3)
    given: list[Grant] = []
    for ttl_s in (5, 6, 7, 8):
        (grant,) = await pool.acquire(ttl_s, 1)
        given.append(grant)
        await pool.give_back(grant.lease)
    assert pool.idle == len(keeper) == 3
    assert await etcd.time_to_live(given[0].lease) is None  # the oldest of another TTL
    await pool.give_back((await pool.acquire(6, 1))[0].lease)  # used last, though not granted last
    await pool.give_back((await pool.acquire(9, 1))[0].lease)
    assert await etcd.time_to_live(given[1].lease) is not None
    assert await etcd.time_to_live(given[2].lease) is None
    assert pool.idle == len(keeper) == 3 and pool.out == 0
    await pool.close()
    assert lost.leases == []


async def test_ttls_that_etcd_grants_alike_share_their_leases(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    pool = LeasePool(etcd, keeper, lost)
    (first,) = await pool.acquire(4.2, 1)
    await pool.give_back(first.lease)
    (second,) = await pool.acquire(4.7, 1)
    assert (second.lease, second.ttl_s) == (first.lease, 5.0)
    await pool.give_back(second.lease)
    (third,) = await pool.acquire(5, 1)
    assert third.lease == first.lease and pool.idle == 0
    await pool.close()
    assert lost.leases == []


async def test_a_discarded_lease_takes_its_claim_along(
    etcd: Etcd, keeper: LeaseKeeper, lost: Lost, etcd_prefix: str
) -> None:
    pool = LeasePool(etcd, keeper, lost)
    (grant,) = await pool.acquire(5, 1)
    await etcd.txn(Txn(then=(Put(etcd_prefix + "claim", b"", grant.lease),)))
    await pool.discard(grant.lease)
    assert await etcd.get(etcd_prefix + "claim") is None
    assert keeper.trust(grant.lease) is None and lost.leases == []


async def test_a_lease_that_etcd_is_too_busy_to_revoke_is_left_to_expire(
    etcd: Etcd, keeper: LeaseKeeper, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = LeasePool(etcd, keeper, lost)
    first, second = await pool.acquire(2, 2)
    monkeypatch.setattr(etcd, "revoke", too_busy)
    await pool.discard(first.lease)
    await pool.close()
    assert len(keeper) == 0 and pool.out == 0 and lost.leases == []
    assert await etcd.time_to_live(second.lease) is not None


async def test_renewing_outlasts_an_etcd_that_is_too_busy_to_authenticate(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await etcd.grant(5)
    with monkeypatch.context() as patch:
        patch.setattr(etcd._members, "token", too_busy)  # type: ignore[attr-defined]
        assert await etcd.renew([grant.lease], timeout_s=5) == []
    assert [answer.lease for answer in await etcd.renew([grant.lease], timeout_s=5)] == [grant.lease]


async def test_only_leases_that_are_out_are_told_lost(etcd: Etcd, keeper: LeaseKeeper, lost: Lost) -> None:
    pool = LeasePool(etcd, keeper, lost)
    idle, out = await pool.acquire(2, 2)
    await pool.give_back(idle.lease)
    await etcd.revoke(idle.lease)
    await etcd.revoke(out.lease)
    await lost.wait(5)
    async with asyncio.timeout(5):
        while pool.idle:  # noqa: ASYNC110 - nobody is told of idle leases
            await asyncio.sleep(0.02)
    assert lost.leases == [out.lease]
    assert {g.lease for g in await pool.acquire(2, 1)}.isdisjoint({idle.lease, out.lease})


async def test_fewer_leases_when_nobody_answers(
    connection: Connector, etcd_server: EtcdServer, proxy: ProxyFactory, clock: SystemClock, lost: Lost
) -> None:
    link = await proxy(etcd_server.port, etcd_server.host)
    far = await connection(link.address)
    pool = LeasePool(far, LeaseKeeper(far, clock), lost)
    assert len(await pool.acquire(5, 1)) == 1
    await link.refuse()
    assert await pool.acquire(5, 2, timeout_s=0.3) == []
