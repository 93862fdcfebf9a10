"""Dispatch: what is offered to whom, and the picture of what is in flight; on real stores."""

from __future__ import annotations

import asyncio
import math
import uuid
from dataclasses import fields
from typing import Any

import pytest
from tests.coordinator.conftest import WORKER, Parts, leader_of, running, until
from tests.coordinator.stage import Stage, begin_term, begin_watch
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory

from tenure.coordinator import dispatch
from tenure.coordinator.flight import REST, REST_S, SETTLE_S, SUSPECT_S, Flight, Held, Outstanding
from tenure.coordinator.leader import Picture
from tenure.coordinator.start import ClaimedJob
from tenure.model.dispatch import Seat
from tenure.model.errors import Deposed, Unavailable
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, claim_batch
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import LeaderValue, Offer, WorkerValue, parse_inbox
from tenure.store.etcd.port import Delete, Put, Txn


@pytest.fixture
def slow() -> dict[str, float]:
    """Settings under which nothing is withdrawn or looked at again during a test."""
    return {"offer_timeout_s": 60.0}


async def test_jobs_are_offered_in_strict_order_up_to_the_room(alone: Parts, slow: dict[str, float]) -> None:
    low = [await alone.submit(priority=0) for _ in range(3)]
    high = [await alone.submit(priority=5, kind=kind) for kind in ("k", "other", "k")]
    stage = Stage(alone, await begin_term(alone), **slow)
    await stage.worker("w1", capacity=4, kinds=("k", "other"))
    async with running(stage.dispatcher.run()):
        assert await stage.until_offered("w1", [*high, low[0]]) == [*high, low[0]]


async def test_lanes_that_nobody_serves_are_passed_over(alone: Parts, slow: dict[str, float]) -> None:
    for _ in range(3):
        await alone.submit(kind="nobody", priority=9)
        await alone.submit(route="elsewhere", priority=9)
        await alone.submit(route="default-but-not-quite", priority=9)
    mine = await alone.submit()
    stage = Stage(alone, await begin_term(alone), **slow)
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [mine])


async def test_with_more_lanes_than_a_round_looks_at_each_has_its_turn(
    alone: Parts, slow: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LANES_PER_ROUND", 2)
    jobs = {f"t{n}": [await alone.submit(namespace=f"t{n}") for _ in range(2)] for n in range(6)}
    urgent = await alone.submit(namespace="t5", priority=7)
    stage = Stage(alone, await begin_term(alone), poll_s=60.0, **slow)
    namespace_of = {job: name for name, mine in jobs.items() for job in mine} | {urgent: "t5"}
    seen: list[uuid.UUID] = []
    async with running(stage.dispatcher.run()):
        for n in range(2):
            await stage.worker(f"w{n}", capacity=3)
            stage.dispatcher.hint([])

            async def three(worker: str = f"w{n}") -> list[uuid.UUID]:
                found = await stage.offered(worker)
                return found if len(found) == 3 else []

            seen += await until(three)
    assert seen[0] == urgent, "most urgent first, whichever lane it is in"
    assert {namespace_of[job] for job in seen} == set(jobs), "nobody twice before all had their turn"


async def test_what_is_less_urgent_waits_for_lanes_that_were_not_looked_at(
    alone: Parts, slow: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lanes that seem most urgent have only low jobs left: what made them seem so is in flight, or gone."""
    monkeypatch.setattr(dispatch, "LANES_PER_ROUND", 2)
    first = [await alone.submit(namespace=name, priority=9) for name in "ab"]
    low = [await alone.submit(namespace=name) for name in "ab"]
    then = [await alone.submit(namespace=name, priority=5) for name in "cd"]
    stage = Stage(alone, await begin_term(alone), poll_s=60.0, **slow)
    await stage.worker("w1", capacity=2)
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", first)
        await stage.worker("w2", capacity=2)
        stage.dispatcher.look_everywhere()
        await stage.until_offered("w2", then)
        await stage.worker("w3", capacity=2)
        stage.dispatcher.look_everywhere()
        await stage.until_offered("w3", low)


async def test_lanes_that_turn_out_to_be_empty_make_way_at_once(
    alone: Parts, slow: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LANES_PER_ROUND", 2)
    gone = [await alone.submit(namespace=name, priority=9) for name in "ab"]
    left = [await alone.submit(namespace=name) for name in "cd"]
    stage = Stage(alone, await begin_term(alone), poll_s=60.0, **slow)
    async with running(stage.dispatcher.run()):
        await until(lambda: _known(stage, 4))
        await alone.sql("DELETE FROM tenure.job WHERE id = ANY(%s)", gone)
        await stage.worker("w1", capacity=2)
        stage.dispatcher.hint([])
        await stage.until_offered("w1", left)


async def _known(stage: Stage, lanes: int) -> bool:
    return len(stage.dispatcher._turns) == lanes


async def test_jobs_are_spread_over_the_workers_with_the_most_room(alone: Parts, slow: dict[str, float]) -> None:
    jobs = [await alone.submit() for _ in range(9)]
    stage = Stage(alone, await begin_term(alone), **slow)
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
    stage = Stage(alone, await begin_term(alone), offer_timeout_s=0.2)
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
    stage = Stage(alone, await begin_term(alone), offer_timeout_s=1.0)
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
    stage = Stage(behind, await begin_term(behind), **slow)
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
            won.append(ClaimedJob(str(job), 0, lease, result.create_revision))
    assert [one.job_id for one in won] == [str(done), str(again)]
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
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await asyncio.sleep(0)  # lets the first poll, which finds nothing, begin before the submit
        job = await alone.submit()
        [row] = await alone.sql("SELECT lane FROM tenure.job WHERE id = %s", job)
        stage.dispatcher.hint([row.lane])
        await stage.until_offered("w1", [job])


async def test_a_deposed_leader_offers_nothing(alone: Parts, slow: dict[str, float]) -> None:
    job = await alone.submit()
    stage = Stage(alone, await begin_term(alone), **slow)
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
    stage = Stage(alone, await begin_term(alone), offer_timeout_s=60.0)
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
    stage = Stage(alone, await begin_term(alone), offer_timeout_s=60.0)
    for worker in workers:
        await stage.worker(worker, capacity=500)
    async with running(stage.dispatcher.run()):

        async def everything() -> bool:
            return sum([len(await stage.offered(worker)) for worker in workers]) == 6_500

        await until(everything)


async def test_a_brake_holds_offers_back(alone: Parts) -> None:
    job = await alone.submit()
    stage = Stage(alone, await begin_term(alone))
    await stage.worker("w1")
    stage.dispatcher.brake(0.3)
    held_until = alone.clock.monotonic() + 0.3
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [job])
    assert alone.clock.monotonic() >= held_until


async def test_the_brake_counts_from_the_first_wave(alone: Parts) -> None:
    """Thousands of leases expire over seconds: the last of them do not hold up what the first ones freed."""
    dispatcher = Stage(alone, await begin_term(alone)).dispatcher
    assert dispatcher.brake(600.0)
    until = dispatcher._braked_until
    assert not dispatcher.brake(600.0)
    assert dispatcher._braked_until == until
    assert not dispatcher.brake(900.0)
    assert dispatcher._braked_until == pytest.approx(until + 300.0), "of two the longer one holds"
    assert not dispatcher.brake(1.0)
    assert dispatcher._braked_until == pytest.approx(until + 300.0)


async def test_a_backlog_is_read_in_bounded_windows(alone: Parts, slow: dict[str, float]) -> None:
    for _ in range(60):
        await alone.submit()
    stage = Stage(alone, await begin_term(alone), **slow)
    await stage.worker("w1", capacity=5)
    async with running(stage.dispatcher.run()):

        async def five() -> bool:
            return len(await stage.offered("w1")) == 5

        await until(five)
        found = await stage.dispatcher._reader.read(list(stage.dispatcher._turns), {}, 5)
        assert len(found.candidates) <= 5 + 4
        assert None not in found.cut.values()


async def test_what_was_not_claimed_is_offered_again_without_a_hint(alone: Parts) -> None:
    """No poll comes to help: the worker takes one of two offers, and lets its claim go before it has started."""
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    jobs = [await alone.submit() for _ in range(2)]
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", jobs)
        await alone.etcd.txn(Txn((), tuple(Delete(key) for key in stage.flight.offers)))
        stage.flight.claim_seen(str(jobs[0]), Held("w1", "default"))
        for key in list(stage.flight.offers):
            stage.flight.offer_gone(key, alone.clock.monotonic())
        stage.dispatcher.hint(())
        await stage.until_offered("w1", jobs[1:])
        stage.flight.claim_gone(str(jobs[0]))
        stage.dispatcher.hint(())
        await stage.until_offered("w1", jobs)


async def test_a_job_that_comes_back_before_its_claim_is_gone_is_offered_then(alone: Parts) -> None:
    """The hint finds the claim of the attempt before: nobody hints again when the watch tells that it is gone."""
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    job, other = [await alone.submit() for _ in range(2)]
    stage.flight.claim_seen(str(job), Held("w2", "default"))
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [other])
        stage.flight.claim_gone(str(job))
        stage.dispatcher.hint(())
        await stage.until_offered("w1", [job, other])


async def test_claims_that_fill_a_window_are_read_past(alone: Parts) -> None:
    """A new leader does not know of what lane they are: more of them than there is room, and none has started."""
    jobs = [await alone.submit() for _ in range(40)]
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    for job in jobs[:38]:
        stage.flight.claim_seen(str(job), Held("w2", "default"))
    await stage.worker("w1", capacity=5)
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", jobs[38:])


async def test_what_is_let_go_is_offered(alone: Parts) -> None:
    job, other = [await alone.submit() for _ in range(2)]
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    stage.flight.holds.add(str(job))
    await stage.worker("w1")
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", [other])
        stage.flight.hold_gone(str(job))
        stage.dispatcher.hint(())
        await stage.until_offered("w1", [job, other])


async def test_jobs_that_wait_for_room_wait_for_a_little_more_of_it(alone: Parts) -> None:
    """For a moment, and only where the last round left none."""
    stage = Stage(alone, await begin_term(alone))
    await stage.worker("w1", capacity=100)
    await stage.worker("w2", capacity=100, draining=True)
    dispatcher = stage.dispatcher

    def gathers(room: int) -> bool:
        return dispatcher._gathers([Seat("w1", ("default",), frozenset(), room)])

    assert not gathers(0)
    dispatcher._crowded_until = alone.clock.monotonic() + 600.0
    assert [gathers(room) for room in (0, 24, 25, 100)] == [True, True, False, False]


async def test_a_little_room_is_given_away(alone: Parts) -> None:
    """Places of a hundred come free one by one, never many together."""
    jobs = [await alone.submit() for _ in range(102)]
    stage = Stage(alone, await begin_term(alone), poll_s=3_600.0, offer_timeout_s=3_600.0)
    await stage.worker("w1", capacity=100)
    async with running(stage.dispatcher.run()):
        await stage.until_offered("w1", jobs[:100])
        for job in jobs[:2]:
            stage.flight.claim_seen(str(job), Held("w1", "default"))
            await alone.sql("DELETE FROM tenure.job WHERE id = %s", job)
            stage.flight.claim_gone(str(job))
            stage.dispatcher.hint(())
        await stage.until_offered("w1", jobs)


def _flight(**capacities: int) -> Flight:
    flight = Flight()
    for lease, (worker, capacity) in enumerate(capacities.items(), 1):
        flight.worker_seen(worker, WorkerValue(("default",), ("k",), capacity, {}), lease)
    return flight


def _offers(key: str, worker: str, *jobs: str) -> Outstanding:
    return Outstanding(key, worker, {job: Offer(job, 0, 10.0, "n", "k", "default") for job in jobs}, 0.0)


def test_of_workers_and_namespaces_that_are_gone_nothing_is_kept() -> None:
    flight = _flight(w1=5)
    flight.offered(_offers("k1", "w1", "a", "b"))
    flight.claim_seen("a", Held("w1", "n"))
    flight.offer_gone("k1", now=0.0)
    flight.claim_gone("a")
    flight.worker_gone("w1")
    flight.settle(SETTLE_S)
    assert [part.name for part in fields(flight) if getattr(flight, part.name)] == []


def _room(flight: Flight) -> dict[str, int]:
    return {seat.worker: seat.free for seat in flight.seats(100, 1e9)}


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


def _seated(flight: Flight, now: float) -> set[str]:
    return {seat.worker for seat in flight.seats(100, now)}


def test_a_worker_rests_for_some_times_what_its_answer_took() -> None:
    flight = _flight(w1=5, w2=5)
    flight.offered(_offers("k1", "w1", "a"))
    assert _seated(flight, 0.0) == {"w2"}
    assert flight.rested_at(0.0) == REST_S
    flight.offer_gone("k1", 0.005)
    assert _seated(flight, 0.005) == {"w2"}
    assert flight.rested_at(0.005) == REST * 0.005
    assert _seated(flight, REST * 0.005) == {"w1", "w2"}
    assert flight.rested_at(REST * 0.005) == math.inf


def test_a_worker_whose_few_places_are_taken_does_not_rest() -> None:
    flight = _flight(w1=1)
    flight.offered(_offers("k1", "w1", "a"))
    flight.claim_seen("a", Held("w1", "n"))
    flight.offer_gone("k1", 0.01)
    flight.claim_gone("a")
    assert _seated(flight, 0.02) == {"w1"}


def test_a_worker_that_does_not_answer_rests_no_longer_than_that() -> None:
    flight = _flight(w1=5)
    flight.offered(_offers("k1", "w1", "a"))
    flight.offered(_offers("k2", "w1", "b"))
    flight.offer_gone("k1", 0.001)  # one of two: it has not answered yet
    assert _seated(flight, REST * 0.001) == set()
    assert _seated(flight, REST_S) == {"w1"}
    flight.offer_gone("k2", 10.0)  # withdrawn
    assert _seated(flight, 10.0) == {"w1"}
    flight.offered(Outstanding("k3", "w1", {}, 20.0))
    flight.worker_gone("w1")
    assert flight.rested_at(20.0) == math.inf


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


async def test_a_claim_counts_at_the_worker_that_holds_it(alone: Parts) -> None:
    stage = Stage(alone, await begin_term(alone))
    await stage.worker("w1")
    watchman = await begin_watch(alone)
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
        assert {seat.worker: seat.free for seat in stage.flight.seats(100, 1e9)} == {"w1": 9}
        await alone.lose_claim(id)

        async def gone() -> bool:
            return str(id) not in stage.flight.claims

        await until(gone)


async def test_an_end_by_the_leader_is_not_undone_by_a_late_release(alone: Parts) -> None:
    id = await alone.submit()
    started = await alone.execute(id)
    await alone.lose_claim(id)
    assert await (await begin_watch(alone)).reaper.sweep() == 1
    answer = await alone.finish(id, started.fence, Outcome.RELEASED)
    assert answer.verdict == "lost"
    assert await alone.state(id) is JobState.RESTARTING


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
