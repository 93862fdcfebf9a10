"""Between the messages of KindService and ``tenure.model.kinds``."""

from __future__ import annotations

from typing import Any

from tenure.model.errors import InvalidInput
from tenure.model.kinds import KindSettings, validate_kind
from tenure.v1 import kind_service_pb2 as pb
from tenure.v1 import wire

_DURATIONS = ("ttl", "timeout", "start_within", "job_timeout")
_NUMBERS = ("priority", "max_crashes")


def kind_from_pb(message: pb.KindSettings, *, path: str = "settings.") -> KindSettings:
    """Validate the settings of a kind.

    Raises:
        InvalidInput: with every violation; ``path`` leads to the message.
    """
    values: dict[str, Any] = {name: getattr(message, name) for name in _NUMBERS if message.HasField(name)}
    values |= {f"{name}_s": wire.seconds(getattr(message, name)) for name in _DURATIONS if message.HasField(name)}
    if message.HasField("retry"):
        values["retry"] = wire.retry_values(message.retry)
    if message.limits:
        values["limits"] = tuple(message.limits)
    try:
        return validate_kind(message.namespace, message.kind, values, path=path)
    except InvalidInput as exc:
        raise InvalidInput([wire.wire_name(violation) for violation in exc.violations]) from exc


def kind_to_pb(namespace: str, kind: str, settings: KindSettings) -> pb.KindSettings:
    """Convert the settings of a kind."""
    return pb.KindSettings(
        kind=kind,
        namespace=namespace,
        priority=settings.priority,
        ttl=wire.duration(settings.ttl_s),
        timeout=wire.duration(settings.timeout_s),
        start_within=wire.duration(settings.start_within_s),
        job_timeout=wire.duration(settings.job_timeout_s),
        max_crashes=settings.max_crashes,
        retry=wire.retry_as_asked(settings.retry) if settings.retry is not None else None,
        limits=settings.limits,
    )
