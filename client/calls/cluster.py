"""The calls of ClusterService: who coordinates, who works, who holds which job."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tenure.client.fields import seconds_of, time_of
from tenure.client.link import Link
from tenure.client.overview import Overview, overview_from_wire
from tenure.client.records import (
    Caller,
    Cluster,
    ClusterPicture,
    Coordinator,
    HeldClaim,
    ServedPool,
    StoreStep,
    Worker,
)
from tenure.client.resume import Resumption
from tenure.v1 import cluster_service_pb2 as pb

STORE_TIMEOUT_S = 60.0
"""Longer than all steps together."""


class ClusterCalls:
    """See the cluster."""

    _link: Link

    async def cluster(self) -> Cluster:
        """Return who coordinates, who leads, and the versions of the stores."""
        answer: pb.GetClusterResponse = await self._link.unary(lambda to: to.cluster.GetCluster, pb.GetClusterRequest())
        return _cluster(answer)

    async def watch_cluster(self) -> AsyncIterator[ClusterPicture]:
        """Yield who is there now, and again whenever that changes, until you stop; at most once a second.

        Resumes after a lost connection, with the picture of then. Who is slow is given the newest one.

        Raises:
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        last: ClusterPicture | None = None
        resumption = Resumption(self._link)
        while True:
            async with resumption.stream(lambda to: to.cluster.WatchCluster, pb.WatchClusterRequest()) as messages:
                async for message in messages:
                    if (picture := _picture(message)) != last:
                        last = picture
                        yield picture

    async def overview(self) -> Overview:
        """Return how it goes: throughput, what waits and for how long, failures, workers, the leader."""
        answer: pb.GetOverviewResponse = await self._link.unary(
            lambda to: to.cluster.GetOverview, pb.GetOverviewRequest()
        )
        return overview_from_wire(answer)

    async def caller(self) -> Caller:
        """Return who calls, as the service sees it, and what they may do.

        Raises:
            PermissionDenied: they may read nothing.
        """
        answer: pb.GetCallerResponse = await self._link.unary(lambda to: to.cluster.GetCaller, pb.GetCallerRequest())
        return Caller(
            name=answer.name, role=answer.role, namespaces=tuple(answer.namespaces), pools=tuple(answer.pools)
        )

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered now."""
        answer: pb.ListWorkersResponse = await self._link.unary(
            lambda to: to.cluster.ListWorkers, pb.ListWorkersRequest()
        )
        return [_worker(worker) for worker in answer.workers]

    async def claims(self, *, limit: int | None = None, with_time_left: bool = False) -> list[HeldClaim]:
        """Return the claims that stand now, by job id; at most ``limit``.

        ``with_time_left``: with what is left of their leases, of the first 200.
        """
        request = pb.ListClaimsRequest(limit=limit or 0, with_time_left=with_time_left)
        answer: pb.ListClaimsResponse = await self._link.unary(lambda to: to.cluster.ListClaims, request)
        return [_held_claim(claim) for claim in answer.claims]

    async def check_object_store(self) -> list[StoreStep]:
        """Have the coordinator that answers try the object store out; empty if it has none."""
        answer: pb.CheckObjectStoreResponse = await self._link.unary(
            lambda to: to.cluster.CheckObjectStore,
            pb.CheckObjectStoreRequest(),
            timeout_s=STORE_TIMEOUT_S,
            attempt_timeout_s=STORE_TIMEOUT_S,
        )
        return [
            StoreStep(name=one.name, took_s=one.took_s, problem=one.problem or None, hint=one.hint or None)
            for one in answer.steps
        ]

    async def revoke_claim(self, job_id: str) -> bool:
        """Take a job away from its worker; it restarts elsewhere, not counted as a crash. False: nobody held it."""
        answer: pb.RevokeClaimResponse = await self._link.unary(
            lambda to: to.cluster.RevokeClaim, pb.RevokeClaimRequest(job_id=job_id)
        )
        return answer.revoked


def _worker(worker: pb.Worker) -> Worker:
    return Worker(
        id=worker.id,
        pools=tuple(worker.pools),
        kinds=tuple(worker.kinds),
        capacity=worker.capacity,
        claims=worker.claims,
        labels=dict(worker.labels),
        mode=worker.mode,
        host=worker.host,
        version=worker.version,
        draining=worker.draining,
        started_at=time_of(worker, "started_at"),
    )


def _held_claim(claim: pb.HeldClaim) -> HeldClaim:
    return HeldClaim(
        job_id=claim.job_id,
        worker=claim.worker,
        namespace=claim.namespace,
        kind=claim.kind,
        route=claim.route,
        lease=claim.lease,
        revision=claim.revision,
        claimed_at=time_of(claim, "claimed_at"),
        time_left_s=seconds_of(claim, "time_left"),
        ttl_s=seconds_of(claim, "ttl"),
    )


def _cluster(cluster: pb.GetClusterResponse) -> Cluster:
    return Cluster(
        coordinators=tuple(map(_coordinator, cluster.coordinators)),
        leader=cluster.leader or None,
        epoch=cluster.epoch,
        etcd_version=cluster.etcd_version,
        postgres_version=cluster.postgres_version,
        schema_version=cluster.schema_version,
        version=cluster.version,
    )


def _coordinator(coordinator: pb.Coordinator) -> Coordinator:
    return Coordinator(
        id=coordinator.id,
        grpc=coordinator.grpc,
        http=coordinator.http,
        version=coordinator.version,
        is_leader=coordinator.is_leader,
        started_at=time_of(coordinator, "started_at"),
    )


def _picture(picture: pb.WatchClusterResponse) -> ClusterPicture:
    return ClusterPicture(
        coordinators=tuple(map(_coordinator, picture.coordinators)),
        leader=picture.leader or None,
        workers=tuple(map(_worker, picture.workers)),
        more_workers=picture.more_workers,
        pools=tuple(ServedPool(path=pool.path, workers=pool.workers, capacity=pool.capacity) for pool in picture.pools),
    )
