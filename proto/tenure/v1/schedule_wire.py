"""Between the messages of ScheduleService and ``tenure.model.schedules``."""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.model.schedule_choices import Fold, Gap, Misfire, Overlap
from tenure.model.schedules import ScheduleSpec, stand_in, validate_schedule
from tenure.v1 import job_pb2, wire
from tenure.v1 import schedule_service_pb2 as pb

Choice = TypeVar("Choice", bound=StrEnum)

GAP_TO_PB: dict[Gap, pb.DstGap] = {choice: pb.DstGap.Value(f"DST_GAP_{choice.name}") for choice in Gap}
FOLD_TO_PB: dict[Fold, pb.DstFold] = {choice: pb.DstFold.Value(f"DST_FOLD_{choice.name}") for choice in Fold}
OVERLAP_TO_PB: dict[Overlap, pb.Overlap] = {choice: pb.Overlap.Value(f"OVERLAP_{choice.name}") for choice in Overlap}
MISFIRE_TO_PB: dict[Misfire, pb.Misfire] = {choice: pb.Misfire.Value(f"MISFIRE_{choice.name}") for choice in Misfire}
_CHOICES: dict[str, dict[Any, int]] = {
    "gap": GAP_TO_PB,
    "fold": FOLD_TO_PB,
    "overlap": OVERLAP_TO_PB,
    "misfire": MISFIRE_TO_PB,
}
_DURATIONS = {"interval": "interval_s", "misfire_window": "window_s", "jitter": "jitter_s"}
_WIRE_NAMES = {model: wire_name for wire_name, model in _DURATIONS.items()}


def schedule_from_pb(message: pb.ScheduleSpec, *, path: str = "schedule.") -> ScheduleSpec:
    """Validate a schedule; unset fields take their defaults.

    Raises:
        InvalidInput: with every violation; ``path`` leads to the message.
    """
    violations: list[FieldViolation] = []
    values: dict[str, Any] = {"name": message.name, "paused": message.paused}
    for name in ("namespace", "cron", "time_zone"):
        if text := getattr(message, name):
            values[name] = text
    for name, target in _DURATIONS.items():
        if message.HasField(name):
            values[target] = wire.seconds(getattr(message, name))
    for name, choices in _CHOICES.items():
        if number := getattr(message, name):
            values[name] = next((choice for choice, known in choices.items() if known == number), None)
            if values[name] is None:
                violations.append(FieldViolation(f"{path}{name}", f"{number} is none that is known"))
                del values[name]
    for name in ("starts_at", "ends_at"):
        if message.HasField(name):
            try:
                values[name] = getattr(message, name).ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError) as exc:
                violations.append(FieldViolation(f"{path}{name}", str(exc)))
    if message.HasField("job"):
        namespace = message.namespace or DEFAULT_NAMESPACE
        job = job_pb2.JobSpec()
        job.CopyFrom(message.job)
        job.namespace = job.namespace or namespace
        try:
            values["job"] = wire.spec_from_pb(job, path=f"{path}job.")
        except InvalidInput as exc:
            violations.extend(exc.violations)
            values["job"] = stand_in(namespace)
    try:
        spec = validate_schedule(values, path=path)
    except InvalidInput as exc:
        raise InvalidInput([*violations, *map(_wire_name, exc.violations)]) from exc
    if violations:
        raise InvalidInput(violations)
    return spec


def _wire_name(violation: FieldViolation) -> FieldViolation:
    head, _, last = violation.field.rpartition(".")
    if last not in _WIRE_NAMES:
        return violation
    return FieldViolation(f"{head}.{_WIRE_NAMES[last]}" if head else _WIRE_NAMES[last], violation.description)


def schedule_to_pb(spec: ScheduleSpec, *, paused: bool | None = None) -> pb.ScheduleSpec:
    """Convert a schedule, paused as it is now."""
    return pb.ScheduleSpec(
        name=spec.name,
        namespace=spec.namespace,
        cron=spec.cron,
        interval=wire.duration(spec.interval_s),
        time_zone=spec.time_zone,
        gap=GAP_TO_PB[spec.gap] if spec.gap else None,
        fold=FOLD_TO_PB[spec.fold] if spec.fold else None,
        overlap=OVERLAP_TO_PB[spec.overlap],
        misfire=MISFIRE_TO_PB[spec.misfire],
        misfire_window=wire.duration(spec.window_s),
        jitter=wire.duration(spec.jitter_s) if spec.jitter_s else None,
        starts_at=wire.timestamp(spec.starts_at),
        ends_at=wire.timestamp(spec.ends_at),
        paused=spec.paused if paused is None else paused,
        job=wire.spec_to_pb(spec.job),
    )


def instant_from_pb(message: Message, field: str) -> Any:
    """Read a timestamp field, None where it is unset.

    Raises:
        InvalidInput: it is out of range.
    """
    if not message.HasField(field):
        return None
    try:
        return getattr(message, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput([FieldViolation(field, str(exc))]) from exc
