"""A dispatcher and a reaper alone, in a term of their own: what tests of the leader play on."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.coordinator.conftest import Parts, reaper_of, settings_of, until

from tenure.coordinator.allowance import Allowance
from tenure.coordinator.dispatch import Dispatcher
from tenure.coordinator.flight import Flight
from tenure.coordinator.reap import Reaper
from tenure.store.etcd.election import Election, Term
from tenure.store.etcd.keyspace import Offers, WorkerValue, parse_inbox
from tenure.store.postgres.database import Statement


async def begin_term(parts: Parts) -> Term:
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


@dataclass
class Watchman:
    """A reaper with what it said."""

    reaper: Reaper
    suspects: list[str]
    brakes: list[float]


async def begin_watch(parts: Parts, term: int = 10) -> Watchman:
    suspects: list[str] = []
    brakes: list[float] = []

    def brake(seconds: float) -> bool:
        brakes.append(seconds)
        return len(brakes) == 1

    made = await reaper_of(parts, term=term, suspect=suspects.append, brake=brake)
    return Watchman(made, suspects, brakes)
