"""PgQueuer on asyncpg and uvloop, as its own command line runs it.

From its performance guide: batches larger than the default of 10 for short jobs (100 here), its autovacuum settings,
a pool for producers and one connection for the worker. Durable tables, its default.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver

BATCH = 100
ENTRYPOINT = "noop"


class _Submitter:
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._queries = Queries(AsyncpgPoolDriver(pool))

    async def submit(self, payload: str) -> None:
        await self._queries.enqueue(ENTRYPOINT, payload.encode())

    async def submit_bulk(self, jobs: int) -> None:
        await self._queries.enqueue([ENTRYPOINT] * jobs, [b""] * jobs, [0] * jobs)

    async def is_empty(self) -> bool:
        return bool(await self._pool.fetchval("SELECT NOT EXISTS (SELECT FROM pgqueuer)"))


class _PgQueuer:
    async def prepare(self, place: str) -> None:
        queries = Queries(AsyncpgDriver(await asyncpg.connect(place)))
        await queries.install()
        await queries.optimize_autovacuum()

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(place)))

        async def noop(job: Any) -> None:
            began(job.payload.decode())

        queuer.entrypoint(ENTRYPOINT)(noop)
        await queuer.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))

    async def submitter(self, place: str, connections: int) -> _Submitter:
        return _Submitter(await asyncpg.create_pool(place, min_size=connections, max_size=connections))

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        uvloop.run(main)


PEER = _PgQueuer()
