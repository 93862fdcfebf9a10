"""ClusterService: who is there, who leads, who holds what; and hints between coordinators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from importlib.metadata import version
from typing import Any

import grpc

from tenure.coordinator.access import sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.audit import Audit
from tenure.coordinator.census import claims_by_worker, readable
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.watch_cluster import ClusterWatch, Picture
from tenure.model.ids import parse_id
from tenure.store.etcd.keyspace import ClaimValue, CoordinatorValue, Keyspace, LeaderValue, WorkerValue
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database
from tenure.store.postgres.migrate import SchemaStatus
from tenure.v1 import cluster_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

MAX_SHOWN = 5_000
"""Workers, and pools, in one message to watchers."""


class ClusterService(ClusterServiceServicer):
    """The service over etcd's keys. Everything is read when it is asked for; watchers share a look."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        schema: SchemaStatus,
        revoker: Revoker,
        deliver_hint: Callable[[frozenset[int]], bool],
        audit: Audit,
        watch: ClusterWatch,
    ) -> None:
        self._audit = audit
        self._watch = watch
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._schema = schema
        self._revoker = revoker
        self._deliver_hint = deliver_hint

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        """Read coordinators, the leader and the versions of everything."""
        remembered = (await self._database.fetch("cluster"))[0]
        leader = await self._etcd.get(self._keys.leader)
        leader_id = "".join(value.coordinator for _, value in readable([leader] if leader else [], LeaderValue))
        listing = await self._etcd.list(self._keys.coordinators)
        coordinators = [
            _coordinator(self._keys.last(item.key), value, leader_id)
            for item, value in readable(listing.items, CoordinatorValue)
        ]
        return pb.GetClusterResponse(
            coordinators=coordinators,
            leader=leader_id,
            epoch=remembered.epoch,
            etcd_version=(await self._etcd.status()).version,
            postgres_version=remembered.postgres_version,
            schema_version=self._schema.current,
            version=version("tenure"),
        )

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> pb.ListWorkersResponse:
        """Read the registered workers and count their claims."""
        workers = await self._etcd.list(self._keys.workers)
        held = await claims_by_worker(self._etcd, self._keys)
        messages = []
        for item, value in readable(workers.items, WorkerValue):
            id = self._keys.last(item.key)
            messages.append(_worker(id, value, held[id]))
        return pb.ListWorkersResponse(workers=messages)

    async def WatchCluster(
        self, request: pb.WatchClusterRequest, context: Context
    ) -> AsyncIterator[pb.WatchClusterResponse]:
        """Stream who is there, at each change, until the caller leaves."""
        async with aclosing(self._watch.pictures()) as pictures:
            async for picture in pictures:
                yield _picture(picture)

    async def ListClaims(self, request: pb.ListClaimsRequest, context: Context) -> pb.ListClaimsResponse:
        """Read every claim."""
        listing = await self._etcd.list(self._keys.claims)
        claims = []
        for item, value in readable(listing.items, ClaimValue):
            if not sees(value.namespace):
                continue
            claims.append(
                pb.HeldClaim(
                    job_id=self._keys.last(item.key),
                    worker=value.worker,
                    namespace=value.namespace,
                    kind=value.kind,
                    route=value.route,
                    lease=item.lease,
                    revision=item.create_revision,
                    claimed_at=wire.timestamp(_time(value.claimed_at)),
                )
            )
        return pb.ListClaimsResponse(claims=claims)

    @audited
    async def RevokeClaim(self, request: pb.RevokeClaimRequest, context: Context) -> pb.RevokeClaimResponse:
        """Take a job away from its worker."""
        return pb.RevokeClaimResponse(revoked=await self._revoker.revoke(parse_id(request.job_id, "job_id")))

    async def HintReady(self, request: pb.HintReadyRequest, context: Context) -> pb.HintReadyResponse:
        """Pass a hint on to the dispatcher, if this coordinator leads."""
        self._deliver_hint(frozenset(request.lanes))
        return pb.HintReadyResponse()


def _coordinator(id: str, value: CoordinatorValue, leader: str) -> pb.Coordinator:
    return pb.Coordinator(
        id=id,
        grpc=value.grpc,
        http=value.http,
        version=value.version,
        is_leader=id == leader,
        started_at=wire.timestamp(_time(value.started_at)),
    )


def _worker(id: str, value: WorkerValue, claims: int) -> pb.Worker:
    return pb.Worker(
        id=id,
        pools=value.pools,
        kinds=value.kinds,
        capacity=value.capacity,
        claims=claims,
        labels=value.labels,
        mode=value.mode,
        host=value.host,
        version=value.version,
        draining=value.draining,
        started_at=wire.timestamp(_time(value.started_at)),
    )


def _picture(picture: Picture) -> pb.WatchClusterResponse:
    pools: dict[str, pb.ServedPool] = {}
    for value in picture.workers.values():
        for path in set(value.pools):
            pool = pools.setdefault(path, pb.ServedPool(path=path))
            pool.workers += 1
            pool.capacity += 0 if value.draining else value.capacity
    workers = sorted(picture.workers.items())
    return pb.WatchClusterResponse(
        coordinators=[_coordinator(id, value, picture.leader) for id, value in sorted(picture.coordinators.items())],
        leader=picture.leader,
        workers=[_worker(id, value, picture.claims.get(id, 0)) for id, value in workers[:MAX_SHOWN]],
        more_workers=max(0, len(workers) - MAX_SHOWN),
        pools=[pool for _, pool in sorted(pools.items())[:MAX_SHOWN]],
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None  # written by hand
