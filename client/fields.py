"""Single fields between Python and the wire: durations, instants, words and lists of them.

Invariant: what is None stays unset, so that the service's own defaults apply, and what is unset is read as None. What
cannot be written is refused with the name of its field. Called by whatever in ``client`` reads or builds messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from numbers import Real
from operator import index
from typing import Any, TypeVar, overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import wire

N = TypeVar("N")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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


def whole(value: int | None, field: str, *, bits: int = 32) -> int | None:
    """Write a whole number, of so many bits on the wire.

    Raises:
        InvalidInput: something else, or one that the wire cannot hold; ``field`` is named.
    """
    if value is None:
        return None
    try:
        found = index(value)
    except TypeError as exc:
        raise InvalidInput([FieldViolation(field, f"must be a whole number, not {type(value).__name__}")]) from exc
    if not -(2 ** (bits - 1)) <= found < 2 ** (bits - 1):
        raise InvalidInput([FieldViolation(field, f"{value} is out of range")])
    return found


def number(value: float | None, field: str) -> float | None:
    """Write a number.

    Raises:
        InvalidInput: something else; ``field`` is named.
    """
    if value is not None and not isinstance(value, Real):
        raise InvalidInput([FieldViolation(field, f"must be a number, not {type(value).__name__}")])
    return value


def text(value: str, field: str) -> str:
    """Write a text.

    Raises:
        InvalidInput: something else, or no Unicode; ``field`` is named.
    """
    if not isinstance(value, str):
        raise InvalidInput([FieldViolation(field, f"must be a text, not {type(value).__name__}")])
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidInput([FieldViolation(field, "contains a lone surrogate, which is no Unicode text")])
    return value


def names(values: Iterable[str], field: str) -> list[str]:
    """Write a list of texts.

    Raises:
        InvalidInput: something else, one text for example, which would be taken apart into its characters; ``field`` is
        named.
    """
    if isinstance(values, str):
        raise InvalidInput([FieldViolation(field, "must be a list of texts, not one text")])
    return [text(value, f"{field}[{position}]") for position, value in enumerate(values)]


def labels(values: Mapping[str, str], field: str) -> dict[str, str]:
    """Write a mapping of texts.

    Raises:
        InvalidInput: something else; ``field`` is named.
    """
    if not isinstance(values, Mapping):
        raise InvalidInput([FieldViolation(field, f"must be a mapping of texts, not {type(values).__name__}")])
    return {text(key, field): text(value, f"{field}[{key!r}]") for key, value in values.items()}


def time_of(message: Any, field: str) -> datetime | None:
    """Read an instant, None where it is unset."""
    if not message.HasField(field):
        return None
    at = getattr(message, field)
    return _EPOCH + timedelta(seconds=at.seconds, microseconds=at.nanos // 1_000)


def seconds_of(message: Any, field: str) -> float | None:
    """Read a duration, None where it is unset."""
    return wire.seconds(getattr(message, field)) if message.HasField(field) else None


def value_of(message: Any, field: str) -> Any:
    """Read a number or a text, None where it is unset."""
    return getattr(message, field) if message.HasField(field) else None
