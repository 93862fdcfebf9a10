"""Who holds a job at this moment: its claim, what the claim's lease has left, and a hold.

Nothing is kept: etcd is read when somebody asks. A claim that was written by hand is told without its worker.
"""

from __future__ import annotations

from tenure.coordinator.census import instant, readable
from tenure.store.etcd.keyspace import ClaimValue, HoldValue, Keyspace
from tenure.store.etcd.port import Etcd, Get, GetResult, KeyValue, Txn, TxnResult
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import wire


async def owner_of(etcd: Etcd, keys: Keyspace, job_id: str) -> pb.GetJobClaimResponse:
    """Return who holds a job; claim and hold are read at one revision, the lease just after it."""
    found = await etcd.txn(Txn(then=(Get(keys.claim(job_id)), Get(keys.hold(job_id)))))
    claim, hold = _only(found, 0), _only(found, 1)
    answer = pb.GetJobClaimResponse(revision=found.revision)
    if hold is not None:
        answer.hold = HoldValue.from_json(hold.value).reason
    if claim is not None:
        answer.claim.CopyFrom(await _claim(etcd, claim))
    return answer


async def _claim(etcd: Etcd, item: KeyValue) -> pb.JobClaim:
    told = pb.JobClaim(lease=item.lease, revision=item.create_revision)
    for _, value in readable((item,), ClaimValue):
        told.worker = value.worker
        if (at := wire.timestamp(instant(value.claimed_at))) is not None:
            told.claimed_at.CopyFrom(at)
    left = await etcd.time_to_live(item.lease) if item.lease else None
    if left is not None:
        told.remaining.FromMilliseconds(round(left.remaining_s * 1000))
        told.granted.FromMilliseconds(round(left.granted_s * 1000))
    return told


def _only(found: TxnResult, index: int) -> KeyValue | None:
    result = found.results[index]
    return result.items[0] if isinstance(result, GetResult) and result.items else None
