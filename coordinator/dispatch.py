"""Step 2, dispatch: the leader reads ready jobs in bounded windows and offers them to workers that have room.

A hint, not a right: nothing here is needed for safety. Only lanes are read whose jobs could start now (some worker with
room serves them, no limit of theirs is full, nothing pauses them), and a lane that was read to its end is not read
again before a hint or the next poll. Every etcd write compares the leader key, so that a deposed leader offers nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from tenure.coordinator.allowance import Allowance, Slots
from tenure.coordinator.flight import Flight, Outstanding
from tenure.coordinator.lanes import Lanes, lane_from_row
from tenure.coordinator.metrics import DISPATCH_LAG, INTERRUPTED, OFFERED, OFFERS_WITHDRAWN, ROUND_S
from tenure.coordinator.reading import Reader
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.turns import Turns
from tenure.model.clock import Clock, elapsed_s
from tenure.model.dispatch import Assignment, Candidate, Lane, Seat, assign, by_worker, servable, windows
from tenure.model.errors import BoundExceeded, Deposed, TenureError, Unavailable
from tenure.store.etcd.claims import MAX_COMPARES
from tenure.store.etcd.election import Term
from tenure.store.etcd.keyspace import Keyspace, Offer, Offers
from tenure.store.etcd.port import Delete, Etcd, Put, TooLarge, Txn
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

KEYS_PER_TXN = 64
JOBS_PER_OFFER = MAX_COMPARES // 2
"""As many as one claim transaction takes, where no limits are."""
OFFERS_PER_TERM = 1_000_000
"""Keeps the keys of terms apart: the next term's number is higher by at least a 64th of the offers made."""
LANES_PER_ROUND = 256
"""A round looks at more only where it has room for more jobs."""
POLL_LANE_S = 0.0002
"""How much longer the next poll waits for each lane that the last one found: some ten times what reading them takes."""
MOST_POLL_S = 10.0
LOOK_AGAIN_S = 0.05
"""After a job left flight (most have run, and the rest can wait as long), or a hint that came soon after a reading."""
WORTH = 0.25
"""The share of the workers' places that is worth a round while jobs wait for room: fuller rounds cost less a job."""
WORTH_WITHIN_S = 0.02
"""Then whatever room there is."""
STRAYS_EVERY_S = 1.0
INTERRUPTED_S = 0.4
"""After a round that a store did not let through."""


@dataclass(slots=True)
class _Look:
    """What a round looks at."""

    lanes: dict[int, Lane] = field(default_factory=dict)
    serving: dict[int, list[Seat]] = field(default_factory=dict)
    """Lane to the workers with room that serve it."""
    units: dict[str, int] = field(default_factory=dict)
    wait_s: float = math.inf
    """In how many seconds a limit with a rate admits more."""
    unread: int | None = None
    """The rank of the first job of lanes whose turn it is not."""


class Dispatcher:
    """Offers ready jobs during one term of leadership."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        lanes: Lanes,
        flight: Flight,
        allowance: Allowance,
        term: Term,
    ) -> None:
        self._settings = settings
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._lanes = lanes
        self._flight = flight
        self._allowance = allowance
        self._term = term
        self._reader = Reader(database, clock, flight, allowance)
        self._turns = Turns()
        self._hinted: set[int] = set()
        self._again: set[int] = set()
        """Lanes that were hinted at soon after they were read, with jobs left."""
        self._freed: set[int] = set()
        """Lanes in which a job may have come free."""
        self._look = asyncio.Event()
        self._braked_at = self._braked_until = 0.0
        self._disturbed_at = 0.0
        """When a store last gave no answer: offers made before may be unanswered for that reason alone."""
        self._poll_at = 0.0
        self._again_at = math.inf
        """When to read lanes again in which a job may have come free, or whose hint came soon after a reading."""
        self._crowded_until = math.inf
        """Until when jobs that wait for room are to wait for more of it; never: none wait for room."""
        self._admitted_at = math.inf
        """When a limit with a rate admits another start."""
        self._sequence = itertools.count()
        self._came_round = clock.monotonic()

    def hint(self, lanes: Iterable[int]) -> None:
        """Look into these lanes soon; with none, just look (a worker has room again)."""
        self._hinted.update(lanes)
        self._look.set()

    def look_everywhere(self) -> None:
        """Poll now."""
        self._poll_at = self._clock.monotonic()
        self._look.set()

    def brake(self, seconds: float) -> bool:
        """Offer nothing for a while: many workers vanished at once. Return whether it is another brake than before.

        Counted from the first of them: etcd revokes leases for seconds when there are thousands, and the last wave of
        that must not hold up what the first one freed.
        """
        now = self._clock.monotonic()
        is_another = now >= self._braked_until
        if is_another:
            self._braked_at = now
        self._braked_until = max(self._braked_until, self._braked_at + seconds)
        return is_another

    @property
    def lag_s(self) -> float:
        """How long ago the last round came through; a brake is no lag."""
        return max(0.0, self._clock.monotonic() - self._came_round)

    async def run(self) -> None:
        """Dispatch until cancelled or deposed: the body of a task."""
        DISPATCH_LAG.set_function(lambda: self.lag_s)
        try:
            await self._run()
        finally:
            DISPATCH_LAG.set_function(lambda: 0.0)

    async def _run(self) -> None:
        while True:
            try:
                now = self._clock.monotonic()
                if now >= self._poll_at:
                    self._poll_at = now + self._settings.poll_s
                    await self._poll()
                    self._poll_at = max(self._poll_at, now + min(POLL_LANE_S * len(self._turns), MOST_POLL_S))
                self._admitted_at = math.inf
                self._flight.settle(now)
                self._look_again(now)
                if now >= self._crowded_until:
                    self._crowded_until = math.inf
                progressed = now >= self._braked_until and await self._cycle()
                self._came_round = self._clock.monotonic()
            except (Unavailable, BoundExceeded) as exc:
                INTERRUPTED.add(1)
                log.warning("dispatch_interrupted", error=exc.message)
                self._disturbed_at = self._clock.monotonic()
                await self._clock.sleep(INTERRUPTED_S * random.uniform(0.5, 1.5))
                continue
            if not progressed:
                await self._wait()

    def _look_again(self, now: float) -> None:
        """Have lanes read that were hinted at too soon, and those in which a job may have come free without a hint."""
        if now >= self._again_at:
            # Where more is waiting anyway, what came free is seen by the next poll.
            self._hinted |= self._again
            self._freed |= {lane for lane in self._flight.take_freed() if lane not in self._turns}
            self._again = set()
            self._again_at = math.inf
        elif self._again_at == math.inf and self._flight.has_freed:
            self._again_at = now + LOOK_AGAIN_S

    async def _wait(self) -> None:
        try:
            due = (self._poll_at, self._admitted_at, self._again_at, self._crowded_until, self._flight.settles_at)
            now = self._clock.monotonic()
            async with asyncio.timeout(max(0.001, min(*due, self._flight.rested_at(now)) - now)):
                await self._look.wait()
        except TimeoutError:
            pass
        self._look.clear()

    async def _poll(self) -> None:
        """The backup of hints: read the rules and every lane that has ready jobs, withdraw offers nobody answered."""
        await self._allowance.read_rules()
        self._reader.forget_all()
        rows = await self._database.fetch("lanes_with_ready")
        self._turns.begin_anew((lane_from_row(row), row.rank) for row in rows if row.pool is not None)
        if len(self._turns) < len(rows):
            await self._lanes.restore([row.id for row in rows if row.pool is None])
            self._look.set()  # the next poll finds them
        await self._withdraw(self._flight.overdue(self._clock.monotonic() - self._settings.offer_timeout_s))

    async def _cycle(self) -> bool:
        """Make one round of offers; return whether another may be useful at once."""
        began = elapsed_s()
        seats = self._flight.seats(self._settings.offers_per_worker, self._clock.monotonic())
        if self._gathers(seats):
            return False
        self._crowded_until = math.inf
        if self._hinted:
            hinted, self._hinted = self._hinted, set()
            self._again |= self._reader.forget(hinted)
            if self._again:
                self._again_at = min(self._again_at, self._clock.monotonic() + LOOK_AGAIN_S)
            self._turns.hinted((await self._lanes.by_id(hinted)).values())
        if self._freed:
            freed, self._freed = self._freed, set()
            self._reader.forget(freed)
            self._turns.perhaps((await self._lanes.by_id(freed)).values())
        look = self._look_at(seats)
        self._admitted_at = self._clock.monotonic() + look.wait_s
        if not look.serving:
            return False
        room = _room(look.serving.values())
        found = await self._reader.read(list(look.lanes.values()), look.units, room)
        chosen = assign(
            windows(found.candidates, look.lanes, found.cut),
            look.lanes,
            look.serving,
            shares=self._allowance.shares(look.lanes.values()),
            units=look.units,
            unread=look.unread,
        )
        assignments = await self._allowance.take_tokens(chosen, look.lanes)
        self._reader.take([one.candidate for one in assignments])
        given = {one.candidate.lane: one.candidate.rank for one in assignments}
        waiting = {one.lane for one in found.candidates} - given.keys()
        made_way = self._turns.looked_at({lane: self._reader.left(lane) for lane in look.lanes}, given, waiting)
        if len(assignments) == room:
            self._crowded_until = self._clock.monotonic() + WORTH_WITHIN_S
        offered = bool(assignments) and await self._offer(assignments, look.lanes)
        if offered:
            ROUND_S.observe(elapsed_s() - began)
        return offered or found.met or (made_way and look.unread is not None)

    def _look_at(self, seats: Sequence[Seat]) -> _Look:
        """Choose the lanes of a round, in their turn: those that have open limits and a worker with room."""
        self._turns.freed(self._flight.take_freed_limits())
        look = _Look()
        most = max(LANES_PER_ROUND, sum(seat.free for seat in seats))
        full: dict[int, str] = {}
        passed: set[int] = set()
        turns = iter(self._turns)
        while len(look.lanes) < most and (page := list(itertools.islice(turns, most))):
            opening = self._allowance.open(page)
            serving = servable(opening.lanes, seats)
            look.units |= opening.units
            look.wait_s = min(look.wait_s, opening.wait_s)
            look.serving |= serving
            look.lanes |= {lane.id: lane for lane in opening.lanes if lane.id in serving}
            full |= opening.full
            passed |= {lane.id for lane in page}
        self._turns.set_aside(full)
        look.unread = self._turns.next_rank(passed)
        return look

    def _gathers(self, seats: Sequence[Seat]) -> bool:
        """Say whether jobs wait for room, and it is better to let more of it come together."""
        if self._crowded_until == math.inf:
            return False
        places = self._flight.places(self._settings.offers_per_worker)
        return sum(seat.free for seat in seats) < WORTH * places

    async def move_strays_forever(self) -> None:
        """Give jobs of paused routes lanes of their own, so that they are read no more: the body of a task."""
        while True:
            await self._reader.strays.wait()
            self._reader.strays.clear()
            pools = self._allowance.rules.paused_pools
            try:
                await self._lanes.register_pools(pools)
                await self._lanes.refit(pools)
            except TenureError as exc:
                log.warning("strays_not_moved", error=exc.message)
            await self._clock.sleep(STRAYS_EVERY_S)

    async def _offer(self, assignments: Iterable[Assignment], lanes: Mapping[int, Lane]) -> bool:
        """Write offers in as few transactions as they fit; False: there was none to write."""
        puts: list[tuple[Put, Outstanding]] = []
        given: Slots = {}
        for worker, candidates in by_worker(assignments).items():
            seen = self._flight.workers.get(worker)
            if seen is None:
                continue  # its session ended while the jobs were read
            _, lease = seen
            for start in range(0, len(candidates), JOBS_PER_OFFER):
                put = self._offer_of(worker, lease, candidates[start : start + JOBS_PER_OFFER], lanes, given)
                if put[1].offers:
                    puts.append(put)
        for start in range(0, len(puts), KEYS_PER_TXN):
            await self._put(puts[start : start + KEYS_PER_TXN])
        return bool(puts)

    def _offer_of(
        self, worker: str, lease: int, candidates: Sequence[Candidate], lanes: Mapping[int, Lane], given: Slots
    ) -> tuple[Put, Outstanding]:
        key = self._keys.message(worker, self._term.number * OFFERS_PER_TERM + next(self._sequence))
        offers = {}
        for candidate in candidates:
            lane = lanes[candidate.lane]
            slots = self._allowance.slots_for(lane, given) if lane.limits else ()
            if slots is None:
                continue  # taken since the limit was looked at
            offers[candidate.id] = Offer(
                candidate.id, candidate.attempt, candidate.ttl_s, lane.namespace, lane.kind, candidate.route, slots
            )
        value = Offers(term=self._term.number, offers=tuple(offers.values()))
        where = {candidate.id: candidate.lane for candidate in candidates}
        return Put(key, value.to_json(), lease), Outstanding(key, worker, offers, self._clock.monotonic(), where)

    async def _put(self, puts: Sequence[tuple[Put, Outstanding]]) -> None:
        for _, offer in puts:
            self._flight.offered(offer)  # before the write: its events may arrive before its answer
        try:
            # Repeatable: a worker that has answered in between finds an offer of which it can win nothing but the claim
            # of a job that has ended or moved on, and the start refuses that by the attempt that was offered.
            txn = Txn((self._term.guard(),), tuple(put for put, _ in puts))
            result = await self._etcd.txn(txn, repeatable=True)
        except Unavailable:
            # Unknown: if it was written, the deletion event or the timeout will free the jobs.
            raise
        except TenureError as exc:
            if isinstance(exc, BoundExceeded) and not isinstance(exc, TooLarge):
                for _, offer in puts:  # etcd has no room (NOSPACE) for anybody's offer
                    self._flight.offer_gone(offer.key, self._clock.monotonic())
                raise
            # One worker's session ended, or all together are too large: etcd refuses the whole. Each for itself, then.
            if len(puts) == 1:
                self._flight.offer_gone(puts[0][1].key, self._clock.monotonic())
                log.info("offer_refused", worker=puts[0][1].worker, error=exc.message)
                return
            for _, offer in puts:
                self._flight.offer_gone(offer.key, self._clock.monotonic())
            for put in puts:
                await self._put([put])
            return
        if not result.succeeded:
            raise Deposed("the leader key has changed hands")
        for _, offer in puts:
            offer.made_at = self._clock.monotonic()  # a worker cannot have seen it before
            OFFERED.add(len(offer.offers))

    async def _withdraw(self, offers: Sequence[Outstanding]) -> None:
        for start in range(0, len(offers), KEYS_PER_TXN):
            page = offers[start : start + KEYS_PER_TXN]
            txn = Txn((self._term.guard(),), tuple(Delete(offer.key) for offer in page))
            result = await self._etcd.txn(txn, repeatable=True)
            if not result.succeeded:
                raise Deposed("the leader key has changed hands")
            for offer in page:
                if offer.made_at > self._disturbed_at:
                    self._flight.suspect(offer.worker)
                self._flight.offer_gone(offer.key, self._clock.monotonic())
            OFFERS_WITHDRAWN.add(len(page))
            log.info("offers_withdrawn", offers=len(page), workers=sorted({offer.worker for offer in page}))


def _room(groups: Iterable[Sequence[Seat]]) -> int:
    """Return the places of all workers that serve any of the lanes."""
    return sum({seat.worker: seat.free for seats in groups for seat in seats}.values())
