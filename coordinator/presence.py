"""Presence: a coordinator's own key in etcd, and what it knows of the others."""

from __future__ import annotations

import asyncio
import random

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.model.trust import renew_every_s
from tenure.store.etcd.keyspace import CoordinatorValue, Keyspace, LeaderValue
from tenure.store.etcd.port import Etcd, Put, Txn
from tenure.store.etcd.view import View

log = structlog.get_logger(__name__)


class Presence:
    """Keeps one coordinator listed under ``coordinators/`` and tells who leads. ``run`` is the body of a task."""

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock, coordinator: str, *, ttl_s: float) -> None:
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._coordinator = coordinator
        self._ttl_s = ttl_s
        self._lease = 0
        self._is_closed = False
        self._others = View(etcd, keys.coordinators, clock)
        self._leader = View(etcd, keys.leader, clock)

    def leader_address(self) -> str | None:
        """Return the leader's gRPC address, if there is a leader and it is known."""
        leader = self._leader.items.get(self._keys.leader)
        if leader is None:
            return None
        try:
            listed = self._others.items.get(self._keys.coordinator(LeaderValue.from_json(leader.value).coordinator))
            return CoordinatorValue.from_json(listed.value).grpc if listed else None
        except ValueError:
            return None  # somebody wrote the key by hand; polling does without hints

    def others(self) -> dict[str, str]:
        """Return the gRPC addresses of the other coordinators that are listed, by id."""
        found = {}
        for key, listed in self._others.items.items():
            try:
                found[self._keys.last(key)] = CoordinatorValue.from_json(listed.value).grpc
            except ValueError:
                continue  # written by hand
        found.pop(self._coordinator, None)
        return {id: address for id, address in found.items() if address}

    async def run(self, value: CoordinatorValue) -> None:
        """Stay listed until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._others.run())
            group.create_task(self._leader.run())
            group.create_task(self._stay_listed(value))

    async def close(self) -> None:
        """Take the key away at once."""
        self._is_closed = True
        lease, self._lease = self._lease, 0
        if lease:
            await self._revoke(lease)

    async def _stay_listed(self, value: CoordinatorValue) -> None:
        while not self._is_closed:
            try:
                await self._renew_or_list(value)
            except TenureError as exc:
                log.warning("presence_unsure", error=exc.message)
            await self._clock.sleep(renew_every_s(self._ttl_s) * random.uniform(0.8, 1.0))

    async def _renew_or_list(self, value: CoordinatorValue) -> None:
        if self._lease:
            renewals = await self._etcd.renew([self._lease], timeout_s=renew_every_s(self._ttl_s))
            if not renewals or renewals[0].ttl_s > 0:
                return  # kept, or not known: the next round asks again
            self._lease = 0
        grant = await self._etcd.grant(self._ttl_s)
        await self._etcd.txn(Txn((), (Put(self._keys.coordinator(self._coordinator), value.to_json(), grant.lease),)))
        if self._is_closed:  # meanwhile
            await self._revoke(grant.lease)
            return
        self._lease = grant.lease

    async def _revoke(self, lease: int) -> None:
        try:
            await self._etcd.revoke(lease)
        except TenureError as exc:
            log.info("presence_not_revoked", error=exc.message)  # the TTL does it
