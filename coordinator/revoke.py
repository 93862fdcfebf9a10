"""Revoke: an operator takes a job away from its worker. No error, no crash; it restarts once the old TTL has passed.

Postgres first: the attempt ends as released under its fence, with a delay of its TTL, since its worker may go on for
as long as it trusts its lease. Then the claim goes, by its identity, by which the worker learns of it.
"""

from __future__ import annotations

import uuid

import structlog

from tenure.coordinator.finish import Ending, Finisher
from tenure.coordinator.reap import TIMEOUT_GRACE_S, executing_from_row
from tenure.model.errors import TenureError, Unavailable
from tenure.model.reap import next_of_taken
from tenure.model.states import Outcome
from tenure.store.etcd.claims import Release, release_batch, verify_batch
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd, KeyValue
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)


class Revoker:
    """Revokes claims."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace, finisher: Finisher) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._finisher = finisher

    async def revoke(self, job_id: uuid.UUID) -> bool:
        """Take the job away; return whether anybody held it.

        Raises:
            Unavailable: a store did not answer, or the claim still stands; revoke again.
        """
        claim = await self._etcd.get(self._keys.claim(str(job_id)))
        rows = await self._database.fetch("executing_by_id", {"ids": [job_id], "timeout_grace_s": TIMEOUT_GRACE_S})
        endings = [
            Ending(str(row.id), row.fence, Outcome.RELEASED, next_of_taken(row))
            for row in map(executing_from_row, rows)
        ]
        ended = await self._finisher.write(endings)
        told = await self._finisher.tell(ended, keep_slots=True)
        is_gone = bool(told) or (claim is not None and await self._delete(job_id, claim))
        for row in ended:
            # With slots on it the lease stays until its worker has stopped. Nor is it revoked unless the claim was
            # deleted here: its worker may have been told so, by its own report, and have it carry another claim.
            if is_gone and not row.slots:
                await self._stop_soon(row.lease)
        return is_gone or bool(ended)

    async def _delete(self, job_id: uuid.UUID, claim: KeyValue) -> bool:
        """Delete this very claim. One that was not started has its lease let go by its worker, when that finds out."""
        release = Release(str(job_id), claim.create_revision, claim.lease)
        [is_deleted] = await release_batch(self._etcd, self._keys, [release])
        if not is_deleted and await verify_batch(
            self._etcd, self._keys, [(release.job, release.create_revision, release.lease)]
        ):
            raise Unavailable("the claim could not be deleted: etcd does not take it", hint="revoke again")
        return is_deleted

    async def _stop_soon(self, lease: int) -> None:
        """Revoke a lease: with a short TTL the next KeepAlive tells the worker sooner than its look at its claims."""
        try:
            await self._etcd.revoke(lease)
        except TenureError as exc:
            log.info("lease_left_to_its_worker", lease=f"{lease:016x}", reason=exc.message)
