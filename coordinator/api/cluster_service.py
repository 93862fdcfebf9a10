"""ClusterService: who is there, who leads, who holds what; and hints between coordinators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import grpc
import structlog

from tenure.coordinator.access import caller, sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.audit import Audit
from tenure.coordinator.census import claims_by_worker, instant, readable
from tenure.coordinator.overview import Overview
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.store_probe import StoreProbe
from tenure.coordinator.watch_cluster import ClusterWatch, Picture
from tenure.model.errors import TenureError
from tenure.model.ids import parse_id
from tenure.store.etcd.keyspace import ClaimValue, CoordinatorValue, Keyspace, LeaderValue, WorkerValue
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database
from tenure.store.postgres.migrate import SchemaStatus
from tenure.v1 import cluster_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceServicer

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
WITH_TIME_LEFT = 200
"""Leases that one call asks etcd about."""

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
        overview: Overview | None = None,
    ) -> None:
        """Without ``overview`` nobody is told how it goes."""
        self._audit = audit
        self._watch = watch
        self._overview = overview
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._schema = schema
        self._revoker = revoker
        self._deliver_hint = deliver_hint
        self.store_probe: StoreProbe | None = None

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
        """Read every claim, and what is left of the leases of some if that is asked for."""
        listing = await self._etcd.list(self._keys.claims)
        claims: list[pb.HeldClaim] = []
        for item, value in readable(listing.items, ClaimValue):
            if not sees(value.namespace):
                continue
            if 0 < request.limit <= len(claims):
                break
            claims.append(
                pb.HeldClaim(
                    job_id=self._keys.last(item.key),
                    worker=value.worker,
                    namespace=value.namespace,
                    kind=value.kind,
                    route=value.route,
                    lease=item.lease,
                    revision=item.create_revision,
                    claimed_at=wire.timestamp(instant(value.claimed_at)),
                )
            )
        if request.with_time_left:
            async with asyncio.TaskGroup() as group:
                for claim in claims[:WITH_TIME_LEFT]:
                    group.create_task(self._tell_time_left(claim))
        return pb.ListClaimsResponse(claims=claims)

    async def _tell_time_left(self, claim: pb.HeldClaim) -> None:
        try:
            left = await self._etcd.time_to_live(claim.lease)
        except TenureError as exc:  # the claim is told of without
            log.info("time_left_unknown", lease=f"{claim.lease:x}", error=exc.message)
            return
        if left is not None:
            claim.time_left.FromMilliseconds(round(left.remaining_s * 1_000))
            claim.ttl.FromMilliseconds(round(left.granted_s * 1_000))

    @audited
    async def RevokeClaim(self, request: pb.RevokeClaimRequest, context: Context) -> pb.RevokeClaimResponse:
        """Take a job away from its worker."""
        return pb.RevokeClaimResponse(revoked=await self._revoker.revoke(parse_id(request.job_id, "job_id")))

    async def CheckObjectStore(
        self, request: pb.CheckObjectStoreRequest, context: Context
    ) -> pb.CheckObjectStoreResponse:
        """Try the object store out."""
        steps = await self.store_probe.steps() if self.store_probe is not None else []
        return pb.CheckObjectStoreResponse(steps=[pb.ObjectStoreStep(**step._asdict()) for step in steps])

    async def HintReady(self, request: pb.HintReadyRequest, context: Context) -> pb.HintReadyResponse:
        """Pass a hint on to the dispatcher, if this coordinator leads."""
        self._deliver_hint(frozenset(request.lanes))
        return pb.HintReadyResponse()

    async def GetOverview(self, request: pb.GetOverviewRequest, context: Context) -> pb.GetOverviewResponse:
        """Tell how it goes."""
        return await self._looked().now()

    async def GetOwnFigures(self, request: pb.GetOwnFiguresRequest, context: Context) -> pb.GetOwnFiguresResponse:
        """Tell another coordinator what was counted here."""
        return await self._looked().own_figures()

    async def GetCaller(self, request: pb.GetCallerRequest, context: Context) -> pb.GetCallerResponse:
        """Tell who asks."""
        who = caller()
        return pb.GetCallerResponse(
            name=who.name, role=who.role.value, namespaces=list(who.namespaces), pools=list(who.pools)
        )

    def _looked(self) -> Overview:
        if self._overview is None:
            raise NotImplementedError
        return self._overview


def _coordinator(id: str, value: CoordinatorValue, leader: str) -> pb.Coordinator:
    return pb.Coordinator(
        id=id,
        grpc=value.grpc,
        http=value.http,
        version=value.version,
        is_leader=id == leader,
        started_at=wire.timestamp(instant(value.started_at)),
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
        started_at=wire.timestamp(instant(value.started_at)),
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
