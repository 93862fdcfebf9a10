"""Schedule: the leader turns ticks into jobs, each of them once.

Reads the schedules that are due, by Postgres' clock, decides by ``model.schedules.decide`` and writes many decisions in
one transaction (``store.postgres.schedules``). Safety does not depend on there being one leader: what another one wrote
first makes the write of this one fail whole, and the next look decides from what is there then. Nothing is remembered
between two looks but which schedules could not be carried out, so that those do not hold up the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from tenure.coordinator import counted
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.metrics import TICK_LATE_S, TICK_OVERDUE, TICKS
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, InvalidInput, TenureError, Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import PlannedJob
from tenure.model.schedules import MAX_TICKS, ScheduleSpec, decide, job_at, tick_key
from tenure.model.unique import OnDuplicate, held_conflict, unique_key_of
from tenure.probes import tracing
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.schedules import Firing, ScheduleMoved, write_firings
from tenure.store.postgres.submit import keyed_jobs, scope_of
from tenure.store.postgres.taken import KeyTaken, UniqueTaken
from tenure.store.postgres.unique import holders

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5
"""How often the leader looks though no tick is due: for schedules that are new, and for queued ticks."""
SOONEST_S = 0.005
PAGE = 200
"""Schedules that one round takes."""
BROKEN_S = 60.0
"""How long a schedule that cannot be carried out is left alone."""
_TRIES = 5

TickKey = tuple[str, str]
"""The schedule's scope and the idempotency key of a tick or a trigger."""


class Scheduler:
    """Fires schedules during one term of leadership. ``fire_forever`` is the body of a task."""

    def __init__(
        self,
        database: Database,
        lanes: Lanes,
        hints: Hints,
        kinds: Kinds,
        canceler: Canceler,
        clock: Clock,
        *,
        guard: Statement,
    ) -> None:
        self._database = database
        self._writer = TickWriter(database, lanes, hints, kinds, canceler)
        self._clock = clock
        self._guard = guard
        self._broken: dict[uuid.UUID, float] = {}

    async def fire_forever(self) -> None:
        """Fire what is due, sleep until something is.

        Raises:
            Deposed: the term is over.
        """
        try:
            while True:
                await self._clock.sleep(await self._fire_due())
        finally:
            TICK_OVERDUE.set(0.0)  # whoever leads next tells it

    async def _fire_due(self) -> float:
        """Fire what is due, and return how many seconds there are until something is."""
        wait_s = LOOK_EVERY_S
        try:
            while await self.round() == PAGE:
                pass
            next_s = (await self._database.fetch("next_schedule"))[0][0]
            TICK_OVERDUE.set(max(0.0, -(next_s or 0.0)))
            if next_s is not None and not self._broken:
                wait_s = min(wait_s, max(SOONEST_S, next_s))
        except (Unavailable, BoundExceeded) as exc:
            log.warning("schedules_interrupted", error=exc.message)
        return wait_s

    async def round(self) -> int:
        """Decide about the schedules that are due now and write it; return how many that were."""
        now = self._clock.monotonic()
        self._broken = {id: until for id, until in self._broken.items() if until > now}
        rows = await self._database.fetch("due_schedules", {"limit": PAGE, "broken": list(self._broken)})
        firings: list[Firing] = []
        for row in rows:
            firing = self._decide(row)
            if firing is not None:
                firings.append(firing)
                if firing.jobs and (due_at := firing.jobs[-1].scheduled_at) is not None:
                    TICK_LATE_S.observe(max(0.0, (row.now - due_at).total_seconds()))
            await self._clock.sleep(0)  # there may be thousands of ticks: the leader's KeepAlives come in between
        for group in _groups(firings):
            await self._write(group)
        return len(firings)

    def _decide(self, row: Row) -> Firing | None:
        try:
            return firing_of(row)
        except Exception:  # one that was written by hand, or whose zone is gone, holds up no other
            self._leave_alone(row.id)
            return None

    def _leave_alone(self, id: uuid.UUID) -> None:
        log.exception("schedule_broken", schedule=str(id), again_s=BROKEN_S)
        self._broken[id] = self._clock.monotonic() + BROKEN_S

    async def _write(self, firings: Sequence[Firing]) -> None:
        """Write a group; when it cannot be written as one, each for itself."""
        try:
            written = await self._writer.write(firings, guard=self._guard)
        except TenureError as exc:
            if not isinstance(exc, InvalidInput):  # the stores' trouble, not one schedule's
                raise
            await self._write_apart(firings)
            return
        except ScheduleMoved:  # by somebody else: the next round decides about it afresh
            if len(firings) > 1:
                await self._write_each(firings)
            return
        except Exception:  # a defect in one schedule holds up no other
            await self._write_apart(firings)
            return
        _count(written)

    async def _write_apart(self, firings: Sequence[Firing]) -> None:
        """One of these cannot be carried out: find which, and leave it alone for a while."""
        if len(firings) > 1:
            await self._write_each(firings)
        else:
            self._leave_alone(firings[0].id)

    async def _write_each(self, firings: Sequence[Firing]) -> None:
        for firing in firings:
            await self._write([firing])


@dataclass(frozen=True, slots=True)
class Written:
    """What a write came to."""

    firings: Sequence[Firing]
    """As written: without the jobs that there are already, and with the ticks that a unique key left out."""
    instead: dict[TickKey, uuid.UUID]
    """The jobs that there are instead of new ones: those that ticks had already, and holders of their unique key."""


class TickWriter:
    """Writes firings with their jobs, leaving out the jobs that ticks have already. Any coordinator may."""

    def __init__(self, database: Database, lanes: Lanes, hints: Hints, kinds: Kinds, canceler: Canceler) -> None:
        self._database = database
        self._lanes = lanes
        self._hints = hints
        self._kinds = kinds
        self._canceler = canceler

    async def write(self, firings: Sequence[Firing], *, guard: Statement | None = None) -> Written:
        """Write all or nothing.

        Raises: as ``store.postgres.schedules.write_firings``, but for ``KeyTaken``, and ``UniqueTaken`` only for many.
            InvalidInput: the settings of a kind fit no job of the schedule.
            Conflict: a job that was asked for is refused for its unique key.
        """
        firings = [self._as_set_for_kinds(firing) for firing in firings]
        known = await self._known([firing for firing in firings if not firing.is_tick])
        for _ in range(_TRIES):
            held: dict[TickKey, uuid.UUID] = {}
            made = [await self._without_held(firing, known, held) for firing in firings]
            jobs = [job for firing in made for job in firing.jobs]
            lanes = await self._lanes.of([job.spec for job in jobs])
            try:
                stopped = await write_firings(self._database, made, lanes, guard=guard)
            except KeyTaken:
                known |= await self._known(firings)
                continue
            except UniqueTaken:
                if len(firings) > 1:  # of two schedules, perhaps: each for itself, then
                    raise
                continue
            counted.submitted(lanes, "schedule")
            self._hints.ready(set(lanes))
            await self._canceler.tell(*stopped)
            return Written(made, held | known)
        raise Unavailable("the keys of these ticks kept changing", hint="try again")

    async def _known(self, firings: Sequence[Firing]) -> dict[TickKey, uuid.UUID]:
        keys = [(job.spec.namespace, *_tick_key(job)) for firing in firings for job in firing.jobs]
        found = await keyed_jobs(self._database, keys) if keys else {}
        return {(scope, key): one.job_id for (_, scope, key), one in found.items()}

    def _as_set_for_kinds(self, firing: Firing) -> Firing:
        jobs = tuple(job._replace(spec=self._kinds.book.apply(job.spec, path="schedule.job.")) for job in firing.jobs)
        if tracing.is_on():
            jobs = tuple(_traced(job, firing.id) for job in jobs)
        return replace(firing, jobs=jobs)

    async def _without_held(
        self, firing: Firing, known: Mapping[TickKey, uuid.UUID], held: dict[TickKey, uuid.UUID]
    ) -> Firing:
        """Leave out ticks that have jobs, and do as the template wants where a job has its unique key.

        The holder is replaced, or the ticks are left out; those are noted in ``held``, with the job that is instead.
        The last tick of those that replace each other counts, though it has its job already.
        """
        new = tuple(job for job in firing.jobs if _tick_key(job) not in known)
        if not new or new[0].spec.unique_key is None:
            return replace(firing, jobs=new)
        key = unique_key_of(new[0].spec)  # of one template: all have the same key
        holder = (await holders(self._database, [key])).get(key)
        replaces: tuple[tuple[uuid.UUID, uuid.UUID], ...] = ()
        if new[0].spec.on_duplicate is OnDuplicate.REPLACE:
            last = firing.jobs[-1]
            kept, left_out = (new[-1:], new[:-1]) if new[-1] is last else ((), new)
            instead = known.get(_tick_key(last), last.id)
            if holder is not None and kept:
                replaces = ((holder.id, last.id),)
        else:
            kept, left_out = ((), new) if holder is not None else (new[:1], new[1:])
            instead = holder.id if holder is not None else new[0].id
            if holder is not None and firing.is_asked and new[0].spec.on_duplicate is OnDuplicate.REFUSE:
                raise held_conflict("schedule.job", new[0].spec, holder)
        held.update((_tick_key(job), instead) for job in left_out)
        made = replace(firing, jobs=kept, replaces=replaces)
        if firing.is_asked:
            return replace(made, answered=tuple(job._replace(id=instead) for job in left_out))
        if not firing.is_tick or not left_out:
            return made
        reason = f"job {instead} has the unique key"
        return replace(
            made,
            cancels=firing.cancels if kept else (),  # what there is gives way to a job alone
            skipped=firing.skipped + len(left_out),
            reason=f"{firing.reason}; {reason}" if firing.reason else reason,
        )


def _traced(job: PlannedJob, schedule_id: uuid.UUID) -> PlannedJob:
    """Give the job of a tick a trace of its own."""
    with tracing.ticking(job.spec.kind, str(schedule_id)):
        return job._replace(spec=tracing.carrying([job.spec])[0])


def _count(written: Written) -> None:
    for firing in written.firings:
        TICKS.labels("fired").inc(len(firing.jobs))
        TICKS.labels("skipped").inc(firing.skipped)
        if firing.skipped:
            log.warning("ticks_skipped", schedule=str(firing.id), ticks=firing.skipped, reason=firing.reason)


def firing_of(row: Row) -> Firing | None:
    """Decide about a row of ``due_schedules``; None where there is nothing to write.

    Raises:
        ValueError: what is stored is no schedule.
    """
    spec = ScheduleSpec.model_validate_json(row.spec)
    decision = decide(
        spec, next_at=row.next_at, queued=row.queued_tick, has_unfinished=bool(row.unfinished), now=row.now
    )
    if not decision.fire and (decision.next_at, decision.queued) == (row.next_at, row.queued_tick):
        return None
    return Firing(
        id=row.id,
        turn=row.turn,
        next_at=decision.next_at,
        queued=decision.queued,
        jobs=jobs_of(spec, row.id, ((tick, tick_key(tick)) for tick in decision.fire)),
        unfinished=tuple(row.unfinished),
        cancels=tuple(row.unfinished) if decision.cancels_previous else (),
        skipped=decision.skipped,
        reason=decision.skip_reason,
    )


def jobs_of(
    spec: ScheduleSpec, schedule_id: uuid.UUID, ticks: Iterable[tuple[datetime, str]]
) -> tuple[PlannedJob, ...]:
    """Plan the jobs of ticks, each with its key."""
    return tuple(
        PlannedJob(new_id(), job_at(spec, schedule_id, tick, key), (), b"", schedule_id=schedule_id, scheduled_at=tick)
        for tick, key in ticks
    )


def _groups(firings: Iterable[Firing]) -> Iterator[list[Firing]]:
    """Divide firings so that no transaction inserts many more jobs than one schedule may have in a round."""
    group: list[Firing] = []
    jobs = 0
    for firing in firings:
        if group and jobs + len(firing.jobs) > MAX_TICKS:
            yield group
            group, jobs = [], 0
        group.append(firing)
        jobs += len(firing.jobs)
    if group:
        yield group


def _tick_key(job: PlannedJob) -> TickKey:
    return scope_of(job), job.spec.idempotency_key or ""
