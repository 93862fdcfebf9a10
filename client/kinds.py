"""Settings of kinds as users of the client see them, and their way to the wire and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure.client import convert
from tenure.client.fields import duration, names, seconds_of, value_of, whole
from tenure.client.records import Retry
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import kind_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSettings:
    """What jobs of a kind get where they ask for nothing; None: nothing is set. The fields are those of ``NewJob``."""

    kind: str
    namespace: str | None = None
    """None: in all namespaces; what is set for the job's own goes before it, field by field."""
    priority: int | None = None
    ttl_s: float | None = None
    timeout_s: float | None = None
    start_within_s: float | None = None
    job_timeout_s: float | None = None
    max_crashes: int | None = None
    retry: Retry | None = None
    limits: Sequence[str] = ()
    """Added to the job's own: names, or templates such as ``scan:{namespace}`` and ``{kind}``."""


def kind_to_wire(settings: KindSettings, *, path: str = "settings.") -> pb.KindSettings:
    """Write the settings of a kind.

    Raises:
        InvalidInput: a value has the wrong type for its field.
    """
    try:
        return pb.KindSettings(
            kind=settings.kind,
            namespace=settings.namespace,
            priority=whole(settings.priority, f"{path}priority"),
            ttl=duration(settings.ttl_s, f"{path}ttl_s"),
            timeout=duration(settings.timeout_s, f"{path}timeout_s"),
            start_within=duration(settings.start_within_s, f"{path}start_within_s"),
            job_timeout=duration(settings.job_timeout_s, f"{path}job_timeout_s"),
            max_crashes=whole(settings.max_crashes, f"{path}max_crashes"),
            retry=convert.retry_to_wire(settings.retry, f"{path}retry."),
            limits=names(settings.limits, f"{path}limits"),
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation(path.rstrip("."), str(exc))]) from exc


def kind_from_wire(settings: pb.KindSettings) -> KindSettings:
    """Read the settings of a kind."""
    return KindSettings(
        kind=settings.kind,
        namespace=settings.namespace or None,
        priority=value_of(settings, "priority"),
        ttl_s=seconds_of(settings, "ttl"),
        timeout_s=seconds_of(settings, "timeout"),
        start_within_s=seconds_of(settings, "start_within"),
        job_timeout_s=seconds_of(settings, "job_timeout"),
        max_crashes=value_of(settings, "max_crashes"),
        retry=convert.retry_from_wire(settings.retry) if settings.HasField("retry") else None,
        limits=tuple(settings.limits),
    )
