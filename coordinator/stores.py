"""Stores lost: noticing that etcd or Postgres is not what it was, and what follows (DESIGN.md, "Stores lost").

What the stores looked like is remembered in Postgres. When a term begins they are compared: on another etcd cluster, a
revision that went back, another Postgres or another timeline the epoch rises, so that no fence given before can be
given again. The reaper's first sweep then reaps the rows that lack their own claim; attempts that still hold theirs
go on. During a term both are looked at every second: if one is not what it was the term ends, and the next one does
that. Meanwhile nothing starts on a timeline that no term has recorded (``start_attempts.sql``).

A leader that reaches etcd and not Postgres can neither dispatch nor reap, and would lead for as long as that lasts: its
term ends too, so that a coordinator leads that reaches both. Where none does they take turns, which harms nobody.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, Deposed, Unavailable
from tenure.store.etcd.election import Term
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd, Get, Txn
from tenure.store.postgres.database import Database, Params, Row

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What etcd looked like. The revision is that of a linearizable read: a member may lag behind."""

    cluster_id: int
    revision: int


class Stores:
    """The identity of both stores, during one term."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        coordinator: str,
        term: Term,
        *,
        patience_s: float,
    ) -> None:
        """Prepare. ``patience_s`` is how long a term may last without an answer of Postgres."""
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._coordinator = coordinator
        self._term = term
        self._patience_s = patience_s
        self._silent_since: float | None = None
        self._seen: Seen | None = None
        self.etcd_was_lost = False
        """Whether this term began on an etcd that is not the one of the term before."""

    async def record_term(self) -> float:
        """Write the term into Postgres; return for how many seconds nothing may be offered.

        Raises:
            Deposed: the leader key is not this term's any more, Postgres knows of a later term, or does not answer.
        """
        while True:
            try:
                self._seen = seen = await self._look()
                rows = await self._ask(
                    "take_leadership",
                    {
                        "leader": self._coordinator,
                        "term": self._term.number,
                        "etcd_cluster_id": str(seen.cluster_id),
                        "etcd_revision": seen.revision,
                    },
                )
            except (Unavailable, BoundExceeded) as exc:
                log.warning("term_not_recorded", error=exc.message)
                await self._clock.sleep(RETRY_S * random.uniform(0.5, 1.5))
                continue
            if not rows:
                raise Deposed("Postgres knows of a later term")
            (row,) = rows
            self.etcd_was_lost = row.etcd_lost
            if row.etcd_lost or row.postgres_restored:
                log.warning(
                    "epoch_raised",
                    epoch=row.epoch,
                    etcd_lost=row.etcd_lost,
                    postgres_restored=row.postgres_restored,
                    claims_frozen_s=round(row.frozen_s, 1),
                )
            return float(row.frozen_s)

    async def watch(self) -> None:
        """Look at both stores for as long as they are those with which the term began.

        Raises:
            Deposed: one of them is another one, or was set back, or Postgres does not answer for too long.
        """
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                seen = await self._look()
                if (reason := _replaced(self._seen, seen)) is not None:
                    raise Deposed(reason)
                self._seen = seen
                (row,) = await self._ask(
                    "remember_revision",
                    {"leader": self._coordinator, "term": self._term.number, "etcd_revision": seen.revision},
                )
                if not row.is_same_postgres:
                    raise Deposed("another Postgres, or another timeline of it")
            except (Unavailable, BoundExceeded) as exc:
                log.info("stores_not_seen", error=exc.message)

    async def _ask(self, query: str, params: Params) -> list[Row]:
        """Ask Postgres.

        Raises:
            Deposed: it has not answered for too long; Unavailable: it does not answer now.
        """
        asked_at = self._clock.monotonic()
        try:
            rows = await self._database.fetch(query, params)
        except Unavailable as exc:
            if self._silent_since is None:  # once is nothing: a pool that is busy, a lock
                self._silent_since = asked_at
                raise
            silent_s = self._clock.monotonic() - self._silent_since
            if silent_s > self._patience_s:
                raise Deposed(f"Postgres has not answered for {silent_s:.1f} s: {exc.message}") from exc
            raise
        except BoundExceeded:
            self._silent_since = None  # it answers, though it has no room
            raise
        self._silent_since = None
        return rows

    async def _look(self) -> Seen:
        status = await self._etcd.status()
        result = await self._etcd.txn(Txn((self._term.guard(),), (Get(self._keys.leader, keys_only=True),)))
        if not result.succeeded:
            raise Deposed("the leader key has changed hands")
        return Seen(status.cluster_id, result.revision)


def _replaced(before: Seen | None, now: Seen) -> str | None:
    if before is None:
        return None
    if now.cluster_id != before.cluster_id:
        return f"another etcd cluster: {now.cluster_id:x}, not {before.cluster_id:x}"
    if now.revision < before.revision:
        return f"etcd's revision went back from {before.revision} to {now.revision}"
    return None
