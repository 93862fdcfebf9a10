"""The calls of ClusterService: who coordinates, who works, who holds which job."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tenure.client.fields import time_of
from tenure.client.link import Link
from tenure.client.records import Cluster, ClusterPicture, Coordinator, HeldClaim, ServedPool, Worker
from tenure.client.resume import Resumption
from tenure.v1 import cluster_service_pb2 as pb


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

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered now."""
        answer: pb.ListWorkersResponse = await self._link.unary(
            lambda to: to.cluster.ListWorkers, pb.ListWorkersRequest()
        )
        return [_worker(worker) for worker in answer.workers]

    async def claims(self) -> list[HeldClaim]:
        """Return the claims that stand now."""
        answer: pb.ListClaimsResponse = await self._link.unary(lambda to: to.cluster.ListClaims, pb.ListClaimsRequest())
        return [_held_claim(claim) for claim in answer.claims]

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
