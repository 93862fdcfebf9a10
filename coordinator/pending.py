"""Pending: claimed, not yet started. No column says so: it is a claim in etcd over a ready row, joined when shown."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from tenure.model.errors import TenureError
from tenure.store.etcd.claims import MAX_READS
from tenure.store.etcd.keyspace import ClaimValue, Keyspace
from tenure.store.etcd.port import Etcd, Get, GetResult, KeyValue, Txn
from tenure.v1 import job_pb2 as pb

log = structlog.get_logger(__name__)

ASK_S = 1.0
"""How long a listing waits for etcd: without a quorum every call would take the whole of its timeout."""
_CLAIMABLE = (pb.JOB_STATE_READY, pb.JOB_STATE_RESTARTING)


async def show_pending(etcd: Etcd, keys: Keyspace, jobs: Iterable[pb.Job]) -> None:
    """Fill in the claim of each job that could be claimed. With etcd away they are shown without."""
    claimable = [job for job in jobs if job.state in _CLAIMABLE]
    try:
        for start in range(0, len(claimable), MAX_READS):
            page = claimable[start : start + MAX_READS]
            gets = Txn(then=tuple(Get(keys.claim(job.id)) for job in page))
            answer = await etcd.txn(gets, timeout_s=ASK_S)
            for job, found in zip(page, answer.results, strict=True):
                if isinstance(found, GetResult) and found.items:
                    _show(job, found.items[0])
    except TenureError as exc:
        log.info("claims_not_shown", error=str(exc))


def _show(job: pb.Job, item: KeyValue) -> None:
    try:
        worker = ClaimValue.from_json(item.value).worker
    except ValueError as exc:  # written by hand
        log.warning("key_unreadable", key=item.key, error=str(exc))
        return
    job.claim.CopyFrom(pb.Claim(worker=worker, lease=item.lease, revision=item.create_revision))
