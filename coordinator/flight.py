"""What is in flight, as the leader sees it: workers, their claims, and offers that wait for an answer.

A mirror of etcd, fed by watches, that grants nothing: a picture that is behind makes offers that nobody wins, no
more. All of it is rebuilt by listing when a leader begins its term.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tenure.model.dispatch import Candidate, Seat
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.postgres.database import Row

SETTLE_S = 0.5
"""How long after an answered offer a job that shows no claim counts as still in flight: the claim's event may be
behind that of the offer's deletion."""


SUSPECT_S = 15.0
"""Longer than the session of a worker outlives it."""


@dataclass(slots=True)
class Outstanding:
    """One inbox key with the jobs that it offers."""

    key: str
    worker: str
    jobs: tuple[str, ...]
    made_at: float


@dataclass(slots=True)
class Flight:
    """The picture. Instants are monotonic seconds."""

    workers: dict[str, tuple[WorkerValue, int]] = field(default_factory=dict)
    """Worker id to what it says of itself and the lease of its session."""
    claims: dict[str, str] = field(default_factory=dict)
    """Job id to worker."""
    offers: dict[str, Outstanding] = field(default_factory=dict)
    """Inbox key to offer."""
    suspects: dict[str, float] = field(default_factory=dict)
    """Workers that lost a claim or left an offer unanswered, and until when: before, they get no offers unless they
    show that they live."""
    _offered: dict[str, str] = field(default_factory=dict)
    """Job id to inbox key."""
    _settling: dict[str, float] = field(default_factory=dict)
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

    def claim_seen(self, job: str, worker: str) -> None:
        """A job was claimed: its offer, if any, is answered."""
        before = self.claims.get(job)
        if before is not None:
            self._claimed[before] -= 1
        self.claims[job] = worker
        self.suspects.pop(worker, None)
        self._claimed[worker] += 1
        self._settling.pop(job, None)
        key = self._offered.pop(job, None)
        if key is not None:
            self._pending[self.offers[key].worker] -= 1

    def claim_gone(self, job: str) -> None:
        """A claim was released or expired."""
        worker = self.claims.pop(job, None)
        if worker is not None:
            self._claimed[worker] -= 1

    def offered(self, offer: Outstanding) -> None:
        """An offer was written."""
        self.offers[offer.key] = offer
        for job in offer.jobs:
            self._offered[job] = offer.key
        self._pending[offer.worker] += len(offer.jobs)

    def offer_gone(self, key: str, now: float) -> None:
        """An offer was answered or withdrawn; what it offered and was not claimed is free after a moment."""
        offer = self.offers.pop(key, None)
        if offer is None:
            return
        for job in offer.jobs:
            if self._offered.get(job) == key:
                del self._offered[job]
                self._pending[offer.worker] -= 1
                self._settling[job] = now + SETTLE_S

    def offered_to(self, job: str) -> str | None:
        """Return the worker to whom a job is offered now."""
        key = self._offered.get(job)
        return None if key is None else self.offers[key].worker

    def settle(self, now: float) -> None:
        """Forget jobs whose moment after an answered offer is over, and suspicions that have had their time."""
        for job in [job for job, until in self._settling.items() if until <= now]:
            del self._settling[job]
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
                seats.append(Seat(worker, tuple(value.pools), frozenset(value.kinds), free))
        return seats

    def in_flight(self, job: str) -> bool:
        """Say whether a job is offered or claimed, and so not to be offered again."""
        return job in self._offered or job in self.claims or job in self._settling

    @property
    def unstarted(self) -> int:
        """An upper bound of the ready rows that are in flight: offers, and those just answered."""
        return len(self._offered) + len(self._settling)

    def free_of(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return the candidates that are not in flight."""
        return [candidate for candidate in candidates if not self.in_flight(str(candidate.id))]


def candidate_from_row(row: Row) -> Candidate:
    """Convert a row of ``ready_window``."""
    return Candidate(row.id, row.lane, row.attempt, row.priority, row.activate_at, row.route, row.ttl_s)
