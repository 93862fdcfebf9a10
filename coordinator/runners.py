"""On behalf of runners: what a worker does in etcd by itself, a coordinator does here for one that cannot reach it.

Nothing is kept between two calls, so that any coordinator serves any of them: sessions and claims are in etcd, and
tokens say which they are. Invariant: leases of runners are renewed when a runner asks for it, once per request, and
never otherwise; so a runner that is gone loses what it holds, whichever coordinators live.

A lease carries one claim in its life: it is granted for it, and revoked after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import structlog

from tenure.coordinator.metrics import CLAIM_S, CLAIMS
from tenure.model.clock import Clock, elapsed_s
from tenure.model.errors import NotFound, TenureError
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, claim_batch, verify_batch
from tenure.store.etcd.keyspace import CancelRequest, ClaimValue, Keyspace, Offer, Offers, parse_inbox, stamp
from tenure.store.etcd.port import Delete, Etcd, EventKind, Grant, Txn

log = structlog.get_logger(__name__)

CALLS_AT_ONCE = 32
RENEW_TIMEOUT_S = 2.0
SESSION_GONE = "the session is gone: it was not renewed in time, or another one replaced it"


class WonClaim(NamedTuple):
    """A claim that was won for a runner."""

    offer: Offer
    lease: int
    revision: int
    ttl_s: float


class Taken(NamedTuple):
    """What was in a runner's inbox."""

    claims: Sequence[WonClaim] = ()
    cancels: Sequence[CancelRequest] = ()


class StandingClaim(NamedTuple):
    """A claim to be looked at."""

    job: str
    revision: int
    lease: int


class Renewals(NamedTuple):
    """What a renewal showed."""

    ttls: dict[int, float]
    """By lease, in seconds; 0 means gone. Those without an answer are missing."""
    lost: frozenset[str]
    """Jobs whose claim is not there any more."""
    held: frozenset[str]
    """Jobs that an operator holds back."""


class Runners:
    """Claims for runners."""

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock) -> None:
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._polls: dict[str, asyncio.Event] = {}
        """Runner to what ends its poll."""
        self._closed = False

    def close(self) -> None:
        """Let every poll answer now."""
        self._closed = True
        for superseded in self._polls.values():
            superseded.set()

    async def take(self, runner: str, session: int, wait_s: float, gone: asyncio.Event) -> Taken:
        """Wait for messages to a runner, claim what they offer, and return that.

        A newer poll of the same runner ends this one, as does ``gone``: what was claimed then would reach nobody.

        Raises:
            NotFound: the session is gone.
        """
        superseded = asyncio.Event()
        if (before := self._polls.get(runner)) is not None:
            before.set()
        self._polls[runner] = superseded
        if self._closed:
            superseded.set()
        try:
            arrived = await self._arrived(runner, wait_s, superseded, gone)
            await self._require_session(runner, session)
            if not arrived or superseded.is_set() or gone.is_set():
                return Taken()
            taken = await self._answer(runner)
            if superseded.is_set() or gone.is_set():
                # Nobody reads this answer, and nobody would renew what it names: free at once, not after the TTL.
                await self.revoke(claim.lease for claim in taken.claims)
                return Taken((), taken.cancels)
            return taken
        finally:
            if self._polls.get(runner) is superseded:
                del self._polls[runner]

    async def _require_session(self, runner: str, session: int) -> None:
        key = await self._etcd.get(self._keys.worker(runner))
        if key is None or key.lease != session:
            raise NotFound(SESSION_GONE, hint="open another one, and show this one's token")

    async def _arrived(self, runner: str, wait_s: float, *ends: asyncio.Event) -> bool:
        """Wait until there is a message, or one of the events is set; return whether there is one."""
        inbox = self._keys.inbox(runner)

        async def message() -> None:
            try:
                async with aclosing(self._etcd.watch(inbox, deletions=False)) as watching:  # type: ignore[type-var]
                    is_new = True
                    async for batch in watching:
                        if is_new and (await self._etcd.list(inbox, keys_only=True)).items:
                            return
                        is_new = False
                        if any(event.kind is EventKind.PUT for event in batch.events):
                            return
            except TenureError as exc:  # whoever reads the inbox now will find out
                log.info("inbox_not_watched", runner=runner, error=exc.message)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(message())
            ended = [group.create_task(_set(event)) for event in ends]
            await asyncio.wait((waiting, *ended), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            has_arrived = waiting.done()
            for task in (waiting, *ended):
                task.cancel()
        return has_arrived

    async def _answer(self, runner: str) -> Taken:
        claims: list[WonClaim] = []
        cancels: list[CancelRequest] = []
        read: list[str] = []
        for item in (await self._etcd.list(self._keys.inbox(runner))).items:
            try:
                message = parse_inbox(item.value)
            except ValueError as exc:
                log.error("message_unreadable", key=item.key, error=str(exc))
                continue
            if isinstance(message, CancelRequest):
                cancels.append(message)
                read.append(item.key)
                continue
            try:
                claims += await self._claim(runner, item.key, message)
            except TenureError as exc:
                if not claims:
                    raise
                log.warning("offers_not_answered", runner=runner, offers=len(message.offers), error=exc.message)
                break  # what was won before is handed on all the same
        if read:
            try:
                await self._etcd.txn(Txn((), tuple(map(Delete, read))))
            except TenureError as exc:
                log.info("messages_not_discarded", error=exc.message)  # told again: that does no harm
        return Taken(claims, cancels)

    async def _claim(self, runner: str, key: str, message: Offers) -> list[WonClaim]:
        began, offers = elapsed_s(), message.offers
        grants = await self._grant(offers)
        claimed_at = stamp(self._clock.wall())
        asked = [(offer, grant) for offer, grant in zip(offers, grants, strict=True) if grant is not None]
        requests = [
            ClaimRequest(
                offer.job,
                grant.lease,
                ClaimValue(runner, offer.namespace, offer.kind, offer.route, grant.lease, claimed_at).to_json(),
                offer.slots,
            )
            for offer, grant in asked
        ]
        try:
            results = await claim_batch(self._etcd, self._keys, requests, inbox_key=key)
        except TenureError:
            await self.revoke(grant.lease for _, grant in asked)
            raise
        CLAIM_S.observe(elapsed_s() - began)
        won, spare = [], []
        for (offer, grant), result in zip(asked, results, strict=True):
            if result.outcome is ClaimOutcome.WON:
                won.append(WonClaim(offer, grant.lease, result.create_revision, grant.ttl_s))
            else:
                spare.append(grant.lease)
        CLAIMS.add(len(won), "won")
        CLAIMS.add(len(offers) - len(won), "missed")
        await self.revoke(spare)
        return won

    async def _grant(self, offers: Sequence[Offer]) -> list[Grant | None]:
        async def grant(offer: Offer) -> Grant | None:
            try:
                async with self._slots:
                    return await self._etcd.grant(offer.ttl_s)
            except TenureError as exc:
                log.warning("no_lease_granted", ttl_s=offer.ttl_s, reason=exc.message)
                return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(grant(offer)) for offer in offers]
        return [task.result() for task in tasks]

    async def renew(self, leases: Sequence[int], claims: Sequence[StandingClaim]) -> Renewals:
        """Send one KeepAlive for each lease, and look whether the claims stand.

        Raises:
            ConfigurationError: etcd refuses the user.
        """
        renewed, (lost, held) = await asyncio.gather(
            self._etcd.renew(leases, timeout_s=RENEW_TIMEOUT_S), self._look(claims)
        )
        return Renewals({renewal.lease: renewal.ttl_s for renewal in renewed}, lost, held)

    async def _look(self, claims: Sequence[StandingClaim]) -> tuple[frozenset[str], frozenset[str]]:
        if not claims:
            return frozenset(), frozenset()
        try:
            # The runner waits for the renewals, which must not wait longer for this than for themselves.
            async with asyncio.timeout(RENEW_TIMEOUT_S):
                shown = await verify_batch(self._etcd, self._keys, claims)
                holds = await self._etcd.list(self._keys.holds, keys_only=True)
        except (TenureError, TimeoutError) as exc:
            log.info("claims_not_verified", error=str(exc) or "etcd takes too long")  # trust runs out by itself
            return frozenset(), frozenset()
        jobs = {claim.job for claim in claims}
        held = jobs & {self._keys.last(item.key) for item in holds.items}
        return frozenset(jobs - shown), frozenset(held)

    async def revoke(self, leases: Iterable[int]) -> None:
        """Revoke leases with what they carry; one that etcd does not revoke is renewed no more, and expires."""

        async def revoke(lease: int) -> None:
            try:
                async with self._slots:
                    await self._etcd.revoke(lease, timeout_s=2.0)
            except TenureError as exc:
                log.info("lease_left_to_expire", lease=f"{lease:016x}", reason=exc.message)

        async with asyncio.TaskGroup() as group:
            for lease in leases:
                group.create_task(revoke(lease))


async def _set(event: asyncio.Event) -> None:
    await event.wait()
