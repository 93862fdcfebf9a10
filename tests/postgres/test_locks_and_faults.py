"""What tenure holds in Postgres, and for how long; and what a caller sees when Postgres cannot answer."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.fixtures.network import ProxyFactory
from tests.postgres.conftest import PATIENCE_S, Table, until
from tests.proxy import Direction, Proxy

from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.model.errors import Unavailable
from tenure.model.states import JobState
from tenure.store.postgres import database as database_module
from tenure.store.postgres.database import Database, PoolOptions, Statement
from tenure.store.postgres.migrate import migrate

SAMPLE = """
SELECT state FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tenure-test' AND xact_start IS NOT NULL
"""


@pytest.fixture
def options() -> PoolOptions:
    return PoolOptions(min_size=4, max_size=6)


async def test_no_session_is_ever_idle_in_a_transaction(fresh: Table) -> None:
    """Samples every session while all kinds of writes run: a lock lives as long as a statement, not a round trip."""
    states: Counter[str] = Counter()
    over = asyncio.Event()

    async def sample() -> None:
        async with await psycopg.AsyncConnection.connect(fresh.dsn, autocommit=True) as connection:
            while not over.is_set():
                cursor = await connection.execute(SAMPLE)
                states.update(state for (state,) in await cursor.fetchall())

    async def life(n: int) -> None:
        for _ in range(8):
            parent = await fresh.submit(idempotency_key=str(uuid.uuid4()))
            await fresh.submit(parents=[parent])
            [row] = await fresh.start(parent)
            if n % 2:
                await fresh.give_back(parent, row.fence)
                [row] = await fresh.start(parent)
            await fresh.end(parent, row.fence, JobState.FAILED if n % 3 == 0 else JobState.COMPLETED)

    async with asyncio.TaskGroup() as group:
        sampler = group.create_task(sample())
        await asyncio.gather(*(life(n) for n in range(8)))
        over.set()
        await sampler
    assert states["active"] > 0, "the samples saw nothing at all"
    assert set(states) == {"active"}


async def test_a_coordinator_that_stops_in_mid_transaction_does_not_keep_its_locks(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen between two statements of a pipeline, where no idle timeout of Postgres' applies."""
    version = (await table.sql("SELECT current_setting('server_version_num')::int AS n"))[0].n
    if version < 170_000:
        pytest.skip("transaction_timeout came with Postgres 17")
    id = await table.submit()
    query, thaw = database_module.query, threading.Event()

    def freeze_before_the_second(name: str) -> str:
        if name == "attempts_of":
            thaw.wait(PATIENCE_S)  # in a thread of its own: its event loop stands still, as in a stopped process
        return query(name)

    async def transaction() -> None:
        bounds = PoolOptions(
            min_size=1, max_size=1, statement_timeout_s=0.5, lock_timeout_s=0.3, idle_in_transaction_timeout_s=0.5
        )
        async with Database(table.dsn, bounds, name="frozen") as db:
            await db.transaction([Statement("lock_parents", {"ids": [id]}), Statement("attempts_of", {"id": id})])

    monkeypatch.setattr(database_module, "query", freeze_before_the_second)
    frozen = asyncio.create_task(asyncio.to_thread(asyncio.run, transaction()))
    try:
        sessions = "SELECT state FROM pg_stat_activity WHERE application_name = 'frozen' AND query LIKE '%%KEY SHARE%%'"
        assert {row.state for row in await until(lambda: table.sql(sessions))} == {"active"}
        await until(partial(_gone, table, sessions))
    finally:
        thaw.set()
    with pytest.raises(Unavailable):
        await frozen


async def test_a_process_that_was_paused_within_a_transaction_may_try_again(shared_database: str) -> None:
    """Postgres has hung up on a transaction that stood still."""
    async with Database(shared_database, PoolOptions(min_size=1, max_size=1)) as db:
        with pytest.raises(Unavailable):
            async with db._connection() as connection:
                await connection.execute("SET idle_in_transaction_session_timeout = '50ms'")
                await connection.execute("BEGIN")
                await asyncio.sleep(0.5)
                await connection.execute("SELECT 1")
        assert await db.fetch("time")


async def test_a_connection_to_which_answers_may_be_due_is_not_used_again(shared_database: str) -> None:
    """One whose user was cancelled, and one that is out of step: the next would take their answers for its own."""
    async with Database(shared_database, PoolOptions(min_size=1, max_size=1)) as db:
        sessions = []
        with pytest.raises(asyncio.CancelledError):
            async with db._connection() as connection:
                sessions.append(connection.pgconn.backend_pid)
                raise asyncio.CancelledError
        with pytest.raises(Unavailable, match="out of step"):
            async with db._connection() as connection:
                sessions.append(connection.pgconn.backend_pid)
                await connection.execute("BEGIN")
        async with db._connection() as connection:
            sessions.append(connection.pgconn.backend_pid)
        assert len(set(sessions)) == 3
        assert await db.fetch("time")


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyError])
async def test_a_transaction_that_is_given_up_half_way_leaves_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A caller who goes away between two statements must not leave the first one's work behind."""
    query, key = database_module.query, str(uuid.uuid4())

    def give_up(name: str) -> str:
        if name == "insert_jobs":
            raise error
        return query(name)

    with monkeypatch.context() as patched:
        patched.setattr(database_module, "query", give_up)
        with pytest.raises(error):
            await table.submit(idempotency_key=key, timeout_s=1.0)  # a plain job takes one statement
    assert await table.sql("SELECT 1 FROM tenure.idempotency WHERE key = %s", key) == []
    for _ in range(8):  # every connection of the pool is as good as before
        assert await table.submit(idempotency_key=str(uuid.uuid4()))


# -- Postgres does not answer --


@pytest_asyncio.fixture
async def proxied(shared_database: str, proxy: ProxyFactory) -> Proxy:
    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(shared_database)
    return await proxy(int(parts["port"]), str(parts["host"]))


@pytest_asyncio.fixture
async def remote(shared_database: str, proxied: Proxy) -> AsyncIterator[Database]:
    """A pool whose connections run through the proxy."""
    options = PoolOptions(min_size=1, max_size=1, wait_s=1.0)
    async with Database(_through(shared_database, proxied), options, name="remote") as db:
        await db.fetch("cluster")
        yield db


def _through(dsn: str, proxied: Proxy) -> str:
    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn)
    return psycopg.conninfo.make_conninfo(**{**parts, "host": "127.0.0.1", "port": str(proxied.port)})


async def test_a_cut_connection_is_unavailable_and_the_next_call_goes_through(remote: Database, proxied: Proxy) -> None:
    await proxied.cut()
    with pytest.raises(Unavailable):
        await remote.fetch("cluster")
    await until(lambda: remote.fetch("cluster"))


@pytest.mark.parametrize("after_bytes", [1, 40, 90])
async def test_a_start_cut_off_in_its_answer_is_found_again_by_its_claim(
    table: Table, remote: Database, proxied: Proxy, after_bytes: int
) -> None:
    id = await table.submit()
    columns = {"worker": "w1", "ids": [id], "attempts": [0], "leases": [7], "revisions": [70], "slots": [""]}
    proxied.reset_after(after_bytes, Direction.TO_CLIENT)
    with pytest.raises(Unavailable):
        await remote.fetch("start_attempts", columns)
    rows = await until(lambda: table.db.fetch("started_by_claim", columns))  # the server may still be at it
    assert (rows[0].id, rows[0].attempt) == (str(id), 1)


async def test_a_submit_cut_off_in_its_commit_is_whole_or_not_at_all(
    table: Table, remote: Database, proxied: Proxy
) -> None:
    """Cut after more and more bytes of the answer: whatever the client was told, row, edge and key stand together."""
    written = 0
    for after_bytes in (1, 30, 60, 120):
        parent, key = await table.submit(), str(uuid.uuid4())
        through = Table(remote, table.dsn)
        proxied.reset_after(after_bytes, Direction.TO_CLIENT)
        with pytest.raises(Unavailable):
            await through.submit(parents=[parent], idempotency_key=key)
        proxied.heal()
        busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'remote' AND xact_start IS NOT NULL"
        await until(partial(_gone, table, busy))
        jobs = await table.sql("SELECT id, waiting_on FROM tenure.job WHERE idempotency_key = %s", key)
        keys = await table.sql("SELECT job_id FROM tenure.idempotency WHERE key = %s", key)
        edges = await table.sql("SELECT child_id FROM tenure.dependency WHERE parent_id = %s", parent)
        assert [row.id for row in jobs] == [row.job_id for row in keys] == [row.child_id for row in edges]
        assert [row.waiting_on for row in jobs] in ([], [1])
        written += len(jobs)
        await until(lambda: remote.fetch("cluster"))


async def _gone(table: Table, rows: str) -> bool:
    return not await table.sql(rows)


async def test_a_pool_that_is_used_up_answers_within_its_wait(shared_database: str) -> None:
    options = PoolOptions(min_size=1, max_size=1, wait_s=0.2)
    async with Database(shared_database, options) as db:
        async with db._pool.connection():
            before = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable, match=r"0\.2 s"):
                await db.fetch("cluster")
            assert asyncio.get_running_loop().time() - before < 5
        assert await db.fetch("cluster")


async def test_a_row_that_somebody_else_holds_is_unavailable_within_the_lock_timeout(
    shared_database: str, table: Table
) -> None:
    id, other = await table.submit(), await table.submit()
    options = PoolOptions(min_size=1, max_size=1, lock_timeout_s=0.1)
    async with (
        Database(shared_database, options) as db,
        await psycopg.AsyncConnection.connect(shared_database) as stranger,
    ):
        await stranger.execute("SELECT 1 FROM tenure.job WHERE id = %s FOR UPDATE", (id,))
        impatient = Table(db, shared_database)
        with pytest.raises(Unavailable):
            await impatient.start_seen([(id, 0)])
        assert await impatient.start_seen([(other, 0)])
        await stranger.rollback()
        assert await impatient.start_seen([(id, 0)])


@pytest_asyncio.fixture
async def quick_to_see_deadlocks(table: Table) -> AsyncIterator[None]:
    """Make the server look for deadlocks at once."""
    await table.sql("ALTER SYSTEM SET deadlock_timeout = '10ms'")
    await table.sql("SELECT pg_reload_conf()")
    yield
    await table.sql("ALTER SYSTEM RESET deadlock_timeout")
    await table.sql("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("quick_to_see_deadlocks")
async def test_a_deadlock_is_tried_again(table: Table) -> None:
    """Transactions lock two jobs in opposite order, many at once: the victims run again and all succeed."""
    a, b = await table.submit(), await table.submit()
    fence = {uuid.UUID(row.id): row.fence for row in await table.start(a, b)}

    def progress(first: uuid.UUID, second: uuid.UUID) -> list[Statement]:
        return [
            Statement("report_progress", {"ids": [id], "fences": [fence[id]], "fractions": [0.5], "messages": [""]})
            for id in (first, second)
        ]

    before = await _deadlocks(table)
    for _ in range(100):
        answers = await asyncio.gather(
            *(table.db.transaction(progress(a, b) if n % 2 else progress(b, a)) for n in range(4))
        )
        assert all(len(rows) == 1 for answer in answers for rows in answer)
        if await _deadlocks(table) > before:
            return
    pytest.fail("no deadlock came about")


async def _deadlocks(table: Table) -> int:
    await table.sql("SELECT pg_stat_clear_snapshot()")
    return int((await table.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))[0][0])


async def test_a_database_that_is_gone_is_unavailable(proxied: Proxy, remote: Database) -> None:
    await proxied.refuse()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await remote.fetch("cluster")


@pytest.mark.slow
async def test_a_long_outage_does_not_make_the_return_long(proxied: Proxy, remote: Database) -> None:
    """Connections are tried again every few seconds however long nobody answered: the pauses do not grow with it."""
    await remote.fetch("cluster")
    await proxied.refuse()
    # Pauses that doubled would have come to one of 16 s by then, begun a moment before the end.
    for _ in range(4):
        with pytest.raises(Unavailable):
            await remote.fetch("cluster")
        await asyncio.sleep(4.0)
    await proxied.accept()

    async def answers() -> bool:
        try:
            return bool(await remote.fetch("cluster"))
        except Unavailable:
            return False

    async with asyncio.timeout(10.0):
        await until(answers)


# -- Postgres is frozen: it neither answers nor goes away --

FROZEN = PoolOptions(
    min_size=2,
    max_size=2,
    wait_s=0.5,
    statement_timeout_s=0.5,
    lock_timeout_s=0.3,
    idle_in_transaction_timeout_s=0.5,
)


@pytest_asyncio.fixture
async def freezing(own_postgres: Callable[..., EmbeddedPostgres]) -> AsyncIterator[tuple[EmbeddedPostgres, Database]]:
    """A server of the test's own with the schema, and a pool of two on it, whose bounds are short."""
    server = await asyncio.to_thread(own_postgres)
    await migrate(server.dsn)
    async with Database(server.dsn, FROZEN, name="freezing") as db:
        await db._pool.wait(PATIENCE_S)  # one connection alone would serve any two statements, one after the other
        try:
            yield server, db
        finally:
            server.resume()


async def test_a_frozen_server_is_unavailable_within_the_bound(
    freezing: tuple[EmbeddedPostgres, Database],
) -> None:
    """SIGSTOP: the kernel acknowledges what is sent, so that no timeout of TCP or of the server applies."""
    server, db = freezing
    table = Table(db, server.dsn)
    id = await table.submit()
    server.pause()
    async with asyncio.timeout(PATIENCE_S):
        told = await asyncio.gather(
            db.fetch("cluster"),
            db.transaction([Statement("lock_parents", {"ids": [id]}), Statement("attempts_of", {"id": id})]),
            db.fetch("cluster"),  # the pool has no third
            return_exceptions=True,
        )
    assert [type(one) for one in told] == [Unavailable] * 3
    assert [str(one).partition(":")[0] for one in told] == [
        f"Postgres did not answer within {FROZEN.answer_within_s:g} s",
        f"Postgres did not answer within {FROZEN.answer_within_s:g} s",
        f"no Postgres connection became free within {FROZEN.wait_s:g} s",
    ]
    server.resume()
    assert await until(lambda: table.row(id))


async def test_a_connection_given_up_is_never_used_again(freezing: tuple[EmbeddedPostgres, Database]) -> None:
    """The late answer to a statement that was given up is nobody's: each question gets its own answer afterwards."""
    server, db = freezing
    table = Table(db, server.dsn)
    ids = [await table.submit() for _ in range(8)]
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'freezing'"
    before = {row.pid for row in await table.sql(sessions)}
    server.pause()
    async with asyncio.timeout(PATIENCE_S):
        told = await asyncio.gather(*(table.row(id) for id in ids[:2]), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable] * 2
    server.resume()
    for id in ids:
        assert (await until(partial(table.row, id))).id == id
    assert before.isdisjoint({row.pid for row in await table.sql(sessions)})


async def test_a_caller_who_goes_away_from_a_frozen_server_is_let_go(
    freezing: tuple[EmbeddedPostgres, Database],
) -> None:
    """Cancelled while Postgres is silent: the cancellation comes through within the bound, too."""
    server, db = freezing
    server.pause()
    calls = [asyncio.create_task(db.fetch("cluster")) for _ in range(2)]
    await asyncio.sleep(0.1)
    for call in calls:
        call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        assert [type(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
    server.resume()
    assert await until(lambda: db.fetch("cluster"))
