"""The calls of ClusterService: who coordinates, who works, who holds which job."""

from __future__ import annotations

from tenure.client import convert
from tenure.client.link import Link
from tenure.client.records import Cluster, HeldClaim, Worker
from tenure.v1 import cluster_service_pb2 as pb


class ClusterCalls:
    """See the cluster."""

    _link: Link

    async def cluster(self) -> Cluster:
        """Return who coordinates, who leads, and the versions of the stores."""
        answer: pb.GetClusterResponse = await self._link.unary(lambda to: to.cluster.GetCluster, pb.GetClusterRequest())
        return convert.cluster_from_wire(answer)

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered now."""
        answer: pb.ListWorkersResponse = await self._link.unary(
            lambda to: to.cluster.ListWorkers, pb.ListWorkersRequest()
        )
        return [convert.worker_from_wire(worker) for worker in answer.workers]

    async def claims(self) -> list[HeldClaim]:
        """Return the claims that stand now."""
        answer: pb.ListClaimsResponse = await self._link.unary(lambda to: to.cluster.ListClaims, pb.ListClaimsRequest())
        return [convert.held_claim_from_wire(claim) for claim in answer.claims]

    async def revoke_claim(self, job_id: str) -> bool:
        """Take a job away from its worker; it restarts elsewhere, not counted as a crash. False: nobody held it."""
        answer: pb.RevokeClaimResponse = await self._link.unary(
            lambda to: to.cluster.RevokeClaim, pb.RevokeClaimRequest(job_id=job_id)
        )
        return answer.revoked
