"""Leading: what the one elected coordinator does, for as long as its term lasts.

A term begins with a picture of etcd at one revision (workers, claims, inboxes), is recorded in Postgres, and runs the
dispatcher, the reaper, the schedules and the chores in one task group. It ends when the election says so or a guarded
write finds the leader key in other hands; nothing of it outlives the group. Safety never depends on there being one
leader: see the module comments of ``dispatch``, ``reap`` and ``schedule``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from tenure.coordinator import archive_format
from tenure.coordinator.allowance import Allowance
from tenure.coordinator.archive import Archiver
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.count import HistoryCounter
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.dispatch import Dispatcher
from tenure.coordinator.expire_archive import ArchiveExpiry
from tenure.coordinator.finish import Finisher
from tenure.coordinator.flight import Flight, Held, Outstanding
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import REFRESH_S, Lanes
from tenure.coordinator.leftovers import Leftovers
from tenure.coordinator.metrics import LEADS
from tenure.coordinator.move_logs import LogMover
from tenure.coordinator.overdue import Overdue
from tenure.coordinator.reap import Reaper
from tenure.coordinator.retain import Retainer, Turns
from tenure.coordinator.schedule import Scheduler
from tenure.coordinator.settings import CoordinatorSettings
from tenure.coordinator.stores import Stores
from tenure.coordinator.survey import Survey
from tenure.coordinator.upkeep import Upkeep
from tenure.model.clock import Clock
from tenure.model.errors import Deposed, TenureError
from tenure.store.etcd.compact import CompactionPolicy, Compactor
from tenure.store.etcd.election import Election, Term
from tenure.store.etcd.keyspace import ClaimHolder, Keyspace, SlotValue, WorkerValue, parse_inbox
from tenure.store.etcd.port import Etcd, Event, EventKind, KeyValue
from tenure.store.etcd.view import View
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Statement

log = structlog.get_logger(__name__)

SUBMITTED_S = 35.0
"""After a pool appeared every submit that began with an older picture of the pools has been written: the oldest picture
that is used, and the longest that a transaction may take."""
RESPITE_S = 0.2
MAX_RESPITE_S = 5.0
"""After a term that failed, longer with each that fails soon again, so that a fault that lasts does not become a storm
of elections."""


def next_respite_s(before_s: float, lasted_s: float) -> float:
    """Return how long to rest after a term that failed: twice as long as before, unless it had lasted for a while."""
    return RESPITE_S if lasted_s > 2 * MAX_RESPITE_S else min(2 * before_s, MAX_RESPITE_S)


class Leader:
    """Leads whenever elected. ``run`` is the body of a task."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        election: Election,
        lanes: Lanes,
        finisher: Finisher,
        dependants: Dependants,
        hints: Hints,
        canceler: Canceler,
        kinds: Kinds,
        objects: ObjectStore | None = None,
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._election = election
        self._lanes = lanes
        self._finisher = finisher
        self._dependants = dependants
        self._hints = hints
        self._canceler = canceler
        self._kinds = kinds
        self._dispatcher: Dispatcher | None = None

    def hint(self, lanes: frozenset[int]) -> bool:
        """Pass a hint to the dispatcher, no lane meaning all of them; False if this coordinator does not lead."""
        if self._dispatcher is None:
            return False
        if lanes:
            self._dispatcher.hint(lanes)
        else:
            self._dispatcher.look_everywhere()
        return True

    async def run(self) -> None:
        """Campaign, lead, and again, until cancelled."""
        respite_s = RESPITE_S
        async for term in self._election.terms():
            log.info("term_begins", term=term.number)
            began = self._clock.monotonic()
            try:
                try:
                    await term.lead(self._lead(term))
                finally:
                    self._dispatcher = None  # before any respite: hints are for whoever leads next
                    LEADS.set(0)
                    log.info("term_ends", term=term.number)
            except* Deposed as group:
                log.warning("deposed", term=term.number, reason=str(group.exceptions[0]))
                await self._clock.sleep(RESPITE_S)
            except* TenureError as group:
                log.warning("term_failed", term=term.number, error=str(group.exceptions[0]))
                respite_s = await self._rest(respite_s, began)
            except* Exception as group:  # a defect, of ours or of a store: it ends the term, not the service
                log.error("term_failed", term=term.number, exc_info=group.exceptions[0])
                respite_s = await self._rest(respite_s, began)

    async def _rest(self, respite_s: float, began: float) -> float:
        respite_s = next_respite_s(respite_s, self._clock.monotonic() - began)
        await self._clock.sleep(respite_s * random.uniform(0.5, 1.0))
        return respite_s

    async def _lead(self, term: Term) -> None:
        stores = Stores(
            self._database,
            self._etcd,
            self._keys,
            self._clock,
            self._settings.coordinator_id,
            term,
            patience_s=self._settings.leader_ttl_s,
        )
        frozen_s = await stores.record_term()
        flight = Flight()
        guard = Statement("assert_term", {"leader": self._settings.coordinator_id, "term": term.number})
        dispatcher = Dispatcher(
            self._settings,
            self._database,
            self._etcd,
            self._keys,
            self._clock,
            self._lanes,
            flight,
            Allowance(self._database, self._clock, flight, guard),
            term,
        )
        dispatcher.brake(frozen_s)
        reaper = Reaper(
            self._database,
            self._etcd,
            self._keys,
            self._clock,
            self._finisher,
            flight.suspect,
            dispatcher.brake,
            guard=guard,
            term_guard=term.guard(),
            sweep_s=self._settings.sweep_s,
            cancel_grace_s=self._settings.cancel_grace_s,
        )
        if stores.etcd_was_lost or frozen_s > 0:  # or the term before did not come as far as this
            await reaper.drop_strays()
        scheduler = Scheduler(
            self._database, self._lanes, self._hints, self._kinds, self._canceler, self._clock, guard=guard
        )
        upkeep = Upkeep(self._database, self._clock, self._dependants, self._hints)
        turns = Turns()
        retainer = Retainer(
            self._database,
            self._clock,
            guard=guard,
            leader=self._settings.coordinator_id,
            share=self._settings.retention_share,
            turns=turns,
            has_objects=self._objects is not None,
        )
        counter = HistoryCounter(self._database, self._clock, guard=guard, turns=turns)
        picture = Picture(self._keys, self._clock, flight, dispatcher, reaper, self._lanes)
        compactor = Compactor(
            self._etcd,
            self._clock,
            CompactionPolicy(
                every_revisions=self._settings.compact_every_revisions,
                every_s=self._settings.compact_every_s,
                keep_revisions=self._settings.compact_keep_revisions,
            ),
        )
        async with asyncio.TaskGroup() as group:
            views = picture.views(self._etcd)
            for view in views:
                group.create_task(view.run())
            for view in views:
                await view.ready.wait()
            self._dispatcher = dispatcher
            LEADS.set(1)
            if self._objects is not None:
                mover = LogMover(self._database, self._objects, self._clock)
                group.create_task(upkeep.move_logs_forever(mover))
            for body in (
                dispatcher.run(),
                dispatcher.move_strays_forever(),
                reaper.watch_forever(),
                reaper.sweep_forever(),
                reaper.drop_orphans_forever(),
                scheduler.fire_forever(),
                upkeep.activate_forever(),
                upkeep.raise_aged_forever(),
                upkeep.count_backlogs_forever(),
                upkeep.sweep_dependants_forever(),
                upkeep.drop_keys_forever(),
                upkeep.fail_overdue_forever(Overdue(self._database, self._finisher, self._dependants)),
                upkeep.make_partitions_forever(),
                upkeep.drop_buckets_forever(),
                upkeep.drop_lanes_forever(),
                upkeep.drop_audit_forever(self._settings.audit_keep_days),
                retainer.retain_forever(),
                counter.count_forever(),
                picture.register_pools_forever(),
                upkeep.compact_forever(compactor),
                Survey(self._database, self._etcd, self._clock, compactor).look_forever(),
                stores.watch(),
                *self._with_objects(guard, turns),
            ):
                group.create_task(body)

    def _with_objects(self, guard: Statement, turns: Turns) -> list[Coroutine[Any, Any, None]]:
        """Return the bodies of tasks that need an object store; none without one."""
        if self._objects is None:
            return []
        bodies = [Leftovers(self._database, self._objects, self._clock).delete_forever()]
        if problem := archive_format.missing():
            log.info("no_archive", reason=problem)
        else:
            name = self._settings.coordinator_id
            share = self._settings.retention_share
            archiver = Archiver(
                self._database, self._objects, self._clock, guard=guard, leader=name, share=share, turns=turns
            )
            bodies.append(archiver.archive_forever())
            expiry = ArchiveExpiry(self._database, self._objects, self._clock, guard=guard, leader=name, share=share)
            bodies.append(expiry.expire_forever())
        return bodies


class Picture:
    """Feeds the leader's picture (``Flight``) from watches of etcd, and wakes dispatcher and reaper."""

    def __init__(
        self, keys: Keyspace, clock: Clock, flight: Flight, dispatcher: Dispatcher, reaper: Reaper, lanes: Lanes
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._flight = flight
        self._dispatcher = dispatcher
        self._reaper = reaper
        self._lanes = lanes
        self._fitted: set[str] = set()
        """Pools whose jobs were moved to lanes of their own, in this term."""
        self._new_pools = asyncio.Event()

    def views(self, etcd: Etcd) -> list[View]:
        """Return the mirrors to run: workers, claims, slots, holds, inboxes."""
        followed: list[tuple[str, Callable[[Event], None]]] = [
            (self._keys.workers, self._worker_changed),
            (self._keys.claims, self._claim_changed),
            (self._keys.slots, self._slot_changed),
            (self._keys.holds, self._hold_changed),
            (self._keys.inboxes, self._inbox_changed),
        ]
        return [View(etcd, prefix, self._clock, partial(self._all, follow)) for prefix, follow in followed]

    async def register_pools_forever(self) -> None:
        """Remember pools that appear, so that jobs find the lanes of the workers that serve them.

        Every pool counts as new to a term: the leader before may have died before it had moved the jobs.
        """
        again: list[tuple[float, set[str]]] = []
        while True:
            await self._some_pools(min([self._clock.monotonic() + REFRESH_S, *(at for at, _ in again)]))
            try:
                served = {pool for value, _ in self._flight.workers.values() for pool in value.pools}
                forgotten = await self._lanes.register_pools(served)  # or never known
                now = self._clock.monotonic()
                new = (served - self._fitted) | set(forgotten)
                late = {pool for at, pools in again if at <= now for pool in pools}
                if not new | late:
                    continue
                await self._lanes.refit(sorted(new | late))
                self._dispatcher.look_everywhere()
                self._fitted |= new
                # Again, for submits that were under way with an older picture of the pools.
                again = [(at, pools) for at, pools in again if at > now]
                if new:
                    again.extend((self._clock.monotonic() + wait_s, new) for wait_s in (2 * REFRESH_S, SUBMITTED_S))
            except TenureError as exc:
                log.warning("pools_not_registered", error=exc.message)
                await self._clock.sleep(1.0)
                self._new_pools.set()

    async def _some_pools(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                await self._new_pools.wait()
        self._new_pools.clear()

    def _all(self, follow: Callable[[Event], None], events: Sequence[Event]) -> None:
        for event in events:
            try:
                follow(event)
            except Exception as exc:  # written by hand or by a worker gone mad: it must not end every term
                log.error("key_unreadable", key=event.item.key, error=repr(exc))
        self._dispatcher.hint(())

    def _worker_changed(self, event: Event) -> None:
        worker = self._keys.last(event.item.key)
        if event.kind is EventKind.DELETE:
            self._flight.worker_gone(worker)
            return
        value = WorkerValue.from_json(event.item.value)
        self._flight.worker_seen(worker, value, event.item.lease)
        if not self._fitted.issuperset(value.pools) or not self._lanes.know(value.pools):
            self._new_pools.set()

    def _claim_changed(self, event: Event) -> None:
        job = self._keys.last(event.item.key)
        if event.kind is EventKind.DELETE:
            self._flight.claim_gone(job)
            self._reaper.claim_gone(job)
            return
        value = ClaimHolder.from_json(event.item.value)
        self._flight.claim_seen(job, Held(value.worker, value.namespace))

    def _hold_changed(self, event: Event) -> None:
        job = self._keys.last(event.item.key)
        if event.kind is EventKind.DELETE:
            self._flight.hold_gone(job)
        else:
            self._flight.holds.add(job)

    def _slot_changed(self, event: Event) -> None:
        limit, number = self._keys.parse_slot(event.item.key)
        if event.kind is EventKind.DELETE:
            self._flight.slot_gone(limit, number)
        else:
            self._flight.slot_seen(limit, number, SlotValue.from_json(event.item.value).job)

    def _inbox_changed(self, event: Event) -> None:
        key = event.item.key
        now = self._clock.monotonic()
        if event.kind is EventKind.DELETE:
            self._flight.offer_gone(key, now)
        elif key not in self._flight.offers:
            self._older_term(event.item, now)

    def _older_term(self, item: KeyValue, now: float) -> None:
        """An offer of an earlier term: it stands until it is answered or overdue, like one of ours."""
        message = parse_inbox(item.value)
        worker, _ = self._keys.parse_message(item.key)
        offers = getattr(message, "offers", ())
        if offers:
            self._flight.offered(Outstanding(item.key, worker, {offer.job: offer for offer in offers}, now))
