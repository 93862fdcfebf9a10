"""Step 2, dispatch: the leader reads ready jobs in bounded windows and offers them to workers that have room.

A hint, not a right: nothing here is needed for safety. Only lanes that some worker with room serves are read, and a
lane that was read to its end is not read again before a hint or the next poll. Every etcd write compares the leader
key, so that a deposed leader offers nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence

import structlog

from tenure.coordinator.flight import Flight, Outstanding, candidate_from_row
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.clock import Clock
from tenure.model.dispatch import Candidate, Lane, Seat, assign, by_worker, servable
from tenure.model.errors import BoundExceeded, Deposed, TenureError, Unavailable
from tenure.store.etcd.election import Term
from tenure.store.etcd.keyspace import Keyspace, Offer, Offers
from tenure.store.etcd.port import Delete, Etcd, Put, TooLarge, Txn
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

KEYS_PER_TXN = 64
JOBS_PER_OFFER = 100
"""As many as one claim transaction takes."""
LANES_PER_READ = 64
OFFERS_PER_TERM = 1_000_000
"""Keeps the keys of terms apart: the next term's number is higher by at least a 64th of the offers made."""
MIN_PER_LANE = 4
LOOK_AGAIN_S = 0.05
INTERRUPTED_S = 0.4
"""After a round that a store did not let through."""


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
        term: Term,
    ) -> None:
        self._settings = settings
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._lanes = lanes
        self._flight = flight
        self._term = term
        self._known: dict[int, Lane] = {}
        """Lanes that may have ready jobs which are not in flight."""
        self._hinted: set[int] = set()
        self._look = asyncio.Event()
        self._braked_until = 0.0
        self._disturbed_at = 0.0
        """When a store last gave no answer: offers made before may be unanswered for that reason alone."""
        self._poll_at = 0.0
        self._sequence = itertools.count()

    def hint(self, lanes: Iterable[int]) -> None:
        """Look into these lanes soon; with none, just look (a worker has room again)."""
        self._hinted.update(lanes)
        self._look.set()

    def look_everywhere(self) -> None:
        """Poll now."""
        self._poll_at = self._clock.monotonic()
        self._look.set()

    def brake(self, seconds: float) -> None:
        """Offer nothing for a while: many workers vanished at once."""
        self._braked_until = max(self._braked_until, self._clock.monotonic() + seconds)

    async def run(self) -> None:
        """Dispatch until cancelled or deposed: the body of a task."""
        while True:
            try:
                now = self._clock.monotonic()
                if now >= self._poll_at:
                    self._poll_at = now + self._settings.poll_s
                    await self._poll()
                progressed = now >= self._braked_until and await self._cycle()
            except (Unavailable, BoundExceeded) as exc:
                log.warning("dispatch_interrupted", error=exc.message)
                self._disturbed_at = self._clock.monotonic()
                await self._clock.sleep(INTERRUPTED_S * random.uniform(0.5, 1.5))
                continue
            if not progressed:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(max(0.001, self._poll_at - self._clock.monotonic())):
                await self._look.wait()
        except TimeoutError:
            pass
        self._look.clear()

    async def _poll(self) -> None:
        """The backup of hints: see every lane that has ready jobs, and withdraw offers that nobody answered."""
        rows = await self._database.fetch("lanes_with_ready")
        self._known = {row.id: Lane(row.id, row.pool, row.namespace, row.kind) for row in rows}
        now = self._clock.monotonic()
        self._flight.settle(now)
        await self._withdraw(self._flight.overdue(now - self._settings.offer_timeout_s))

    async def _cycle(self) -> bool:
        """Make one round of offers; return whether another may be useful at once."""
        if self._hinted:
            hinted, self._hinted = self._hinted, set()
            self._known.update(await self._lanes.by_id(hinted))
        if not self._known:
            return False
        seats = self._flight.seats(self._settings.offers_per_worker)
        serving = servable(self._known.values(), seats)
        if not serving:
            return False
        room = _room(serving.values())
        candidates, exhausted = await self._read(list(serving), room)
        lanes = dict(self._known)
        assignments = assign(candidates, serving)
        if len(assignments) == len(candidates):
            for lane in exhausted:  # nothing is left there: until a hint or the next poll
                self._known.pop(lane, None)
        if not assignments:
            return False
        await self._offer(by_worker(assignments), lanes)
        return True

    async def _read(self, lanes: Sequence[int], room: int) -> tuple[list[Candidate], list[int]]:
        """Read the first candidates of the lanes, and say which lanes hold no more than was read."""
        candidates: list[Candidate] = []
        exhausted: list[int] = []
        for page in _pages(lanes):
            # Rows in flight are still at the head of their lanes: read past as many as there can be.
            per_lane = room + self._flight.unstarted + MIN_PER_LANE
            rows = await self._database.fetch(
                "ready_window", {"lanes": list(page), "per_lane": per_lane, "total": per_lane}
            )
            found = [candidate_from_row(row) for row in rows]
            free = self._flight.free_of(found)
            if len(free) < len(found):
                # Some are claimed and not yet started, or came back before their last claim was gone: look again soon.
                self._poll_at = min(self._poll_at, self._clock.monotonic() + LOOK_AGAIN_S)
            candidates.extend(free)
            if len(found) < per_lane:
                exhausted.extend(page)
        candidates.sort(key=lambda candidate: candidate.order)
        return candidates, exhausted

    async def _offer(self, offers: dict[str, list[Candidate]], lanes: Mapping[int, Lane]) -> None:
        """Write offers in as few transactions as they fit."""
        puts: list[tuple[Put, Outstanding]] = []
        for worker, candidates in offers.items():
            seen = self._flight.workers.get(worker)
            if seen is None:
                continue  # its session ended while the jobs were read
            _, lease = seen
            for start in range(0, len(candidates), JOBS_PER_OFFER):
                puts.append(self._offer_of(worker, lease, candidates[start : start + JOBS_PER_OFFER], lanes))
        for start in range(0, len(puts), KEYS_PER_TXN):
            await self._put(puts[start : start + KEYS_PER_TXN])

    def _offer_of(
        self, worker: str, lease: int, candidates: Sequence[Candidate], lanes: Mapping[int, Lane]
    ) -> tuple[Put, Outstanding]:
        key = self._keys.message(worker, self._term.number * OFFERS_PER_TERM + next(self._sequence))
        jobs = []
        for candidate in candidates:
            lane = lanes[candidate.lane]
            jobs.append(
                Offer(
                    job=str(candidate.id),
                    attempt=candidate.attempt,
                    ttl_s=candidate.ttl_s,
                    namespace=lane.namespace,
                    kind=lane.kind,
                    route=candidate.route,
                )
            )
        value = Offers(term=self._term.number, offers=tuple(jobs))
        offer = Outstanding(key, worker, tuple(job.job for job in jobs), self._clock.monotonic())
        return Put(key, value.to_json(), lease), offer

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
            log.info("offers_withdrawn", offers=len(page), workers=sorted({offer.worker for offer in page}))


def _room(groups: Iterable[Sequence[Seat]]) -> int:
    """Return the places of all workers that serve any of the lanes."""
    return sum({seat.worker: seat.free for seats in groups for seat in seats}.values())


def _pages(lanes: Sequence[int]) -> Iterable[Sequence[int]]:
    return (lanes[start : start + LANES_PER_READ] for start in range(0, len(lanes), LANES_PER_READ))
