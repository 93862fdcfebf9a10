"""Procrastinate on psycopg, with the asynchronous parallelism that its guide advises for jobs that wait (20 here).

A worker deletes nothing: finished jobs stay, as in tenure's history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from procrastinate import App, PsycopgConnector

CONCURRENCY = 20
LEFT = "SELECT NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS is_empty"


def _app(place: str, connections: int, began: Callable[[str], None]) -> tuple[App, Any]:
    app = App(connector=PsycopgConnector(conninfo=place, min_size=connections, max_size=connections))

    async def noop(payload: str) -> None:
        began(payload)

    return app, app.task(name="noop")(noop)


def _nothing(payload: str) -> None:
    pass


class _Submitter:
    def __init__(self, app: App, task: Any) -> None:
        self._app = app
        self._task = task

    async def submit(self, payload: str) -> None:
        await self._task.defer_async(payload=payload)

    async def submit_bulk(self, jobs: int) -> None:
        await self._task.batch_defer_async(*({"payload": ""} for _ in range(jobs)))

    async def is_empty(self) -> bool:
        row = await self._app.connector.execute_query_one_async(LEFT)
        return bool(row["is_empty"])


class _Procrastinate:
    async def prepare(self, place: str) -> None:
        app, _ = _app(place, 1, _nothing)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        app, _ = _app(place, CONCURRENCY + 1, began)
        async with app.open_async():
            await app.run_worker_async(concurrency=CONCURRENCY)

    async def submitter(self, place: str, connections: int) -> _Submitter:
        app, task = _app(place, connections, _nothing)
        await app.open_async()
        return _Submitter(app, task)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(main)


PEER = _Procrastinate()
