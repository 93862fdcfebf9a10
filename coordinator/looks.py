"""Looks at the stores: does each answer, as ``/readyz`` asks and as ``tenure_coordinator_ready`` tells.

Readiness is about Postgres alone, which submits, cancels and reads need. Without etcd nothing is led or claimed, but a
coordinator that Services left out for it would take those down as well, and all coordinators at once.
"""

from __future__ import annotations

import asyncio

from tenure.coordinator.metrics import LOOP_LATE_S, READY
from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database

EVERY_S = 5.0
LOOP_EVERY_S = 0.5
ETCD_S = 2.0
"""How long etcd may take to answer; what bounds Postgres is the pool's."""


class Looks:
    """Looks now and then, and when asked. ``run`` is the body of a task."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace, clock: Clock) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled; a store that is slow to answer does not delay the look at the other."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_postgres())
            group.create_task(self._look_at_etcd())
            group.create_task(self._look_at_the_loop())

    async def postgres_problem(self) -> str | None:
        """Ask Postgres; say what is wrong."""
        problem: str | None = None
        try:
            await self._database.fetch("cluster")
        except TenureError as exc:
            problem = exc.message
        READY.labels("postgres").set(problem is None)
        return problem

    async def etcd_problem(self) -> str | None:
        """Ask etcd; say what is wrong. A linearizable read, as a member without a quorum answers for itself."""
        problem: str | None = None
        try:
            await self._etcd.get(self._keys.leader, timeout_s=ETCD_S)
        except TenureError as exc:
            problem = exc.message
        READY.labels("etcd").set(problem is None)
        return problem

    async def _look_at_postgres(self) -> None:
        while True:
            await self.postgres_problem()
            await self._clock.sleep(EVERY_S)

    async def _look_at_the_loop(self) -> None:
        while True:
            slept_at = self._clock.monotonic()
            await self._clock.sleep(LOOP_EVERY_S)
            LOOP_LATE_S.observe(max(0.0, self._clock.monotonic() - slept_at - LOOP_EVERY_S))

    async def _look_at_etcd(self) -> None:
        while True:
            await self.etcd_problem()
            await self._clock.sleep(EVERY_S)
