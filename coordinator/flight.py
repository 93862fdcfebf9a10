"""What is in flight, as the leader sees it: workers, their claims, and offers that wait for an answer.

A mirror of etcd, fed by watches, that grants nothing: a picture that is behind makes offers that nobody wins, no
more. All of it is rebuilt by listing when a leader begins its term.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tenure.model.dispatch import Candidate, Lane, Seat
from tenure.store.etcd.keyspace import Offer, WorkerValue, parse_slot_name
from tenure.store.postgres.database import Row

SETTLE_S = 0.5
"""How long after an answered offer a job that shows no claim counts as still in flight: the claim's event may be
behind that of the offer's deletion."""

SUSPECT_S = 15.0
"""Longer than the session of a worker outlives it."""

_Key = TypeVar("_Key")

_UNKNOWN = 0
"""No lane has this id."""


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


@dataclass(frozen=True, slots=True)
class Held:
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
    _settling: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Job id to the instant until which its answered offer counts, and its lane."""
    _unstarted: Counter[int] = field(default_factory=Counter)
    """Lane to its jobs that are offered or settling."""
    _claimed: Counter[str] = field(default_factory=Counter)
    _pending: Counter[str] = field(default_factory=Counter)

    def worker_seen(self, worker: str, value: WorkerValue, lease: int) -> None:
        """A worker registered or changed."""
        self.workers[worker] = (value, lease)
        self.suspects.pop(worker, None)

    def worker_gone(self, worker: str) -> None:
        """A worker's session ended."""
        self.workers.pop(worker, None)
        self.suspects.pop(worker, None)

    def suspect(self, worker: str) -> None:
        """Offer nothing to a worker that may be dead: its session can outlive it by a TTL."""
        if worker in self.workers:
            self.suspects[worker] = math.inf

    def claim_seen(self, job: str, held: Held) -> None:
        """A job was claimed: its offer, if any, is answered."""
        before = self.claims.get(job)
        if before is not None:
            self._unclaimed(before)
        self.claims[job] = held
        self.suspects.pop(held.worker, None)
        self._claimed[held.worker] += 1
        self.by_namespace[held.namespace] += 1
        self._settled(job)
        key = self._offered.pop(job, None)
        if key is not None:
            offer = self.offers[key]
            self._unoffered(offer, job)
            self._started(_lane_of(offer, job))
            if offer.worker != held.worker:  # claimed under an earlier offer, with the slots of that one
                self._take_back(job)

    def claim_gone(self, job: str) -> None:
        """A claim was released or expired."""
        held = self.claims.pop(job, None)
        if held is not None:
            self._unclaimed(held)
            self._take_back(job)

    def offered(self, offer: Outstanding) -> None:
        """An offer was written."""
        self.offers[offer.key] = offer
        for one in offer.offers.values():
            if one.job in self.claims or one.job in self._offered:
                continue  # a watch that went over its past again: this offer is history
            self._offered[one.job] = offer.key
            self._pending[offer.worker] += 1
            self.by_namespace[one.namespace] += 1
            self._settled(one.job)
            self._unstarted[_lane_of(offer, one.job)] += 1
            slots = tuple(slot for slot in one.slots if self._give(slot, one.job))
            if slots:
                self._given[one.job] = slots

    def offer_gone(self, key: str, now: float) -> None:
        """An offer was answered or withdrawn; what it offered and was not claimed is free after a moment."""
        offer = self.offers.pop(key, None)
        if offer is None:
            return
        for job in offer.offers:
            if self._offered.get(job) == key:
                del self._offered[job]
                self._unoffered(offer, job)
                self._settling[job] = (now + SETTLE_S, _lane_of(offer, job))

    def _settled(self, job: str) -> None:
        waited = self._settling.pop(job, None)
        if waited is not None:
            self._started(waited[1])

    def _started(self, lane: int) -> None:
        _one_less(self._unstarted, lane)

    def _unclaimed(self, held: Held) -> None:
        _one_less(self._claimed, held.worker)
        _one_less(self.by_namespace, held.namespace)

    def _unoffered(self, offer: Outstanding, job: str) -> None:
        _one_less(self._pending, offer.worker)
        _one_less(self.by_namespace, offer.offers[job].namespace)

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
        if not held:
            self.slots.pop(limit, None)

    def _take_back(self, job: str) -> None:
        """Free the slots that were given away with an offer that came to nothing."""
        for limit, number in map(parse_slot_name, self._given.pop(job, ())):
            if limit in self.slots and self.slots[limit].get(number) == job:
                self.slot_gone(limit, number)

    def settle(self, now: float) -> None:
        """Forget jobs whose moment after an answered offer is over, and suspicions that have had their time."""
        for job in [job for job, (until, _) in self._settling.items() if until <= now]:
            self._settled(job)
            self._take_back(job)
        for worker, until in list(self.suspects.items()):
            if until <= now:
                del self.suspects[worker]  # still registered: it lives, though it answered too late to win anything
            else:
                self.suspects[worker] = min(until, now + SUSPECT_S)

    def overdue(self, before: float) -> list[Outstanding]:
        """Return offers made before an instant that are not answered."""
        return [offer for offer in self.offers.values() if offer.made_at < before]

    def seats(self, most: int) -> list[Seat]:
        """Return the workers that can take more, each with at most ``most`` places.

        Suspicion is a preference among workers: where it falls on all of them, whatever they serve, it says nothing.
        """
        seats = []
        beyond_doubt = any(
            worker not in self.suspects for worker, (value, _) in self.workers.items() if not value.draining
        )
        for worker, (value, _) in self.workers.items():
            free = min(most, value.capacity - self._claimed[worker] - self._pending[worker])
            if free > 0 and not value.draining and not (beyond_doubt and worker in self.suspects):
                seats.append(Seat(worker, tuple(value.pools), frozenset(value.kinds), free, value.labels))
        return seats

    def in_flight(self, job: str) -> bool:
        """Say whether a job is offered, claimed or held back, and so not to be offered."""
        return self.moves(job) or job in self.holds

    def moves(self, job: str) -> bool:
        """Say whether a job is offered or claimed, or was a moment ago."""
        return job in self._offered or job in self.claims or job in self._settling

    def unstarted(self, lane: Lane) -> int:
        """An upper bound of a lane's ready rows that are in flight: offers, and those just answered."""
        return self._unstarted.get(lane.id, 0) + self._unstarted.get(_UNKNOWN, 0)

    def free_of(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return the candidates that are not in flight."""
        return [candidate for candidate in candidates if not self.in_flight(str(candidate.id))]


def _one_less(counts: Counter[_Key], key: _Key) -> None:
    """Count one less, and keep no zeros: workers and namespaces come and go for as long as a term lasts."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _lane_of(offer: Outstanding, job: str) -> int:
    return offer.lanes.get(job, _UNKNOWN)


def candidate_from_row(row: Row) -> Candidate:
    """Convert a row of ``ready_window``."""
    return Candidate(row.id, row.lane, row.attempt, row.priority, row.activate_at, row.route, row.ttl_s)
