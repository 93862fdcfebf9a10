"""Step 4, start: a claim becomes an attempt, by one guarded write that yields a new fence.

This write, not the claim, makes two runs under one fence impossible: an expired claim can be claimed again in etcd
before anybody has noticed. Who shows no claim in etcd starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import structlog

from tenure.coordinator import access
from tenure.coordinator.metrics import STALE_WRITES, START_S, STARTED
from tenure.model.clock import elapsed_s, wall_ns
from tenure.model.errors import Unavailable
from tenure.probes import tracing
from tenure.store.etcd.claims import verify_batch
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row
from tenure.store.postgres.locked import write_rows

log = structlog.get_logger(__name__)


class ClaimedJob(NamedTuple):
    """A claim that a worker says it holds, for the job as it was offered."""

    job_id: str
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

        A job outside of the caller's pools does not start, as if its claim did not stand.

        Raises:
            Unavailable: a store did not answer; repeat the call with the same claims.
        """
        began, began_ns = elapsed_s(), wall_ns()
        held = await verify_batch(
            self._etcd, self._keys, [(claim.job_id, claim.claim_revision, claim.lease) for claim in claims]
        )
        if held and not access.serves_all():
            held &= await self._in_pools(held)
        shown = sorted([claim for claim in claims if claim.job_id in held])
        rows, locked = await self._start(worker, shown) if shown else ([], frozenset[str]())
        START_S.observe(elapsed_s() - began)
        STARTED.add(len(rows))
        if tracing.is_on():
            traced = [(row.id, row.kind, json.loads(row.labels)) for row in rows if row.labels]
            tracing.passed("start", traced, began_ns)
        if len(rows) < len(claims):
            answered = locked.union(row.id for row in rows)
            for claim in claims:
                if claim.job_id not in answered:
                    STALE_WRITES.labels("start").inc()
                    log.info(
                        "stale_start_refused",
                        job=claim.job_id,
                        attempt=claim.attempt_seen + 1,
                        worker=worker,
                        lease=f"{claim.lease:016x}",
                    )
        return rows

    async def _in_pools(self, ids: Set[str]) -> Set[str]:
        """Return which of these jobs lie in the caller's pools."""
        rows = await self._database.fetch("routes_of", {"ids": sorted(ids)})
        outside = [row.id for row in rows if not access.serves(row.route)]
        if outside:
            who = access.caller().name
            log.warning("start_outside_of_pools_refused", caller=who, jobs=len(outside), job=outside[0])
        return {row.id for row in rows}.difference(outside)

    async def _start(self, worker: str, shown: Sequence[ClaimedJob]) -> tuple[list[Row], frozenset[str]]:
        """Return the started attempts, and the jobs that somebody has locked: they will be offered again."""

        async def write(ids: Set[str]) -> list[Row]:
            return await self._database.fetch(
                "start_attempts", _columns(worker, [claim for claim in shown if claim.job_id in ids])
            )

        locked: frozenset[str] = frozenset()
        try:
            rows, locked = await write_rows(self._database, [claim.job_id for claim in shown], write)
        except Unavailable:
            # The outcome is unknown: a row that carries this very claim is this worker's.
            rows = []
        if len(rows) < len(shown):
            started = {row.id for row in rows}
            earlier = await self._database.fetch("started_by_claim", _columns(worker, shown))
            rows.extend(row for row in earlier if row.id not in started)
        return rows, locked


def _columns(worker: str, claims: Sequence[ClaimedJob]) -> dict[str, Any]:
    return {
        "worker": worker,
        "ids": [claim.job_id for claim in claims],
        "attempts": [claim.attempt_seen for claim in claims],
        "leases": [claim.lease for claim in claims],
        "revisions": [claim.claim_revision for claim in claims],
        "slots": [",".join(claim.slots) for claim in claims],
    }
