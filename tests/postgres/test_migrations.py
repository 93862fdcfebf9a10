"""Migrations: from nothing, again, several at once, killed half-way, and from the future."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import Connection
from tests.fixtures.postgres import PostgresServer
from tests.postgres.conftest import until

from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.model.errors import ConfigurationError, Unavailable
from tenure.store.postgres import ahead
from tenure.store.postgres import migrate as migrations
from tenure.store.postgres.database import Database, PoolOptions
from tenure.store.postgres.migrate import _config, locked, migrate, status

MIGRATE = """
import asyncio, sys
from tenure.store.postgres.migrate import migrate
asyncio.run(migrate(sys.argv[1]))
"""
VERSIONS = resources.files("tenure.store.postgres.migrations").joinpath("versions")


def _modules() -> list[str]:
    return [file.name for file in VERSIONS.iterdir() if file.name.endswith(".py") and file.name[0].isdigit()]


def _revisions() -> list[str]:
    """The files that they run, in order."""
    return sorted(file.name for file in VERSIONS.iterdir() if file.name.endswith(".sql"))


def _schema(dsn: str) -> list[tuple[object, ...]]:
    """Everything of the schema that can differ: columns, indexes, constraints, functions."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(
            """
            SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
            FROM information_schema.columns WHERE table_schema = 'tenure' AND table_name NOT LIKE 'schema~_%' ESCAPE '~'
            UNION ALL
            SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes
            WHERE schemaname = 'tenure' AND tablename NOT LIKE 'schema~_%' ESCAPE '~'
            UNION ALL
            SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
            FROM pg_constraint WHERE connamespace = 'tenure'::regnamespace AND conname NOT LIKE 'schema~_%' ESCAPE '~'
            UNION ALL
            SELECT 'function', proname, '', md5(prosrc), '', '' FROM pg_proc WHERE pronamespace = 'tenure'::regnamespace
            UNION ALL
            SELECT 'options', relname, '', array_to_string(reloptions, ','), '', ''
            FROM pg_class WHERE relnamespace = 'tenure'::regnamespace AND reloptions IS NOT NULL
            ORDER BY 1, 2, 3, 4
            """
        ).fetchall()


async def test_a_user_that_may_not_create_schemas_migrates_one_made_for_it(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE bounded LOGIN PASSWORD 'x'")
        connection.execute("CREATE SCHEMA tenure AUTHORIZATION bounded")
    try:
        bounded = make_conninfo(empty_database, user="bounded", password="x")
        assert (await migrate(bounded)).applied
        assert not (await migrate(bounded)).applied
    finally:
        with psycopg.connect(empty_database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY bounded CASCADE; DROP ROLE bounded")


async def test_an_empty_database_gets_the_whole_schema_and_then_nothing_more(empty_database: str) -> None:
    assert (await status(empty_database)).current is None
    first = await migrate(empty_database)
    assert first.is_current
    assert len(first.applied) == len(_modules())
    again = await migrate(empty_database)
    assert (again.current, again.applied) == (first.current, ())
    assert (await status(empty_database)).is_current


async def test_the_schema_is_the_sum_of_the_migrations(empty_database: str, database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenure")
        for name in _revisions():
            connection.execute(VERSIONS.joinpath(name).read_text(encoding="utf-8").encode())
    assert _schema(empty_database) == _schema(database)


async def test_several_coordinators_may_migrate_at_once(empty_database: str) -> None:
    answers = await asyncio.gather(*(migrate(empty_database) for _ in range(4)))
    assert all(answer.is_current for answer in answers)
    assert sorted(len(answer.applied) for answer in answers) == [0, 0, 0, len(_modules())]


async def test_a_standby_is_not_migrated_but_waited_for(empty_database: str) -> None:
    read_only = psycopg.conninfo.make_conninfo(empty_database, options="-c default_transaction_read_only=on")
    with pytest.raises(Unavailable, match="is a standby"):
        await migrate(read_only)
    assert (await status(empty_database)).current is None


async def test_a_killed_migration_leaves_the_revision_before_and_can_be_run_again(empty_database: str) -> None:
    """It is killed while it waits, in the middle of the revision, for a name that an open transaction has taken."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenure")
    with psycopg.connect(empty_database) as blocker:
        blocker.execute("CREATE TABLE tenure.dependency ()")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATE, empty_database)
        try:
            await until(partial(_somebody_waits, empty_database))
        finally:
            process.kill()
            await process.wait()
        blocker.rollback()
        tables = blocker.execute("SELECT to_regclass('tenure.job')").fetchone()
    assert tables == (None,)
    assert (await status(empty_database)).current is None
    assert (await migrate(empty_database)).is_current


async def test_a_revision_that_is_cut_off_leaves_nothing_of_itself(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = VERSIONS.joinpath(_revisions()[0]).read_text(encoding="utf-8")
    bad = text + "\nSELECT 1 / 0;\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: bad)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(empty_database)
    monkeypatch.undo()
    with psycopg.connect(empty_database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'tenure'").fetchone()
    assert tables is not None
    assert tables[0] <= 1  # Alembic's own, at most
    assert (await status(empty_database)).current is None
    assert (await migrate(empty_database)).is_current


async def test_a_schema_from_the_future_is_refused_and_left_alone(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE tenure.schema_version SET version_num = '9999'")
    before = _schema(database)
    with pytest.raises(ConfigurationError, match="9999"):
        await migrate(database)
    assert not (await status(database)).is_current
    assert _schema(database) == before


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_pool_without_the_schema_says_what_to_do(empty_database: str) -> None:
    async with Database(empty_database, PoolOptions(min_size=1, max_size=1)) as db:
        with pytest.raises(ConfigurationError) as refused:
            await db.fetch("cluster")
    assert refused.value.hint == "run: tenure db migrate"


@pytest.fixture
def plain_role(postgres_server: PostgresServer) -> Iterator[str]:
    """A role that may do nothing special: as tenure runs on managed Postgres."""
    name = "plain_tenure_owner"
    drop = sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name))
    postgres_server.execute(drop)
    postgres_server.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEDB NOCREATEROLE").format(sql.Identifier(name))
    )
    yield name
    postgres_server.execute(drop)


async def test_no_special_rights_are_needed(postgres_server: PostgresServer, plain_role: str) -> None:
    dsn = postgres_server.create_database()
    try:
        name = dsn.rpartition("/")[2].partition("?")[0]
        postgres_server.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(plain_role))
        )
        parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn)
        own = psycopg.conninfo.make_conninfo(**{**parts, "user": plain_role, "password": "x"})
        assert (await migrate(own)).is_current
        async with Database(own, PoolOptions(min_size=1, max_size=1)) as db:
            params = {"leader": "c", "term": 5, "etcd_cluster_id": "1", "etcd_revision": 5}
            [row] = await db.fetch("take_leadership", params)
            assert row.epoch == 1
    finally:
        postgres_server.drop_database(dsn)


# -- from 0002, with old code beside --

WAITED_FOR = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002")
EDGE = "INSERT INTO tenure.dependency (child_id, parent_id, parent_state) VALUES (gen_random_uuid(), %s, 'completed')"
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('tenure.dependency_settled')"
OLD_FUNCTIONS = """
SELECT proname, md5(prosrc) FROM pg_proc
WHERE pronamespace = 'tenure'::regnamespace AND proname <> 'pairs'  -- leaves out labels that no old code writes
"""


@pytest.fixture
def at_0002(empty_database: str) -> str:
    _upgrade_to_0002(empty_database)
    return empty_database


def _upgrade_to_0002(dsn: str) -> None:
    def upgrade(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE SCHEMA tenure")
        connection.commit()
        command.upgrade(_config(connection), "0002")
        connection.commit()

    locked(dsn, upgrade)


async def test_a_table_that_is_in_use_gets_its_index_while_old_code_writes_on(at_0002: str) -> None:
    with psycopg.connect(at_0002, autocommit=True) as old, psycopg.connect(at_0002) as busy:
        old.execute("SET lock_timeout = '5s'")
        functions: dict[str, str] = dict(old.execute(OLD_FUNCTIONS).fetchall())
        busy.execute(EDGE, [WAITED_FOR[0]])
        migrating = asyncio.create_task(migrate(at_0002))
        await until(partial(_an_index_waits, at_0002))
        for _ in range(3):
            old.execute("SELECT tenure.insert_edges(ARRAY[gen_random_uuid()], ARRAY[%s::uuid])", [WAITED_FOR[1]])
            old.execute(EDGE, [WAITED_FOR[1]])
        busy.execute(EDGE, [WAITED_FOR[1]])
        assert not migrating.done()
        busy.commit()
        assert (await migrating).is_current
        assert old.execute(INDEX).fetchall() == [(True,)]
        after: dict[str, str] = dict(old.execute(OLD_FUNCTIONS).fetchall())
    assert {name: after[name] for name in functions} == functions, "what old code calls is as it was"


async def test_a_table_in_partitions_gets_its_index_partition_by_partition(at_0002: str) -> None:
    unsuccessful = (
        "SELECT count(*) FILTER (WHERE i.indisvalid), count(*),"
        " count(*) FILTER (WHERE c.relname LIKE '%\\_history\\_unsuccessful')"
        " FROM pg_inherits h JOIN pg_index i ON i.indexrelid = h.inhrelid JOIN pg_class c ON c.oid = h.inhrelid"
        " WHERE h.inhparent = 'tenure.history_unsuccessful'::regclass"
    )
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tenure.history'::regclass"
    with psycopg.connect(at_0002, autocommit=True) as old:
        week = "PARTITION OF tenure.history FOR VALUES FROM ('2020-01-06') TO ('2020-01-13')"
        old.execute(f"CREATE TABLE tenure.history_2020_w02 {week}".encode())
        [(before,)] = old.execute(partitions).fetchall()
        assert (await migrate(at_0002)).is_current
        [(valid, all_of_them, made_ahead)] = old.execute(unsuccessful).fetchall()
    assert made_ahead == before and valid == all_of_them >= before >= 2, "and none was made twice"


async def test_an_index_that_was_cut_off_is_made_anew(at_0002: str) -> None:
    with psycopg.connect(at_0002, autocommit=True) as other, psycopg.connect(at_0002) as busy:
        busy.execute(EDGE, [WAITED_FOR[0]])
        migrating = asyncio.create_task(migrate(at_0002))
        await until(partial(_an_index_waits, at_0002))
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        with pytest.raises(Unavailable):
            await migrating
        assert other.execute(INDEX).fetchall() == [(False,)]
        busy.commit()
        assert (await migrate(at_0002)).is_current
        assert other.execute(INDEX).fetchall() == [(True,)]


async def test_several_may_migrate_a_table_in_use_and_none_waits_for_the_other_for_ever(at_0002: str) -> None:
    with psycopg.connect(at_0002) as busy:
        busy.execute(EDGE, [WAITED_FOR[0]])
        migrating = [asyncio.create_task(migrate(at_0002)) for _ in range(4)]
        await until(partial(_an_index_waits, at_0002))
        busy.commit()
        assert all(answer.is_current for answer in await asyncio.gather(*migrating))


async def test_whoever_holds_history_for_long_is_not_waited_for_at_the_cost_of_others(
    at_0002: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indexes are there already; a dump reads history, and a job ends meanwhile."""
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.1)
    monkeypatch.setattr(migrations, "LOCK_TRIES", 2)
    with psycopg.connect(at_0002, autocommit=True) as connection:
        _make_indexes(connection)
    with psycopg.connect(at_0002, autocommit=True) as old, psycopg.connect(at_0002) as busy:
        busy.execute("DELETE FROM tenure.history")
        with pytest.raises(Unavailable, match="2 times"):
            await migrate(at_0002)
        old.execute("SET lock_timeout = '20s'")
        monkeypatch.setattr(migrations, "LOCK_TRIES", 60)
        migrating = asyncio.create_task(migrate(at_0002))
        await until(partial(_somebody_waits_for_history, at_0002))
        old.execute("DELETE FROM tenure.history")
        assert not migrating.done()
        busy.commit()
        assert (await migrating).is_current


def _make_indexes(connection: psycopg.Connection[Any]) -> None:
    """Make those that are made ahead of the revision."""
    for index in ahead.AHEAD:
        if index.table == "dependency":
            connection.execute(f"CREATE INDEX {index.name} ON tenure.{index.table} {index.what}".encode())
    for (name,) in connection.execute(
        "SELECT relid::regclass::text FROM pg_partition_tree('tenure.history') WHERE isleaf"
    ).fetchall():
        made = f"{name.removeprefix('tenure.')}_history_unsuccessful"
        what = f"{made} ON {name} (id) WHERE state IN ('failed', 'canceled')"
        connection.execute(f"CREATE INDEX {what}".encode())


SLOWLY = "autovacuum_vacuum_threshold = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
OLD_JOBS = """
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason)
SELECT gen_random_uuid(), 'default', 'k', 'default', 'completed', 0, now(), now(), 'null', 1, 0, 0, now(), 10, 3, 1, '',
       false, ''
FROM generate_series(1, 4000)
"""


async def test_an_autovacuum_of_history_gives_way_to_a_migration(
    own_postgres: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indexes are there already: making them ahead would cancel it, too."""
    monkeypatch.setattr(migrations, "LOCK_TRIES", 1)
    dsn = own_postgres(settings={"autovacuum": "on", "autovacuum_naptime": "1s"}).dsn
    _upgrade_to_0002(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        _make_indexes(connection)
        connection.execute(OLD_JOBS)
        [(partition,)] = connection.execute("SELECT DISTINCT tableoid::regclass::text FROM tenure.history").fetchall()
        connection.execute(f"ALTER TABLE {partition} SET (autovacuum_vacuum_scale_factor = 0, {SLOWLY})".encode())
        connection.execute("DELETE FROM tenure.history WHERE id < '80000000-0000-4000-8000-000000000000'")
    await until(partial(_is_vacuumed, dsn))
    assert (await migrate(dsn)).is_current


async def _is_vacuumed(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_stat_progress_vacuum v JOIN pg_partition_tree('tenure.history') h ON h.relid = v.relid"
        )
        return bool(await cursor.fetchall())


async def _somebody_waits_for_history(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = to_regclass('tenure.history')"
        )
        return bool(await cursor.fetchall())


async def _an_index_waits(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event = 'virtualxid'"
        )
        return bool(await cursor.fetchall())


async def _somebody_waits(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'tenure-migrate' AND wait_event_type = 'Lock' AND wait_event = 'transactionid'"
        )
        return bool(await cursor.fetchall())
