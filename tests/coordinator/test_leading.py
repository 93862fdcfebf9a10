"""What only the leader does: dispatch, reap, move jobs to deeper pools, activate; each on real stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.coordinator.conftest import WORKER, MakeParts, Parts, leader_of, reaper_of, running, settings_of, until
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory

from tenure.coordinator.allowance import Allowance
from tenure.coordinator.dispatch import Dispatcher
from tenure.coordinator.finish import Report
from tenure.coordinator.flight import SETTLE_S, SUSPECT_S, Flight, Held, Outstanding
from tenure.coordinator.leader import Picture
from tenure.coordinator.reap import Reaper
from tenure.coordinator.start import ClaimedJob
from tenure.coordinator.upkeep import Upkeep
from tenure.model.errors import Deposed, Unavailable
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, claim_batch
from tenure.store.etcd.connect import connect
from tenure.store.etcd.election import Election, Term
from tenure.store.etcd.keyspace import LeaderValue, Offer, Offers, WorkerValue, parse_inbox
from tenure.store.etcd.port import Delete, Put, Txn
from tenure.store.postgres.database import Statement


async def _term(parts: Parts) -> Term:
    async for term in Election(parts.etcd, parts.keys, "c1", 60.0, parts.clock).terms():
        return term
    raise AssertionError("terms never end")


def assert_term(term: Term) -> Statement:
    """Return the guard of a leader's writes."""
    return Statement("assert_term", {"leader": "c1", "term": term.number})


class Stage:
    """A dispatcher and its picture, which the test paints."""

    def __init__(self, parts: Parts, term: Term, **settings: Any) -> None:
        self.parts = parts
        self.flight = Flight()
        self.dispatcher = Dispatcher(
            settings_of(parts, **settings),
            parts.db,
            parts.etcd,
            parts.keys,
            parts.clock,
            parts.lanes,
            self.flight,
            Allowance(parts.db, parts.clock, self.flight, assert_term(term)),
            term,
        )

    async def worker(self, worker: str, *, capacity: int = 10, **value: Any) -> int:
        """Register a worker, and let the picture show it."""
        lease = await self.parts.register(worker, capacity=capacity, **value)
        told = {"pools": ("default",), "kinds": ("k",), "labels": {}, "capacity": capacity, **value}
        self.flight.worker_seen(worker, WorkerValue(**told), lease)
        return lease

    async def offered(self, worker: str) -> list[uuid.UUID]:
        """Read what is offered to a worker now, in the order of the offers."""
        listing = await self.parts.etcd.list(self.parts.keys.inbox(worker))
        messages = [parse_inbox(item.value) for item in listing.items]
        return [uuid.UUID(one.job) for message in messages if isinstance(message, Offers) for one in message.offers]

    async def until_offered(self, worker: str, jobs: Iterable[uuid.UUID]) -> list[uuid.UUID]:
        """Wait until a worker is offered just these jobs."""
        wanted = set(jobs)

        async def check() -> list[uuid.UUID] | None:
            found = await self.offered(worker)
            return found if set(found) == wanted else None

        found: list[uuid.UUID] = await until(check)
        return found


@pytest.fixture
def slow() -> dict[str, float]:
    """Settings under which nothing is withdrawn or looked at again during a test."""
    return {"offer_timeout_s": 60.0}


async def test_jobs_are_offered_in_strict_order_up_to_the_room(alone: Parts, slow: dict[str, float]) -> None:
    low = [await alone.submit(priority=0) for _ in range(3)]
    high = [await alone.submit(priority=5, kind=kind) for kind in ("k", "other", "k")]
    stage = Stage(alone, await _term(alone), **slow)
    await stage.worker("w1", capacity=4, kinds=("k", "other"))
    async with running(stage.dispatcher.run()):
        assert await stage.until_offered("w1", [*high, low[0]]) == [*high, low[0]]


async def test_lanes_that_nobody_serves_are_passed_over(alone: Parts, slow: dict[str, float]) -> None:
    for _ in range(3):
        await alone.submit(kind="nobody", priority=9)
        await alone.submit(route="elsewhere", priority=9)
        await alone.submit(route="default-but-not-quite", priority=9)
    mine = await alone.submit()
    stage = Stage(alone, await _term(alone), **slow)
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [mine])


async def test_jobs_are_spread_over_the_workers_with_the_most_room(alone: Parts, slow: dict[str, float]) -> None:
    jobs = [await alone.submit() for _ in range(9)]
    stage = Stage(alone, await _term(alone), **slow)
    await stage.worker("small", capacity=2)
    await stage.worker("large", capacity=10)
    await stage.worker("draining", capacity=10, draining=True)
    async with running(stage.dispatcher.run()):

        async def all_offered() -> bool:
            found = [*await stage.offered("small"), *await stage.offered("large")]
            assert len(found) == len(set(found))
            return set(found) == set(jobs)

        await until(all_offered)
    assert len(await stage.offered("small")) <= 2
    assert await stage.offered("draining") == []


async def test_an_offer_that_nobody_answers_goes_to_another_worker(alone: Parts) -> None:
    job = await alone.submit()
    stage = Stage(alone, await _term(alone), offer_timeout_s=0.2)
    await stage.worker("silent")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("silent", [job])
        await stage.worker("awake")
        stage.dispatcher.look_everywhere()
        await stage.until_offered("awake", [job])
        assert await stage.offered("silent") == []
        assert "silent" in stage.flight.suspects


async def test_an_offer_that_etcd_swallowed_speaks_against_no_worker(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Etcd gives no answer to an offer; once it answers again the same worker is offered the job."""
    job = await alone.submit()
    stage = Stage(alone, await _term(alone), offer_timeout_s=1.0)
    await stage.worker("w1")
    suspects: list[str] = []
    monkeypatch.setattr(Flight, "suspect", lambda flight, worker: suspects.append(worker))
    txn, swallowed = alone.etcd.txn, asyncio.Event()

    async def swallow(*args: Any, **options: Any) -> Any:
        if not swallowed.is_set():
            swallowed.set()
            raise Unavailable("no answer")
        return await txn(*args, **options)

    monkeypatch.setattr(alone.etcd, "txn", swallow)
    async with running(stage.dispatcher.run()):
        await swallowed.wait()
        await stage.until_offered("w1", [job])
    assert suspects == []


async def test_an_offer_that_a_member_swallowed_is_made_again_at_another(
    alone: Parts, slow: dict[str, float], etcd_server: EtcdServer, proxy: ProxyFactory
) -> None:
    """In the same call: the dispatcher, and with it every other job, does not wait for etcd's timeout."""
    links = [await proxy(etcd_server.port, etcd_server.host) for _ in range(2)]
    etcd = connect([f"grpc://{link.address}" for link in links])
    behind = Parts(alone.dsn, alone.db, etcd, alone.keys, alone.clock)
    job = await behind.submit()
    stage = Stage(behind, await _term(behind), **slow)
    await stage.worker("w1")
    links[0].blackhole()
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [job])
    await etcd.close()


async def test_an_offer_that_comes_twice_wins_nothing(alone: Parts) -> None:
    """Why it may be made again: answered in between, its jobs have been claimed, have ended or have moved on."""
    claimed, done, again = [await alone.submit() for _ in range(3)]
    await alone.execute(claimed)
    await alone.finish(done, (await alone.execute(done)).fence)
    await alone.finish(again, (await alone.execute(again)).fence, Outcome.RELEASED)
    won = []
    for job in (claimed, done, again):
        lease = (await alone.etcd.grant(60)).lease
        [result] = await claim_batch(alone.etcd, alone.keys, [ClaimRequest(str(job), lease, b"{}")])
        if result.outcome is ClaimOutcome.WON:
            won.append(ClaimedJob(job, 0, lease, result.create_revision))
    assert [one.job_id for one in won] == [done, again]
    assert await alone.starter.start(WORKER, won) == []


def test_a_suspicion_against_all_is_none() -> None:
    """Whatever befell every worker at once was not theirs, and somebody has to run the jobs."""
    flight = _flight(w1=3, w2=5)
    flight.suspect("w1")
    assert _room(flight) == {"w2": 5}
    flight.worker_seen("w3", WorkerValue(("default",), ("k",), 5, {}, draining=True), 3)
    flight.suspect("w2")
    assert _room(flight) == {"w1": 3, "w2": 5}


async def test_a_hint_is_enough(alone: Parts) -> None:
    stage = Stage(alone, await _term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await asyncio.sleep(0)  # lets the first poll, which finds nothing, begin before the submit
        job = await alone.submit()
        [row] = await alone.sql("SELECT lane FROM tenure.job WHERE id = %s", job)
        stage.dispatcher.hint([row.lane])
        await stage.until_offered("w1", [job])


async def test_a_deposed_leader_offers_nothing(alone: Parts, slow: dict[str, float]) -> None:
    job = await alone.submit()
    stage = Stage(alone, await _term(alone), **slow)
    await stage.worker("w1")
    other = Put(alone.keys.leader, LeaderValue("c2", "").to_json())
    await alone.etcd.txn(Txn((), (Delete(alone.keys.leader),)))
    await alone.etcd.txn(Txn((), (other,)))
    with pytest.raises(Deposed):
        async with asyncio.timeout(20):
            await stage.dispatcher.run()
    assert await stage.offered("w1") == []
    assert await alone.state(job) is JobState.READY


async def test_a_worker_whose_session_ended_spoils_no_offer_to_others(alone: Parts) -> None:
    jobs = [await alone.submit() for _ in range(6)]
    stage = Stage(alone, await _term(alone), offer_timeout_s=60.0)
    gone = await stage.worker("gone", capacity=3)
    await stage.worker("w1", capacity=6)
    await alone.etcd.revoke(gone)  # and the picture does not know yet
    async with running(stage.dispatcher.run()):

        async def some() -> bool:
            return bool(await stage.offered("w1"))

        await until(some)
        stage.flight.worker_gone("gone")
        await stage.until_offered("w1", jobs)


async def test_offers_that_are_too_large_together_are_made_one_by_one(alone: Parts) -> None:
    """Etcd takes 1.5 MiB at a time: thirteen workers, five hundred jobs each, with long routes."""
    workers = [f"w{number}" for number in range(13)]
    route = "/".join(["default", *("x" * 60 for _ in range(4))])
    await alone.submitter.submit_batch([JobSpec(kind="k", route=route) for _ in range(6_500)])
    stage = Stage(alone, await _term(alone), offer_timeout_s=60.0)
    for worker in workers:
        await stage.worker(worker, capacity=500)
    async with running(stage.dispatcher.run()):

        async def everything() -> bool:
            return sum([len(await stage.offered(worker)) for worker in workers]) == 6_500

        await until(everything)


async def test_a_brake_holds_offers_back(alone: Parts) -> None:
    job = await alone.submit()
    stage = Stage(alone, await _term(alone))
    await stage.worker("w1")
    stage.dispatcher.brake(0.3)
    held_until = alone.clock.monotonic() + 0.3
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [job])
    assert alone.clock.monotonic() >= held_until


async def test_the_brake_counts_from_the_first_wave(alone: Parts) -> None:
    """Thousands of leases expire over seconds: the last of them do not hold up what the first ones freed."""
    job = await alone.submit()
    stage = Stage(alone, await _term(alone))
    await stage.worker("w1")
    stage.dispatcher.brake(0.3)
    stage.dispatcher.brake(3_600.0)
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [job])


async def test_a_backlog_is_read_in_bounded_windows(alone: Parts, slow: dict[str, float]) -> None:
    for _ in range(60):
        await alone.submit()
    stage = Stage(alone, await _term(alone), **slow)
    await stage.worker("w1", capacity=5)
    async with running(stage.dispatcher.run()):

        async def five() -> bool:
            return len(await stage.offered("w1")) == 5

        await until(five)
        candidates, cut, _ = await stage.dispatcher._read(list(stage.dispatcher._known.values()), {}, 5)
        assert len(candidates) <= 5 + len(stage.flight._offered) + 4
        assert None not in cut.values()


# -- the picture --


def _flight(**capacities: int) -> Flight:
    flight = Flight()
    for lease, (worker, capacity) in enumerate(capacities.items(), 1):
        flight.worker_seen(worker, WorkerValue(("default",), ("k",), capacity, {}), lease)
    return flight


def _offers(key: str, worker: str, *jobs: str) -> Outstanding:
    return Outstanding(key, worker, {job: Offer(job, 0, 10.0, "n", "k", "default") for job in jobs}, 0.0)


def _room(flight: Flight) -> dict[str, int]:
    return {seat.worker: seat.free for seat in flight.seats(100)}


def test_the_picture_counts_offers_and_claims_once() -> None:
    flight = _flight(w1=5)
    flight.offered(_offers("k1", "w1", "a", "b", "c"))
    assert _room(flight) == {"w1": 2}
    flight.claim_seen("a", Held("w1", "n"))
    flight.claim_seen("b", Held("w1", "n"))
    assert _room(flight) == {"w1": 2}
    flight.offer_gone("k1", 1.0)
    assert _room(flight) == {"w1": 3}
    assert [flight.in_flight(job) for job in "abcd"] == [True, True, True, False]
    flight.settle(1.0 + SETTLE_S)
    assert not flight.in_flight("c")
    flight.claim_gone("a")
    flight.claim_gone("a")
    assert _room(flight) == {"w1": 4}


def test_a_claim_that_changes_hands_is_counted_at_its_new_worker() -> None:
    flight = _flight(w1=5, w2=5)
    flight.claim_seen("a", Held("w1", "n"))
    flight.claim_seen("a", Held("w2", "n"))
    assert _room(flight) == {"w1": 5, "w2": 4}


def test_a_suspect_gets_nothing_until_it_shows_that_it_lives_or_has_outlived_the_suspicion() -> None:
    flight = _flight(w1=5, w2=5, w3=5, full=0)
    for worker in ("w1", "w2", "w3", "unknown"):
        flight.suspect(worker)
    assert _room(flight) == {}
    flight.claim_seen("a", Held("w1", "n"))
    flight.worker_seen("w2", WorkerValue(("default",), ("k",), 5, {}), 2)
    assert _room(flight) == {"w1": 4, "w2": 5}
    flight.settle(100.0)
    flight.settle(100.0 + SUSPECT_S / 2)
    assert "w3" not in _room(flight)
    flight.settle(100.0 + SUSPECT_S)
    assert _room(flight)["w3"] == 5


# -- reaping --


@dataclass
class Watchman:
    """A reaper with what it said."""

    reaper: Reaper
    suspects: list[str]
    brakes: list[float]


async def _watchman(parts: Parts, term: int = 10) -> Watchman:
    suspects: list[str] = []
    brakes: list[float] = []
    made = await reaper_of(parts, term=term, suspect=suspects.append, brake=brakes.append)
    return Watchman(made, suspects, brakes)


async def test_a_sweep_reaps_what_has_lost_its_own_claim_and_nothing_else(alone: Parts) -> None:
    kept, lost, replaced = [await alone.submit() for _ in range(3)]
    for id in (kept, lost, replaced):
        await alone.execute(id)
    await alone.lose_claim(lost)
    await alone.lose_claim(replaced)
    await alone.claim(replaced, worker="w2")  # identity counts, not existence
    watchman = await _watchman(alone)
    assert await watchman.reaper.sweep() == 2
    assert await watchman.reaper.sweep() == 0
    assert [await alone.state(id) for id in (kept, lost, replaced)] == [
        JobState.EXECUTING,
        JobState.RESTARTING,
        JobState.RESTARTING,
    ]
    assert await alone.outcomes(lost) == ["lost"]
    row = await alone.row(lost)
    assert (row.crashes, row.errors) == (1, 0)
    assert "WorkerLost" in row.error
    assert watchman.suspects.count("w1") == 1
    assert watchman.brakes == []
    assert await alone.claim_of(replaced) is not None  # not its claim: not its to delete


async def test_a_vanished_claim_is_noticed_by_the_watch(alone: Parts) -> None:
    id, released = await alone.submit(), await alone.submit()
    await alone.execute(id)
    started = await alone.execute(released)
    await alone.finish(released, started.fence)
    await alone.lose_claim(id)
    watchman = await _watchman(alone)
    async with running(watchman.reaper.watch_forever()):
        watchman.reaper.claim_gone(str(released))
        watchman.reaper.claim_gone(str(id))

        async def reaped() -> bool:
            return await alone.state(id) is JobState.RESTARTING

        await until(reaped)
    assert await alone.outcomes(released) == ["completed"]


async def test_a_poison_job_ends_after_its_crashes(alone: Parts) -> None:
    id = await alone.submit(max_crashes=2)
    child = await alone.submit(depends_on=(str(id),))
    watchman = await _watchman(alone)
    for state in (JobState.RESTARTING, JobState.FAILED):
        await alone.execute(id)
        await alone.lose_claim(id)
        assert await watchman.reaper.sweep() == 1
        assert await alone.state(id) is state
    row = await alone.row(id)
    assert (row.crashes, row.errors, row.attempt) == (2, 0, 2)
    assert row.reason == "lost its worker 2 times"
    assert await alone.done(id) is not None
    assert await alone.state(child) is JobState.CANCELED


async def test_a_claim_taken_from_a_living_worker_is_no_crash(alone: Parts) -> None:
    session = await alone.register()
    id, other = await alone.submit(max_crashes=1), await alone.submit()
    await alone.execute(id)
    await alone.execute(other, worker="another")
    watchman = await _watchman(alone)
    await alone.lose_claim(id)
    await alone.lose_claim(other)  # of a worker that is not registered
    assert await watchman.reaper.sweep() == 2
    row = await alone.row(id)
    assert (row.state, row.crashes, row.errors) == (JobState.READY, 0, 0)
    assert row.activate_at > row.created_at + timedelta(seconds=row.ttl_s)
    assert await alone.outcomes(id) == ["released"]
    assert await alone.outcomes(other) == ["lost"]
    assert watchman.suspects == ["another"]
    await alone.etcd.revoke(session)


async def test_a_session_younger_than_the_claim_proves_nothing(alone: Parts) -> None:
    """The worker died and was started again under the same name before its claims expired."""
    id = await alone.submit(max_crashes=1)
    await alone.execute(id)
    await alone.register()
    await alone.lose_claim(id)
    watchman = await _watchman(alone)
    assert await watchman.reaper.sweep() == 1
    assert await alone.state(id) is JobState.FAILED
    assert watchman.suspects == [WORKER]


async def test_the_sweep_reminds_a_worker_of_a_cancel_once_per_session(alone: Parts) -> None:
    id = await alone.submit()
    started = await alone.execute(id)
    await alone.canceler.cancel(id, "enough")  # nobody there to ask
    watchman = await _watchman(alone)
    key = alone.keys.message(WORKER, started.fence)
    await watchman.reaper.sweep()
    assert await alone.etcd.get(key) is None
    for _ in range(2):
        session = await alone.register()
        await watchman.reaper.sweep()
        message = await alone.etcd.get(key)
        assert message is not None and message.lease == session
        await alone.etcd.txn(Txn((), (Delete(key),)))
        await watchman.reaper.sweep()
        assert await alone.etcd.get(key) is None, "mentioned once"
        await alone.etcd.revoke(session)


async def test_a_lost_attempt_that_was_to_be_canceled_is_canceled(alone: Parts) -> None:
    id = await alone.submit()
    await alone.execute(id)
    await alone.canceler.cancel(id, "")
    await alone.lose_claim(id)
    assert await (await _watchman(alone)).reaper.sweep() == 1
    assert await alone.state(id) is JobState.CANCELED


async def test_a_cancel_that_its_worker_does_not_heed_ends_the_attempt_after_the_grace(alone: Parts) -> None:
    ids = [await alone.submit() for _ in range(3)]
    deaf, asked, at_work = ids
    fences = {id: (await alone.execute(id)).fence for id in ids}
    await alone.canceler.cancel(deaf, "tariff changed")
    await alone.canceler.cancel(asked, "")
    await alone.sql("UPDATE tenure.job SET cancel_requested_at = now() - interval '31 s' WHERE id = %s", deaf)
    await alone.canceler.cancel(deaf, "tariff changed")  # asking again gives no new grace
    watchman = await _watchman(alone)
    assert await watchman.reaper.sweep() == 1
    row = await alone.row(deaf)
    assert (row.state, row.reason) == ("canceled", "canceled; its worker did not stop in time (tariff changed)")
    assert await alone.outcomes(deaf) == ["canceled"]
    assert await alone.claim_of(deaf) is None, "its worker sees that, and stops"
    assert await alone.done(deaf) is not None
    assert watchman.suspects == []
    assert (await alone.finish(deaf, fences[deaf], result="1")).verdict == "lost"
    assert [await alone.state(id) for id in (asked, at_work)] == [JobState.EXECUTING] * 2


@pytest.mark.parametrize(("attempts", "state"), [(1, JobState.FAILED), (3, JobState.READY)])
async def test_an_attempt_past_its_timeout_ends_whatever_its_claim_says(
    alone: Parts, attempts: int, state: JobState
) -> None:
    id = await alone.submit(timeout_s=1.0, retry={"max_attempts": attempts})
    young = await alone.submit(timeout_s=3600.0)
    started = await alone.execute(id)
    await alone.execute(young)
    await alone.sql("UPDATE tenure.job SET started_at = now() - interval '10 s' WHERE id = %s", id)
    assert await (await _watchman(alone)).reaper.sweep() == 1
    assert await alone.state(id) is state
    assert await alone.claim_of(id) is None  # its worker sees that and stops
    assert await alone.outcomes(id) == ["timed_out"]
    answer = await alone.finish(id, started.fence, result="1")
    assert answer.verdict == "lost"
    assert await alone.state(young) is JobState.EXECUTING


async def test_many_workers_gone_at_once_put_the_brake_on(alone: Parts) -> None:
    ids = [await alone.submit(ttl_s=7.0 + n) for n in range(3)]
    for n, id in enumerate(ids):
        await alone.execute(id, worker=f"w{n}")
        await alone.lose_claim(id)
    watchman = await _watchman(alone)
    assert await watchman.reaper.sweep() == 3
    assert watchman.brakes == [9.0]
    assert sorted(watchman.suspects) == ["w0", "w1", "w2"]


async def test_losses_in_two_sweeps_shortly_after_each_other_count_together(alone: Parts) -> None:
    ids = [await alone.submit(ttl_s=7.0) for _ in range(3)]
    for n, id in enumerate(ids):
        await alone.execute(id, worker=f"w{n}")
    watchman = await _watchman(alone)
    for lost, brakes in ((ids[:2], []), (ids[2:], [7.0])):
        for id in lost:
            await alone.lose_claim(id)
        assert await watchman.reaper.sweep() == len(lost)
        assert watchman.brakes == brakes


async def test_workers_may_report_before_timeouts_are_judged(alone: Parts) -> None:
    """They could not, while Postgres or every coordinator was away; what finished in time is not to be thrown away."""
    late, lost = [await alone.submit(timeout_s=1.0) for _ in range(2)]
    started = await alone.execute(late)
    await alone.execute(lost)
    await alone.lose_claim(lost)
    await alone.sql("UPDATE tenure.job SET started_at = now() - interval '1 hour'")
    reaper = await reaper_of(alone, reports_first_s=3600.0)
    assert await reaper.sweep() == 1
    assert await alone.state(lost) is JobState.RESTARTING
    assert (await alone.finish(late, started.fence)).verdict == "recorded"
    assert await alone.state(late) is JobState.COMPLETED


async def test_a_claim_that_nobody_owns_for_a_while_is_given_up(alone: Parts) -> None:
    owned, idle, ended = [await alone.submit() for _ in range(3)]
    await alone.execute(owned)
    await alone.claim(idle)
    started = await alone.execute(ended)
    await alone.finisher.write(await alone.finisher._decide([Report(ended, started.fence, Outcome.COMPLETED)]))
    leases = {id: (await alone.claim_of(id)).lease for id in (idle, ended)}  # type: ignore[union-attr]
    reaper = await reaper_of(alone)
    assert await reaper.drop_orphans() == 0  # as yet
    assert await reaper.drop_orphans(orphaned_s=0.0) == 2
    assert [await alone.claim_of(id) is None for id in (owned, idle, ended)] == [False, True, True]
    assert await alone.etcd.time_to_live(leases[idle]) is None
    assert await alone.etcd.time_to_live(leases[ended]) is not None, "its handler may still run, under its slots"
    assert await reaper.drop_orphans(orphaned_s=0.0) == 0


async def test_a_deposed_leader_gives_up_no_claims(alone: Parts) -> None:
    job = await alone.submit()
    await alone.claim(job)
    reaper = await reaper_of(alone)
    await alone.etcd.txn(Txn((), (Put(alone.keys.leader, b"{}"),)))
    with pytest.raises(Deposed):
        await reaper.drop_orphans(orphaned_s=0.0)
    assert await alone.claim_of(job) is not None


async def test_a_lane_that_postgres_lost_is_made_again(alone: Parts) -> None:
    """It failed over to a server that never had the row; coordinators remember its id and write more jobs to it."""
    await alone.lanes.register_pools(["default/deep"])
    spec = {"route": "default/deep/er", "limits": ("b", "a"), "requires": {"gpu": "yes", "arch": "arm"}}
    before = await alone.submit(**spec)
    await alone.sql("DELETE FROM tenure.lane")
    after = await alone.submit(**spec)
    await alone.register(pools=("default",), labels={"gpu": "yes", "arch": "arm"})
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        await until(lambda: _both_offered(alone, {str(before), str(after)}))


async def _both_offered(parts: Parts, jobs: set[str]) -> bool:
    inbox = await parts.etcd.list(parts.keys.inboxes)
    return jobs == {offer.job for item in inbox.items for offer in getattr(parse_inbox(item.value), "offers", ())}


async def test_jobs_that_end_during_a_sweep_are_no_sign_of_lost_workers(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of rows and of claims three workers finish: nobody is suspected, nothing is held back."""
    ids = [await alone.submit() for _ in range(4)]
    started = [await alone.execute(id, worker=f"w{n}") for n, id in enumerate(ids)]
    await alone.lose_claim(ids[3])
    watchman = await _watchman(alone)
    listing = alone.etcd.list

    async def finish_then_list(*args: Any, **options: Any) -> Any:
        for id, attempt in zip(ids[:3], started[:3], strict=True):
            await alone.finish(id, attempt.fence, result="1")
        return await listing(*args, **options)

    monkeypatch.setattr(alone.etcd, "list", finish_then_list)
    assert await watchman.reaper.sweep() == 1
    assert watchman.suspects == ["w3"]
    assert watchman.brakes == []


async def test_a_leader_whose_term_is_over_reaps_nothing(alone: Parts) -> None:
    ids = [await alone.submit(max_crashes=crashes) for crashes in (1, 3)]
    for id in ids:
        await alone.execute(id)
        await alone.lose_claim(id)
    old = await _watchman(alone, 10)
    new = await _watchman(alone, 11)
    with pytest.raises(Deposed):
        await old.reaper.sweep()
    assert [await alone.state(id) for id in ids] == [JobState.EXECUTING] * 2
    assert await new.reaper.sweep() == 2


async def test_two_reapers_at_once_reap_each_attempt_once(alone: Parts) -> None:
    ids = [await alone.submit() for _ in range(20)]
    for id in ids:
        await alone.execute(id)
        await alone.lose_claim(id)
    watchman = await _watchman(alone)
    assert sum(await asyncio.gather(*(watchman.reaper.sweep() for _ in range(3)))) == 20
    for id in ids:
        assert await alone.outcomes(id) == ["lost"]


async def test_a_key_that_is_no_claim_does_not_stop_the_sweep(alone: Parts) -> None:
    """Anybody with etcdctl can write one; it must not end the term, nor the coordinator."""
    id = await alone.submit()
    await alone.execute(id)
    await alone.lose_claim(id)
    await alone.etcd.txn(Txn((), (Put(alone.keys.claim("not-a-job"), b"{}"),)))
    assert await (await _watchman(alone)).reaper.sweep() == 1


async def test_a_sweep_goes_through_many_pages(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.coordinator.reap.PAGE_JOBS", 3)
    ids = [await alone.submit() for _ in range(10)]
    for id in ids:
        await alone.execute(id)
    for id in ids[::2]:
        await alone.lose_claim(id)
    assert await (await _watchman(alone)).reaper.sweep() == 5
    assert {await alone.state(id) for id in ids[1::2]} == {JobState.EXECUTING}


async def test_claims_that_no_row_owns_are_dropped_after_etcd_was_set_back(alone: Parts) -> None:
    owned, stray, finished = [await alone.submit() for _ in range(3)]
    await alone.execute(owned)
    await alone.claim(stray)
    started = await alone.execute(finished)
    await alone.finish(finished, started.fence)
    await alone.claim(finished)
    assert await (await _watchman(alone)).reaper.drop_strays() == 2
    assert await alone.claim_of(owned) is not None
    assert await alone.claim_of(stray) is None
    assert await alone.claim_of(finished) is None
    assert await alone.state(owned) is JobState.EXECUTING


async def test_the_same_revision_on_another_lease_is_another_claim(alone: Parts) -> None:
    """After etcd was set back a revision comes again: only with its lease does it name one claim."""
    id = await alone.submit()
    await alone.execute(id)
    await alone.sql("UPDATE tenure.job SET lease = lease + 1 WHERE id = %s", id)
    assert await (await _watchman(alone)).reaper.sweep() == 1
    assert await alone.claim_of(id) is not None


# -- upkeep --


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


# -- a whole leader --


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


async def test_a_claim_counts_at_the_worker_that_holds_it(alone: Parts) -> None:
    stage = Stage(alone, await _term(alone))
    await stage.worker("w1")
    watchman = await _watchman(alone)
    picture = Picture(alone.keys, alone.clock, stage.flight, stage.dispatcher, watchman.reaper, alone.lanes)
    id = await alone.submit()
    stage.flight.offered(_offers(alone.keys.message("w1", 1), "w1", str(id)))
    views = picture.views(alone.etcd)
    async with running(*(view.run() for view in views)):
        for view in views:
            await view.ready.wait()
        await alone.claim(id)

        async def claimed() -> bool:
            return stage.flight.claims.get(str(id)) == Held("w1", "default")

        await until(claimed)
        assert {seat.worker: seat.free for seat in stage.flight.seats(100)} == {"w1": 9}
        await alone.lose_claim(id)

        async def gone() -> bool:
            return str(id) not in stage.flight.claims

        await until(gone)


async def test_an_end_by_the_leader_is_not_undone_by_a_late_release(alone: Parts) -> None:
    id = await alone.submit()
    started = await alone.execute(id)
    await alone.lose_claim(id)
    assert await (await _watchman(alone)).reaper.sweep() == 1
    answer = await alone.finish(id, started.fence, Outcome.RELEASED)
    assert answer.verdict == "lost"
    assert await alone.state(id) is JobState.RESTARTING
