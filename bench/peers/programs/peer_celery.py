"""Celery on a Redis that keeps nothing, with the prefork pool of one process per core.

From its optimising guide: a prefetch multiplier of 64 to 128 for short tasks, results ignored. Messages are
acknowledged before they run, its default: what a killed worker held is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

import celery
import redis

PREFETCH = 128


def _app(place: str, began: Callable[[str], None]) -> tuple[Any, Any]:
    app = celery.Celery(broker=place)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=PREFETCH,
        worker_redirect_stdouts=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
    )

    def noop(payload: str) -> None:
        began(payload)

    return app, app.task(name="noop")(noop)


class _Submitter:
    def __init__(self, place: str) -> None:
        self._app, self._task = _app(place, lambda payload: None)
        self._redis = redis.Redis.from_url(place)
        self._connection = self._app.connection_for_write()

    async def submit(self, payload: str) -> None:
        await asyncio.to_thread(self._task.delay, payload)

    async def submit_bulk(self, jobs: int) -> None:
        """Send over one connection: Celery has no call for many."""
        with self._app.amqp.Producer(self._connection) as producer:
            for _ in range(jobs):
                self._task.apply_async(("",), producer=producer)

    async def is_empty(self) -> bool:
        return not self._redis.llen("celery") and not self._redis.hlen("unacked")


class _Celery:
    async def prepare(self, place: str) -> None:
        redis.Redis.from_url(place).flushall()

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        logging.disable(logging.WARNING)
        app, _ = _app(place, began)
        arguments = ["--quiet", "worker", "--loglevel=ERROR", f"--hostname=w{os.getpid()}@bench",
                     "--without-gossip", "--without-mingle"]  # fmt: skip
        app.worker_main(arguments)

    async def submitter(self, place: str, connections: int) -> _Submitter:
        return _Submitter(place)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(main)


PEER = _Celery()
