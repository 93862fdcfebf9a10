"""Schedules as the client gives them back and takes them, and how they travel.

Records as in ``client.records`` (frozen, no protobuf inside), and beside them the only code of the client that reads or
builds the messages of ScheduleService. What is None or unset takes the service's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tenure.client import convert
from tenure.client.fields import duration, number_of, seconds_of, time_of, timestamp, value_of
from tenure.client.payload import from_json
from tenure.client.records import NewJob
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.model.schedule_choices import Fold, Gap, Misfire, Overlap
from tenure.v1 import job_pb2, schedule_wire, wire
from tenure.v1 import schedule_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """One schedule to create. Exactly one of ``cron`` and ``interval_s``; ``job`` is the template of its jobs."""

    name: str
    job: NewJob
    namespace: str = DEFAULT_NAMESPACE
    cron: str | None = None
    """Five fields, six with seconds first, or @daily and its like."""
    interval_s: float | None = None
    """Counts from ``starts_at``, else from 1970."""
    time_zone: str = "UTC"
    gap: Gap | str | None = None
    """Wall times that the clock leaps over: "skip" them, or one tick right "after" the gap."""
    fold: Fold | str | None = None
    """Wall times that come twice: the "first", or "both"."""
    overlap: Overlap | str = Overlap.ALLOW
    """While an earlier job has not ended: "allow", "skip", "queue" (one), "cancel_previous"."""
    misfire: Misfire | str = Misfire.ONE
    """Ticks that nobody was there to see: "none", "one" job for all of them, "all" within the window."""
    window_s: float | None = None
    """How far back misfires are made up for; None is an hour."""
    jitter_s: float = 0.0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as the service knew it when it answered. ``spec`` is what was asked for, paused as it is now."""

    id: str
    spec: NewSchedule
    next_at: datetime | None
    """None while paused, and when there is no further tick."""
    last_tick: datetime | None
    last_job_id: str | None
    queued_tick: datetime | None
    fired: int
    skipped: int
    skipped_at: datetime | None
    skip_reason: str
    created_at: datetime | None
    updated_at: datetime | None
    revision: int
    """Rises when the schedule is changed; not with its ticks."""

    @property
    def name(self) -> str:
        """The name, unique within the namespace."""
        return self.spec.name

    @property
    def is_paused(self) -> bool:
        """Say whether it does not tick now."""
        return self.spec.paused


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick to come. ``activate_at`` is when its job may start; ``local`` is its time on the schedule's own clock."""

    at: datetime
    activate_at: datetime | None
    local: str


@dataclass(frozen=True, slots=True)
class TickJob:
    """The job of a tick. ``created`` is False when it was there already. ``tick`` is None for a trigger."""

    tick: datetime | None
    job_id: str
    created: bool


def schedule_to_wire(schedule: NewSchedule, *, path: str = "schedule.") -> pb.ScheduleSpec:
    """Write a schedule as asked for.

    Raises:
        InvalidInput: a value has the wrong type for its field.
    """
    job = convert.spec_to_wire(schedule.job, idempotency_key=schedule.job.idempotency_key or "", path=f"{path}job.")
    if schedule.job.namespace == DEFAULT_NAMESPACE:
        job.namespace = ""  # that of the schedule
    try:
        return pb.ScheduleSpec(
            name=schedule.name,
            namespace=schedule.namespace,
            cron=schedule.cron,
            interval=duration(schedule.interval_s, f"{path}interval_s"),
            time_zone=schedule.time_zone,
            gap=number_of(schedule_wire.GAP_TO_PB, schedule.gap, f"{path}gap"),
            fold=number_of(schedule_wire.FOLD_TO_PB, schedule.fold, f"{path}fold"),
            overlap=number_of(schedule_wire.OVERLAP_TO_PB, schedule.overlap, f"{path}overlap"),
            misfire=number_of(schedule_wire.MISFIRE_TO_PB, schedule.misfire, f"{path}misfire"),
            misfire_window=duration(schedule.window_s, f"{path}window_s"),
            jitter=duration(schedule.jitter_s, f"{path}jitter_s"),
            starts_at=timestamp(schedule.starts_at, f"{path}starts_at"),
            ends_at=timestamp(schedule.ends_at, f"{path}ends_at"),
            paused=schedule.paused,
            job=job,
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation(path.rstrip("."), str(exc))]) from exc


def schedule_from_wire(schedule: pb.Schedule) -> Schedule:
    """Read a schedule."""
    return Schedule(
        id=schedule.id,
        spec=_spec(schedule.spec),
        next_at=time_of(schedule, "next_at"),
        last_tick=time_of(schedule, "last_tick"),
        last_job_id=schedule.last_job_id or None,
        queued_tick=time_of(schedule, "queued_tick"),
        fired=schedule.fired,
        skipped=schedule.skipped,
        skipped_at=time_of(schedule, "skipped_at"),
        skip_reason=schedule.skip_reason,
        created_at=time_of(schedule, "created_at"),
        updated_at=time_of(schedule, "updated_at"),
        revision=schedule.revision,
    )


def tick_from_wire(tick: pb.ScheduleTick) -> Tick:
    """Read a tick."""
    at = time_of(tick, "at")
    assert at is not None
    return Tick(at, time_of(tick, "activate_at"), tick.local)


def backfilled_from_wire(job: pb.BackfilledJob) -> TickJob:
    """Read the job of a tick."""
    return TickJob(time_of(job, "tick"), job.job_id, job.created)


def _spec(spec: pb.ScheduleSpec) -> NewSchedule:
    return NewSchedule(
        name=spec.name,
        job=_template(spec.job),
        namespace=spec.namespace,
        cron=spec.cron or None,
        interval_s=seconds_of(spec, "interval"),
        time_zone=spec.time_zone,
        gap=_choice(schedule_wire.GAP_TO_PB, spec.gap) if spec.gap else None,
        fold=_choice(schedule_wire.FOLD_TO_PB, spec.fold) if spec.fold else None,
        overlap=_choice(schedule_wire.OVERLAP_TO_PB, spec.overlap),
        misfire=_choice(schedule_wire.MISFIRE_TO_PB, spec.misfire),
        window_s=wire.seconds(spec.misfire_window),
        jitter_s=wire.seconds(spec.jitter),
        starts_at=time_of(spec, "starts_at"),
        ends_at=time_of(spec, "ends_at"),
        paused=spec.paused,
    )


def _template(job: job_pb2.JobSpec) -> NewJob:
    return NewJob(
        kind=job.kind,
        payload=from_json(job.payload),
        namespace=job.namespace or DEFAULT_NAMESPACE,
        route=job.route,
        priority=value_of(job, "priority"),
        delay_s=seconds_of(job, "delay"),
        retry=convert.retry_from_wire(job.retry) if job.HasField("retry") else None,
        ttl_s=seconds_of(job, "ttl"),
        timeout_s=seconds_of(job, "timeout"),
        start_within_s=seconds_of(job, "start_within"),
        start_by=time_of(job, "start_by"),
        job_timeout_s=seconds_of(job, "job_timeout"),
        max_crashes=value_of(job, "max_crashes"),
        labels=dict(job.labels),
        limits=tuple(job.limits),
        requires=dict(job.requires),
        unique_key=job.unique_key or None,
        on_duplicate=wire.ON_DUPLICATE_FROM_PB.get(job.on_duplicate),
    )


def _choice(numbers: dict[Any, Any], number: int) -> Any:
    for choice, known in numbers.items():
        if known == number:
            return choice
    raise TenureError(
        f"the service answered with a choice, {number}, which this client does not know",
        hint="upgrade the client to the version of the service",
    )
