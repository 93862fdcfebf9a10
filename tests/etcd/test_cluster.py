"""Three members, one of them killed or paused, leader and follower: calls, watches and renewals go on."""

from __future__ import annotations

import asyncio

import pytest
from tests.etcd.conftest import Connector

from tenure.cli.embedded.etcd import EtcdCluster
from tenure.model.clock import SystemClock
from tenure.model.errors import Unavailable
from tenure.store.etcd.faults import Known, fault
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Compare, Etcd, Field, Put, Txn

pytestmark = pytest.mark.slow

TTL_S = 8.0


def addresses(cluster: EtcdCluster) -> list[str]:
    return [f"127.0.0.1:{member.client_port}" for member in cluster.members]


def place(cluster: EtcdCluster, role: str) -> int:
    leader = cluster.leader()
    assert leader >= 0
    return leader if role == "leader" else (leader + 1) % 3


async def insist(etcd: Etcd, key: str) -> None:
    """Create a key, after unknown outcomes too: whether it was done is seen by its being there."""
    while True:
        try:
            await etcd.txn(Txn((Compare(key, Field.CREATE, 0),), (Put(key, b""),)), timeout_s=3)
            return
        except Unavailable:
            continue


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_calls_watch_and_renewals_survive_a_member(
    connection: Connector, etcd_cluster: EtcdCluster, clock: SystemClock, role: str, fault: str
) -> None:
    etcd = await connection(*addresses(etcd_cluster), timeout_s=15.0)
    keeper = LeaseKeeper(etcd, clock)
    lost: list[int] = []
    grants = [await etcd.grant(TTL_S) for _ in range(20)]
    for grant in grants:
        keeper.add(grant, lost.append)
    watch = etcd.watch("/k/")
    await anext(watch)
    seen: list[str] = []
    total = 60
    victim = place(etcd_cluster, role)

    async def see() -> None:
        while len(seen) < total:
            seen.extend(event.item.key for event in (await anext(watch)).events)

    async def write() -> None:
        for n in range(total):
            if n == 20:
                getattr(etcd_cluster, fault)(victim)
            await insist(etcd, f"/k/{n:03d}")

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        keeping = group.create_task(keeper.run())
        seeing = group.create_task(see())
        await write()
        await seeing
        after = clock.monotonic()
        while any((t := keeper.trust(g.lease)) is None or t.sent_at <= after for g in grants):  # noqa: ASYNC110 - the keeper tells of losses only
            await asyncio.sleep(0.05)
        keeping.cancel()
    assert seen == [f"/k/{n:03d}" for n in range(total)]
    assert lost == []
    assert len((await etcd.list("/k/")).items) == total
    if fault == "pause":
        etcd_cluster.resume(victim)


async def test_what_is_under_way_to_a_leader_that_dies_is_sent_again(
    connection: Connector, etcd_cluster: EtcdCluster
) -> None:
    """A follower that does not know yet forwards it into the void, and would say so after seven seconds."""
    leader = etcd_cluster.leader()
    order = addresses(etcd_cluster)
    order.append(order.pop(leader))
    etcd = await connection(*order, timeout_s=20.0)
    await etcd.get("/k/before")
    etcd_cluster.kill(leader)
    for n in range(20):
        await etcd.txn(Txn((), (Put(f"/k/{n:03d}", b""),)), repeatable=True)
    assert len((await etcd.list("/k/")).items) == 20


@pytest.mark.parametrize("text", ["etcdserver: no leader", "raft proposal dropped"])
def test_what_a_member_refuses_for_want_of_a_leader_is_not_done(text: str) -> None:
    assert fault(14, text, "m").known is Known.NOT_DONE


async def test_without_a_quorum_nothing_is_answered_and_then_all_is(
    connection: Connector, etcd_cluster: EtcdCluster, clock: SystemClock
) -> None:
    etcd = await connection(*addresses(etcd_cluster))
    await insist(etcd, "/k/before")
    grant = await etcd.grant(30)
    etcd_cluster.kill(0)
    etcd_cluster.kill(1)
    start = clock.monotonic()
    with pytest.raises(Unavailable):
        while True:  # the first calls may pass until the last member has noticed
            await etcd.txn(Txn(then=(Put("/k/during", b""),)), timeout_s=2)
    with pytest.raises(Unavailable):
        await etcd.get("/k/before", timeout_s=1)
    assert clock.monotonic() - start < 10
    etcd_cluster.start()
    async with asyncio.timeout(30):
        await insist(etcd, "/k/after")
        while not await etcd.renew([grant.lease], timeout_s=2):
            pass
    assert await etcd.get("/k/before") is not None


async def test_renewals_follow_the_leader(connection: Connector, etcd_cluster: EtcdCluster) -> None:
    # Listed first is a follower: KeepAlives go to the leader all the same, where 500 take no time.
    leader = etcd_cluster.leader()
    order = [*addresses(etcd_cluster)]
    order.append(order.pop(leader))
    etcd = await connection(*order)
    grants = await asyncio.gather(*(etcd.grant(60, timeout_s=20) for _ in range(500)))
    answers = await etcd.renew([grant.lease for grant in grants], timeout_s=4)
    assert len(answers) == 500
    assert (await etcd.status()).endpoint == order[-1]
