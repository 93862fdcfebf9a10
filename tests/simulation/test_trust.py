"""The real keeper of leases, control loop and attempts, in virtual time, against an etcd that answers late or never.

Every run of the network is drawn: how long each KeepAlive and each answer takes, which are lost, how far the server's
clock runs ahead. The handler stops for nothing but a kill. Whatever happens, it is gone when its lease can expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.simulation.virtual import VirtualClock, run

from tenure.model.trust import DRIFT_SHARE
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Etcd, Grant, Renewal
from tenure.worker.attempt import Attempt
from tenure.worker.control import TICK_S
from tenure.worker.execute.call import Assignment, StopCause
from tenure.worker.link import Link, Started

LEASE = 1
TTLS = 5
"""How many TTLs a run lasts."""


@dataclass(frozen=True, slots=True)
class Trip:
    """What happens to one KeepAlive. None: it, or its answer, is lost. In shares of the TTL."""

    there: float | None = 0.0
    back: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Weather:
    """One run: what happens to each KeepAlive in turn; after those given everything is lost, or all is well."""

    ttl_s: float
    drift: float
    trips: tuple[Trip, ...]
    clears: bool = False


_SHARE = st.one_of(st.none(), st.just(0.0), st.floats(0.0, 1.5))
_WEATHER = st.builds(
    Weather,
    ttl_s=st.sampled_from([2.0, 3.0, 10.0, 60.0]),
    drift=st.floats(0.0, DRIFT_SHARE),
    trips=st.lists(st.builds(Trip, _SHARE, _SHARE), max_size=20).map(tuple),
    clears=st.booleans(),
)


@dataclass
class Server:
    """An etcd with one lease, whose clock runs ahead of the worker's, behind a network that is drawn."""

    weather: Weather
    expires_at: float
    sent: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def lives_s(self) -> float:
        """How long a lease lives after a renewal, by the worker's clock."""
        return self.weather.ttl_s * (1 - self.weather.drift)

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> list[Renewal]:
        """As the port says: what was not answered in time is missing. The server goes on with what it received."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        answer: asyncio.Future[Renewal] = loop.create_future()
        task = asyncio.ensure_future(self._travel(self._next(), sent_at, answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            async with asyncio.timeout(timeout_s):
                return [await asyncio.shield(answer)]
        except TimeoutError:
            return []

    def _next(self) -> Trip:
        trips, self.sent = self.weather.trips, self.sent + 1
        if self.sent <= len(trips):
            return trips[self.sent - 1]
        return Trip() if self.weather.clears else Trip(None, None)

    async def _travel(self, trip: Trip, sent_at: float, answer: asyncio.Future[Renewal]) -> None:
        if trip.there is None:
            return
        await asyncio.sleep(trip.there * self.weather.ttl_s)
        now = asyncio.get_running_loop().time()
        lives = now < self.expires_at
        if lives:
            self.expires_at = now + self.lives_s
        if trip.back is None:
            return
        await asyncio.sleep(trip.back * self.weather.ttl_s)
        if not answer.done():
            answer.set_result(Renewal(LEASE, self.weather.ttl_s if lives else 0.0, sent_at))


class Handler:
    """Runs until it is killed; notes when it was told to stop."""

    def __init__(self) -> None:
        self.told_at: float | None = None
        self.killed_at: float | None = None

    def stop(self, cause: StopCause) -> None:
        """Take note, and go on."""
        assert cause is StopCause.LOST
        self.told_at = asyncio.get_running_loop().time()

    def kill(self) -> None:
        """End."""
        if self.killed_at is None:
            self.killed_at = asyncio.get_running_loop().time()


@dataclass
class Worker:
    """What is left of a worker: a keeper, and the link's word on trust."""

    keeper: LeaseKeeper

    def trusted_until(self, started: Started) -> float:
        """As the direct link does."""
        trust = self.keeper.trust(started.lease)
        return trust.until if trust is not None else float("-inf")


async def _outlived(weather: Weather) -> tuple[Handler, float | None]:
    """Run an attempt through the weather; return its handler, and when it had outlived its lease, if it has."""
    loop = asyncio.get_running_loop()
    server = Server(weather, loop.time() + weather.ttl_s * (1 - weather.drift))
    keeper = LeaseKeeper(cast(Etcd, server), VirtualClock())
    started = Started(Assignment("job", 1, 1, "default", "k", "default", "null"), LEASE, 1)
    keeper.add(Grant(LEASE, weather.ttl_s, loop.time()), lambda lease: attempt.stop(StopCause.LOST))
    attempt = Attempt(started, cast(Link, Worker(keeper)), VirtualClock(), lambda attempt, ended: None)
    attempt.execution = handler = Handler()
    keeping = asyncio.ensure_future(keeper.run())
    outlived_at = None
    while loop.time() < TTLS * weather.ttl_s and handler.killed_at is None and outlived_at is None:
        attempt.check(loop.time())
        await asyncio.sleep(TICK_S)
        if handler.killed_at is None and loop.time() >= server.expires_at:
            outlived_at = loop.time()
    for task in (keeping, *server.tasks):
        task.cancel()
    await asyncio.gather(keeping, *server.tasks, return_exceptions=True)
    return handler, outlived_at


@settings(max_examples=100, deadline=None, print_blob=True)
@given(_WEATHER)
def test_no_handler_outlives_its_lease(weather: Weather) -> None:
    handler, outlived_at = run(_outlived(weather))
    event("killed" if handler.killed_at is not None else "ran to the end")
    assert outlived_at is None, f"still running {outlived_at} s after the start, with the lease expired"


@pytest.mark.parametrize("ttl_s", [2.0, 10.0, 60.0])
def test_a_handler_runs_on_while_answers_come(ttl_s: float) -> None:
    """Vacuity: in good weather nobody is stopped."""
    handler, outlived_at = run(_outlived(Weather(ttl_s, DRIFT_SHARE, (), clears=True)))
    assert (handler.told_at, handler.killed_at, outlived_at) == (None, None, None)


@pytest.mark.parametrize("ttl_s", [2.0, 10.0, 60.0])
def test_a_handler_is_told_and_then_killed_where_no_answer_comes(ttl_s: float) -> None:
    """And in the worst weather everybody is, told first."""
    handler, outlived_at = run(_outlived(Weather(ttl_s, DRIFT_SHARE, ())))
    assert handler.told_at is not None and handler.killed_at is not None
    assert handler.told_at < handler.killed_at
    assert outlived_at is None


@settings(max_examples=50, deadline=None, print_blob=True)
@given(
    ttl_s=st.sampled_from([2.0, 5.0, 10.0, 60.0]),
    lost=st.integers(0, 10),
    there_lost=st.booleans(),
    late=st.floats(0.0, 0.05),
)
def test_one_lost_keepalive_stops_nobody(ttl_s: float, lost: int, there_lost: bool, late: float) -> None:
    """Any one of them, in either direction, with all answers a little late."""
    trips = [Trip(late / 2, late / 2) for _ in range(lost)]
    trips.append(Trip(None, None) if there_lost else Trip(late / 2, None))
    handler, _ = run(_outlived(Weather(ttl_s, 0.0, tuple(trips), clears=True)))
    assert handler.told_at is None
