"""What limits still admit, as the leader sees it: slots that are free, tokens that are left.

Slots are counted from the picture (``Flight``); that no limit is exceeded is decided by etcd, where a slot's key can be
put once. Tokens are taken in Postgres before the offer, under the leader's term, and never given back: an offer that
nobody answers costs its token.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tenure.coordinator.flight import Flight
from tenure.model.clock import Clock
from tenure.model.dispatch import Assignment, Lane, Share
from tenure.model.limits import Limit, free_numbers
from tenure.model.rules import Pause, Rules, Subject
from tenure.store.etcd.keyspace import slot_name
from tenure.store.postgres.database import Database, Row, Statement

Slots = dict[str, Iterator[int]]


class Opening(NamedTuple):
    """What may start now, of some lanes."""

    lanes: list[Lane]
    units: dict[str, int]
    """What each of their limits admits."""
    wait_s: float
    """In how many seconds more may start, by tokens."""
    full: dict[int, str]
    """Lanes of which nothing can start before a slot of this limit is free."""


class Allowance:
    """Rules and what they leave, during one term."""

    def __init__(self, database: Database, clock: Clock, flight: Flight, guard: Statement) -> None:
        self._database = database
        self._clock = clock
        self._flight = flight
        self._guard = guard
        self._tokens: dict[str, tuple[float, float]] = {}
        """Limit to the tokens that Postgres told of, and when (monotonic)."""
        self.rules = Rules()

    async def read_rules(self) -> None:
        """Read what operators have set."""
        (row,) = await self._database.fetch("dispatch_rules")
        self.rules = rules_from_row(row)
        self._forget_full()

    def _forget_full(self) -> None:
        """Forget buckets that are full again, as unknown ones are taken to be: a family has members without number."""
        limits = {name: self._rate_of(name) for name in self._tokens}
        for name, limit in limits.items():
            if limit is None or self._level(name, limit) >= limit.bucket:
                del self._tokens[name]

    def open(self, lanes: Iterable[Lane]) -> Opening:
        """Return which of some lanes have jobs that may start now. Of free slots etcd tells; tokens come with time."""
        units: dict[str, int] = {}
        waits: dict[str, float] = {}
        found = []
        full = {}
        for lane in lanes:
            if self.rules.pause_of(lane) is not None:
                continue
            for name in lane.limits:
                if name not in waits:
                    self._look_up(name, units, waits)
            spent = [name for name in lane.limits if units.get(name, 1) <= 0]
            if not spent:
                found.append(lane)
            elif (limit := next((name for name in spent if waits[name] == math.inf), None)) is not None:
                full[lane.id] = limit
        wait_s = min((wait for name, wait in waits.items() if units.get(name) == 0), default=math.inf)
        return Opening(found, units, wait_s, full)

    def _look_up(self, name: str, units: dict[str, int], waits: dict[str, float]) -> None:
        waits[name] = math.inf
        limit = self.rules.limit_of(name)
        if limit is None:
            return
        admitted = math.inf
        if limit.concurrent is not None:
            admitted = max(0, limit.concurrent - len(self._flight.slots.get(name, ())))
        if limit.rate is not None:
            tokens = self._level(name, limit)
            if admitted > 0:
                waits[name] = limit.wait_s(tokens)
            admitted = min(admitted, math.floor(tokens))
        units[name] = int(admitted)

    def _level(self, name: str, limit: Limit) -> float:
        known = self._tokens.get(name)
        if known is None:
            return float(limit.bucket)
        tokens, at = known
        return limit.level(tokens, self._clock.monotonic() - at)

    def shares(self, lanes: Iterable[Lane]) -> dict[str, Share]:
        """Return what the namespaces of some lanes have in flight, with their weights."""
        return {
            namespace: Share(self._flight.by_namespace[namespace], self.rules.weight_of(namespace))
            for namespace in {lane.namespace for lane in lanes}
        }

    async def take_tokens(self, chosen: Sequence[Assignment], lanes: Mapping[int, Lane]) -> list[Assignment]:
        """Take a token for each job under a limit with a rate; leave out, from the end, jobs for which there is none.

        Raises:
            Deposed: the term is over.
        """
        used = {name for lane in lanes.values() for name in lane.limits}
        rates = {name: rate for name in used if (rate := self._rate_of(name)) is not None}
        if not rates:
            return list(chosen)
        wanted = Counter([name for one in chosen for name in lanes[one.candidate.lane].limits if name in rates])
        if not wanted:
            return list(chosen)
        params = {
            "names": list(wanted),
            "wanted": list(wanted.values()),
            "per_s": [(rates[name].rate or 0) / rates[name].interval_s for name in wanted],
            "sizes": [float(rates[name].bucket) for name in wanted],
        }
        _, rows = await self._database.transaction([self._guard, Statement("take_tokens", params)])
        now = self._clock.monotonic()
        granted = {row.name: row.granted for row in rows}
        self._tokens.update((row.name, (row.tokens, now)) for row in rows)
        kept = []
        for one in chosen:
            names = [name for name in lanes[one.candidate.lane].limits if name in granted]
            if all(granted[name] > 0 for name in names):
                kept.append(one)
                granted.update((name, granted[name] - 1) for name in names)
        return kept

    def _rate_of(self, name: str) -> Limit | None:
        limit = self.rules.limit_of(name)
        return limit if limit is not None and limit.rate is not None else None

    def slots_for(self, lane: Lane, given: Slots) -> tuple[str, ...] | None:
        """Choose a free slot of each of a lane's limits; ``given`` remembers, over one round, what is left to choose.

        None if a limit has none left.
        """
        found = []
        for name in lane.limits:
            limit = self.rules.limit_of(name)
            if limit is None or limit.concurrent is None:
                continue
            if name not in given:
                given[name] = free_numbers(limit, frozenset(self._flight.slots.get(name, ())))
            number = next(given[name], None)
            if number is None:
                return None
            found.append(slot_name(name, number))
        return tuple(found)


def limit_from_row(row: Row) -> Limit:
    """Convert a row of ``limits`` or ``put_limit``."""
    return Limit(row.name, row.concurrent, row.rate, row.interval_s, row.burst)


def rules_from_row(row: Row) -> Rules:
    """Convert the row of ``dispatch_rules``."""
    limits, pauses, weights = (json.loads(text) for text in (row.limits, row.pauses, row.weights))
    return Rules(
        limits={one["name"]: Limit(**one) for one in limits},
        pauses={
            (Subject(one["subject"]), one["name"]): Pause(Subject(one["subject"]), one["name"], one["reason"])
            for one in pauses
        },
        weights=weights,
    )
