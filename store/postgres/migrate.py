"""Brings the schema up to date: Alembic revisions made of plain SQL, under an advisory lock.

Safe when several coordinators start at once: one migrates, the others wait for the lock and find nothing to do.
Each revision is one transaction, so that a killed migration leaves the schema at the revision before; indexes on tables
that are in use are made ahead of it (``store.postgres.ahead``). With each goes
what the oldest revision is whose code still runs on it: by that an older release, beside a newer one or rolled back to,
runs on a schema that it does not know.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, LockNotAvailable, ReadOnlySqlTransaction
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError

from tenure.model.errors import ConfigurationError, Unavailable
from tenure.store.postgres import ahead
from tenure.store.postgres.dsn import checked

_REFUSED = ("authentication failed", "no pg_hba.conf entry", "no password supplied", "does not exist")
LOCK_TRIES = 60
LOCK_PAUSE_S = 2.0
"""Longer than a revision waits for a lock; others get on meanwhile."""
SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x74656E757265  # "tenure"; taken for the session of the migration only
_MAY_NOT = (
    "use the user that owns the schema (docs/LEAST_PRIVILEGE.md); coordinators then run with TENURE_MIGRATE=false"
)
_OWNER = """
SELECT replace(r.rolname, '"', '""') FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'tenure' AND r.rolname <> current_user AND pg_has_role(r.oid, 'MEMBER')
"""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Which revision the database has and which one this release wants."""

    current: str | None
    wanted: str
    applied: tuple[str, ...] = ()
    """Revisions that this call applied, oldest first."""
    oldest: str | None = None
    """The oldest revision whose code runs on the current one; only read where this release does not know that one."""

    @property
    def is_current(self) -> bool:
        """Say whether there is nothing to migrate."""
        return self.current == self.wanted

    @property
    def is_newer(self) -> bool:
        """Say whether a newer release has migrated it. Revisions are numbers of four digits, so their text compares."""
        return self.current is not None and self.current > self.wanted

    @property
    def is_usable(self) -> bool:
        """Say whether this release runs on the schema: on its own, or on a newer one that allows for it."""
        return self.is_current or (self.oldest is not None and self.wanted >= self.oldest)

    def require_usable(self) -> None:
        """Raise ``ConfigurationError``, with what to do, if this release does not run on the schema."""
        if self.is_usable:
            return
        if not self.is_newer:
            raise ConfigurationError(
                f"the database is at schema {self.current}, this release needs {self.wanted}",
                hint="run: tenure db migrate",
            )
        allowed = (
            f"runs with releases of schema {self.oldest} or later" if self.oldest else "this release does not know"
        )
        raise ConfigurationError(
            f"the database is at schema {self.current}, which {allowed}; this release is of schema {self.wanted}",
            hint="run the release that migrated it, or a newer one; going further back needs a backup",
        )


async def migrate(dsn: str) -> SchemaStatus:
    """Apply what is missing and return the status afterwards; a newer schema on which this release runs is left alone.

    Raises:
        Unavailable: Postgres cannot be reached.
        ConfigurationError: it refuses the user, or the database is at a newer revision on which this release does not
            run.
    """
    return await in_thread(lambda: _migrate(dsn))


async def status(dsn: str) -> SchemaStatus:
    """Read the status without changing anything.

    Raises:
        Unavailable: Postgres cannot be reached.
        ConfigurationError: it refuses the user.
    """
    return await in_thread(lambda: _status(dsn))


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what waits for Postgres in a thread that the process need not wait for, and return what it returns."""
    # Not one of asyncio's threads, for which the process waits when it ends: this one may wait for a lock, or for a
    # server that is frozen. What it leaves half done is as after a kill: the revision before.
    done: concurrent.futures.Future[Result] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as exc:
            done.set_exception(exc)

    threading.Thread(target=run, name="tenure-migrate", daemon=True).start()
    return await asyncio.wrap_future(done)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(dsn: str) -> Iterator[Connection]:
    checked(dsn)
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: _driver_connect(dsn), poolclass=sqlalchemy.NullPool
    )
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as exc:
        told = _one_line(exc.orig)
        if any(mark in told for mark in _REFUSED):  # libpq gives no code for what ends a connection attempt
            raise ConfigurationError(
                f"Postgres refuses: {told}", hint="check user, password and database in TENURE_POSTGRES_DSN"
            ) from exc
        raise Unavailable(f"Postgres: {told}", hint="check TENURE_POSTGRES_DSN and that Postgres runs") from exc
    except ProgrammingError as exc:
        if not isinstance(exc.orig, InsufficientPrivilege):
            raise
        raise ConfigurationError(f"Postgres refuses: {_one_line(exc.orig)}", hint=_MAY_NOT) from exc
    except InsufficientPrivilege as exc:  # of what went past SQLAlchemy
        raise ConfigurationError(f"Postgres refuses: {_one_line(exc)}", hint=_MAY_NOT) from exc
    except InternalError as exc:
        if not isinstance(exc.orig, ReadOnlySqlTransaction):
            raise
        raise Unavailable(
            "Postgres: this server is a standby, which cannot be written to",
            hint="let TENURE_POSTGRES_DSN name the primary, or several hosts with target_session_attrs=read-write",
        ) from exc
    finally:
        engine.dispose()


def _driver_connect(dsn: str) -> object:
    import psycopg

    return psycopg.connect(dsn, connect_timeout=10, application_name="tenure-migrate")


def locked(dsn: str, work: Callable[[Connection], Result]) -> Result:
    """Do what nobody else may do to the schema meanwhile, on a connection of its own, and return what it returns."""
    with _connected(dsn) as lock, _connected(dsn) as connection:
        # The lock has a connection of its own: Alembic commits on the other one between revisions.
        lock.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
        lock.commit()  # the lock is the session's: no transaction stands open, idle, while the migration takes its time
        return work(connection)


def run_text(connection: Connection, text: str) -> None:
    """Run statements of a file as they stand: no parameters, so that % and : stand for themselves."""
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None  # a live connection always has one
    driver_connection.execute(text)


def _migrate(dsn: str) -> SchemaStatus:
    with _connected(dsn) as connection:
        current = _current(connection)
        _act_as_owner(connection)
        connection.commit()
        ahead.make_indexes(connection.execution_options(isolation_level="AUTOCOMMIT"), current)
    return locked(dsn, _upgrade)


def _upgrade(connection: Connection) -> SchemaStatus:
    script = ScriptDirectory.from_config(_config(connection))
    status = _read(connection, script)
    before = status.current
    if before is not None and not _knows(script, before):
        status.require_usable()
        return status
    # Asked first: Postgres refuses who may not create schemas, even if there is nothing to create.
    if connection.exec_driver_sql("SELECT to_regnamespace('tenure')").scalar() is None:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS tenure")
    else:
        _act_as_owner(connection)
    connection.commit()
    _apply(connection)
    applied = [] if before is None else [before]
    revisions = [revision.revision for revision in script.walk_revisions()][::-1]
    newer = revisions[revisions.index(applied[0]) + 1 :] if applied else revisions
    return SchemaStatus(_current(connection), revisions[-1], tuple(newer))


def _apply(connection: Connection) -> None:
    """Apply what is missing; a revision that waits too long for a lock is tried again, so that others get on meanwhile.

    Raises:
        Unavailable: somebody held what it needs every time.
    """
    for left in reversed(range(LOCK_TRIES)):
        try:
            command.upgrade(_config(connection), "head")
        except (LockNotAvailable, DeadlockDetected, OperationalError) as exc:
            cause = exc.orig if isinstance(exc, OperationalError) else exc
            if not isinstance(cause, LockNotAvailable | DeadlockDetected):
                raise
            connection.rollback()
            if not left:
                raise Unavailable(
                    f"Postgres: somebody held what the migration needs, {LOCK_TRIES} times: {_one_line(cause)}",
                    hint="end what pg_stat_activity shows, a long transaction (pg_dump) or an autovacuum that does not"
                    " give way, and run: tenure db migrate",
                ) from exc
            _act_as_owner(connection)
            connection.commit()
            time.sleep(LOCK_PAUSE_S)
        else:
            connection.commit()
            return


def _act_as_owner(connection: Connection) -> None:
    """Act as the owner of the schema: what is made is to belong to it, whichever of its members migrates."""
    if owner := connection.exec_driver_sql(_OWNER).scalar():
        connection.exec_driver_sql(f'SET ROLE "{owner}"')


def _status(dsn: str) -> SchemaStatus:
    with _connected(dsn) as connection:
        return _read(connection, ScriptDirectory.from_config(_config(connection)))


def _read(connection: Connection, script: ScriptDirectory) -> SchemaStatus:
    wanted = script.get_current_head()
    assert wanted is not None  # the repository always has a revision
    current = _current(connection)
    if current is None or _knows(script, current):
        return SchemaStatus(current, wanted)
    return SchemaStatus(current, wanted, oldest=_oldest(connection, current))


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(
        connection, opts={"version_table": "schema_version", "version_table_schema": "tenure"}
    )
    return context.get_current_revision()


def _knows(script: ScriptDirectory, revision: str) -> bool:
    return revision in {known.revision for known in script.walk_revisions()}


def _oldest(connection: Connection, revision: str) -> str | None:
    if connection.exec_driver_sql("SELECT to_regclass('tenure.schema_oldest')").scalar() is None:
        return None  # migrated by a release that did not write it down
    query = sqlalchemy.text("SELECT oldest FROM tenure.schema_oldest WHERE revision = :revision")
    found: str | None = connection.execute(query, {"revision": revision}).scalar()
    return found


def _one_line(exc: BaseException | None) -> str:
    return " ".join(str(exc).split())
