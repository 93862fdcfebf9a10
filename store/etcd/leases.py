"""Leases: keeping them alive, knowing how long to trust them, and having some ready.

Owns: the timing of KeepAlives and the trust in each lease (``model.trust``). Invariants: trust counts from the
instant at which an answered KeepAlive was sent; a lease that the server said is gone is never renewed or created
again; one batch is outstanding at a time. Workers call it for claims and for their session, coordinators for their own
key, the election for the leader's.

"Unreachable" is not "lost": without an answer the keeper goes on trying and the trust runs out by itself, which whoever
relies on it has to watch (``LeaseKeeper.trust``). "Lost" is what the server said, and is told by callback.
Deliberately not here: stopping handlers, and claims.

A keeper belongs to one event loop. It is cheap (no task per lease, batches form by themselves), so it can have a
thread with a loop and a connection of its own; ``trust`` may be read from any thread, all else belongs to its loop.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from tenure.model.clock import Clock, elapsed_s
from tenure.model.errors import TenureError
from tenure.model.trust import SIGNS_PER_TTL, Trust, renew_every_s
from tenure.store.etcd.port import Etcd, Grant, Renewal

log = structlog.get_logger(__name__)

BATCH = 500
"""Leases renewed at a time: few enough that a lease with a short TTL never waits long behind others."""
EARLY = 0.1
"""Leases due within this share of their interval are renewed with one that is due and keep together from then on: those
of one TTL, granted at any time, make ten batches in an interval, be they a hundred or thousands."""
MIN_TIMEOUT_S = 0.25
RETRY_S = 0.1
SLOW_RETRY_S = 1.0
LOOK_S = 0.5
"""How late a renewal is at most on a machine that was suspended: the loop's clock stands still meanwhile."""
YOUNG_S = 1.0
"""A lease this young that is said to be gone is asked for once more (etcd before 3.5.3 errs, PR 13932)."""

OnLost = Callable[[int], None]
IsWanted = Callable[[int], bool]


@dataclass(slots=True)
class _Kept:
    lease: int
    trust: Trust
    on_lost: OnLost
    granted_at: float
    due: float
    is_session: bool = False
    is_wanted: IsWanted | None = None
    doubted: bool = False


class Renewer(Protocol):
    """What sends KeepAlives: etcd, or a coordinator on behalf of a runner."""

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """See ``Etcd.renew``."""
        ...


class Observer(Protocol):
    """Is told how renewing goes; it decides nothing."""

    def renewed(self, took_s: float, missing: int) -> None:
        """Take note of a batch: how long it took, and how many of it have no answer."""
        ...

    def lost(self) -> None:
        """Take note of a lease that is gone."""
        ...


class LeaseKeeper:
    """Keeps registered leases alive. ``run`` is the body of a task."""

    def __init__(self, etcd: Renewer, clock: Clock, observer: Observer | None = None) -> None:
        self._etcd = etcd
        self._observer = observer
        self._clock = clock
        self._kept: dict[int, _Kept] = {}
        self._heap: list[tuple[float, int]] = []
        self._ttls: Counter[float] = Counter()
        self._sessions: dict[int, _Kept] = {}
        self._woken = asyncio.Event()
        self._unanswered = False

    def __len__(self) -> int:
        return len(self._kept)

    def add(
        self, grant: Grant, on_lost: OnLost, *, is_session: bool = False, is_wanted: IsWanted | None = None
    ) -> None:
        """Keep a lease alive from now on; ``on_lost(lease)`` is called, once, when the server says that it is gone.

        The callback runs in the keeper's loop and must be quick; the lease is forgotten before. A session is renewed
        more often than any other lease that is kept: by its age others tell whether this process lives. When a lease
        falls due ``is_wanted(lease)`` is asked; who says no has removed it and lets it expire.
        """
        kept = _Kept(
            grant.lease,
            Trust(grant.sent_at, grant.ttl_s),
            on_lost,
            grant.sent_at,
            grant.sent_at,
            is_session=is_session,
            is_wanted=is_wanted,
        )
        self._kept[grant.lease] = kept
        if is_session:
            self._sessions[grant.lease] = kept
        self._ttls[grant.ttl_s] += 1
        self._schedule(kept, grant.sent_at + self._every_s(kept))
        if self._ttls[grant.ttl_s] == 1:
            self._hasten_sessions()
        self._woken.set()

    def _every_s(self, kept: _Kept) -> float:
        return min(self._ttls) / SIGNS_PER_TTL if kept.is_session else renew_every_s(kept.trust.ttl_s)

    def _hasten_sessions(self) -> None:
        """See to it that sessions keep up with a lease whose TTL is shorter than those before."""
        for session in self._sessions.values():
            due = session.trust.sent_at + self._every_s(session)
            if due < session.due:
                self._schedule(session, due)

    def remove(self, lease: int) -> None:
        """Stop keeping a lease; it is not revoked. Unknown ones are ignored."""
        kept = self._kept.pop(lease, None)
        if kept is None:
            return
        self._sessions.pop(lease, None)
        self._uncount(kept.trust.ttl_s)

    def _uncount(self, ttl_s: float) -> None:
        self._ttls[ttl_s] -= 1
        if not self._ttls[ttl_s]:
            del self._ttls[ttl_s]

    def trust(self, lease: int) -> Trust | None:
        """Return the trust in a lease as of the last answer; None if it is not kept (any more)."""
        kept = self._kept.get(lease)
        return kept.trust if kept else None

    def trust_margin_s(self) -> float:
        """Return how long every lease that is kept will still be trusted, without another answer; 0 if none is."""
        until = min((kept.trust.until for kept in self._kept.values()), default=0.0)
        return max(0.0, until - self._clock.monotonic())

    def now(self) -> float:
        """Return the instant by the clock that trust is measured with."""
        return self._clock.monotonic()

    async def run(self) -> None:
        """Renew leases as they fall due, until cancelled."""
        while True:
            batch = self._take_due()
            if batch:
                await self._renew(batch)
                continue
            self._woken.clear()
            wait_s = self._heap[0][0] - self._clock.monotonic() if self._heap else None
            try:
                async with asyncio.timeout(None if wait_s is None else min(max(wait_s, 0.001), LOOK_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _schedule(self, kept: _Kept, due: float) -> None:
        kept.due = due
        heapq.heappush(self._heap, (due, kept.lease))

    def _take_due(self) -> list[_Kept]:
        """Take the most urgent leases that are due; entries of removed or rescheduled ones are dropped on the way."""
        now = self._clock.monotonic()
        if not self._heap or self._heap[0][0] > now:
            return []
        batch: list[_Kept] = []
        while self._heap and len(batch) < BATCH:
            due, lease = self._heap[0]
            kept = self._kept.get(lease)
            is_current = kept is not None and kept.due == due
            if kept is not None and is_current and due > now + EARLY * self._every_s(kept):
                break
            heapq.heappop(self._heap)
            if kept is not None and is_current and (kept.is_wanted is None or kept.is_wanted(lease)):
                kept.due = -1.0  # in flight: a second entry for the same instant is not taken
                batch.append(kept)
        return batch

    async def _renew(self, batch: Sequence[_Kept]) -> None:
        # The batch must be over before the most frequent of all leases is due again.
        timeout_s = max(renew_every_s(min(self._ttls, default=batch[0].trust.ttl_s)), MIN_TIMEOUT_S)
        renewals: Sequence[Renewal] = ()
        began = elapsed_s()
        try:
            renewals = await self._etcd.renew([kept.lease for kept in batch], timeout_s=timeout_s)
        except TenureError as exc:
            # No answer, as far as trust goes: what runs is stopped in time by it, and an operator may repair this.
            log.error("leases_refused", reason=str(exc))
        answers = {renewal.lease: renewal for renewal in renewals}
        for kept in batch:
            if self._kept.get(kept.lease) is not kept:
                continue  # removed meanwhile
            answer = answers.get(kept.lease)
            if answer is None:
                self._retry(kept)
            elif answer.ttl_s > 0:
                self._renewed(kept, answer)
            else:
                self._gone(kept)
        missing = len(batch) - len(answers)
        if self._observer is not None:
            self._observer.renewed(elapsed_s() - began, missing)
        if missing and not self._unanswered:
            log.warning("leases_not_renewed", leases=missing, kept=len(self._kept))
        elif self._unanswered and not missing:
            log.info("leases_renewed_again", kept=len(self._kept))
        self._unanswered = missing > 0

    def _renewed(self, kept: _Kept, answer: Renewal) -> None:
        if answer.ttl_s != kept.trust.ttl_s:
            self._uncount(kept.trust.ttl_s)
            self._ttls[answer.ttl_s] += 1
        kept.trust = Trust(answer.sent_at, answer.ttl_s)
        kept.doubted = False
        self._schedule(kept, answer.sent_at + self._every_s(kept))

    def _retry(self, kept: _Kept) -> None:
        now = self._clock.monotonic()
        pause = RETRY_S if kept.trust.holds(now) else SLOW_RETRY_S
        self._schedule(kept, now + pause * random.uniform(0.5, 1.5))

    def _gone(self, kept: _Kept) -> None:
        now = self._clock.monotonic()
        if not kept.doubted and now - kept.granted_at < YOUNG_S:
            kept.doubted = True
            self._schedule(kept, now + RETRY_S)
            return
        self.remove(kept.lease)
        if self._observer is not None:
            self._observer.lost()
        log.info("lease_lost", lease=f"{kept.lease:016x}")
        kept.on_lost(kept.lease)


GRANTS_AT_ONCE = 32
MAX_IDLE = 256
WARM = 32
"""So many idle leases are kept however long nobody needs them, so that a worker with nothing to do claims at once."""
IDLE_TTLS = 3
"""An idle lease beyond these expires when nobody has used it for so many TTLs: about when its renewals have cost as
much as another grant."""


class LeasePool:
    """Leases ready to carry a claim, by TTL in whole seconds, as etcd grants it. Each carries one claim at a time.

    A lease goes out by ``acquire`` and comes back by ``give_back`` (only after etcd answered that its claim was
    deleted) or goes for good by ``discard`` (after any unknown outcome). While out, as well as idle, the keeper
    renews it; ``on_lost`` is told only of leases that are out. At most ``max_idle`` are idle, of all TTLs together.
    What was returned last is used first, so that what is not needed shows by its age: it is renewed no more.
    """

    def __init__(self, etcd: Etcd, keeper: LeaseKeeper, on_lost: OnLost, *, max_idle: int = MAX_IDLE) -> None:
        self._etcd = etcd
        self._keeper = keeper
        self._on_lost = on_lost
        self._max_idle = max_idle
        self._idle: dict[int, list[int]] = {}
        """Idle leases by TTL, the oldest first; the TTL that was used last comes last."""
        self._idle_since: dict[int, float] = {}
        self._asked: dict[int, int] = {}
        """The TTL asked for, of every lease of the pool, idle or out."""
        self._out: set[int] = set()
        self._granting = asyncio.Semaphore(GRANTS_AT_ONCE)

    @property
    def idle(self) -> int:
        """How many leases are ready."""
        return len(self._idle_since)

    @property
    def out(self) -> int:
        """How many leases may carry a claim."""
        return len(self._out)

    async def acquire(self, ttl_s: float, count: int, *, timeout_s: float = 5.0) -> list[Grant]:
        """Return up to ``count`` leases of at least ``ttl_s`` seconds, all trusted now; fewer if etcd gives none.

        ``ttl_s`` of a grant is what the server gave, which may be more. Cancelled half-way, leases just granted are
        left to expire.
        """
        ready = self._take_idle(math.ceil(ttl_s), count)
        if len(ready) < count:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._grant(ttl_s, timeout_s)) for _ in range(count - len(ready))]
            ready.extend(grant for task in tasks if (grant := task.result()) is not None)
        return ready

    def _take_idle(self, ttl_s: int, count: int) -> list[Grant]:
        idle = self._idle.pop(ttl_s, [])
        ready: list[Grant] = []
        now = self._keeper.now()
        while idle and len(ready) < count:
            lease = idle.pop()
            del self._idle_since[lease]
            trust = self._keeper.trust(lease)
            if trust is not None and trust.holds(now):
                self._out.add(lease)
                ready.append(Grant(lease, trust.ttl_s, trust.sent_at))
            else:
                self._forget(lease)  # it expires, if it has not
        if idle:
            self._idle[ttl_s] = idle
        return ready

    async def _grant(self, ttl_s: float, timeout_s: float) -> Grant | None:
        try:
            async with self._granting:
                grant = await self._etcd.grant(ttl_s, timeout_s=timeout_s)
        except TenureError as exc:  # unreachable, no space, not allowed: all the same to who wants to claim
            log.warning("no_lease_granted", ttl_s=ttl_s, reason=str(exc))
            return None
        self._asked[grant.lease] = math.ceil(ttl_s)
        self._out.add(grant.lease)
        self._keeper.add(grant, self._lost, is_wanted=self._is_wanted)
        return grant

    def _is_wanted(self, lease: int) -> bool:
        idle_since = self._idle_since.get(lease)
        if idle_since is None or len(self._idle_since) <= WARM:
            return True
        if self._keeper.now() - idle_since < IDLE_TTLS * self._asked[lease]:
            return True
        self._forget(lease)
        return False

    async def give_back(self, lease: int) -> None:
        """Take a lease back whose claim is certainly deleted.

        Where there are enough already the oldest of another TTL, the one longest unused, is revoked, or else this one.
        """
        ttl_s = self._asked.get(lease)
        if ttl_s is None:
            return
        surplus = None
        if self.idle >= self._max_idle:
            surplus = next((leases[0] for other, leases in self._idle.items() if other != ttl_s), lease)
        if surplus != lease:
            self._out.discard(lease)
            idle = self._idle.pop(ttl_s, [])
            idle.append(lease)
            self._idle[ttl_s] = idle
            self._idle_since[lease] = self._keeper.now()
        if surplus is not None:
            await self.discard(surplus)

    async def discard(self, lease: int, *, timeout_s: float = 2.0) -> None:
        """Revoke a lease with all that it may carry. If etcd does not answer it expires by itself, renewed no more."""
        self._forget(lease)
        try:
            await self._etcd.revoke(lease, timeout_s=timeout_s)
        except TenureError as exc:  # whatever the reason: it is renewed no more
            log.info("lease_left_to_expire", lease=f"{lease:016x}", reason=str(exc))

    async def close(self, *, timeout_s: float = 5.0) -> None:
        """Revoke every lease of the pool, idle or out, as far as the time allows."""
        leases = list(self._asked)

        async def discard(lease: int) -> None:
            async with self._granting:
                await self.discard(lease)

        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for lease in leases:
                    group.create_task(discard(lease))
        except TimeoutError:
            log.info("leases_left_to_expire", leases=len(leases))

    def _forget(self, lease: int) -> None:
        self._keeper.remove(lease)
        self._out.discard(lease)
        ttl_s = self._asked.pop(lease, None)
        if ttl_s is not None and self._idle_since.pop(lease, None) is not None:
            self._idle[ttl_s].remove(lease)
            if not self._idle[ttl_s]:
                del self._idle[ttl_s]

    def _lost(self, lease: int) -> None:
        out = lease in self._out
        self._forget(lease)
        if out:
            self._on_lost(lease)
