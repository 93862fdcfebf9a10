"""Leases by HTTPS: what a runner holds, renewed through whichever coordinator answers; and its session.

To the keeper of leases this is etcd, as far as it asks for anything: one KeepAlive for each lease of a batch. With the
renewals comes what became of the claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from tenure.model.errors import PermissionDenied, TenureError, Unauthenticated
from tenure.store.etcd.keyspace import WorkerValue
from tenure.store.etcd.port import Grant, Renewal
from tenure.v1 import runner_api as wire
from tenure.worker.remote.api import Api

log = structlog.get_logger(__name__)

REFUSED_PAUSE_S = 1.0
OnStop = Callable[[int, str], None]
"""Called with a lease and ``lost`` or ``held``."""
OnNewer = Callable[[str], None]
"""Called with the token that takes the place of one that was held."""


class RemoteLeases:
    """The tokens of what is held, by lease."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tokens: dict[int, str] = {}
        self._on_newer: dict[int, OnNewer] = {}
        self.on_stop: OnStop = lambda lease, stop: None

    def hold(self, lease: int, token: str, on_newer: OnNewer = lambda token: None) -> None:
        """Show this token when a lease is to be renewed; with a renewal may come a newer one."""
        self._tokens[lease] = token
        self._on_newer[lease] = on_newer

    def drop(self, lease: int) -> str | None:
        """Forget a lease; return its token."""
        self._on_newer.pop(lease, None)
        return self._tokens.pop(lease, None)

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """See ``Etcd.renew``."""
        asked = [lease for lease in leases if lease in self._tokens]
        answers: list[Renewal] = []
        for start in range(0, len(asked), wire.MAX_CLAIMS):
            page = asked[start : start + wire.MAX_CLAIMS]
            request = wire.Renew(tuple(self._tokens[lease] for lease in page))
            try:
                renewed, sent = await self._api.call("renew", request, wire.Renewals, timeout_s=timeout_s, once=True)
            except TenureError as exc:
                log.info("leases_not_answered", leases=len(page), error=exc.message)
                if isinstance(exc, (Unauthenticated, PermissionDenied)):
                    await asyncio.sleep(min(REFUSED_PAUSE_S, timeout_s))  # asking again at once is of no use
                continue
            if len(renewed.leases) != len(page):  # it answers another question
                log.error("leases_not_answered", leases=len(page), answers=len(renewed.leases))
                continue
            for lease, answer in zip(page, renewed.leases, strict=True):
                if answer.ttl_s is not None:
                    answers.append(Renewal(lease, answer.ttl_s, sent.at))
                if answer.token and lease in self._tokens:
                    self._tokens[lease] = answer.token
                    self._on_newer[lease](answer.token)
                if answer.stop:
                    self.on_stop(lease, answer.stop)
        return answers


class RemoteSessions:
    """Sessions of one runner; see ``worker.registration.Sessions``."""

    def __init__(self, api: Api, leases: RemoteLeases) -> None:
        self._api = api
        self._leases = leases
        self._token = ""
        self._opened = asyncio.Event()

    async def token(self) -> str:
        """Return the session's token, once there was one."""
        await self._opened.wait()
        return self._token

    async def open(self, worker: str, value: WorkerValue, ttl_s: float) -> Grant:
        """Open a session; the runner keeps its id, if it had one."""
        session, sent_at = await self._ask(worker, value, ttl_s)
        return self._granted(session, sent_at)

    async def change(self, worker: str, value: WorkerValue, lease: int, ttl_s: float) -> Grant | None:
        """Tell what changed; a session that was gone is a new one then."""
        session, sent_at = await self._ask(worker, value, ttl_s)
        return self._granted(session, sent_at) if session.is_new else None

    async def end(self, lease: int) -> None:
        """End the session."""
        self._leases.drop(lease)
        await self._api.call("close", wire.CloseSession(self._token), wire.Done, timeout_s=5.0)

    def _show(self, token: str) -> None:
        log.info("session_token_renewed")
        self._token = token

    async def _ask(self, worker: str, value: WorkerValue, ttl_s: float) -> tuple[wire.Session, float]:
        runner = wire.Runner(
            name=worker,
            pools=value.pools,
            kinds=value.kinds,
            capacity=value.capacity,
            labels=value.labels,
            host=value.host,
            version=value.version,
            draining=value.draining,
        )
        try:
            return await self._opened_by(wire.OpenSession(runner, ttl_s, self._token))
        except PermissionDenied:
            if not self._token:
                raise
            # Perhaps it was signed with a key that is not taken any more: then this runner has another id from now on.
            return await self._opened_by(wire.OpenSession(runner, ttl_s))

    async def _opened_by(self, request: wire.OpenSession) -> tuple[wire.Session, float]:
        session, sent = await self._api.call("session", request, wire.Session)
        return session, sent.at

    def _granted(self, session: wire.Session, sent_at: float) -> Grant:
        lease = int(session.lease, 16)
        self._leases.hold(lease, session.session, self._show)
        self._token = session.session
        self._opened.set()
        structlog.contextvars.bind_contextvars(worker=session.runner)
        log.info("session_opened", runner=session.runner)
        return Grant(lease, session.ttl_s, sent_at)
