"""Telling submitters: waiting calls are woken by an end that is written here, by ``done/``, and by a re-read.

An end that this process writes wakes them at the commit, one of another coordinator through etcd. The re-read of
Postgres, now and then, alone would suffice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import TenureError, Unavailable
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Compacted, Etcd
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

REREAD_S = 2.0
PAGE_JOBS = 5_000


class Waiters:
    """Who waits for which job. ``watch`` and ``reread`` are bodies of tasks."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace, clock: Clock) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    @asynccontextmanager
    async def waiting(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set when the job may have become terminal. Enter before reading the row."""
        async with self.waiting_for_any((job_id,)) as event:
            yield event

    @asynccontextmanager
    async def waiting_for_any(self, job_ids: Collection[str]) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set when one of the jobs may have become terminal."""
        event = asyncio.Event()
        for job_id in job_ids:
            self._waiting[job_id].add(event)
        try:
            yield event
        finally:
            for job_id in job_ids:
                self._forget(job_id, event)

    def refuse_if_closed(self) -> None:
        """Send waiting callers elsewhere once this coordinator stops.

        Raises:
            Unavailable: ``close`` was called.
        """
        if self._closed:
            raise Unavailable("this coordinator is stopping", hint="ask another one")

    def close(self) -> None:
        """Wake every waiting call, so that none holds up the stop."""
        self._closed = True
        self.wake(list(self._waiting))

    async def watch(self) -> None:
        """Follow ``done/`` for ever. A gap in history is harmless here: the next re-read fills it."""
        prefix = self._keys.done
        start = 0
        while True:
            try:
                async for batch in self._etcd.watch(prefix, start_revision=start, deletions=False):
                    start = batch.revision + 1
                    self.wake(event.item.key[len(prefix) :] for event in batch.events)
            except Compacted:
                start = 0
            except TenureError as exc:
                log.warning("done_watch_interrupted", error=exc.message)
                await self._clock.sleep(0.2)

    async def reread(self) -> None:
        """Ask Postgres now and then which of the awaited jobs are terminal."""
        while True:
            await self._clock.sleep(REREAD_S)
            waiting = [uuid.UUID(job_id) for job_id in self._waiting]
            for start in range(0, len(waiting), PAGE_JOBS):
                try:
                    rows = await self._database.fetch("states_by_id", {"ids": waiting[start : start + PAGE_JOBS]})
                except TenureError as exc:
                    log.warning("waiters_not_reread", error=exc.message)
                    break
                self.wake(str(row.id) for row in rows)

    def wake(self, job_ids: Iterable[str]) -> None:
        """Have whoever waits for these jobs read them again; call it after the commit."""
        for job_id in job_ids:
            for event in self._waiting.get(job_id, ()):
                event.set()

    def _forget(self, job_id: str, event: asyncio.Event) -> None:
        events = self._waiting[job_id]
        events.discard(event)
        if not events:
            del self._waiting[job_id]
