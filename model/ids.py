"""Ids: UUIDv7, made here, ordered by creation so that Postgres' indexes stay local."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

import uuid_utils.compat

from tenure.model.errors import FieldViolation, InvalidInput

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id() -> uuid.UUID:
    """Return a fresh UUIDv7."""
    return uuid_utils.compat.uuid7()


def first_id_at(at: datetime) -> uuid.UUID:
    """Return the smallest UUIDv7 that can be made at an instant; what was made before it by the same clock is less."""
    milliseconds = int(at.timestamp() * 1_000)
    return uuid.UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def is_id(text: str) -> bool:
    """Say whether this is an id as tenure writes it; much cheaper than reading it."""
    return _ID.fullmatch(text) is not None


def parse_id(text: str, field: str) -> uuid.UUID:
    """Read an id.

    Raises:
        InvalidInput: ``text`` is not a UUID; ``field`` is named.
    """
    try:
        return uuid.UUID(text)
    except ValueError as exc:
        raise InvalidInput(
            [FieldViolation(field, f"{text[:64]!r} is not an id, which is a UUID")],
            hint="give it whole, as lists show it",
        ) from exc


def id_text(text: str, field: str) -> str:
    """Read an id and return it as it is written everywhere: for those who only compare it and pass it on.

    Raises: as ``parse_id``.
    """
    return text if is_id(text) else str(parse_id(text, field))
