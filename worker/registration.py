"""Registration: keeps the worker in a session, by which leaders see it and what it offers to do.

A session that expired (a long pause, etcd away) is opened anew; claims have leases of their own and do not depend on
it. Only the inbox hangs on it: offers to a worker that vanished vanish with it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

import structlog
from msgspec.structs import replace

from tenure.model.clock import Clock
from tenure.model.errors import PermissionDenied, TenureError, Unauthenticated
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.leases import LeaseKeeper
from tenure.store.etcd.port import Grant

log = structlog.get_logger(__name__)

PAUSE_S = 1.0
REFUSED_PAUSE_S = 5.0
"""At most so long until a registration is tried again: after no answer, and after a refusal."""


class Sessions(Protocol):
    """Where sessions are kept: etcd (``store.etcd.sessions``), or a coordinator that does it for a runner."""

    async def open(self, worker: str, value: WorkerValue, ttl_s: float) -> Grant:
        """Open a session that shows the worker."""
        ...

    async def change(self, worker: str, value: WorkerValue, lease: int, ttl_s: float) -> Grant | None:
        """Show what changed; return the grant of a session that had to be opened for it."""
        ...

    async def end(self, lease: int) -> None:
        """End a session at once."""
        ...


class Registration:
    """Keeps one worker registered. ``run`` is the body of a task."""

    def __init__(
        self,
        sessions: Sessions,
        clock: Clock,
        keeper: LeaseKeeper,
        worker: str,
        value: WorkerValue,
        ttl_s: float,
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._keeper = keeper
        self._worker = worker
        self._value = value
        self._ttl_s = ttl_s
        self._lease = 0
        self._stale = asyncio.Event()
        self._stale.set()
        self._reason = ""
        self._told = ""
        self.registered = asyncio.Event()
        """Set while this worker's key is in etcd, as far as it knows."""

    async def run(self) -> None:
        """Register, and again whenever the session is lost or the value changes."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._register()
                self.registered.set()
                self._told = ""
            except TenureError as exc:
                self._reason = exc.message
                self._tell(exc)
                self._stale.set()
                # Somebody has to act on a refusal first.
                pause_s = REFUSED_PAUSE_S if isinstance(exc, (Unauthenticated, PermissionDenied)) else PAUSE_S
                await self._clock.sleep(pause_s * random.uniform(0.2, 1.0))

    def _tell(self, exc: TenureError) -> None:
        """Log why there is no registration, once for each reason in a row: ``/readyz`` goes on saying it."""
        if exc.message == self._told:
            return
        self._told = exc.message
        next_step = exc.hint or "check the addresses, and that it runs"
        log.warning("registration_failed", error=exc.message, next_step=f"{next_step}; it is tried again until then")

    def _session_lost(self, lease: int) -> None:
        if lease == self._lease:
            log.warning("session_lost", worker=self._worker)
            self._lease = 0
            self._reason = "the session was lost"
            self.registered.clear()
            self._stale.set()

    def problem(self) -> str | None:
        """Say why leaders offer this worker nothing, or should not; None if all is well."""
        if self._value.draining:
            return "draining"
        if not self.registered.is_set():
            return f"not registered: {self._reason or 'starting'}"
        trust = self._keeper.trust(self._lease)
        if trust is None or not trust.holds(self._clock.monotonic()):
            return "the session is not trusted: it was not renewed in time"
        return None

    def touch(self) -> None:
        """Show that this worker lives: a leader that saw one of its claims vanish offers it nothing until then."""
        self._stale.set()

    def drain(self) -> None:
        """Let leaders know that this worker takes no more."""
        self._value = replace(self._value, draining=True)
        self._stale.set()

    async def close(self) -> None:
        """End the session: the key, and offers still in the inbox, go at once."""
        lease, self._lease = self._lease, 0
        if lease:
            self._keeper.remove(lease)
            await self._sessions.end(lease)

    async def _register(self) -> None:
        lease = self._lease
        try:
            if lease:
                grant = await self._sessions.change(self._worker, self._value, lease, self._ttl_s)
            else:
                grant = await self._sessions.open(self._worker, self._value, self._ttl_s)
        except TenureError:
            # Perhaps the lease is gone, perhaps etcd is: a new session is right in both cases.
            self._keeper.remove(lease)
            if self._lease == lease:
                self._lease = 0
            self.registered.clear()
            raise
        if grant is not None:
            self._keeper.remove(lease)
            self._lease = grant.lease
            self._keeper.add(grant, self._session_lost, is_session=True)
