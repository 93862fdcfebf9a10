"""Step 4, start: a claim becomes an attempt, by one guarded write that yields a new fence.

This write, not the claim, makes two runs under one fence impossible: an expired claim can be claimed again in etcd
before anybody has noticed. Who shows no claim in etcd starts nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from tenure.coordinator.metrics import STALE_WRITES
from tenure.model.errors import Unavailable
from tenure.store.etcd.claims import verify_batch
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A claim that a worker says it holds, for the job as it was offered."""

    job_id: uuid.UUID
    attempt_seen: int
    lease: int
    claim_revision: int
    slots: tuple[str, ...] = ()
    """``<limit>/<n>`` each, on the same lease."""


class Starter:
    """Starts attempts, a batch per call."""

    def __init__(self, database: Database, etcd: Etcd, keys: Keyspace) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys

    async def start(self, worker: str, claims: Sequence[ClaimedJob]) -> list[Row]:
        """Return the attempts that started now, or earlier under the very same claims (a repeated call).

        Raises:
            Unavailable: a store did not answer; repeat the call with the same claims.
        """
        held = await verify_batch(
            self._etcd, self._keys, [(str(claim.job_id), claim.claim_revision, claim.lease) for claim in claims]
        )
        shown = sorted((claim for claim in claims if str(claim.job_id) in held), key=lambda claim: claim.job_id)
        rows = await self._start(worker, shown) if shown else []
        started = {row.id for row in rows}
        for claim in claims:
            if claim.job_id not in started:
                STALE_WRITES.labels("start").inc()
                log.info("stale_start_refused", job=str(claim.job_id), worker=worker, lease=f"{claim.lease:016x}")
        return rows

    async def _start(self, worker: str, shown: Sequence[ClaimedJob]) -> list[Row]:
        columns = {
            "worker": worker,
            "ids": [claim.job_id for claim in shown],
            "attempts": [claim.attempt_seen for claim in shown],
            "leases": [claim.lease for claim in shown],
            "revisions": [claim.claim_revision for claim in shown],
            "slots": [",".join(claim.slots) for claim in shown],
        }
        try:
            rows = await self._database.fetch("start_attempts", columns)
        except Unavailable:
            # The outcome is unknown: a row that carries this very claim is this worker's.
            rows = []
        if len(rows) < len(shown):
            started = {row.id for row in rows}
            earlier = await self._database.fetch("started_by_claim", columns)
            rows.extend(row for row in earlier if row.id not in started)
        return rows
