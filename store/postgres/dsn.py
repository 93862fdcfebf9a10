"""A look at a connection string before libpq's own: what libpq says of a malformed one repeats it, password and all."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tenure.model.errors import ConfigurationError


def checked(dsn: str) -> str:
    """Return a connection string that libpq can read.

    Raises:
        ConfigurationError: it cannot; nothing of it is told.
    """
    try:
        conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError):
        raise ConfigurationError(
            "the address of the database (TENURE_POSTGRES_DSN) is malformed, or has an option that is unknown",
            hint="for example postgresql://USER:PASSWORD@HOST:5432/DATABASE, a password percent-encoded",
        ) from None  # libpq's message holds what it could not read
    return dsn
