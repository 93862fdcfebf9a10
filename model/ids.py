"""Ids: UUIDv7, made here, ordered by creation so that Postgres' indexes stay local."""

from __future__ import annotations

import uuid

import uuid_utils.compat

from tenure.model.errors import FieldViolation, InvalidInput


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
