"""Single fields between Python and the wire: durations, instants, words and lists of them.

Invariant: what is None stays unset, so that the service's own defaults apply, and what is unset is read as None. What
cannot be written is refused with the name of its field. Called by whatever in ``client`` reads or builds messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import wire

N = TypeVar("N")
MAX_DURATION_S = 315_576_000_000.0
"""google.protobuf.Duration holds at most ten thousand years."""


def duration(seconds: float | None, field: str) -> Duration | None:
    """Write seconds as a protobuf duration, to the nanosecond.

    Raises:
        InvalidInput: not a finite number that a duration can hold; ``field`` is named.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput([FieldViolation(field, f"must be a number of seconds, not {type(seconds).__name__}")])
    if not abs(seconds) <= MAX_DURATION_S:  # NaN, too
        raise InvalidInput([FieldViolation(field, f"{seconds!r} seconds is not a duration")])
    return wire.duration(seconds)


def timestamp(at: datetime | None, field: str) -> Timestamp | None:
    """Write an instant.

    Raises:
        InvalidInput: not a datetime with a time zone; ``field`` is named.
    """
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidInput([FieldViolation(field, "must be a datetime that carries a time zone")])
    return wire.timestamp(at)


@overload
def number_of(numbers: Mapping[Any, N], word: str, field: str) -> N: ...
@overload
def number_of(numbers: Mapping[Any, N], word: None, field: str) -> None: ...
def number_of(numbers: Mapping[Any, N], word: str | None, field: str) -> N | None:
    """Return the number that stands on the wire for a word of an enumeration.

    Raises:
        InvalidInput: it is none of them; ``field`` is named.
    """
    try:
        return None if word is None else numbers[word]
    except (KeyError, TypeError) as exc:  # TypeError: no text at all
        raise InvalidInput([FieldViolation(field, f"{str(word)[:64]!r} is none of {', '.join(numbers)}")]) from exc


def names(values: Iterable[str], field: str) -> list[str]:
    """Write a list of texts.

    Raises:
        InvalidInput: it is one text, which would be taken apart into its characters; ``field`` is named.
    """
    if isinstance(values, str):
        raise InvalidInput([FieldViolation(field, "must be a list of texts, not one text")])
    return list(values)


def time_of(message: Any, field: str) -> datetime | None:
    """Read an instant, None where it is unset."""
    if not message.HasField(field):
        return None
    at: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return at


def seconds_of(message: Any, field: str) -> float | None:
    """Read a duration, None where it is unset."""
    return wire.seconds(getattr(message, field)) if message.HasField(field) else None


def value_of(message: Any, field: str) -> Any:
    """Read a number or a text, None where it is unset."""
    return getattr(message, field) if message.HasField(field) else None
