"""Sets up the roles of least privilege: who owns the schema, what a coordinator may do, what those who submit or read.

Owns: ``roles.sql`` (roles and ownership, by an administrator) and ``grants.sql`` (what each role may do, by the owner).
The grants are renewed in the transaction of every migration as well (``migrations/env.py``), where the roles exist.
Invariant: repeating it changes nothing, and what no grant names is not allowed. Deliberately not here: users and their
passwords, which belong to who runs the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from psycopg import sql
from psycopg.errors import LockNotAvailable, UndefinedObject
from sqlalchemy.engine import Connection

from tenure.model.errors import ConfigurationError, Locked, NotFound
from tenure.store.postgres.migrate import in_thread, locked, run_text

ROLES = ("tenure_migrator", "tenure_coordinator", "tenure_submitter", "tenure_readonly")
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s';\n"
"""A table that changes its owner is locked for that moment; behind a long statement everybody would queue."""


async def apply(dsn: str, users: Sequence[tuple[str, str]] = ()) -> None:
    """Make the roles, hand the schema to ``tenure_migrator``, renew all grants, make users members: one transaction.

    Args:
        users: names of existing users, each with the role whose member it becomes.

    Raises:
        Unavailable: Postgres cannot be reached.
        Locked: somebody else holds a table for longer than this waits.
        NotFound: there is no such user.
        ConfigurationError: it refuses the user, the user may not do this, or a role is none of ``ROLES``.
    """
    text = script(users)
    await in_thread(lambda: _apply(dsn, text))


def script(users: Sequence[tuple[str, str]] = ()) -> str:
    """Return what ``apply`` runs, for an administrator to read or to run with psql in one transaction.

    Raises:
        ConfigurationError: a role is none of ``ROLES``.
    """
    return LOCK_TIMEOUT + _text("roles.sql") + "\n" + _text("grants.sql") + "".join(map(_membership, users))


def grants() -> str:
    """Return the grants alone; they need the roles."""
    return _text("grants.sql")


def _membership(user: tuple[str, str]) -> str:
    name, role = user
    if role not in ROLES:
        raise ConfigurationError(f"{role} is no role of tenure", hint=f"one of {', '.join(ROLES)}")
    grant = sql.SQL("GRANT {} TO {};\n").format(sql.Identifier(role), sql.Identifier(name))
    return grant.as_string(None)


def _text(name: str) -> str:
    return resources.files("tenure.store.postgres").joinpath(name).read_text(encoding="utf-8")


def _apply(dsn: str, text: str) -> None:
    def run(connection: Connection) -> None:
        with connection.begin():
            run_text(connection, text)

    try:
        locked(dsn, run)
    except UndefinedObject as exc:
        hint = "make the user first: CREATE ROLE name LOGIN PASSWORD …"
        raise NotFound(f"Postgres: {exc.diag.message_primary}", hint=hint) from exc
    except LockNotAvailable as exc:
        raise Locked("Postgres: a statement holds a table for longer than this waits", hint="try again later") from exc
