"""The leader's picture and its decisions, over any order of what happens: a state machine on ``Flight`` and ``assign``.

Events of etcd are told to the picture late and in any order across prefixes, as watches may; within one prefix they
keep theirs. The truth (who claims what) is kept beside it by the machine.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tenure.coordinator.flight import SETTLE_S, SUSPECT_S, Flight, Held, Outstanding
from tenure.model.dispatch import Assignment, Candidate, Lane, Seat, assign, by_worker, servable, windows
from tenure.model.limits import Limit, free_numbers
from tenure.store.etcd.keyspace import Offer, parse_slot_name, slot_name

LANES = (
    Lane(1, "a", "n", "k"),
    Lane(2, "a/b", "n", "k"),
    Lane(3, "ab", "n", "k"),
    Lane(4, "a", "n", "rare"),
    Lane(5, "a", "n", "k", ("two",)),
)
TWO = Limit("two", concurrent=2)
BY_ID = {lane.id: lane for lane in LANES}
POOLS = (("a",), ("a/b",), ("a", "ab"))
KINDS = (("k",), ("k", "rare"))
MOST = 4
"""Offers that one worker may have open."""


@dataclass
class Value:
    """What a worker says of itself."""

    pools: tuple[str, ...]
    kinds: tuple[str, ...]
    capacity: int
    draining: bool = False
    labels: tuple[str, ...] = ()


class Dispatching(RuleBasedStateMachine):
    """Jobs come, workers come and go, offers are made, answered, overlooked and withdrawn."""

    @initialize()
    def begin(self) -> None:
        self.flight = Flight()
        self.now = 0.0
        self.ready: dict[str, Candidate] = {}
        """What Postgres shows as ready; a claimed job stays until it is started."""
        self.claims: dict[str, str] = {}
        self.slots: dict[int, str] = {}
        """Of the limit ``two``, as etcd holds them."""
        self.passed: set[str] = set()
        """Jobs that readings passed over when last looked."""
        self.messages = 0
        self.submitted = 0

    # -- what happens --

    @rule(lane=st.sampled_from(LANES), priority=st.integers(-2, 2), at=st.integers(0, 3))
    def submit(self, lane: Lane, priority: int, at: int) -> None:
        self.submitted += 1
        id = uuid.UUID(int=self.submitted)
        self.ready[str(id)] = Candidate(-priority, float(at), str(id), lane.id, 0, lane.pool, 10.0)

    @rule(
        name=st.sampled_from("xyz"),
        pools=st.sampled_from(POOLS),
        kinds=st.sampled_from(KINDS),
        capacity=st.integers(1, 5),
        draining=st.sampled_from([False, False, True]),
    )
    def register(
        self, name: str, pools: tuple[str, ...], kinds: tuple[str, ...], capacity: int, draining: bool
    ) -> None:
        self.flight.worker_seen(name, Value(pools, kinds, capacity, draining), 1)  # type: ignore[arg-type]

    @precondition(lambda self: len(self.flight.workers) > 1)
    @rule(name=st.sampled_from("xyz"))
    def session_ends(self, name: str) -> None:
        self.flight.worker_gone(name)

    @precondition(lambda self: len(self.flight.workers) > 1)
    @rule(name=st.sampled_from("xyz"))
    def suspect(self, name: str) -> None:
        self.flight.suspect(name)

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.flight.settle(self.now)

    @rule()
    def dispatch(self) -> None:
        """One cycle of the dispatcher, on all that is ready."""
        self._cycle()

    @precondition(lambda self: self.flight.offers)
    @rule(data=st.data(), delete_seen_first=st.booleans())
    def answer(self, data: st.DataObject, delete_seen_first: bool) -> None:
        """A worker claims some of what it was offered, in one transaction; the events come in either order."""
        key = data.draw(st.sampled_from(sorted(self.flight.offers)), label="message")
        offer = self.flight.offers[key]
        won = [
            job
            for job, one in offer.offers.items()
            if job not in self.claims
            and not any(number in self.slots for _, number in map(parse_slot_name, one.slots))
            and data.draw(st.booleans(), label=f"claim {job}")
        ]
        self.claims |= dict.fromkeys(won, offer.worker)
        slots = {job: parse_slot_name(slot) for job in won for slot in offer.offers[job].slots}
        self.slots |= {number: job for job, (_, number) in slots.items()}
        slots_seen_first = data.draw(st.booleans(), label="slots seen first")
        if slots_seen_first:
            self._see(slots)
        if delete_seen_first:
            self.flight.offer_gone(key, self.now)
        for job in won:
            self.flight.claim_seen(job, Held(offer.worker, "n"))
        self.flight.offer_gone(key, self.now)
        if not slots_seen_first:
            self._see(slots)

    def _see(self, slots: dict[str, tuple[str, int]]) -> None:
        for job, (limit, number) in slots.items():
            self.flight.slot_seen(limit, number, job)

    @precondition(lambda self: self.flight.offers)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.flight.offers)), label="message")
        self.flight.suspect(self.flight.offers[key].worker)
        self.flight.offer_gone(key, self.now)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ended=st.booleans(), slot_first=st.booleans())
    def claim_ends(self, data: st.DataObject, ended: bool, slot_first: bool) -> None:
        """The job is done, or goes back to be dispatched again."""
        job = data.draw(st.sampled_from(sorted(self.claims)), label="job")
        if ended:
            self.ready.pop(job, None)
        self._end(job, slot_first=slot_first)

    def _end(self, job: str, *, slot_first: bool) -> None:
        del self.claims[job]
        if not slot_first:
            self.flight.claim_gone(job)
        for number in [number for number, holder in self.slots.items() if holder == job]:
            del self.slots[number]
            self.flight.slot_gone("two", number)
        if slot_first:
            self.flight.claim_gone(job)

    # -- what must hold --

    def _cycle(self) -> list[Assignment]:
        seats = self.flight.seats(MOST, self.now)
        passed = self._passed_over()
        read = [one for job, one in self.ready.items() if job not in passed]
        candidates = sorted(self.flight.free_of(read))
        self.flight.pass_over(set(read).difference(candidates), self.now)
        serving = servable(LANES, seats)
        served = [one for one in candidates if one.lane in serving]
        numbers = list(free_numbers(TWO, self.flight.slots.get("two", {})))
        assert not set(numbers) & self.slots.keys(), "a slot that is held counts as free"
        chosen = assign(
            windows(served, BY_ID, dict.fromkeys(serving)), BY_ID, serving, shares={}, units={"two": len(numbers)}
        )
        self._check_cycle(candidates, seats, chosen, len(numbers))
        for worker, mine in by_worker(chosen).items():
            self.messages += 1
            offers = {}
            for one in mine:
                limits = BY_ID[one.lane].limits
                slots = tuple(slot_name(limit, numbers.pop(0)) for limit in limits)
                offers[one.id] = Offer(one.id, 0, 10.0, "n", BY_ID[one.lane].kind, "r", slots)
            lanes = {one.id: one.lane for one in mine}
            self.flight.offered(Outstanding(f"message{self.messages:05d}", worker, offers, self.now, lanes))
        return chosen

    def _passed_over(self) -> set[str]:
        return {job for jobs in self.flight.passed_over(BY_ID).values() for job in jobs}

    def _check_cycle(
        self, candidates: list[Candidate], seats: list[Seat], chosen: list[Assignment], units: int
    ) -> None:
        by_name = {seat.worker: seat for seat in seats}
        left = {seat.worker: seat.free for seat in seats}
        given = {one.candidate.id: one.worker for one in chosen}
        assert len(given) == len(chosen), "a job was given twice"
        offered = {job for offer in self.flight.offers.values() for job in offer.offers}
        assert not given.keys() & (offered | self.claims.keys()), "a job in flight was given again"
        for candidate in candidates:
            worker = given.get(candidate.id)
            serving = [seat.worker for seat in seats if seat.serves(BY_ID[candidate.lane])]
            limited = bool(BY_ID[candidate.lane].limits)
            if worker is None:
                assert (limited and not units) or not any(left[name] for name in serving), (
                    f"{candidate.id} was passed over while there was room"
                )
                continue
            assert worker in serving, f"{worker} does not serve {BY_ID[candidate.lane]}"
            assert left[worker] == max(left[name] for name in serving), "another serving worker had more room"
            left[worker] -= 1
            units -= limited
            assert units >= 0, "more than the limit admits were given away"
            assert left[worker] >= 0, f"{worker} was given more than it has room for"
            assert not self.flight.workers[worker][0].draining
            assert worker not in self.flight.suspects or not self._beyond_doubt(), f"{worker} is a suspect"
        assert all(seat.free <= MOST for seat in by_name.values())

    def _beyond_doubt(self) -> list[str]:
        """Return the workers that take more and are no suspects: a suspicion that falls on all says nothing."""
        return [
            name
            for name, (value, _) in self.flight.workers.items()
            if not value.draining and name not in self.flight.suspects
        ]

    @invariant()
    def the_counts_are_those_of_what_is_there(self) -> None:
        flight = self.flight
        assert {job: held.worker for job, held in flight.claims.items()} == self.claims
        assert flight.by_namespace["n"] == len(flight.claims) + len(flight._offered)
        assert flight.slots.get("two", {}).keys() >= self.slots.keys()
        claimed = Counter(self.claims.values())
        pending = Counter(flight.offers[key].worker for key in flight._offered.values())
        for worker in {*flight.workers, *flight._load}:
            load = claimed[worker] + pending[worker]
            assert flight._load[worker] == load, f"claims of {worker} and offers to it are miscounted"
        for job, key in flight._offered.items():
            assert job in flight.offers[key].offers
        assert not flight._offered.keys() & flight.claims.keys(), "offered though claimed"

    @invariant()
    def what_readings_pass_over_is_in_flight_or_read_again(self) -> None:
        passed = self._passed_over()
        assert all(map(self.flight.in_flight, passed)), "a job that could be offered is passed over"
        for job in self.passed - passed:
            if job in self.ready and not self.flight.in_flight(job):
                assert self.ready[job].lane in self.flight._freed, f"{job} came free and nobody looks"
        self.passed = passed

    @invariant()
    def nobody_is_a_suspect_who_is_not_there(self) -> None:
        assert self.flight.suspects.keys() <= self.flight.workers.keys()

    def teardown(self) -> None:
        """Let workers be well from now on: whatever can run, runs, in a bounded number of rounds."""
        for key in list(self.flight.offers):
            self.flight.offer_gone(key, self.now)
        for job in list(self.claims):
            self._end(job, slot_first=True)
        for _ in range(2):  # a suspicion counts from the first look at it
            self.now += max(SETTLE_S, SUSPECT_S)
            self.flight.settle(self.now)
        assert not self.flight.slots, "slots are taken that nobody holds"
        self.flight.worker_seen("helper", Value(("a", "ab"), ("k", "rare"), 1, False), 1)  # type: ignore[arg-type]
        for rounds in range(len(self.ready) + 1):
            if not self.ready:
                break
            note(f"round {rounds}: {len(self.ready)} jobs are left")
            won = {str(one.candidate.id): one.worker for one in self._cycle()}
            for job, worker in won.items():
                self.flight.claim_seen(job, Held(worker, "n"))
            for key in list(self.flight.offers):
                self.flight.offer_gone(key, self.now)
            for job in won:
                self.flight.claim_gone(job)
                del self.ready[job]
        assert not self.ready, "jobs starve though a worker serves them"


def test_any_order_of_events() -> None:
    run_state_machine_as_test(
        Dispatching, settings=settings(max_examples=60, stateful_step_count=30, deadline=None, print_blob=True)
    )


def test_a_job_that_is_offered_is_not_offered_again() -> None:
    """The shortest order of events in which a picture that forgets its offers goes wrong."""
    stage = Dispatching()
    stage.begin()
    stage.register(name="x", pools=("a",), kinds=("k",), capacity=5, draining=False)
    stage.submit(lane=LANES[0], priority=0, at=0)
    assert len(stage._cycle()) == 1
    assert stage._cycle() == []
