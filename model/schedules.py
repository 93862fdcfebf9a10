"""Schedules: what one may ask for, which instants it names, and what a look at the clock means for it.

A *tick* is an instant that the rule (cron or interval) names. ``decide`` is the whole policy, pure: from what is stored
and the present instant it says which ticks become jobs, which are left out and why, and which comes next. Whoever acts
on a decision writes it under the revision that it was made from, so that each tick is decided upon once.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.cron import Cron, cron_error, zone_error
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.jobs import JobSpec, Name, validate_spec, violations_of
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.model.schedule_choices import Fold, Gap, Misfire, Overlap

MAX_TICKS = DEFAULT_BOUNDS.schedule_ticks
PUNCTUAL_S = 30.0
"""A tick that is found no later than this is on time, whatever the schedule says of misfires: a leader that dies is
replaced within its TTL and a second, and that is nobody's misfire."""
DEFAULT_WINDOW_S = 3_600.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9_000, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)


class ScheduleSpec(BaseModel):
    """A schedule as asked for. Exactly one of ``cron`` and ``interval_s``; ``job`` is the template of its jobs.

    Intervals count from ``starts_at``, else from 1970-01-01T00:00Z, in time that really passes. ``starts_at`` may be a
    tick itself, ``ends_at`` may not. ``paused`` is how it begins; later it is moved by pause and resume alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    namespace: Name = DEFAULT_NAMESPACE
    cron: str | None = None
    interval_s: float | None = Field(default=None, ge=DEFAULT_BOUNDS.min_interval_s, le=DEFAULT_BOUNDS.max_interval_s)
    time_zone: str = "UTC"
    gap: Gap | None = None
    fold: Fold | None = None
    overlap: Overlap = Overlap.ALLOW
    misfire: Misfire = Misfire.ONE
    window_s: float = Field(default=DEFAULT_WINDOW_S, ge=0, le=DEFAULT_BOUNDS.misfire_window_s)
    jitter_s: float = Field(default=0.0, ge=0, le=DEFAULT_BOUNDS.jitter_s)
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    paused: bool = False
    job: JobSpec

    def stored(self) -> str:
        """Return the text that ``ScheduleSpec.model_validate_json`` reads back.

        What its job leaves unset stays so: the settings of the kind say what it is when a tick comes.
        """
        values = self.model_dump(mode="json")
        return json.dumps({**values, "job": self.job.model_dump(mode="json", exclude_unset=True)})

    def timing(self) -> tuple[object, ...]:
        """Return what the ticks depend on: two schedules of the same timing tick alike."""
        return (self.cron, self.interval_s, self.time_zone, self.gap, self.fold, self.starts_at, self.ends_at)


def validate_schedule(values: Mapping[str, Any], *, path: str = "schedule.") -> ScheduleSpec:
    """Build a ``ScheduleSpec`` from loose values; its job's namespace is the schedule's.

    Raises:
        InvalidInput: with every violation, its field prefixed by ``path`` (``schedule.cron``).
    """
    violations: list[FieldViolation] = []
    values = dict(values)
    job = values.get("job")
    if job is not None:
        violations.extend(FieldViolation(f"{path}job.{name}", text) for name, text in _not_in_a_template(job))
    if isinstance(job, Mapping):
        namespace = values.get("namespace") or DEFAULT_NAMESPACE
        try:
            values["job"] = validate_spec({"namespace": namespace, **job}, path=f"{path}job.")
        except InvalidInput as exc:
            violations.extend(exc.violations)
            values["job"] = stand_in(namespace)
    spec: ScheduleSpec | None = None
    try:
        spec = ScheduleSpec.model_validate(values)
    except ValidationError as exc:
        violations.extend(violations_of(exc, path))
    else:
        violations.extend(FieldViolation(f"{path}{name}", text) for name, text in _relations(spec))
    if violations or spec is None:
        raise InvalidInput(violations)
    return spec


def stand_in(namespace: str) -> JobSpec:
    """Return a job to judge the rest of a schedule with, where its own is no job."""
    return JobSpec(kind="k").model_copy(update={"namespace": namespace})


_FOR_ONE_JOB = ("idempotency_key", "activate_at", "start_by", "depends_on", "ref")


def _not_in_a_template(job: Mapping[str, Any] | JobSpec) -> Iterator[tuple[str, str]]:
    values = job if isinstance(job, Mapping) else {name: getattr(job, name) for name in _FOR_ONE_JOB}
    for name in _FOR_ONE_JOB:
        if values.get(name):
            yield name, "is for one job, not for every job of a schedule"


def _relations(spec: ScheduleSpec) -> Iterator[tuple[str, str]]:
    if (spec.cron is None) == (spec.interval_s is None):
        yield "cron", "exactly one of cron and interval must be given"
    if spec.cron is not None and (problem := cron_error(spec.cron)):
        yield "cron", problem
    if problem := zone_error(spec.time_zone):
        yield "time_zone", problem
    if spec.interval_s is not None:
        for name in ("gap", "fold"):
            if getattr(spec, name) is not None:
                yield name, "is for cron: an interval counts time that really passes"
    for name in ("starts_at", "ends_at"):
        at = getattr(spec, name)
        if at is None:
            continue
        if at.tzinfo is None:
            yield name, "must carry a time zone"
        elif problem := instant_error(at):
            yield name, problem
        elif name == "ends_at" and spec.starts_at and spec.starts_at.tzinfo and at <= spec.starts_at:
            yield name, "must be after starts_at"
    if spec.job.namespace != spec.namespace:
        yield "job.namespace", f"must be that of the schedule, {spec.namespace!r}"


def instant_error(at: datetime) -> str | None:
    """Say why an instant is none that schedules know, or None."""
    return None if EPOCH <= at <= LATEST else f"must lie between {EPOCH.year} and {LATEST.year}"


def ticks_after(spec: ScheduleSpec, instant: datetime) -> Iterator[datetime]:
    """Yield the ticks strictly after an instant, in UTC and in order, within start and end."""
    if spec.starts_at is not None:
        instant = max(instant, spec.starts_at - _INSTANT)
    for tick in _unbounded(spec, instant.astimezone(UTC)):
        if tick >= (spec.ends_at or LATEST):
            return
        yield tick


def ticks_from(spec: ScheduleSpec, instant: datetime) -> Iterator[datetime]:
    """As ``ticks_after``, the instant included."""
    return ticks_after(spec, instant - _INSTANT)


def _unbounded(spec: ScheduleSpec, instant: datetime) -> Iterator[datetime]:
    if spec.cron is not None:
        yield from Cron(spec.cron, spec.time_zone, spec.gap, spec.fold).after(instant)
        return
    assert spec.interval_s is not None
    step = timedelta(seconds=spec.interval_s)
    anchor = (spec.starts_at or EPOCH).astimezone(UTC)
    tick = anchor + ((instant - anchor) // step + 1) * step
    while tick < LATEST:
        yield tick
        tick += step


def latest_tick(spec: ScheduleSpec, first: datetime, before: datetime) -> datetime | None:
    """Return the last tick of ``[first, before)``; looks back twice as far each time, so that a long range is cheap."""
    back = timedelta(seconds=1)
    while True:
        start = max(first, before - back)
        found = None
        for tick in ticks_from(spec, start):
            if tick >= before:
                break
            found = tick
        if found is not None or start <= first:
            return found
        back *= 2


def jitter(schedule_id: uuid.UUID, tick: datetime, jitter_s: float) -> timedelta:
    """Return how long after its tick a job may start: the same for whoever asks, 0 up to ``jitter_s``."""
    if jitter_s <= 0:
        return timedelta(0)
    digest = hashlib.sha256(schedule_id.bytes + tick.astimezone(UTC).isoformat().encode()).digest()
    return timedelta(seconds=jitter_s * (int.from_bytes(digest[:8], "big") / 2**64))


def tick_key(tick: datetime) -> str:
    """Return the idempotency key of a tick's job, unique within its schedule."""
    return tick.astimezone(UTC).isoformat().replace("+00:00", "Z")


def job_at(spec: ScheduleSpec, schedule_id: uuid.UUID, tick: datetime, key: str) -> JobSpec:
    """Return the job of a tick: the template with its key, activated when the jitter says."""
    update: dict[str, Any] = {"idempotency_key": key}
    if spec.jitter_s:
        delay = timedelta(seconds=spec.job.delay_s or 0.0)
        update |= {"activate_at": tick + jitter(schedule_id, tick, spec.jitter_s) + delay, "delay_s": None}
    return spec.job.model_copy(update=update)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look at a schedule comes to. ``next_at`` None: it will never tick again."""

    fire: tuple[datetime, ...]
    next_at: datetime | None
    queued: datetime | None = None
    cancels_previous: bool = False
    skipped: int = 0
    """How many ticks were left out; those before a misfire window are counted as one."""
    skip_reason: str = ""


def decide(
    spec: ScheduleSpec,
    *,
    next_at: datetime | None,
    queued: datetime | None,
    has_unfinished: bool,
    now: datetime,
) -> Decision:
    """Decide about every tick from ``next_at`` to ``now`` (at most ``MAX_TICKS`` of them; the rest comes next)."""
    due, following, missed, reason = _due(spec, next_at, now)
    decision = _overlapping(spec.overlap, due, queued, has_unfinished)
    return Decision(
        decision.fire,
        following,
        decision.queued,
        decision.cancels_previous,
        missed + decision.skipped,
        "; ".join(part for part in (reason, decision.skip_reason) if part),
    )


def _due(
    spec: ScheduleSpec, next_at: datetime | None, now: datetime
) -> tuple[list[datetime], datetime | None, int, str]:
    """Return the ticks that count, the one after them, and how many were missed for what reason."""
    if next_at is None or next_at > now:
        return [], next_at, 0, ""
    punctual_from = now - timedelta(seconds=PUNCTUAL_S)
    if next_at >= punctual_from:
        return *_from(spec, next_at, now), 0, ""
    window_from = min(punctual_from, max(next_at, now - timedelta(seconds=spec.window_s)))
    if spec.misfire is Misfire.ALL:
        found, following = _from(spec, window_from, now)
        return found, following, *_missed(spec, next_at, window_from, "longer ago than the misfire window")
    found, following = _from(spec, punctual_from, now)
    if found or spec.misfire is Misfire.NONE:
        return found, following, *_missed(spec, next_at, punctual_from, "missed")
    latest = latest_tick(spec, window_from, punctual_from)
    if latest is None:
        return found, following, *_missed(spec, next_at, window_from, "longer ago than the misfire window")
    return [latest], following, *_missed(spec, next_at, latest, "missed, a later one stands for them")


def _from(spec: ScheduleSpec, first: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
    found: list[datetime] = []
    for tick in islice(ticks_from(spec, first), MAX_TICKS + 1):
        if tick > now or len(found) == MAX_TICKS:
            return found, tick
        found.append(tick)
    return found, None


def _missed(spec: ScheduleSpec, first: datetime, before: datetime, why: str) -> tuple[int, str]:
    missed = 0
    for tick in islice(ticks_from(spec, first), MAX_TICKS):
        if tick >= before:
            break
        missed += 1
    if not missed:
        return 0, ""
    count = f"{missed} or more ticks" if missed == MAX_TICKS else f"{missed} tick{'s' * (missed > 1)}"
    return missed, f"{count} from {tick_key(first)} on: {why}"


def _overlapping(overlap: Overlap, due: list[datetime], queued: datetime | None, has_unfinished: bool) -> Decision:
    waiting = [queued, *due] if queued is not None else due
    if not waiting or overlap is Overlap.ALLOW:
        return Decision(tuple(waiting), None)
    if overlap is Overlap.CANCEL_PREVIOUS:
        return _skipping(waiting[-1:], None, waiting[:-1], "a later tick took the place", cancels=has_unfinished)
    fire = [] if has_unfinished else waiting[:1]
    rest = waiting[len(fire) :]
    if overlap is Overlap.SKIP:
        return _skipping(fire, None, rest, "the previous job had not ended")
    return _skipping(fire, rest[0] if rest else None, rest[1:], "one tick waits for the previous job already")


def _skipping(
    fire: list[datetime], queued: datetime | None, skipped: list[datetime], why: str, *, cancels: bool = False
) -> Decision:
    reason = f"tick {tick_key(skipped[-1])}: {why}" if skipped else ""
    return Decision(tuple(fire), None, queued, cancels, len(skipped), reason)


def backfill_ticks(spec: ScheduleSpec, first: datetime, until: datetime) -> list[datetime]:
    """Return the ticks of ``[first, until)``.

    Raises:
        InvalidInput: there are more than one backfill takes.
    """
    found: list[datetime] = []
    for tick in islice(ticks_from(spec, first), MAX_TICKS + 1):
        if tick >= until:
            break
        found.append(tick)
    if len(found) > MAX_TICKS:
        raise InvalidInput(
            [FieldViolation("until", f"the range holds more than {MAX_TICKS:,} ticks")],
            hint=f"backfill in parts; the first could end at {tick_key(found[-1])}",
        )
    return found
