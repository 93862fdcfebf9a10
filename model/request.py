"""The hash of a request: the same for the same request, whichever way it came in. Pure.

``tenure.submit_job`` (store/postgres/migrations/versions/0001_submit_job.sql) makes the same hash in Postgres, so that
an idempotency key that was used over gRPC is met by SQL. Hence a form that both can write: the fields that differ from
their defaults, by name, each as ``name:length:text``; seconds and shares in millionths, times in microseconds since
1970, maps and sets in order. In which trace it is asked for is no part of it (``model.trace``).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tenure.model.trace import NOT_ASKED_FOR

if TYPE_CHECKING:
    from tenure.model.jobs import JobSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNORDERED = frozenset({"limits"})
_NOT_ASKED_FOR = frozenset({"idempotency_key", "ref"})
"""The key itself, and what only names a member of a batch."""


def request_hash(spec: JobSpec) -> bytes:
    """Return the hash of what is asked for."""
    return hashlib.sha256("".join(_fields(spec, "")).encode("utf-8", "surrogatepass")).digest()


def _fields(model: BaseModel, prefix: str) -> Iterator[str]:
    defaults = _defaults(type(model))
    for name in sorted(model.model_fields_set - _NOT_ASKED_FOR):
        value = getattr(model, name)
        if value is None or value == defaults[name]:
            continue
        if type(value) is str:
            yield f"{prefix}{name}:{len(value)}:{value}"
        elif isinstance(value, BaseModel):
            yield from _fields(value, f"{prefix}{name}.")
        elif text := _text(name, value):
            yield f"{prefix}{name}:{len(text)}:{text}"


@cache
def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}


def _text(name: str, value: Any) -> str:
    match value:
        case StrEnum() | str():
            return str(value)
        case bool():
            return str(int(value))
        case int():
            return str(value)
        case float():
            return str(round(value * 1e6))
        case datetime():
            return str((value - _EPOCH) // _MICROSECOND)
        case Mapping():
            pairs = sorted((str(key), str(text)) for key, text in value.items() if key not in NOT_ASKED_FOR)
            return "".join(_pair(key, text) for key, text in pairs)
        case tuple():
            parts = [_part(name, part) for part in value]
            return "".join(f"{len(part)}:{part}" for part in (sorted(parts) if name in _UNORDERED else parts))
        case _:
            return repr(value)


def _pair(key: str, text: str) -> str:
    return f"{len(key)}:{key}{len(text)}:{text}"


def _part(name: str, part: Any) -> str:
    """Return an element; an id in the one way of writing it."""
    if name == "depends_on":
        try:
            return str(uuid.UUID(part))
        except ValueError:
            pass
    return str(part)
