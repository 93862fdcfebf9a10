"""Watching the cluster: one look at etcd a second, for all who watch at this coordinator; none while nobody does.

Owns the newest picture, and whom to tell of it. A watcher holds no more than the picture that it was given last: one
who is slow misses those in between. It polls, since claims change thousands of times a second, and counting them by a
watch would cost each job. Called by ``ClusterService``; ``run`` is the body of a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NamedTuple

import structlog

from tenure.coordinator.census import claims_by_worker, readable
from tenure.model.errors import TenureError, Unavailable
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, LeaderValue, WorkerValue
from tenure.store.etcd.port import Etcd

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0


class Picture(NamedTuple):
    """Who is there, by id."""

    leader: str
    """Empty while there is none."""
    coordinators: dict[str, CoordinatorValue]
    workers: dict[str, WorkerValue]
    claims: dict[str, int]
    """How many each worker holds."""


async def look(etcd: Etcd, keys: Keyspace) -> Picture:
    """Read all of it now, each part at its own instant."""
    leader = await etcd.get(keys.leader)
    coordinators = await etcd.list(keys.coordinators)
    workers = await etcd.list(keys.workers)
    return Picture(
        "".join(value.coordinator for _, value in readable([leader] if leader else [], LeaderValue)),
        {keys.last(item.key): value for item, value in readable(coordinators.items, CoordinatorValue)},
        {keys.last(item.key): value for item, value in readable(workers.items, WorkerValue)},
        dict(await claims_by_worker(etcd, keys)),
    )


class ClusterWatch:
    """Tells watchers of changes. ``run`` must be running."""

    def __init__(self, etcd: Etcd, keys: Keyspace) -> None:
        self._etcd = etcd
        self._keys = keys
        self._watchers: set[asyncio.Event] = set()
        self._watched = asyncio.Event()
        self._is_first = asyncio.Event()
        """Set when somebody watches again: to be told at once."""
        self._picture: Picture | None = None
        self._failure: TenureError | None = None
        self._is_closed = False

    async def run(self) -> None:
        """Look for as long as somebody watches, until cancelled."""
        while True:
            await self._watched.wait()
            try:
                picture, failure = await look(self._etcd, self._keys), None
            except TenureError as exc:
                log.info("cluster_not_seen", error=exc.message)
                picture, failure = None, exc
            if self._watchers and (picture, failure) != (self._picture, self._failure):
                self._picture, self._failure = picture, failure
                self._tell()
            self._is_first.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._is_first.wait()

    async def pictures(self) -> AsyncGenerator[Picture, None]:
        """Yield the picture, and again when it has changed.

        Raises:
            Unavailable: this coordinator stops, or etcd does not answer.
        """
        changed = asyncio.Event()
        if not self._watchers:
            self._is_first.set()
        self._watchers.add(changed)
        self._watched.set()
        shown: Picture | None = None
        try:
            while True:
                changed.clear()
                if self._is_closed:
                    raise Unavailable("this coordinator is stopping", hint="ask another one")
                if self._failure is not None:
                    raise self._failure
                if self._picture is not None and self._picture is not shown:
                    shown = self._picture
                    yield shown
                    continue
                await changed.wait()
        finally:
            self._watchers.discard(changed)
            if not self._watchers:
                self._watched.clear()
                self._picture = self._failure = None

    def close(self) -> None:
        """Send watchers elsewhere, those of later, too."""
        self._is_closed = True
        self._tell()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed.set()
