"""Step 7, announce: delete the claim of an ended attempt and tell of its end under ``done/``, in one transaction.

Only a hint: Postgres was written first, and waiters re-read it now and then. Those of this coordinator are told at
once, since their news need not travel through etcd. Done keys hang on leases that rotate, so that no expiry deletes
more than a few hundred at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog
from msgspec import Struct

from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.model.states import TERMINAL, JobState
from tenure.store.etcd.claims import Release, release_batch
from tenure.store.etcd.keyspace import DoneValue, Keyspace, stamp
from tenure.store.etcd.port import Etcd, Put

log = structlog.get_logger(__name__)

KEYS_PER_LEASE = 300
ANSWER_S = 2.0
"""How long an announcement may take: the worker waits for the answer to its report, which is recorded already."""
SILENCE_S = 1.0
"""How long nothing is announced after etcd did not answer in time."""


class Ended(Struct, frozen=True):
    """An attempt that ended, or a job canceled without one (``claim_revision`` 0)."""

    job_id: str
    state: JobState
    attempt: int
    claim_revision: int = 0
    lease: int = 0
    slots: tuple[str, ...] = ()


class Announcer:
    """Writes announcements; etcd being away costs the hint, never the job."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        *,
        done_ttl_s: float,
        tell_here: Callable[[Iterable[str]], None] = lambda jobs: None,
    ) -> None:
        """``tell_here`` wakes those who wait in this process for jobs that are terminal."""
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._done_ttl_s = done_ttl_s
        self._tell_here = tell_here
        self._lease = 0
        self._lease_until = 0.0
        self._lease_keys = 0
        self._silent_until = 0.0

    async def announce(self, ended: Sequence[Ended]) -> set[str]:
        """Announce and return the job ids whose very claim etcd says was deleted; their leases may be used again."""
        self._tell_here(one.job_id for one in ended if one.state in TERMINAL)
        if not ended or self._clock.monotonic() < self._silent_until:
            return set()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._announce(ended)
        except TimeoutError:
            self._silent_until = self._clock.monotonic() + SILENCE_S
            problem = f"etcd did not answer within {ANSWER_S:g} s"
        except TenureError as exc:
            problem = exc.message
        self._lease = 0
        log.warning("announcement_lost", jobs=len(ended), error=problem)
        return set()

    async def _announce(self, ended: Sequence[Ended]) -> set[str]:
        unannounced: list[str] = []
        deleted = await self._write(ended, unannounced.append)
        if unannounced:  # the lease of announcements was lost; with a new one they go again, and once is enough
            self._lease = 0
            again = set(unannounced)
            try:
                await self._write([one for one in ended if one.job_id in again], lambda job: None)
            except TenureError as exc:
                log.warning("announcement_lost", jobs=len(again), error=exc.message)
        return deleted

    async def _write(self, ended: Sequence[Ended], on_unannounced: Callable[[str], None]) -> set[str]:
        finished_at = stamp(self._clock.wall())
        releases = []
        for one in ended:
            done = None
            if one.state in TERMINAL:
                if not self._lease_serves():
                    await self._new_lease()
                self._lease_keys += 1
                value = DoneValue(one.state, one.attempt, finished_at).to_json()
                done = Put(self._keys.announcement(one.job_id), value, self._lease)
            releases.append(Release(one.job_id, one.claim_revision, one.lease, one.slots, done))
        deleted = await release_batch(self._etcd, self._keys, releases, on_unannounced=on_unannounced)
        return {one.job_id for one, gone in zip(ended, deleted, strict=True) if gone}

    def _lease_serves(self) -> bool:
        until = self._lease_until if self._lease and self._lease_keys < KEYS_PER_LEASE else 0.0
        return self._clock.monotonic() < until

    async def _new_lease(self) -> None:
        grant = await self._etcd.grant(self._done_ttl_s)
        # Never renewed: used for the first half of its life, so that each key stays for at least the other half.
        self._lease, self._lease_keys = grant.lease, 0
        self._lease_until = grant.sent_at + grant.ttl_s / 2
