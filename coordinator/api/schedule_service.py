"""ScheduleService: for those who keep schedules. Any coordinator serves it; the leader alone fires ticks.

Every change is one guarded write from the turn that was read, tried again where a tick came in between, so that neither
can undo the other. What a change means for ticks that are due: see ``docs/SCHEDULES.md``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import grpc

from tenure.coordinator.access import namespaces_for
from tenure.coordinator.api.acts import audited, schedule_facts
from tenure.coordinator.audit import Audit, tell
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.schedule import TickWriter, Written, jobs_of
from tenure.model.access import Right
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import (
    Conflict,
    FieldViolation,
    InvalidInput,
    NotFound,
    SchedulesFull,
    Unavailable,
    WrongState,
)
from tenure.model.ids import new_id
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.model.schedules import (
    MAX_TICKS,
    ScheduleSpec,
    backfill_ticks,
    instant_error,
    jitter,
    stand_in,
    tick_key,
    ticks_after,
)
from tenure.store.postgres.database import Database, Row
from tenure.store.postgres.schedules import Firing, ScheduleMoved
from tenure.store.postgres.submit import scope_of
from tenure.v1 import schedule_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.schedule_service_pb2_grpc import ScheduleServiceServicer
from tenure.v1.schedule_wire import instant_from_pb, schedule_from_pb, schedule_to_pb

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 50
MAX_PAGE = 1_000
DEFAULT_PREVIEW = 10
MAX_KEY_CHARS = 200
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Change:
    """What a schedule is to be: the columns of ``change_schedule``."""

    spec: ScheduleSpec
    paused: bool
    next_at: datetime | None
    queued_tick: datetime | None


class ScheduleService(ScheduleServiceServicer):
    """The service over ``tenure.schedule``."""

    def __init__(
        self, database: Database, lanes: Lanes, hints: Hints, kinds: Kinds, canceler: Canceler, audit: Audit
    ) -> None:
        self._audit = audit
        self._database = database
        self._writer = TickWriter(database, lanes, hints, kinds, canceler)

    @audited
    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Context) -> pb.CreateScheduleResponse:
        """Write a schedule; it ticks from now on."""
        spec = schedule_from_pb(request.schedule)
        _refuse_a_name_like_an_id(spec.name)
        tell(after=schedule_facts(spec))
        params = {
            "id": new_id(),
            "namespace": spec.namespace,
            "name": spec.name,
            "spec": spec.stored(),
            "paused": spec.paused,
            "next_at": _next(spec, await self._now()),
            "most": DEFAULT_BOUNDS.schedules,
        }
        rows = await self._database.fetch("insert_schedule", params)
        if rows:
            return pb.CreateScheduleResponse(schedule=schedule_of(rows[0]), created=True)
        try:
            row = await self._find(spec.namespace, spec.name)
        except NotFound as exc:
            raise SchedulesFull(
                f"namespace {spec.namespace!r} has {DEFAULT_BOUNDS.schedules:,} schedules, as many as it may",
                hint="delete some, or spread them over namespaces",
            ) from exc
        if _stored(row) != spec:
            raise Conflict(
                f"schedule {spec.name!r} exists in namespace {spec.namespace!r} and is another one",
                hint="update it, or give this one another name",
            )
        return pb.CreateScheduleResponse(schedule=schedule_of(row))

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.GetScheduleResponse:
        """Read one schedule."""
        return pb.GetScheduleResponse(schedule=schedule_of(await self._find(request.namespace, request.schedule)))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesResponse:
        """Read a page of schedules."""
        size = request.page_size or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput([FieldViolation("page_size", f"must be 1 to {MAX_PAGE}")])
        after_namespace, after_name = _page_key(request.page_token)
        rows = await self._database.fetch(
            "list_schedules",
            {
                "namespace": _no_nul(request.namespace, "namespace") or None,
                "namespaces": namespaces_for(Right.READ, request.namespace),
                "after_namespace": after_namespace,
                "after_name": after_name,
                "limit": size,
            },
        )
        token = _page_token(rows[-1].namespace, rows[-1].name) if len(rows) == size else ""
        return pb.ListSchedulesResponse(schedules=[schedule_of(row) for row in rows], next_page_token=token)

    @audited
    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, context: Context) -> pb.UpdateScheduleResponse:
        """Replace what a schedule is."""
        spec = schedule_from_pb(request.schedule)

        def change(row: Row, old: ScheduleSpec) -> Change:
            tell(
                before=schedule_facts(old), after=schedule_facts(spec), payload_kept=spec.job.payload == old.job.payload
            )
            is_done = spec.model_copy(update={"paused": old.paused}) == old  # by an earlier call of the same, perhaps
            if request.revision and request.revision != row.revision and not is_done:
                raise WrongState(
                    f"schedule {spec.name!r} is at revision {row.revision}, not {request.revision}",
                    hint="read it again and repeat the change",
                )
            same = spec.timing() == old.timing()
            next_at = row.next_at if same else _next(spec, row.now)
            return Change(spec, row.paused, next_at, row.queued_tick)

        row = await self._change(spec.namespace, spec.name, change)
        return pb.UpdateScheduleResponse(schedule=schedule_of(row))

    @audited
    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> pb.DeleteScheduleResponse:
        """Forget a schedule."""
        row = await self._find(request.namespace, request.schedule)
        await self._database.fetch("delete_schedule", {"id": row.id})
        return pb.DeleteScheduleResponse()

    @audited
    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleResponse:
        """Stop ticking."""
        row = await self._change(
            request.namespace, request.schedule, lambda row, spec: Change(spec, True, row.next_at, None)
        )
        return pb.PauseScheduleResponse(schedule=schedule_of(row))

    @audited
    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.ResumeScheduleResponse:
        """Tick again, from now on; one that was not paused goes on as it was."""

        def change(row: Row, spec: ScheduleSpec) -> Change:
            next_at = _next(spec, row.now) if row.paused else row.next_at
            return Change(spec, False, next_at, row.queued_tick)

        row = await self._change(request.namespace, request.schedule, change)
        return pb.ResumeScheduleResponse(schedule=schedule_of(row))

    @audited
    async def TriggerSchedule(self, request: pb.TriggerScheduleRequest, context: Context) -> pb.TriggerScheduleResponse:
        """Make a job now."""
        given = _no_nul(request.idempotency_key, "idempotency_key")
        if len(given) > MAX_KEY_CHARS or not given.isprintable():
            raise InvalidInput(
                [FieldViolation("idempotency_key", f"must be printable, at most {MAX_KEY_CHARS} characters")]
            )
        key = f"trigger:{given or uuid.uuid4().hex}"

        def firing(row: Row) -> Firing:
            spec = _stored(row).model_copy(update={"jitter_s": 0.0})
            return replace(_standing(row, jobs_of(spec, row.id, [(row.now, key)]), watched=True), is_asked=True)

        firing_made, written = await self._write(request.namespace, request.schedule, firing)
        job = firing_made.jobs[0]
        instead = written.instead.get((scope_of(job), key))
        return pb.TriggerScheduleResponse(job_id=str(instead or job.id), created=instead is None)

    @audited
    async def BackfillSchedule(
        self, request: pb.BackfillScheduleRequest, context: Context
    ) -> pb.BackfillScheduleResponse:
        """Make the jobs of past ticks that have none."""
        first, until = instant_from_pb(request, "from"), instant_from_pb(request, "until")
        _refuse_a_bad_range(first, until)

        def firing(row: Row) -> Firing:
            if until > row.now:
                raise InvalidInput([FieldViolation("until", f"must not be after now ({tick_key(row.now)})")])
            spec = _stored(row)
            ticks = backfill_ticks(spec, first, until)
            return _standing(row, jobs_of(spec, row.id, ((tick, tick_key(tick)) for tick in ticks)), watched=False)

        made, written = await self._write(request.namespace, request.schedule, firing)
        answer = []
        for job in made.jobs:
            instead = written.instead.get((scope_of(job), job.spec.idempotency_key or ""))
            answer.append(
                pb.BackfilledJob(
                    tick=wire.timestamp(job.scheduled_at), job_id=str(instead or job.id), created=instead is None
                )
            )
        return pb.BackfillScheduleResponse(jobs=answer)

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        """Say which ticks come next."""
        count = request.count or DEFAULT_PREVIEW
        if not 1 <= count <= MAX_TICKS:
            raise InvalidInput([FieldViolation("count", f"must be 1 to {MAX_TICKS:,}")])
        after = instant_from_pb(request, "after")
        if after is not None and (problem := instant_error(after)):
            raise InvalidInput([FieldViolation("after", problem)])
        if request.HasField("spec"):
            if request.schedule:
                raise InvalidInput([FieldViolation("schedule", "at most one of schedule and spec may be given")])
            spec, id = schedule_from_pb(request.spec, path="spec."), None
            start = after or await self._now()
        else:
            row = await self._find(request.namespace, request.schedule)
            spec, id, start = _stored(row), row.id, after or row.now
        zone = ZoneInfo(spec.time_zone)
        # Ticks can lie decades apart, and then take seconds to find: not on the loop that leads.
        ticks = await asyncio.to_thread(lambda: list(islice(ticks_after(spec, start), count)))
        return pb.PreviewScheduleResponse(
            ticks=[
                pb.ScheduleTick(
                    at=wire.timestamp(tick),
                    activate_at=wire.timestamp(tick + jitter(id, tick, spec.jitter_s)) if id else None,
                    local=tick.astimezone(zone).isoformat(),
                )
                for tick in ticks
            ]
        )

    async def _now(self) -> datetime:
        now: datetime = (await self._database.fetch("time"))[0].now
        return now

    async def _find(self, namespace: str, schedule: str) -> Row:
        name = _no_nul(schedule, "schedule")
        if not name:
            raise InvalidInput([FieldViolation("schedule", "must be the name or the id of a schedule")])
        id = None
        with suppress(ValueError):
            id = uuid.UUID(name)
        params = {"namespace": _no_nul(namespace, "namespace") or DEFAULT_NAMESPACE, "name": name, "id": id}
        rows = await self._database.fetch("find_schedule", params)
        if not rows:
            raise NotFound(
                f"schedule {name[:64]!r} does not exist in namespace {params['namespace']!r}",
                hint="tenure schedules list",
            )
        return rows[0]

    async def _change(self, namespace: str, schedule: str, change: Callable[[Row, ScheduleSpec], Change]) -> Row:
        for _ in range(_TRIES):
            row = await self._find(namespace, schedule)
            wanted = change(row, _stored(row))
            rows = await self._database.fetch(
                "change_schedule",
                {
                    "id": row.id,
                    "turn": row.turn,
                    "spec": wanted.spec.stored(),
                    "paused": wanted.paused,
                    "next_at": wanted.next_at,
                    "queued_tick": wanted.queued_tick,
                },
            )
            if rows:
                return rows[0]
        raise Unavailable("the schedule kept ticking in between", hint="try again")

    async def _write(self, namespace: str, schedule: str, firing: Callable[[Row], Firing]) -> tuple[Firing, Written]:
        for _ in range(_TRIES):
            made = firing(await self._find(namespace, schedule))
            if not made.jobs:
                return made, Written((), {})
            with suppress(ScheduleMoved):
                return made, await self._writer.write([made])
        raise Unavailable("the schedule kept ticking in between", hint="try again")


def schedule_of(row: Row) -> pb.Schedule:
    """Convert a row of ``tenure.schedule``; of one that cannot be read, its name and what is wrong with it."""
    skip_reason = row.skip_reason
    try:
        spec = schedule_to_pb(_stored(row), paused=row.paused)
    except WrongState as exc:
        job = stand_in(row.namespace)
        spec = schedule_to_pb(ScheduleSpec(name=row.name, namespace=row.namespace, job=job), paused=row.paused)
        skip_reason = exc.message
    return pb.Schedule(
        id=str(row.id),
        spec=spec,
        next_at=None if row.paused else wire.timestamp(row.next_at),
        last_tick=wire.timestamp(row.last_tick),
        last_job_id=str(row.last_job_id) if row.last_job_id else None,
        queued_tick=wire.timestamp(row.queued_tick),
        fired=row.fired,
        skipped=row.skipped,
        skipped_at=wire.timestamp(row.skipped_at),
        skip_reason=skip_reason,
        created_at=wire.timestamp(row.created_at),
        updated_at=wire.timestamp(row.updated_at),
        revision=row.revision,
    )


def _stored(row: Row) -> ScheduleSpec:
    try:
        return ScheduleSpec.model_validate_json(row.spec)
    except ValueError as exc:
        raise WrongState(
            f"schedule {row.name!r} cannot be read by this release",
            hint="run the release that wrote it, or delete it and create it again",
        ) from exc


def _standing(row: Row, jobs: Any, *, watched: bool) -> Firing:
    """Return a firing that makes jobs beside the ticks: the schedule stays where it is."""
    return Firing(
        id=row.id,
        turn=row.turn,
        next_at=row.next_at,
        queued=row.queued_tick,
        jobs=jobs,
        unfinished=tuple(row.unfinished),
        watched=watched,
    )


def _next(spec: ScheduleSpec, now: datetime) -> datetime | None:
    return next(ticks_after(spec, now), None)


def _refuse_a_name_like_an_id(name: str) -> None:
    with suppress(ValueError):
        uuid.UUID(name)
        raise InvalidInput([FieldViolation("schedule.name", "must not look like an id")])


def _refuse_a_bad_range(first: datetime | None, until: datetime | None) -> None:
    violations = []
    for name, at in (("from", first), ("until", until)):
        problem = "must be given" if at is None else instant_error(at)
        if problem:
            violations.append(FieldViolation(name, problem))
    if first is not None and until is not None and until <= first:
        violations.append(FieldViolation("until", "must be after from"))
    if violations:
        raise InvalidInput(violations)


def _no_nul(text: str, field: str) -> str:
    if "\x00" in text:
        raise InvalidInput([FieldViolation(field, "must not contain NUL")])
    return text


def _page_token(namespace: str, name: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([namespace, name]).encode()).decode()


def _page_key(token: str) -> tuple[str, str]:
    if not token:
        return "", ""
    try:
        namespace, name = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError) as exc:
        raise InvalidInput([FieldViolation("page_token", "is not a token that this service gave")]) from exc
    if not isinstance(namespace, str) or not isinstance(name, str) or "\x00" in namespace + name:
        raise InvalidInput([FieldViolation("page_token", "is not a token that this service gave")])
    return namespace, name
