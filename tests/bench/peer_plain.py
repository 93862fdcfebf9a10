"""The plainest queue there is: a table, and workers that delete a row after they have worked on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg


class _Submitter:
    def __init__(self, place: str) -> None:
        self._place = place

    async def submit(self, payload: str) -> None:
        await self._execute("INSERT INTO plain (payload) VALUES (%s)", payload)

    async def submit_bulk(self, jobs: int) -> None:
        await self._execute("INSERT INTO plain (payload) SELECT '' FROM generate_series(1, %s)", jobs)

    async def is_empty(self) -> bool:
        return bool((await self._execute("SELECT NOT EXISTS (SELECT FROM plain)"))[0][0])

    async def _execute(self, query: str, *values: object) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(self._place, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall() if cursor.description is not None else []


class _Plain:
    async def prepare(self, place: str) -> None:
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
            await connection.execute("CREATE TABLE plain (id bigserial PRIMARY KEY, payload text)")

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        take = "DELETE FROM plain WHERE id IN (SELECT id FROM plain LIMIT 50 FOR UPDATE SKIP LOCKED) RETURNING payload"
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
            while True:
                taken = await (await connection.execute(take)).fetchall()
                for (payload,) in taken:
                    began(payload)
                await asyncio.sleep(0 if taken else 0.01)

    async def submitter(self, place: str, connections: int) -> _Submitter:
        return _Submitter(place)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(main)


PEER = _Plain()
