"""Step 3, claim: offered jobs are claimed in one etcd transaction, each on a lease of its own.

The claim is the truth: whoever wins it may ask to start the job, nobody else. What was not won, or did not start,
gives its lease back; after an unknown outcome the lease is revoked, and a claim that may hang on it goes with it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tenure.model.clock import Clock, elapsed_s
from tenure.model.errors import TenureError
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, Release, claim_batch, release_batch
from tenure.store.etcd.keyspace import ClaimValue, Keyspace, Offer, stamp
from tenure.store.etcd.leases import LeasePool
from tenure.store.etcd.port import Etcd
from tenure.worker.metrics import CLAIM_S, CLAIMS

_LEASE_IS_FREE = frozenset({ClaimOutcome.HELD, ClaimOutcome.REFUSED})


class Claimed(NamedTuple):
    """A claim that was won."""

    offer: Offer
    lease: int
    revision: int


class Claimer:
    """Claims for one worker."""

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock, leases: LeasePool, worker: str) -> None:
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._leases = leases
        self._worker = worker

    async def claim(self, message: str, offers: Sequence[Offer]) -> list[Claimed]:
        """Answer a message: claim what it offers and delete it. Return the claims that were won."""
        began = elapsed_s()
        leased = await self._lease_each(offers)
        claimed_at = stamp(self._clock.wall())
        requests = [
            ClaimRequest(
                offer.job,
                lease,
                ClaimValue(self._worker, offer.namespace, offer.kind, offer.route, lease, claimed_at).to_json(),
                offer.slots,
            )
            for offer, lease in leased
        ]
        try:
            results = await claim_batch(self._etcd, self._keys, requests, inbox_key=message)
        except TenureError:
            await self.let_go([(lease, False) for _, lease in leased])
            raise
        CLAIM_S.observe(elapsed_s() - began)
        won: list[Claimed] = []
        spare: list[tuple[int, bool]] = []
        for (offer, lease), result in zip(leased, results, strict=True):
            if result.outcome is ClaimOutcome.WON:
                won.append(Claimed(offer, lease, result.create_revision))
            else:
                spare.append((lease, result.outcome in _LEASE_IS_FREE))
        CLAIMS.add(len(won), "won")
        CLAIMS.add(len(offers) - len(won), "missed")
        await self.let_go(spare)
        return won

    async def release(self, claims: Sequence[Claimed]) -> None:
        """Let go of claims whose jobs did not start."""
        releases = [Release(claim.offer.job, claim.revision, claim.lease, claim.offer.slots) for claim in claims]
        deleted = await release_batch(self._etcd, self._keys, releases)
        await self.let_go([(claim.lease, gone) for claim, gone in zip(claims, deleted, strict=True)])

    async def let_go(self, leases: Sequence[tuple[int, bool]]) -> None:
        """Use leases again, but only those that are said to carry nothing; the others are revoked."""
        async with asyncio.TaskGroup() as group:
            for lease, is_free in leases:
                if is_free:
                    await self._leases.give_back(lease)
                else:
                    group.create_task(self._leases.discard(lease))

    async def _lease_each(self, offers: Sequence[Offer]) -> list[tuple[Offer, int]]:
        """Return a lease for each offer, in order; for fewer if etcd gives no more."""
        by_ttl: dict[float, list[int]] = defaultdict(list)
        for index, offer in enumerate(offers):
            by_ttl[offer.ttl_s].append(index)
        leased: dict[int, int] = {}
        for ttl_s, indexes in by_ttl.items():
            grants = await self._leases.acquire(ttl_s, len(indexes))
            leased.update((index, grant.lease) for index, grant in zip(indexes, grants, strict=False))
        return [(offers[index], leased[index]) for index in sorted(leased)]
