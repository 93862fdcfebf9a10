"""The pool of connections to Postgres: bounded, with timeouts, and the one place where its errors are translated.

Every statement is its own transaction unless ``transaction`` groups several, which are then sent in one go
(pipeline mode), so that no lock is ever held over a network round trip.

Invariant: no call outlasts ``PoolOptions.answer_within_s`` once it has a connection, however Postgres fails: also where
it is frozen while its kernel goes on acknowledging. A connection given up for that is hung up and thrown away, for what
comes next over it would be the answer to somebody else's question.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tenure.model.errors import (
    BoundExceeded,
    ConfigurationError,
    Deposed,
    Locked,
    OwnershipLost,
    TookTooLong,
    Unavailable,
)
from tenure.store.postgres.arrays import ArrayDumper
from tenure.store.postgres.dsn import checked
from tenure.store.postgres.taken import taken_error

Row = Any
"""A named tuple with the columns of the query."""
Params = Mapping[str, Any]
Connection = psycopg.AsyncConnection[Any]


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a pipeline's end is worth a line: not where it was aborted, whose cause is raised besides."""
    return not (str(record.msg).startswith("error ignored terminating") and "pipeline aborted" in record.getMessage())


logging.getLogger("psycopg").addFilter(_is_news)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Bounds of the pool; seconds."""

    min_size: int = 2
    max_size: int = 10
    wait_s: float = 5.0
    """How long a caller waits for a connection before it is told Unavailable."""
    statement_timeout_s: float = 15.0
    lock_timeout_s: float = 2.0
    idle_in_transaction_timeout_s: float = 5.0

    @property
    def transaction_timeout_s(self) -> float:
        """The bound that Postgres keeps on a whole transaction (17 and later)."""
        return self.statement_timeout_s + self.idle_in_transaction_timeout_s

    @property
    def answer_within_s(self) -> float:
        """How long a caller waits for an answer before the connection is hung up.

        A Postgres that is well has answered by then, if only that its own bound was passed: its longest bound, the time
        to roll back and say so, and the time until a busy event loop has read it.
        """
        return self.transaction_timeout_s + ROLL_BACK_S + READ_S


ROLL_BACK_S = 2.0
READ_S = 1.0
HASTY_LOCK_S = 0.1
CONNECT_S = 5
RETRY_PAUSES_S = (0.01, 0.02, 0.04, 0.08)
"""The longest pause before each further try of what Postgres rolled back."""
RECONNECT_S = 2.0
_HAS_TRANSACTION_TIMEOUT = 170_000


@functools.cache
def query(name: str) -> LiteralString:
    """Return the text of ``queries/<name>.sql``."""
    file = resources.files("tenure.store.postgres").joinpath("queries", f"{name}.sql")
    return file.read_text(encoding="utf-8")


class Statement(NamedTuple):
    """A named query with its parameters, for ``Database.transaction``."""

    name: str
    params: Params


class PoolFigures(NamedTuple):
    """How the pool does."""

    open: int
    idle: int
    most: int
    waiting: int
    """Callers that wait for a connection now."""
    waited: int
    """Callers that had to wait, so far."""
    waited_s: float


class Database:
    """Runs named queries. Built stopped; use as an async context manager."""

    def __init__(self, dsn: str, options: PoolOptions | None = None, *, name: str = "tenure") -> None:
        self.options = options = options or PoolOptions()
        settings = (
            f"-c statement_timeout={int(options.statement_timeout_s * 1000)}"
            f" -c lock_timeout={int(options.lock_timeout_s * 1000)}"
            f" -c idle_in_transaction_session_timeout={int(options.idle_in_transaction_timeout_s * 1000)}"
            # A plan that scans the table of jobs, made when a queue was empty, would serve until the next ANALYZE, with
            # however many jobs by then. What only a scan can answer is scanned for all that; PostgreSQL before 18 takes
            # that for costly enough to compile.
            " -c enable_seqscan=off -c jit=off"
            " -c timezone=UTC"  # elsewhere the first and last day of the calendar cannot be read back
        )
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            checked(dsn),
            kwargs={
                "autocommit": True,
                "row_factory": namedtuple_row,
                "options": settings,
                "application_name": name,
                "client_encoding": "UTF8",  # whatever the database's own is: ArrayDumper writes no other
                "connect_timeout": CONNECT_S,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                # Keepalives are not sent while a statement is unacknowledged: without this a network that goes silent
                # under one holds its caller for as long as the kernel repeats it, a quarter of an hour.
                "tcp_user_timeout": 5_000,
            },
            min_size=options.min_size,
            max_size=options.max_size,
            timeout=options.wait_s,
            # The pool doubles its pause after each failed attempt until it gives this connection up. Soon, then: the
            # next caller has it try again at once, and an outage of minutes does not make the return take minutes.
            reconnect_timeout=RECONNECT_S,
            configure=self._configure,
            check=None,
            open=False,
            name=name,
        )
        self._first: tuple[Statement, ...] = ()

    def in_haste(self) -> Database:
        """Return the same pool for writes that wait for a lock for ``HASTY_LOCK_S`` alone."""
        hasty = copy.copy(self)
        hasty._first = (Statement("wait_briefly", {"lock_timeout": f"{int(HASTY_LOCK_S * 1000)}ms"}),)
        return hasty

    def figures(self) -> PoolFigures:
        """Return how the pool does; asks nobody."""
        told = self._pool.get_stats()
        return PoolFigures(
            told.get("pool_size", 0),
            told.get("pool_available", 0),
            self.options.max_size,
            told.get("requests_waiting", 0),
            told.get("requests_queued", 0),
            told.get("requests_wait_ms", 0) / 1000,
        )

    async def _configure(self, connection: Connection) -> None:
        # JSON travels through as text: tenure stores what it was given and parses only what it must.
        set_json_loads(_as_text, connection)
        connection.adapters.register_dumper(list, ArrayDumper)
        if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
            # A process that is stopped between two statements of a pipeline is not idle by Postgres' account.
            milliseconds = int(self.options.transaction_timeout_s * 1000)
            with _Patience(CONNECT_S) as patience:
                patience.begins(connection)
                await connection.execute("SELECT set_config('transaction_timeout', %s, false)", [str(milliseconds)])

    async def __aenter__(self) -> Database:
        await self._pool.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close(timeout=5)

    async def fetch(self, name: str, params: Params | None = None) -> list[Row]:
        """Run one query and return its rows (none for one that returns nothing).

        Raises:
            Unavailable: Postgres did not answer; the outcome of a write is unknown.
            Locked: a row is held by somebody else; nothing was written.
            TookTooLong: it takes longer than ``statement_timeout_s``, or somebody canceled it; nothing was written.
            BoundExceeded: Postgres is out of room.
            KeyTaken, UniqueTaken: a key is there already; nothing was written.
            OwnershipLost: ``assert_fence`` failed.
            Deposed: ``assert_term`` failed.
        """
        results = await self._run([Statement(name, params or {})], as_transaction=False)
        return results[0]

    async def transaction(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Run queries as one transaction, sent in one go; return the rows of each.

        Raises: as ``fetch``.
        """
        return await self._run(statements, as_transaction=True)

    async def _run(self, statements: Sequence[Statement], *, as_transaction: bool) -> list[list[Row]]:
        # A deadlock or serialization failure rolled everything back: running the same again is safe.
        for longest_s in RETRY_PAUSES_S:
            try:
                return await self._once(statements, as_transaction=as_transaction)
            except (pg.DeadlockDetected, pg.SerializationFailure):
                await asyncio.sleep(random.uniform(0, longest_s))
        try:
            return await self._once(statements, as_transaction=as_transaction)
        except (pg.DeadlockDetected, pg.SerializationFailure) as exc:
            raise Unavailable(f"Postgres kept rolling back: {_one_line(exc)}") from exc

    async def _once(self, statements: Sequence[Statement], *, as_transaction: bool) -> list[list[Row]]:
        async with self._connection() as connection:
            if as_transaction or self._first:
                results = await _in_transaction(connection, (*self._first, *statements))
                return results[len(self._first) :]
            return [await _rows(await connection.execute(query(statements[0].name), statements[0].params))]

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Give a connection, and translate what goes wrong with it."""
        patience = _Patience(self.options.answer_within_s)
        try:
            async with self._taken(patience) as connection:
                try:
                    yield connection
                except pg.ReadOnlySqlTransaction:
                    await connection.close()  # of no use any more: the pool opens another, perhaps to the primary
                    raise
        except (pg.DeadlockDetected, pg.SerializationFailure):
            raise
        except pg.UniqueViolation as exc:
            raise taken_error(exc) from exc
        except PoolTimeout as exc:
            raise Unavailable(f"no Postgres connection became free within {self.options.wait_s:g} s") from exc
        except (pg.DiskFull, pg.OutOfMemory, pg.ConfigurationLimitExceeded) as exc:
            raise BoundExceeded(f"Postgres is out of room: {exc}") from exc
        except pg.LockNotAvailable as exc:
            raise Locked(f"Postgres: {_one_line(exc)}") from exc
        except pg.QueryCanceled as exc:
            raise TookTooLong(f"Postgres: {_one_line(exc)}") from exc
        except (pg.OperationalError, pg.InterfaceError) as exc:
            if patience.is_over:
                raise Unavailable(f"Postgres did not answer within {self.options.answer_within_s:g} s") from exc
            raise Unavailable(f"Postgres: {_one_line(exc)}") from exc
        except pg.ReadOnlySqlTransaction as exc:
            raise Unavailable(
                f"Postgres is a standby: {_one_line(exc)}",
                hint="name all servers in TENURE_POSTGRES_DSN, with target_session_attrs=read-write",
            ) from exc
        except pg.UndefinedTable as exc:
            raise ConfigurationError(
                f"Postgres has no tenure schema: {_one_line(exc)}", hint="run: tenure db migrate"
            ) from exc
        except pg.DatabaseError as exc:
            if exc.sqlstate == "TN001":
                raise OwnershipLost(_one_line(exc)) from exc
            if exc.sqlstate == "TN002":
                raise Deposed(_one_line(exc)) from exc
            if exc.sqlstate in _HUNG_UP:
                raise Unavailable(f"Postgres: {_one_line(exc)}") from exc
            raise

    @contextlib.asynccontextmanager
    async def _taken(self, patience: _Patience) -> AsyncIterator[Connection]:
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        # The patience lasts until the pool has the connection back: it may have to roll back first.
        with patience:
            async with self._pool.connection() as connection:
                patience.begins(connection)
                # The pool waits with asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes
                # together with the connection: the task would run on and whoever cancelled it wait for ever.
                if task is not None and task.cancelling() > cancels:
                    raise asyncio.CancelledError
                try:
                    yield connection
                except BaseException as exc:
                    cancelled = task is not None and task.cancelling() > cancels
                    told_by_server = isinstance(exc, pg.Error) and exc.sqlstate is not None
                    if cancelled or not told_by_server or _in_pipeline(connection):
                        connection.pgconn.finish()  # answers may still be due: they are not to be taken for later ones
                    raise
                if connection.pgconn.transaction_status != TransactionStatus.IDLE or _in_pipeline(connection):
                    connection.pgconn.finish()
                    raise pg.OperationalError("the connection was out of step: its answers belong to other questions")


_HUNG_UP = ("25P03", "25P04")
"""This process was paused within a transaction for too long: idle in it, or the whole of it (Postgres 17)."""


class _Patience:
    """How long to wait for the answers over one connection; when it is over the connection is hung up.

    Not by cancelling the call: psycopg answers that by asking the server to cancel, and waits for it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.is_over = False

    def __enter__(self) -> _Patience:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def begins(self, connection: Connection) -> None:
        """Count from now."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._hang_up, connection)

    def _hang_up(self, connection: Connection) -> None:
        self.is_over = True
        # Shut down, not closed: whoever waits for the socket is woken, and libpq finds the connection broken.
        with (
            contextlib.suppress(OSError, pg.OperationalError),  # it is closed already
            socket.socket(fileno=os.dup(connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)


def _in_pipeline(connection: Connection) -> bool:
    return not connection.closed and connection.pgconn.pipeline_status != PipelineStatus.OFF


async def _in_transaction(connection: Connection, statements: Sequence[Statement]) -> list[list[Row]]:
    # Not connection.transaction(): in a pipeline it waits for an answer before COMMIT, with every lock held meanwhile.
    # After an error, or when cancelled, the pool rolls back.
    async with connection.pipeline():
        begin = await connection.execute("BEGIN", prepare=False)
        cursors = [await connection.execute(query(name), params) for name, params in statements]
        commit = await connection.execute("COMMIT", prepare=False)
    if (begin.statusmessage, commit.statusmessage) != ("BEGIN", "COMMIT"):
        connection.pgconn.finish()
        raise pg.OperationalError(f"a transaction was answered by {begin.statusmessage} and {commit.statusmessage}")
    return [await _rows(cursor) for cursor in cursors]


async def _rows(cursor: psycopg.AsyncCursor[Any]) -> list[Row]:
    # Not cursor.description, which makes an object of each column to say so.
    has_columns = cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return await cursor.fetchall() if has_columns else []


def _as_text(data: bytes | str) -> str:
    return data if isinstance(data, str) else bytes(data).decode()


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
