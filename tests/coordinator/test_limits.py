"""Limits, pauses, weights and labels as the leader heeds them, on real stores."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts, leader_of, running, until
from tests.coordinator.stage import Stage, assert_term, begin_term, begin_watch

from tenure.coordinator.allowance import Allowance
from tenure.coordinator.flight import Flight, Held, Outstanding
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.start import ClaimedJob
from tenure.model.clock import SystemClock
from tenure.model.dispatch import Assignment, Candidate, Lane
from tenure.model.errors import Deposed
from tenure.model.states import JobState
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, Release, claim_batch, release_batch
from tenure.store.etcd.keyspace import Offer, Offers, parse_inbox
from tenure.store.etcd.port import Delete, Put, Txn
from tenure.store.postgres.database import Statement

DEFAULTS: dict[str, Any] = {"concurrent": None, "rate": None, "interval_s": 1.0, "burst": None}


async def limit(parts: Parts, name: str, **values: Any) -> None:
    """Define a limit."""
    await parts.db.fetch("put_limit", {"name": name, **DEFAULTS, **values})


async def offers(parts: Parts, worker: str = "w1") -> dict[uuid.UUID, tuple[str, Offer]]:
    """Read what is offered now: job to message and offer."""
    listing = await parts.etcd.list(parts.keys.inbox(worker))
    found = {}
    for item in listing.items:
        message = parse_inbox(item.value)
        if isinstance(message, Offers):
            found.update({uuid.UUID(one.job): (item.key, one) for one in message.offers})
    return found


async def take(parts: Parts, worker: str = "w1") -> dict[uuid.UUID, ClaimedJob]:
    """Claim all that is offered, as a worker does."""
    claimed = {}
    for id, (key, offer) in (await offers(parts, worker)).items():
        lease = (await parts.etcd.grant(60.0)).lease
        value = b'{"worker":"%s","namespace":"%s","kind":"k","route":"default","lease":"%x","claimed_at":"x"}' % (
            worker.encode(),
            offer.namespace.encode(),
            lease,
        )
        [result] = await claim_batch(
            parts.etcd, parts.keys, [ClaimRequest(offer.job, lease, value, offer.slots)], inbox_key=key
        )
        if result.outcome is ClaimOutcome.WON:
            claimed[id] = ClaimedJob(str(id), offer.attempt, lease, result.create_revision, offer.slots)
    return claimed


async def slots(parts: Parts) -> list[str]:
    """Return the slots that are held."""
    listing = await parts.etcd.list(parts.keys.slots)
    return sorted(item.key.removeprefix(parts.keys.slots) for item in listing.items)


async def until_offered(parts: Parts, count: int, worker: str = "w1") -> dict[uuid.UUID, tuple[str, Offer]]:
    """Wait until so many jobs are offered, and see that it stays so."""

    async def check() -> bool:
        return len(await offers(parts, worker)) == count

    await until(check)
    await asyncio.sleep(0.3)
    found = await offers(parts, worker)
    assert len(found) == count
    return found


@pytest.fixture
def patient() -> dict[str, Any]:
    """Offers stay."""
    return {"offer_timeout_s": 60.0}


async def test_no_more_than_the_limit_is_offered_and_each_has_a_slot_of_its_own(
    alone: Parts, patient: dict[str, Any]
) -> None:
    await limit(alone, "db", concurrent=3)
    for _ in range(10):
        await alone.submit(limits=("db", "undefined"))
    free = await alone.submit()
    await alone.register("w1", capacity=50)
    async with running(leader_of(alone, **patient).run()):
        found = await until_offered(alone, 4)
        assert found[free][1].slots == ()
        assert sorted(offer.slots for id, (_, offer) in found.items() if id != free) == [
            ("db/0",),
            ("db/1",),
            ("db/2",),
        ]


async def test_a_slot_goes_with_its_claim_and_lets_the_next_start(alone: Parts, patient: dict[str, Any]) -> None:
    await limit(alone, "db", concurrent=2)
    jobs = [await alone.submit(limits=("db",)) for _ in range(3)]
    await alone.register("w1", capacity=50)
    async with running(leader_of(alone, **patient).run()):
        await until_offered(alone, 2)
        claimed = await take(alone)
        assert await slots(alone) == ["db/0", "db/1"]
        started = {uuid.UUID(row.id): row for row in await alone.starter.start("w1", list(claimed.values()))}
        assert set(started) == set(jobs[:2])
        assert await until_offered(alone, 0) == {}
        first = jobs[0]
        answer = await alone.finish(first, started[first].fence)
        assert answer.claim_deleted
        found = await until_offered(alone, 1)
        assert list(found) == [jobs[2]]
        assert len(await slots(alone)) == 1
        repeated = await alone.finish(first, started[first].fence)
        assert repeated.verdict == "repeated"
    assert await alone.state(first) is JobState.COMPLETED


async def test_a_repeated_report_releases_the_slot_with_the_claim(alone: Parts) -> None:
    """The first report was recorded and its announcement lost: the second must not leave the slot on the lease."""
    await limit(alone, "db", concurrent=1)
    id = await alone.submit(limits=("db",))
    await alone.register("w1")
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        await until_offered(alone, 1)
        claimed = (await take(alone))[id]
    [row] = await alone.starter.start("w1", [claimed])
    await alone.finisher.write(await alone.finisher._decide([_completed(id, row.fence)]))
    assert await slots(alone) == ["db/0"]
    answer = await alone.finish(id, row.fence)
    assert (answer.verdict, answer.claim_deleted) == ("repeated", True)
    assert await slots(alone) == []


def _completed(id: uuid.UUID, fence: int) -> Any:
    from tenure.coordinator.finish import Report
    from tenure.model.states import Outcome

    return Report(str(id), fence, Outcome.COMPLETED)


async def test_changing_a_limit_acts_at_once(alone: Parts, patient: dict[str, Any]) -> None:
    await limit(alone, "db", concurrent=0)
    for _ in range(10):
        await alone.submit(limits=("db",))
    await alone.register("w1", capacity=50)
    leader = leader_of(alone, **patient)

    async def has_read() -> bool:
        dispatcher = leader._dispatcher
        return dispatcher is not None and dispatcher._allowance.rules.limits["db"].concurrent == 2

    async with running(leader.run()):
        await until_offered(alone, 0)
        await limit(alone, "db", concurrent=4)
        await until_offered(alone, 4)
        claimed = await take(alone)
        assert len(claimed) == 4
        await limit(alone, "db", concurrent=2)
        await until(has_read)
        releases = [Release(str(one.job_id), one.claim_revision, one.lease, one.slots) for one in claimed.values()]
        assert all(await release_batch(alone.etcd, alone.keys, releases[:2]))
        await until_offered(alone, 0)  # two are held still, above the new limit's numbers or not
        assert all(await release_batch(alone.etcd, alone.keys, releases[2:3]))
        await until_offered(alone, 1)
        await alone.db.fetch("delete_limit", {"name": "db"})
        await until_offered(alone, 9)


async def test_a_new_leader_counts_the_offers_of_the_one_before(make_parts: MakeParts, database: str) -> None:
    one, two = await make_parts(database), await make_parts(database)
    await limit(one, "db", concurrent=2)
    for _ in range(6):
        await one.submit(limits=("db",))
    await one.register("w1", capacity=50)
    async with running(leader_of(one, "c1", offer_timeout_s=60.0).run()):
        first = await until_offered(one, 2)
    async with running(leader_of(two, "c2", offer_timeout_s=60.0).run()):
        assert await until_offered(two, 2) == first
        await take(two)
        assert await until_offered(two, 0) == {}


async def test_lanes_that_cannot_run_now_are_not_read(
    alone: Parts, patient: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full limit, a paused pool, kind and namespace, missing labels: in front of the queue, and never looked at."""
    await limit(alone, "full", concurrent=0)
    for _ in range(5):
        await alone.submit(priority=9, limits=("full",))
        await alone.submit(priority=9, route="default/paused")
        await alone.submit(priority=9, kind="paused-kind")
        await alone.submit(priority=9, namespace="paused-ns")
        await alone.submit(priority=9, requires={"gpu": "yes"})
    runs = await alone.submit()
    pauses = (("pool", "default/paused"), ("kind", "paused-kind"), ("namespace", "paused-ns"))
    for subject, name in pauses:
        await alone.db.fetch("pause", {"subject": subject, "name": name, "reason": ""})
    await alone.lanes.refit(await alone.lanes.register_pools(["default/paused"]))
    await alone.register("w1", capacity=50, kinds=("k", "paused-kind"))
    read: Counter[int] = Counter()
    fetch = alone.db.fetch

    async def counting(name: str, params: Any = None) -> Any:
        rows = await fetch(name, params)
        if name == "ready_window":
            read.update(row.lane for row in rows)
        return rows

    monkeypatch.setattr(alone.db, "fetch", counting)
    async with running(leader_of(alone, **patient).run()):
        assert list(await until_offered(alone, 1)) == [runs]
        assert len(read) == 1, "only the lane of the job that can run was read"
        for subject, name in pauses:
            await fetch("resume", {"subject": subject, "name": name})
        await until_offered(alone, 16)
        await alone.register("w2", capacity=50, labels={"gpu": "yes"})
        await until_offered(alone, 5, "w2")


async def test_a_paused_route_holds_jobs_that_lie_in_the_lane_above(alone: Parts, patient: dict[str, Any]) -> None:
    """Written by a coordinator that has not heard of the pause."""
    below = await alone.submit(route="default/team/x")
    beside = await alone.submit(route="default/teams")
    await alone.db.fetch("pause", {"subject": "pool", "name": "default/team", "reason": ""})
    await alone.db.fetch("register_pools", {"pools": ["default/team"]})
    await alone.register("w1")
    async with running(leader_of(alone, **patient).run()):
        assert list(await until_offered(alone, 1)) == [beside]
    rows = await alone.sql("SELECT l.pool FROM tenure.job j JOIN tenure.lane l ON l.id = j.lane WHERE j.id = %s", below)
    assert [row.pool for row in rows] == ["default/team"]


async def test_a_rate_lets_a_burst_start_and_then_as_many_as_it_says(alone: Parts, patient: dict[str, Any]) -> None:
    await limit(alone, "api", rate=1, interval_s=3_600.0, burst=3)
    for _ in range(10):
        await alone.submit(limits=("api",))
    await alone.register("w1", capacity=50)
    async with running(leader_of(alone, **patient).run()):
        await until_offered(alone, 3)
        # An hour passes for the bucket.
        await alone.sql("UPDATE tenure.bucket SET taken_at = taken_at - interval '1 hour'")
        await limit(alone, "api", rate=2, interval_s=3_600.0, burst=3)
        await alone.sql("DELETE FROM tenure.bucket")
        await limit(alone, "api", rate=100, interval_s=1.0, burst=1)
        await until_offered(alone, 10)


async def test_a_new_leader_finds_the_buckets_as_they_were_left(make_parts: MakeParts, database: str) -> None:
    one, two = await make_parts(database), await make_parts(database)
    await limit(one, "api", rate=2, interval_s=3_600.0)
    for _ in range(6):
        await one.submit(limits=("api",))
    await one.register("w1", capacity=50)
    async with running(leader_of(one, "c1", offer_timeout_s=60.0).run()):
        await until_offered(one, 2)
        await take(one)
    async with running(leader_of(two, "c2", offer_timeout_s=60.0).run()):
        await until_offered(two, 0)


async def test_a_deposed_leader_takes_no_tokens(alone: Parts) -> None:
    await limit(alone, "api", rate=5)
    guard = Statement("assert_term", {"leader": "c1", "term": 1})
    allowance = Allowance(alone.db, alone.clock, Flight(), guard)
    await allowance.read_rules()
    lane = Lane(1, "default", "default", "k", ("api",))
    row = await alone.row(await alone.submit(limits=("api",)))
    candidate = Candidate(0, 0.0, str(row.id), 1, 0, "default", 10.0)
    with pytest.raises(Deposed):
        await allowance.take_tokens([Assignment("w1", candidate)], {1: lane})
    assert await alone.sql("SELECT 1 FROM tenure.bucket") == []


class Ahead(SystemClock):
    """A clock that can be put forward."""

    by_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by_s


async def test_a_bucket_that_is_full_again_is_forgotten(alone: Parts) -> None:
    """A family has a member for each tenant that ever had a job."""
    await limit(alone, "api:*", rate=5, interval_s=3_600)
    clock = Ahead()
    term = await begin_term(alone)
    seen = {"etcd_cluster_id": "1", "etcd_revision": term.number}
    await alone.db.fetch("take_leadership", {"leader": "c1", "term": term.number, **seen})
    allowance = Allowance(alone.db, clock, Flight(), assert_term(term))
    await allowance.read_rules()
    lanes = {n: Lane(n, "default", "default", "k", (f"api:t{n}",)) for n in (1, 2)}
    row = await alone.row(await alone.submit())
    for n in lanes:
        one = Assignment("w1", Candidate(0, 0.0, str(row.id), n, 0, "default", 10.0))
        assert await allowance.take_tokens([one] * n, lanes) == [one] * n
    await allowance.read_rules()
    assert set(allowance._tokens) == {"api:t1", "api:t2"}
    clock.by_s = 1_000.0  # a token and a bit
    await allowance.read_rules()
    assert set(allowance._tokens) == {"api:t2"}
    assert allowance.open(lanes.values()).units == {"api:t1": 5, "api:t2": 4}


async def test_namespaces_take_turns_by_weight(alone: Parts, patient: dict[str, Any]) -> None:
    for n in range(60):
        await alone.submit(namespace="many" if n < 40 else "few")
    await alone.db.fetch(
        "put_namespace",
        {"name": "few", "weight": 3.0, "ageing_s": None, "backlog": None, "submit_rate": None, "submit_burst": None},
    )
    await alone.register("w1", capacity=16)
    async with running(leader_of(alone, **patient).run()):
        found = await until_offered(alone, 16)
    assert Counter(offer.namespace for _, offer in found.values()) == {"few": 12, "many": 4}


async def test_slots_that_a_snapshot_brought_back_are_deleted_with_their_claims(alone: Parts) -> None:
    """After etcd was restored: claims and slots that no executing row owns, on leases that workers still renew."""
    id, other = await alone.submit(), await alone.submit()
    lease, kept = (await alone.etcd.grant(60.0)).lease, (await alone.etcd.grant(60.0)).lease
    value = b'{"worker":"w1","namespace":"n","kind":"k","route":"r","lease":"1","claimed_at":"x"}'
    requests = [ClaimRequest(str(id), lease, value, ("db/0",)), ClaimRequest(str(other), kept, value, ("db/1",))]
    results = await claim_batch(alone.etcd, alone.keys, requests)
    await alone.starter.start("w1", [ClaimedJob(str(other), 0, kept, results[1].create_revision, ("db/1",))])
    watchman = await begin_watch(alone)
    assert await watchman.reaper.drop_strays() == 1
    assert await slots(alone) == ["db/1"]


async def test_a_slot_outlasts_a_claim_that_is_taken_away(alone: Parts) -> None:
    """The handler runs until its worker notices: until then the slot is its own."""
    await limit(alone, "db", concurrent=1)
    id = await alone.submit(limits=("db",))
    await alone.register("w1")
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        await until_offered(alone, 1)
        claimed = (await take(alone))[id]
    await alone.starter.start("w1", [claimed])
    assert await Revoker(alone.db, alone.etcd, alone.keys, alone.finisher).revoke(id)
    assert await alone.claim_of(id) is None
    assert await slots(alone) == ["db/0"]
    await alone.etcd.revoke(claimed.lease)  # as the worker does when its report is refused
    assert await slots(alone) == []


async def test_a_job_that_is_held_takes_no_slot_from_others(alone: Parts, patient: dict[str, Any]) -> None:
    await limit(alone, "db", concurrent=1)
    held, other = [await alone.submit(limits=("db",), priority=priority) for priority in (5, 0)]
    await alone.etcd.txn(Txn((), (Put(alone.keys.hold(str(held)), b"{}"),)))
    await alone.register("w1")
    async with running(leader_of(alone, **patient).run()):
        assert list(await until_offered(alone, 1)) == [other]
        await take(alone)
        await limit(alone, "db", concurrent=2)
        await until_offered(alone, 0)
        await alone.etcd.txn(Txn((), (Delete(alone.keys.hold(str(held))),)))
        assert list(await until_offered(alone, 1)) == [held]


async def test_many_limited_lanes_are_served_in_one_round(alone: Parts, patient: dict[str, Any]) -> None:
    """Each admits one job and has older ones than the next: none is in the way of the others, nor of what is free."""
    await limit(alone, "tenant:*", concurrent=1)
    for tenant in range(20):
        for _ in range(3):
            await alone.submit(limits=(f"tenant:t{tenant}",))
    free = await alone.submit()
    await alone.register("w1", capacity=100)
    stage = Stage(alone, await begin_term(alone))
    await stage.worker("w1", capacity=100)
    await stage.dispatcher._poll()
    assert await stage.dispatcher._cycle()
    found = await offers(alone)
    assert len(found) == 21
    assert free in found


async def test_rows_that_are_claimed_and_not_started_are_read_past(alone: Parts, patient: dict[str, Any]) -> None:
    """A worker claims many and starts none: what comes after them, in their lane and others, still goes out."""
    for _ in range(40):
        await alone.claim(await alone.submit())
    behind = [await alone.submit() for _ in range(3)]
    beside = await alone.submit(kind="other")
    await alone.register("w2", capacity=8, kinds=("k", "other"))
    async with running(leader_of(alone, **patient).run()):
        assert set(await until_offered(alone, 4, "w2")) == {*behind, beside}


def test_an_offer_that_is_seen_again_changes_nothing() -> None:
    """A watch that was cut goes over its past: the offer had been claimed, and its slot is held."""
    flight = Flight()
    offer = Outstanding("k1", "w1", {"a": Offer("a", 0, 10.0, "n", "k", "r", ("db/0",))}, 0.0)
    flight.offered(offer)
    flight.claim_seen("a", Held("w1", "n"))
    flight.slot_seen("db", 0, "a")
    flight.offer_gone("k1", 1.0)
    before = (dict(flight.slots), dict(flight.by_namespace))
    flight.offered(offer)
    flight.offer_gone("k1", 2.0)
    flight.settle(10.0)
    assert (dict(flight.slots), dict(flight.by_namespace)) == before


def test_a_claim_under_an_earlier_offer_counts_at_its_own_worker() -> None:
    flight = Flight()
    flight.offered(Outstanding("k2", "w2", {"a": Offer("a", 0, 10.0, "n", "k", "r", ("db/1",))}, 0.0))
    flight.claim_seen("a", Held("w1", "n"))
    flight.slot_seen("db", 0, "a")
    assert flight.claims["a"].worker == "w1"
    assert dict(flight.slots) == {"db": {0: "a"}}
