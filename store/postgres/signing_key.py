"""Replaces the key that all coordinators sign with, as the owner of the schema: coordinators may only read it.

What the overlap of two keys means to coordinators is in ``coordinator.signing_keys``.
"""

from __future__ import annotations

from psycopg.errors import InsufficientPrivilege, InvalidParameterValue, ObjectNotInPrerequisiteState
from sqlalchemy.engine import Connection

from tenure.model.errors import ConfigurationError, FieldViolation, InvalidInput, WrongState
from tenure.store.postgres.migrate import in_thread, locked

SETTLE_S = 30.0
"""Until the new key signs: coordinators look every few seconds, and must have read it by then."""


async def replace_signing_key(dsn: str, keep_s: float) -> None:
    """Make a new key; what was signed with the one before it is taken for ``keep_s``, and not at all for 0.

    Raises:
        WrongState: the key before the present one is taken still. InvalidInput: kept for too short a time.
        Unavailable: Postgres cannot be reached. ConfigurationError: it refuses the user.
    """
    await in_thread(lambda: locked(dsn, lambda connection: _replace(connection, keep_s)))


def _replace(connection: Connection, keep_s: float) -> None:
    try:
        with connection.begin():
            driver_connection = connection.connection.driver_connection
            assert driver_connection is not None  # a live connection always has one
            driver_connection.execute("SELECT tenure.replace_signing_key(%s, %s)", (keep_s, SETTLE_S))
    except ObjectNotInPrerequisiteState as exc:
        raise WrongState(
            f"{exc.diag.message_primary}; what was signed with it would be refused",
            hint="wait until then, or drop both keys at once: --keep 0s",
        ) from exc
    except InvalidParameterValue as exc:
        raise InvalidInput([FieldViolation("--keep", exc.diag.message_primary or "is too short")]) from exc
    except InsufficientPrivilege as exc:
        raise ConfigurationError(
            f"Postgres: {exc.diag.message_primary}", hint="run it as the owner of the schema, as migrations are"
        ) from exc
