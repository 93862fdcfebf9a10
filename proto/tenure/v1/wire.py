"""Between messages and the vocabulary of ``tenure.model``: for coordinators, workers and clients alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import BY_GRPC_STATUS, FieldViolation, InvalidInput, TenureError
from tenure.model.jobs import JobSpec, RetrySpec, validate_spec
from tenure.model.retry import Backoff
from tenure.model.states import JobState, Outcome
from tenure.model.unique import OnDuplicate
from tenure.v1 import job_pb2 as pb

STATE_TO_PB: dict[JobState, pb.JobState] = {state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
STATE_FROM_PB: dict[int, JobState] = {number: state for state, number in STATE_TO_PB.items()}
OUTCOME_TO_PB: dict[Outcome, pb.Outcome] = {outcome: pb.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in Outcome}
OUTCOME_FROM_PB: dict[int, Outcome] = {number: outcome for outcome, number in OUTCOME_TO_PB.items()}
BACKOFF_TO_PB: dict[Backoff, pb.Backoff] = {each: pb.Backoff.Value(f"BACKOFF_{each.name}") for each in Backoff}
ON_DUPLICATE_TO_PB: dict[OnDuplicate, pb.OnDuplicate] = {
    each: pb.OnDuplicate.Value(f"ON_DUPLICATE_{each.name}") for each in OnDuplicate
}
ON_DUPLICATE_FROM_PB: dict[int, OnDuplicate] = {number: each for each, number in ON_DUPLICATE_TO_PB.items()}
BACKOFF_FROM_PB: dict[int, Backoff] = {number: each for each, number in BACKOFF_TO_PB.items()}
TRIGGER_TO_PB: dict[Trigger, pb.Trigger] = {each: pb.Trigger.Value(f"TRIGGER_{each.name}") for each in Trigger}
TRIGGER_FROM_PB: dict[int, Trigger] = {number: each for each, number in TRIGGER_TO_PB.items()}
UPSTREAM_FAILURE_TO_PB: dict[UpstreamFailure, pb.UpstreamFailure] = {
    each: pb.UpstreamFailure.Value(f"UPSTREAM_FAILURE_{each.name}") for each in UpstreamFailure
}
UPSTREAM_FAILURE_FROM_PB: dict[int, UpstreamFailure] = {number: each for each, number in UPSTREAM_FAILURE_TO_PB.items()}
DEFAULT_RETRY = RetrySpec()
MAX_VIOLATIONS = 100
"""About as many are told of one batch."""


def timestamp(at: datetime | None) -> Timestamp | None:
    """Convert a time, or None."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at.astimezone(UTC))
    return message


def seconds(duration: Duration) -> float:
    """Convert a duration to seconds."""
    return duration.seconds + duration.nanos / 1e9


def duration(seconds: float | None) -> Duration | None:
    """Convert seconds to a duration, or None."""
    if seconds is None:
        return None
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def specs_from_pb(messages: Sequence[pb.JobSpec], *, path: str = "jobs", first: int = 0) -> list[JobSpec]:
    """Validate members of a batch, from the ``first`` on.

    Raises:
        InvalidInput: with the violations of every member (the first hundred).
    """
    specs: list[JobSpec] = []
    violations: list[FieldViolation] = []
    for index, message in enumerate(messages, first):
        try:
            specs.append(spec_from_pb(message, path=f"{path}[{index}]."))
        except InvalidInput as exc:
            violations.extend(exc.violations)
            if len(violations) >= MAX_VIOLATIONS:
                break
    if violations:
        raise InvalidInput(violations)
    return specs


def spec_from_pb(message: pb.JobSpec, *, path: str = "job.") -> JobSpec:
    """Validate one job; unset fields take their defaults.

    Raises:
        InvalidInput: with every violation; ``path`` leads to the message.
    """
    values: dict[str, Any] = {"kind": message.kind}
    violations: list[FieldViolation] = []
    for field, value in message.ListFields():
        name = field.name
        if name in _AS_THEY_ARE:
            values[name] = value
        elif name in _DURATIONS:
            values[f"{name}_s"] = seconds(value)
        elif name in _MAPS:
            values[name] = dict(value)
        elif name in _LISTS:
            values[name] = tuple(value)
        elif name in _TIMES:
            try:
                values[name] = value.ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError) as exc:
                violations.append(FieldViolation(f"{path}{name}", str(exc)))
        elif name == "retry":
            values[name] = retry_values(value)
        else:
            values[name] = _WORDS[name].get(value, str(value))
    try:
        spec = validate_spec(values, path=path)
    except InvalidInput as exc:
        raise InvalidInput([*violations, *(wire_name(violation) for violation in exc.violations)]) from exc
    if violations:
        raise InvalidInput(violations)
    return spec


_AS_THEY_ARE = frozenset(
    {"kind", "payload", "namespace", "route", "idempotency_key", "ref", "unique_key", "priority", "max_crashes"}
)
_DURATIONS = frozenset({"delay", "ttl", "timeout", "start_within", "job_timeout", "idempotency_ttl"})
_MAPS = frozenset({"labels", "requires"})
_LISTS = frozenset({"limits", "depends_on"})
_TIMES = frozenset({"activate_at", "start_by"})
_WORDS: dict[str, dict[int, Any]] = {
    "trigger": TRIGGER_FROM_PB,
    "upstream_failure": UPSTREAM_FAILURE_FROM_PB,
    "on_duplicate": ON_DUPLICATE_FROM_PB,
}


def retry_values(message: pb.RetryPolicy) -> dict[str, Any]:
    """Return the fields of a retry policy that are set, by the names of ``RetrySpec``; judge nothing."""
    values: dict[str, Any] = {}
    for field, _ in message.ListFields():
        value = getattr(message, field.name)
        if isinstance(value, Duration):
            values[f"{field.name}_s"] = seconds(value)
        elif field.name == "backoff":
            values[field.name] = BACKOFF_FROM_PB.get(value, str(value))
        elif field.name == "non_retryable":
            values[field.name] = tuple(value)
        else:
            values[field.name] = value
    return values


_WIRE_NAMES = (
    "delay_s",
    "ttl_s",
    "timeout_s",
    "start_within_s",
    "job_timeout_s",
    "idempotency_ttl_s",
    "initial_backoff_s",
    "max_backoff_s",
)


def wire_name(violation: FieldViolation) -> FieldViolation:
    """Name a field as the caller wrote it: durations carry no unit on the wire."""
    head, _, last = violation.field.rpartition(".")
    if last in _WIRE_NAMES:
        return FieldViolation(f"{head}.{last.removesuffix('_s')}" if head else last[:-2], violation.description)
    return violation


def spec_to_pb(spec: JobSpec) -> pb.JobSpec:
    """Convert a job as asked for. What was left unset stays so: the settings of its kind may say what it is to be."""
    asked = spec.model_fields_set
    return pb.JobSpec(
        kind=spec.kind,
        payload=spec.payload,
        namespace=spec.namespace if "namespace" in asked else None,
        route=spec.route,
        priority=spec.priority if "priority" in asked else None,
        activate_at=timestamp(spec.activate_at),
        delay=duration(spec.delay_s),
        retry=retry_as_asked(spec.retry) if "retry" in asked else None,
        ttl=duration(spec.ttl_s) if "ttl_s" in asked else None,
        timeout=duration(spec.timeout_s),
        start_within=duration(spec.start_within_s),
        start_by=timestamp(spec.start_by),
        job_timeout=duration(spec.job_timeout_s),
        max_crashes=spec.max_crashes if "max_crashes" in asked else None,
        idempotency_key=spec.idempotency_key,
        labels=spec.labels,
        limits=spec.limits,
        requires=spec.requires,
        depends_on=spec.depends_on,
        ref=spec.ref,
        trigger=None if spec.trigger is Trigger.ALL_COMPLETED else TRIGGER_TO_PB[spec.trigger],
        upstream_failure=None
        if spec.upstream_failure is UpstreamFailure.CANCEL
        else UPSTREAM_FAILURE_TO_PB[spec.upstream_failure],
        unique_key=spec.unique_key,
        on_duplicate=ON_DUPLICATE_TO_PB[spec.on_duplicate] if spec.unique_key else None,
        idempotency_ttl=duration(spec.idempotency_ttl_s),
    )


def retry_as_asked(spec: RetrySpec) -> pb.RetryPolicy:
    """Convert a retry policy; what was left unset stays so."""
    whole = retry_to_pb(spec)
    for name in type(spec).model_fields.keys() - spec.model_fields_set:
        whole.ClearField(name.removesuffix("_s"))  # type: ignore[arg-type]  # the names of the fields, less their unit
    return whole


def retry_to_pb(spec: RetrySpec) -> pb.RetryPolicy:
    """Convert a retry policy."""
    return pb.RetryPolicy(
        max_attempts=spec.max_attempts,
        initial_backoff=duration(spec.initial_backoff_s),
        multiplier=spec.multiplier,
        max_backoff=duration(spec.max_backoff_s),
        jitter=spec.jitter,
        non_retryable=spec.non_retryable,
        backoff=BACKOFF_TO_PB[spec.backoff],
    )


def error_from_status(exc: grpc.RpcError) -> TenureError:
    """Return tenure's error for a failed call, with its field violations and the hint where the service gave them."""
    code: grpc.StatusCode = exc.code()  # type: ignore[attr-defined]  # every RpcError of a call has one
    message: str = exc.details() or code.name  # type: ignore[attr-defined]
    violations, hint = details_of(exc)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(violations or [FieldViolation("request", message)], hint=hint)
    return BY_GRPC_STATUS.get(code.name, TenureError)(message, hint=hint)


def details_of(exc: grpc.RpcError) -> tuple[list[FieldViolation], str | None]:
    """Read what a service attached: BadRequest names fields, the first link of Help is the next step."""
    try:
        status = rpc_status.from_call(exc)
    except ValueError:  # the details are another status than the call's: not from tenure
        return [], None
    violations: list[FieldViolation] = []
    hint: str | None = None
    for detail in status.details if status is not None else ():
        bad, help_ = error_details_pb2.BadRequest(), error_details_pb2.Help()
        if detail.Unpack(bad):
            violations.extend(FieldViolation(v.field, v.description) for v in bad.field_violations)
        elif detail.Unpack(help_) and help_.links:
            hint = hint or help_.links[0].description
    return violations, hint
