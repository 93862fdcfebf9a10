"""Revoke: an operator takes a job away from its worker. No error, no crash; it restarts once the old TTL has passed.

Postgres first: the attempt ends as released under its fence, with a delay of its TTL, since its worker may go on for
as long as it trusts its lease. Then the claim and the lease go, by which the worker learns of it.
"""

from __future__ import annotations

import uuid

from tenure.coordinator.finish import Ending, Finisher
from tenure.coordinator.reap import TIMEOUT_GRACE_S, executing_from_row
from tenure.model.reap import next_of_taken
from tenure.model.states import Outcome
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database


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
            Unavailable: a store did not answer; revoke again.
        """
        claim = await self._etcd.get(self._keys.claim(str(job_id)))
        rows = await self._database.fetch("executing_by_id", {"ids": [job_id], "timeout_grace_s": TIMEOUT_GRACE_S})
        endings = [
            Ending(row.id, row.fence, Outcome.RELEASED, next_of_taken(row)) for row in map(executing_from_row, rows)
        ]
        ended = await self._finisher.write(endings)
        await self._finisher.tell(ended, keep_slots=True)
        if any(row.slots for row in ended):
            return True  # the worker lets the lease go, its slots with it, when it has stopped
        revoked = claim is not None and claim.lease != 0 and await self._etcd.revoke(claim.lease)
        return revoked or bool(ended)
