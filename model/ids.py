"""Ids: UUIDv7, made here, ordered by creation so that Postgres' indexes stay local."""

from __future__ import annotations

import re
import uuid

import uuid_utils.compat

from tenure.model.errors import FieldViolation, InvalidInput

_is_written_out = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def new_id() -> uuid.UUID:
    """Return a fresh UUIDv7."""
    return uuid_utils.compat.uuid7()


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
    return text if _is_written_out(text) else str(parse_id(text, field))
