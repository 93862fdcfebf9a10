"""The election of the one coordinator that leads.

How it works
============
The leader is whoever owns the key ``leader``, which hangs on a lease of the owner's. A candidate

1. waits until the key is absent: it watches for the deletion, and looks for itself every TTL as a backup;
2. grants itself a lease and creates the key in a transaction that compares that it is absent. Of several candidates
   etcd lets one through. The revision of that transaction is the **term**: it only ever grows;
3. keeps the lease alive while it leads, and revokes it when it steps down, so that another leads at once. If etcd does
   not answer then, it steps down all the same, and revokes what it left behind when it campaigns again: an etcd that
   was away gives every lease its full TTL anew.

A leader stops leading at the first of these:

- etcd says that the lease is gone, or the key was deleted or is another's (an operator may delete it: that is how to
  force a change);
- it cannot *prove* that it still holds the lease: the trust window (``model.trust``), counted from the sending of the
  last answered KeepAlive, has run out. It stops before the lease can expire at the server, so that in a cluster
  with clocks that tick the old leader's tasks have ended when a new one is elected;
- the tasks that it runs end.

What is **not** guaranteed
==========================
That never two processes believe to lead. A process that is paused (SIGSTOP, a virtual machine that sleeps) notices
nothing, and when it goes on it may write before it looks at the clock. So belief is never enough:

- every write to etcd by a leader carries ``Term.guard``, a compare of the leader key's create revision with the
  term. A deposed leader's transaction fails, always;
- every write to Postgres by a leader is guarded by what it read (attempt, fence); the term is written where order
  between leaders matters.

After SIGKILL of a leader another one leads within the lease's TTL + 1 s (etcd looks for expired leases twice a second).

How to use it
=============
::

    election = Election(etcd, keys, coordinator_id, ttl_s=5.0, clock=clock)
    async for term in election.terms():
        await term.lead(lead_until_cancelled(term))

``Term.lead`` cancels the coroutine when the term ends, waits for it, steps down, and returns; the loop then campaigns
again. Cancelling the task that runs the loop steps down too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, cast

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, TenureError, Unavailable
from tenure.model.trust import Trust
from tenure.store.etcd.keyspace import Keyspace, LeaderValue, stamp
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import (
    Compacted,
    Compare,
    Etcd,
    EventKind,
    Events,
    Field,
    Get,
    GetResult,
    Grant,
    Put,
    Refused,
    Txn,
)

log = structlog.get_logger(__name__)

RESIGN_TIMEOUT_S = 1.0
RETRY_S = 0.1
LOOK_S = 0.5
"""How late the end of trust is noticed at most on a machine that was suspended."""
MAX_RETRY_S = 1.0


class Term:
    """One period of leading."""

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock, number: int, grant: Grant) -> None:
        self.number = number
        """The create revision of the leader key: grows from term to term."""
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._grant = grant
        self._keeper = LeaseKeeper(etcd, clock)
        self.left_behind = 0
        """The lease, and the leader key with it, if etcd did not take it back when this term ended."""

    def guard(self) -> Compare:
        """Return the compare that every transaction of this leader must contain."""
        return Compare(self._keys.leader, Field.CREATE, self.number)

    @property
    def trust(self) -> Trust:
        """How long this term may be believed in without another answer from etcd."""
        return self._keeper.trust(self._grant.lease) or Trust(self._grant.sent_at, self._grant.ttl_s)

    async def lead(self, body: Coroutine[Any, Any, None]) -> None:
        """Run ``body`` until the term is lost or the body ends, then step down.

        The body is cancelled when the term is lost, and waited for; what it raises is raised, in an exception group.
        """
        over = asyncio.Event()

        def lost(reason: str) -> None:
            if not over.is_set():
                log.warning("leadership_lost", term=self.number, reason=reason)
                over.set()

        self._keeper.add(self._grant, lambda _lease: lost("the lease is gone"))
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(body)
                work.add_done_callback(lambda _task: over.set())
                guards = [
                    group.create_task(self._keeper.run()),
                    group.create_task(self._watch_trust(lost)),
                    group.create_task(self._watch_key(lost)),
                ]
                await over.wait()
                work.cancel()
                # The lease is kept until the body has ended, if it can be: nobody else leads before.
                await asyncio.wait((work,))
                for guard in guards:
                    guard.cancel()
        finally:
            await self._resign()

    async def _watch_trust(self, lost: Callable[[str], None]) -> None:
        while True:
            left_s = self.trust.until - self._clock.monotonic()
            if left_s <= 0:
                lost("no proof: etcd did not answer in time")
                return
            await self._clock.sleep(min(left_s, LOOK_S))  # the loop's clock stands still while the machine is suspended

    async def _watch_key(self, lost: Callable[[str], None]) -> None:
        revision = self.number + 1
        while True:
            try:
                watch = self._etcd.watch(self._keys.leader, start_revision=revision)
                async with contextlib.aclosing(cast(AsyncGenerator[Events], watch)) as changes:
                    async for change in changes:
                        for event in change.events:
                            if event.item.key == self._keys.leader and event.item.create_revision != self.number:
                                lost("the key is deleted")
                                return
            except Compacted:
                key = None
                with contextlib.suppress(Unavailable, BoundExceeded):
                    key = await self._etcd.get(self._keys.leader)
                    if key is None or key.create_revision != self.number:
                        lost("the key is gone")
                        return
                    revision = key.mod_revision + 1
                await self._clock.sleep(RETRY_S)

    async def _resign(self) -> None:
        """Revoke the lease, and the key with it, if etcd answers; nobody leads any more in any case."""
        self._keeper.remove(self._grant.lease)
        self.left_behind = self._grant.lease
        try:
            await self._etcd.revoke(self._grant.lease, timeout_s=RESIGN_TIMEOUT_S)
            self.left_behind = 0
            log.info("stepped_down", term=self.number)
        except TenureError as exc:  # none may take the place of the cancel that ended the term
            log.info("leader_key_left_behind", term=self.number, reason=str(exc))


class Election:
    """A candidate. One per coordinator."""

    def __init__(self, etcd: Etcd, keys: Keyspace, coordinator_id: str, ttl_s: float, clock: Clock) -> None:
        self._etcd = etcd
        self._keys = keys
        self._coordinator_id = coordinator_id
        self._ttl_s = ttl_s
        self._clock = clock
        self._left_behind = 0
        """A lease of ours on which the leader key may still hang, though we do not lead."""

    async def terms(self) -> AsyncIterator[Term]:
        """Campaign, yield the term won, and again, for ever. The term must be led at once, or it expires.

        Raises:
            ConfigurationError: etcd refuses the user.
        """
        failures = 0
        while True:
            try:
                term = await self._campaign()
                failures = 0
            except (Unavailable, Compacted, Refused, BoundExceeded) as exc:
                failures += 1
                if failures == 1:
                    log.warning(
                        "election_impossible",
                        reason=str(exc),
                        next_step="check TENURE_ETCD_ENDPOINTS and that etcd runs; it is tried again until then",
                    )
                await self._clock.sleep(min(RETRY_S * 2**failures, MAX_RETRY_S) * random.uniform(0.5, 1.0))
                continue
            if term is not None:
                log.info("elected", coordinator=self._coordinator_id, term=term.number)
                yield term
                self._left_behind = term.left_behind

    async def _campaign(self) -> Term | None:
        """Wait for a vacancy and try to fill it; None if another was faster."""
        await self._wait_for_vacancy()
        grant = await self._etcd.grant(self._ttl_s, timeout_s=self._ttl_s)
        number = 0
        try:
            number = await self._create(grant)
        finally:
            if not number:
                self._left_behind = grant.lease
                with contextlib.suppress(TenureError):
                    await self._etcd.revoke(grant.lease, timeout_s=RESIGN_TIMEOUT_S)
                    self._left_behind = 0
        return Term(self._etcd, self._keys, self._clock, number, grant) if number else None

    async def _create(self, grant: Grant) -> int:
        """Create the key on a lease; return its create revision, 0 if another has it."""
        value = LeaderValue(self._coordinator_id, stamp(self._clock.wall())).to_json()
        key = self._keys.leader
        txn = Txn((Compare(key, Field.CREATE, 0),), (Put(key, value, grant.lease),), (Get(key, keys_only=True),))
        answer = await self._etcd.txn(txn, timeout_s=self._ttl_s, repeatable=True)
        if answer.succeeded:
            return answer.revision
        # An earlier sending may have done it, whose answer was lost: the lease on the key tells whose it is.
        [found] = answer.results
        if isinstance(found, GetResult) and found.items and found.items[0].lease == grant.lease:
            return found.items[0].create_revision
        return 0

    async def _wait_for_vacancy(self) -> None:
        while True:
            listing = await self._etcd.list(self._keys.leader, keys_only=True)
            leader = next((item for item in listing.items if item.key == self._keys.leader), None)
            if leader is None:
                return
            if self._left_behind and leader.lease == self._left_behind:
                await self._etcd.revoke(leader.lease, timeout_s=RESIGN_TIMEOUT_S)
                self._left_behind = 0
                log.info("earlier_term_revoked", term=leader.create_revision)
                continue
            try:
                async with asyncio.timeout(self._ttl_s):
                    await self._wait_for_deletion(listing.revision + 1)
            except TimeoutError:
                continue  # look again: the watch may have missed it

    async def _wait_for_deletion(self, revision: int) -> None:
        watch = self._etcd.watch(self._keys.leader, start_revision=revision)
        async with contextlib.aclosing(cast(AsyncGenerator[Events], watch)) as changes:
            async for change in changes:
                if any(e.kind is EventKind.DELETE and e.item.key == self._keys.leader for e in change.events):
                    return


async def current_leader(etcd: Etcd, keys: Keyspace) -> tuple[LeaderValue, int] | None:
    """Return who leads, by etcd, and the term; None in an interregnum (or if the value is not to be read).

    Raises:
        Unavailable: etcd did not answer.
    """
    key = await etcd.get(keys.leader)
    if key is None:
        return None
    try:
        return LeaderValue.from_json(key.value), key.create_revision
    except ValueError:
        return None
