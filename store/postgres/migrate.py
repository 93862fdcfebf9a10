"""Brings the schema up to date: Alembic revisions made of plain SQL, under an advisory lock.

Safe when several coordinators start at once: one migrates, the others wait for the lock and find nothing to do.
Each revision is one transaction, so that a killed migration leaves the schema at the revision before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InternalError, OperationalError

from tenure.model.errors import ConfigurationError, Unavailable

_REFUSED = ("authentication failed", "no pg_hba.conf entry", "no password supplied", "does not exist")
_LOCK = 0x74656E757265  # "tenure"; taken for the session of the migration only


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Which revision the database has and which one this release wants."""

    current: str | None
    wanted: str
    applied: tuple[str, ...] = ()
    """Revisions that this call applied, oldest first."""

    @property
    def is_current(self) -> bool:
        """Say whether there is nothing to migrate."""
        return self.current == self.wanted


async def migrate(dsn: str) -> SchemaStatus:
    """Apply what is missing and return the status afterwards.

    Raises:
        Unavailable: Postgres cannot be reached.
        ConfigurationError: it refuses the user, or the database is at a revision that this release does not know.
    """
    return await _in_thread(_migrate, dsn)


async def status(dsn: str) -> SchemaStatus:
    """Read the status without changing anything. Raises as ``migrate``."""
    return await _in_thread(_status, dsn)


async def _in_thread(work: Callable[[str], SchemaStatus], dsn: str) -> SchemaStatus:
    # Not one of asyncio's threads, for which the process waits when it ends: this one may wait for a lock, or for a
    # server that is frozen. What it leaves half done is as after a kill: the revision before.
    done: concurrent.futures.Future[SchemaStatus] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work(dsn))
        except Exception as exc:
            done.set_exception(exc)

    threading.Thread(target=run, name="tenure-migrate", daemon=True).start()
    return await asyncio.wrap_future(done)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(dsn: str) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: _driver_connect(dsn), poolclass=sqlalchemy.NullPool
    )
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as exc:
        told = " ".join(str(exc.orig).split())
        if any(mark in told for mark in _REFUSED):  # libpq gives no code for what ends a connection attempt
            raise ConfigurationError(
                f"Postgres refuses: {told}", hint="check user, password and database in TENURE_POSTGRES_DSN"
            ) from exc
        raise Unavailable(f"Postgres: {told}", hint="check TENURE_POSTGRES_DSN and that Postgres runs") from exc
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


def _migrate(dsn: str) -> SchemaStatus:
    with _connected(dsn) as lock, _connected(dsn) as connection:
        # The lock has a connection of its own: Alembic commits on the other one between revisions.
        lock.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
        before = _current(connection)
        script = ScriptDirectory.from_config(_config(connection))
        _refuse_unknown(script, before)
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS tenure")
        connection.commit()
        command.upgrade(_config(connection), "head")
        connection.commit()
        applied = [] if before is None else [before]
        revisions = [revision.revision for revision in script.walk_revisions()][::-1]
        newer = revisions[revisions.index(applied[0]) + 1 :] if applied else revisions
        return SchemaStatus(_current(connection), revisions[-1], tuple(newer))


def _status(dsn: str) -> SchemaStatus:
    with _connected(dsn) as connection:
        script = ScriptDirectory.from_config(_config(connection))
        wanted = script.get_current_head()
        assert wanted is not None  # the repository always has a revision
        return SchemaStatus(_current(connection), wanted)


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(
        connection, opts={"version_table": "schema_version", "version_table_schema": "tenure"}
    )
    return context.get_current_revision()


def _refuse_unknown(script: ScriptDirectory, current: str | None) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise ConfigurationError(
            f"the database is at schema {current}, which this release does not know",
            hint="run the release that migrated it, or a newer one",
        )
