"""What is in flight, as the leader sees it: workers, their claims, and offers that wait for an answer.

A mirror of etcd, fed by watches, that grants nothing: a picture that is behind makes offers that nobody wins, no
more. All of it is rebuilt by listing when a leader begins its term.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple, TypeVar

from tenure.model.dispatch import Candidate, Seat
from tenure.store.etcd.keyspace import Offer, WorkerValue, parse_slot_name

SETTLE_S = 0.5
"""How long after an answered offer a job that shows no claim counts as still in flight: the claim's event may be
behind that of the offer's deletion."""

SUSPECT_S = 15.0
"""Longer than the session of a worker outlives it."""

PASSED_S = 2.0
"""How long readings pass over a job in flight without a look at its row: by then it has started, most often."""

REST = 4.0
"""From an offer to a worker to the next one: so many times what its answer took. A trip to a worker costs every process
the same however many jobs make it, so the busier the system is, the more of them go together."""
REST_S = 0.05
"""At most; answered or not."""
FEW_PLACES = 64
"""A worker with no more, all of them taken, does not rest: nothing can come together before one is free."""

_Key = TypeVar("_Key")


@dataclass(slots=True)
class Outstanding:
    """One inbox key with the offers under it."""

    key: str
    worker: str
    offers: Mapping[str, Offer]
    """By job id."""
    made_at: float
    lanes: Mapping[str, int] = field(default_factory=dict)
    """Job id to its lane, where it is known: an offer of an earlier term does not say."""


class Held(NamedTuple):
    """Who has claimed a job, and whose job it is."""

    worker: str
    namespace: str


@dataclass(slots=True)
class Flight:
    """The picture. Instants are monotonic seconds."""

    workers: dict[str, tuple[WorkerValue, int]] = field(default_factory=dict)
    """Worker id to what it says of itself and the lease of its session."""
    claims: dict[str, Held] = field(default_factory=dict)
    """Job id to its holder."""
    offers: dict[str, Outstanding] = field(default_factory=dict)
    """Inbox key to offer."""
    suspects: dict[str, float] = field(default_factory=dict)
    """Workers that lost a claim or left an offer unanswered, and until when: before, they get no offers unless they
    show that they live."""
    by_namespace: Counter[str] = field(default_factory=Counter)
    """Namespace to its jobs that are offered or claimed."""
    slots: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """Limit to the numbers that are taken, each with its job: held in etcd, or given away with an offer."""
    holds: set[str] = field(default_factory=set)
    """Jobs that operators hold back: offering them is of no use."""
    _given: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Job id to slots that were given away with its offer and not yet seen in etcd."""
    _offered: dict[str, str] = field(default_factory=dict)
    """Job id to inbox key."""
    _settling: dict[str, float] = field(default_factory=dict)
    """Job id to the instant until which its answered offer counts, the earliest first."""
    _passed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Job id to its lane, and since when: in flight, and ready in Postgres as far as is known. The oldest first."""
    _freed: set[int] = field(default_factory=set)
    """Lanes of jobs that were passed over and are in flight no more."""
    _freed_limits: set[str] = field(default_factory=set)
    """Limits of which a slot is free again."""
    _unanswered: Counter[str] = field(default_factory=Counter)
    """Worker to its offers that are not answered."""
    _rests: dict[str, float] = field(default_factory=dict)
    """Worker to the instant before which it gets no further offer."""
    _load: Counter[str] = field(default_factory=Counter)
    """Worker to the jobs that it has claimed or is offered."""

    def worker_seen(self, worker: str, value: WorkerValue, lease: int) -> None:
        """A worker registered or changed."""
        self.workers[worker] = (value, lease)
        self.suspects.pop(worker, None)

    def worker_gone(self, worker: str) -> None:
        """A worker's session ended."""
        self.workers.pop(worker, None)
        self.suspects.pop(worker, None)
        self._rests.pop(worker, None)

    def suspect(self, worker: str) -> None:
        """Offer nothing to a worker that may be dead: its session can outlive it by a TTL."""
        if worker in self.workers:
            self.suspects[worker] = math.inf

    def claim_seen(self, job: str, held: Held) -> None:
        """A job was claimed: its offer, if any, is answered."""
        before = self.claims.get(job)
        self.claims[job] = held
        if self.suspects:
            self.suspects.pop(held.worker, None)
        key = self._offered.pop(job, None)
        if key is not None:
            offer = self.offers[key]
            offered = Held(offer.worker, offer.offers[job].namespace)
            if offered == held:
                return  # it counts since it was offered
            self._uncount(offered)
            if offered.worker != held.worker:  # claimed under an earlier offer, with the slots of that one
                self._take_back(job)
        elif before is not None:
            self._uncount(before)
        self._settling.pop(job, None)
        self._load[held.worker] += 1
        self.by_namespace[held.namespace] += 1

    def claim_gone(self, job: str) -> None:
        """A claim was released or expired."""
        held = self.claims.pop(job, None)
        if held is not None:
            self._uncount(held)
            self._take_back(job)
            self._free(job)

    def hold_gone(self, job: str) -> None:
        """An operator let a job go."""
        self.holds.discard(job)
        self._free(job)

    def offered(self, offer: Outstanding) -> None:
        """An offer was written."""
        self.offers[offer.key] = offer
        self._unanswered[offer.worker] += 1
        # Left out is what a watch tells that went over its past again: that offer is history.
        fresh = [one for job, one in offer.offers.items() if job not in self.claims and job not in self._offered]
        if not fresh:
            return
        self._load[offer.worker] += len(fresh)
        self._rest(offer.worker, offer.made_at + REST_S)
        self.by_namespace.update([one.namespace for one in fresh])
        for one in fresh:
            self._offered[one.job] = offer.key
            self._settling.pop(one.job, None)
            lane = offer.lanes.get(one.job)
            if lane is not None:
                self._passed[one.job] = lane, offer.made_at
            if one.slots:
                slots = tuple(slot for slot in one.slots if self._give(slot, one.job))
                if slots:
                    self._given[one.job] = slots

    def offer_gone(self, key: str, now: float) -> None:
        """An offer was answered or withdrawn; what it offered and was not claimed is free after a moment."""
        offer = self.offers.pop(key, None)
        if offer is None:
            return
        _one_less(self._unanswered, offer.worker)
        if offer.worker not in self._unanswered:
            self._rest(offer.worker, offer.made_at + min(REST_S, REST * (now - offer.made_at)))
        for job in offer.offers:
            if self._offered.get(job) == key:
                del self._offered[job]
                self._uncount(Held(offer.worker, offer.offers[job].namespace))
                self._settling[job] = now + SETTLE_S

    def _rest(self, worker: str, until: float) -> None:
        if worker not in self.workers:
            return
        value, _ = self.workers[worker]
        if value.capacity <= FEW_PLACES and self._load[worker] >= value.capacity:
            self._rests.pop(worker, None)
        else:
            self._rests[worker] = until

    def _uncount(self, held: Held) -> None:
        _one_less(self._load, held.worker)
        _one_less(self.by_namespace, held.namespace)

    def _free(self, job: str) -> None:
        """Have a job's lane read again, if it was passed over."""
        passed = self._passed.pop(job, None)
        if passed is not None:
            self._freed.add(passed[0])

    def _give(self, slot: str, job: str) -> bool:
        limit, number = parse_slot_name(slot)
        if number in self.slots[limit]:
            return False  # held in etcd already, by this job or another
        self.slots[limit][number] = job
        return True

    def slot_seen(self, limit: str, number: int, job: str) -> None:
        """A slot is held in etcd."""
        self.slots[limit][number] = job
        if job in self._given:
            left = tuple(name for name in self._given[job] if parse_slot_name(name) != (limit, number))
            if left:
                self._given[job] = left
            else:
                del self._given[job]

    def slot_gone(self, limit: str, number: int) -> None:
        """A slot is free again."""
        held = self.slots.get(limit, {})
        held.pop(number, None)
        self._freed_limits.add(limit)
        if not held:
            self.slots.pop(limit, None)

    def _take_back(self, job: str) -> None:
        """Free the slots that were given away with an offer that came to nothing."""
        for limit, number in map(parse_slot_name, self._given.pop(job, ())):
            if limit in self.slots and self.slots[limit].get(number) == job:
                self.slot_gone(limit, number)

    def settle(self, now: float) -> None:
        """Forget jobs whose moment after an answered offer is over, and suspicions that have had their time."""
        for job in list(takewhile(lambda job: self._settling[job] <= now, self._settling)):
            del self._settling[job]
            self._take_back(job)
            self._free(job)
        for job in list(takewhile(lambda job: self._passed[job][1] <= now - PASSED_S, self._passed)):
            del self._passed[job]
        for worker, until in list(self.suspects.items()):
            if until <= now:
                del self.suspects[worker]  # still registered: it lives, though it answered too late to win anything
            else:
                self.suspects[worker] = min(until, now + SUSPECT_S)

    def overdue(self, before: float) -> list[Outstanding]:
        """Return offers made before an instant that are not answered."""
        return [offer for offer in self.offers.values() if offer.made_at < before]

    def rested_at(self, now: float) -> float:
        """When the next worker may get offers again."""
        return min((until for until in self._rests.values() if until > now), default=math.inf)

    def seats(self, most: int, now: float) -> list[Seat]:
        """Return the workers that can take more now, each with at most ``most`` places.

        Suspicion is a preference among workers: where it falls on all of them, whatever they serve, it says nothing.
        """
        seats = []
        beyond_doubt = any(
            worker not in self.suspects for worker, (value, _) in self.workers.items() if not value.draining
        )
        for worker, (value, _) in self.workers.items():
            free = min(most, value.capacity - self._load[worker])
            if free <= 0 or value.draining or self._rests.get(worker, 0.0) > now:
                continue
            if not (beyond_doubt and worker in self.suspects):
                seats.append(Seat(worker, tuple(value.pools), frozenset(value.kinds), free, value.labels))
        return seats

    def places(self, most: int) -> int:
        """Return how many places the workers have, taken or not, each at most ``most``."""
        return sum(min(most, value.capacity) for value, _ in self.workers.values() if not value.draining)

    def in_flight(self, job: str) -> bool:
        """Say whether a job is offered or claimed, or was a moment ago, or is held back: it is not to be offered."""
        return job in self._offered or job in self.claims or job in self._settling or job in self.holds

    def free_of(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return the candidates that are not in flight."""
        return [candidate for candidate in candidates if not self.in_flight(candidate.id)]

    def pass_over(self, met: Iterable[Candidate], now: float) -> None:
        """Note ready jobs that cannot be offered, so that the next reading passes over them."""
        for candidate in met:
            self._passed[candidate.id] = candidate.lane, now

    def passed_over(self, lanes: Container[int]) -> dict[int, list[str]]:
        """Return the jobs in flight that some lanes may still show as ready. Others may be, too: see ``in_flight``."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for job, (lane, _) in self._passed.items():
            if lane in lanes:
                found[lane].append(job)
        return found

    @property
    def settles_at(self) -> float:
        """When the next answered offer counts no more, unless its claim is seen."""
        return next(iter(self._settling.values()), math.inf)

    @property
    def has_freed(self) -> bool:
        """Whether ``take_freed`` has lanes to return."""
        return bool(self._freed)

    def take_freed(self) -> set[int]:
        """Return, once, the lanes in which a job may have come free without a hint."""
        freed, self._freed = self._freed, set()
        return freed

    def take_freed_limits(self) -> set[str]:
        """Return, once, the limits of which a slot has come free."""
        freed, self._freed_limits = self._freed_limits, set()
        return freed


def _one_less(counts: Counter[_Key], key: _Key) -> None:
    """Count one less, and keep no zeros: workers and namespaces come and go for as long as a term lasts."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
