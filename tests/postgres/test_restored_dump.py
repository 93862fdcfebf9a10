"""A dump by pg_dump, restored in the very server from which it came: system and timeline are what they were."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.conftest import Table

from tenure.cli.embedded.binaries import postgres_folder
from tenure.store.postgres import roles
from tenure.store.postgres.database import Database, PoolOptions


def run(program: str, *arguments: str) -> None:
    path = postgres_folder() / program
    if not path.exists():
        pytest.skip(f"no {program} in {path.parent}")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=120, check=False)
    if "server version mismatch" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


async def take(db: Database, term: int) -> Any:
    seen = {"leader": "c1", "term": term, "etcd_cluster_id": "7", "etcd_revision": term}
    [row] = await db.fetch("take_leadership", seen)
    return row


async def test_it_is_noticed_and_starts_nothing_before(
    fresh: Table, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    await take(fresh.db, 10)
    going, ready = await fresh.submit(), await fresh.submit()
    [held] = await fresh.start(going)
    file = str(tmp_path / "tenure.dump")
    await asyncio.to_thread(
        run, "pg_dump", f"--dbname={fresh.dsn}", "--schema=tenure", "--format=custom", f"--file={file}"
    )
    [after_the_dump] = await fresh.start(ready)
    dsn = await asyncio.to_thread(postgres_server.create_database)
    try:
        options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        await asyncio.to_thread(run, "pg_restore", f"--dbname={dsn}", *options, file)
        async with Database(dsn, PoolOptions(min_size=1, max_size=1)) as db:
            restored = Table(db, dsn)
            assert await restored.start(ready) == []
            row = await take(db, 20)
            assert (row.epoch, row.etcd_lost, row.postgres_restored) == (2, False, True)
            [again] = await restored.start(ready)
            assert again.fence > after_the_dump.fence > held.fence
            [one] = await db.fetch("executing_by_fence", {"ids": [going], "fences": [held.fence]})
            assert one.id == str(going)  # whoever holds it still may end it
        await roles.apply(dsn)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            cursor = await connection.execute(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'tenure'::regnamespace"
                " AND has_function_privilege('public', oid, 'EXECUTE')"
            )
            assert await cursor.fetchall() == []
    finally:
        await asyncio.to_thread(postgres_server.drop_database, dsn)
