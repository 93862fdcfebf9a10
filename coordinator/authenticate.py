"""Who calls: a bearer token, or the subject of a verified client certificate, becomes an identity.

A bearer token is one of tenure's own, or one of an OIDC issuer where there is one (``coordinator.oidc``).

Nothing that is kept here is older than ``FRESH_S``, so that a revoked token is refused soon, without a query per call.
While Postgres is away a credential that was seen valid within ``TRUST_S`` goes on working, since running jobs must be
able to report; others are refused as unavailable. Look-ups that come together share one query, and unknown ids are
kept apart from known ones, so that guessing drives out nobody. What an identity may do is for ``coordinator.access``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from tenure.coordinator.kept import Kept
from tenure.coordinator.signing_keys import LOOK_S, read_keys
from tenure.model.access import Identity, Role
from tenure.model.batch import Batcher
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, Unauthenticated, Unavailable
from tenure.model.tokens import COORDINATORS, Token, coordinators_token, read_token
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

FRESH_S = 2.0
"""A credential is read again after so long: a revocation acts within this and the time of a query."""
TRUST_S = 900.0
"""For so long after it was read as valid a credential works although Postgres does not answer: an outage of minutes
takes no job from runners, whose renewals are calls. Nothing can be revoked meanwhile anyhow."""
PATIENCE_S = 2.0
"""How long a caller that could be trusted waits for Postgres before it is."""
PAUSE_S = 1.0
"""After Postgres did not answer: for so long, who can be trusted is not kept waiting for it again."""
MAX_KEPT = 10_000
"""Of known credentials, and of unknown ones: who was here longest ago is forgotten first."""
MAX_WAITING = 2_000
MAX_QUERY = 500
COORDINATOR = Identity("coordinator", Role.COORDINATOR)
_NONE = "no credentials"
_NOT_VALID = "the credentials are not valid"
_HINT = "set TENURE_TOKEN or TENURE_TOKEN_FILE; an admin makes one: tenure tokens create"

CredentialKey = uuid.UUID | str
"""The id of a token, or the subject of a certificate."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A row of ``tenure.token``, as it was read at ``read_at``; no identity for one that is not valid or not there."""

    read_at: float
    identity: Identity | None = None
    hash: bytes = b""


class Issued(Protocol):
    """Identifies callers by tokens that somebody else has issued; see ``coordinator.oidc``."""

    async def run(self) -> None:
        """Do what must be done beside calls, until cancelled."""
        ...

    async def identify(self, bearer: str) -> Identity | None:
        """Return whose token this is; None for one that is not valid. Raises ``Unavailable``."""
        ...


class Authenticator:
    """Identifies callers; one for gRPC and REST. ``run`` is the body of a task that carries out look-ups."""

    def __init__(self, database: Database, clock: Clock, issued: Issued | None = None) -> None:
        self._database = database
        self._clock = clock
        self._issued = issued
        self._known: Kept[CredentialKey, Credential] = Kept(MAX_KEPT)
        self._unknown: Kept[CredentialKey, Credential] = Kept(MAX_KEPT)
        self._own: tuple[Token, ...] = ()
        """By which coordinators call each other: what this one shows, and what else it takes."""
        self._own_read_at = float("-inf")
        self._asked: dict[CredentialKey, asyncio.Future[Credential]] = {}
        self._look_ups: Batcher[CredentialKey, Credential] = Batcher(
            self._look_up_many, max_items=MAX_QUERY, max_waiting=MAX_WAITING, name="credentials"
        )
        self._away_until = 0.0

    async def run(self) -> None:
        """Carry out look-ups until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_ups.run())
            if self._issued is not None:
                group.create_task(self._issued.run())

    async def identify(self, *, bearer: str | None, subjects: Sequence[str] = ()) -> Identity:
        """Return who calls, by the bearer token (without ``Bearer``), or else by the subjects of the certificate.

        The first subject that a valid credential is bound to counts. A bearer token that is not valid is refused,
        whatever the certificate says.

        Raises:
            Unauthenticated: nothing was shown, or it is not valid: malformed, unknown, expired, revoked.
            Unavailable: Postgres does not answer, and has not confirmed this credential of late; or the issuer of
                tokens does not, whose keys are not known.
            BoundExceeded: too many unknown credentials are looked up at this moment.
        """
        if bearer is not None:
            return await self._by_token(bearer)
        for subject in dict.fromkeys(subjects):
            if "\x00" not in subject and (identity := (await self._credential(subject)).identity) is not None:
                return identity
        raise Unauthenticated(_NOT_VALID if subjects else _NONE, hint=_HINT)

    async def own_token(self) -> str:
        """Return the token by which this coordinator calls others.

        Raises:
            Unavailable: Postgres does not answer.
        """
        return (await self._own_tokens())[0].text()

    async def _by_token(self, bearer: str) -> Identity:
        token = read_token(bearer)
        if token is None:
            # A JWT has three parts with dots between; no token of tenure's has a dot.
            if self._issued is not None and bearer.count(".") == 2:
                identity = await self._issued.identify(bearer)
                if identity is not None:
                    return identity
            raise Unauthenticated(_NOT_VALID, hint=_HINT)
        if token.id == COORDINATORS:
            if any(token.shows(own.hash()) for own in await self._own_tokens()):
                return COORDINATOR
            raise Unauthenticated(_NOT_VALID, hint=_HINT)
        credential = await self._credential(token.id)
        is_shown = token.shows(credential.hash or bytes(32))
        if credential.identity is None or not is_shown:
            raise Unauthenticated(_NOT_VALID, hint=_HINT)
        return credential.identity

    async def _own_tokens(self) -> tuple[Token, ...]:
        """Return what is made of the signing keys, read anew now and then; while Postgres is away, what was read."""
        now = self._clock.monotonic()
        if not self._own or now - self._own_read_at >= LOOK_S:
            self._own_read_at = now  # others go on with what there is meanwhile
            try:
                known, signing = await read_keys(self._database)
            except Unavailable:
                if not self._own:
                    raise
            else:
                keys = (known[signing], *known[:signing], *known[signing + 1 :])
                self._own = tuple(map(coordinators_token, keys))
        return self._own

    async def _credential(self, key: CredentialKey) -> Credential:
        """Return what is known of a credential: fresh, or as good as can be had while Postgres is away."""
        kept = self._known.get(key) or self._unknown.get(key)
        now = self._clock.monotonic()
        if kept is not None and now - kept.read_at < FRESH_S:
            return kept
        trusted = kept if kept is not None and kept.identity is not None and now - kept.read_at < TRUST_S else None
        if trusted is None:
            return await self._look_up(key)
        if now < self._away_until:
            return trusted
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._look_up(key)
        except (Unavailable, BoundExceeded, TimeoutError):
            self._away_until = self._clock.monotonic() + PAUSE_S
            log.warning("credentials_not_read", age_s=round(now - trusted.read_at, 1))
            return trusted

    async def _look_up(self, key: CredentialKey) -> Credential:
        """Read a credential; callers that want the same one wait for the same answer."""
        if (asked := self._asked.get(key)) is None:
            (asked,) = self._look_ups.add([key])
            self._asked[key] = asked
            asked.add_done_callback(lambda done: self._answered(key, done))
        # Shielded: who gives up waiting takes the answer from nobody else.
        return await asyncio.shield(asked)

    def _answered(self, key: CredentialKey, done: asyncio.Future[Credential]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # heard, also where nobody waits any more

    async def _look_up_many(self, keys: list[CredentialKey]) -> Sequence[Credential]:
        read_at = self._clock.monotonic()
        rows = await self._database.fetch(
            "credentials",
            {
                "ids": [key for key in keys if isinstance(key, uuid.UUID)],
                "subjects": [key for key in keys if isinstance(key, str)],
            },
        )
        found: dict[CredentialKey, Any] = {row.subject or row.id: row for row in rows}
        return [self._keep(key, _credential_of(found.get(key), read_at)) for key in keys]

    def _keep(self, key: CredentialKey, credential: Credential) -> Credential:
        is_known = bool(credential.identity)
        (self._known if is_known else self._unknown).put(key, credential)
        (self._unknown if is_known else self._known).drop(key)
        return credential


def _credential_of(row: Any, read_at: float) -> Credential:
    if row is None or not row.is_valid:
        return Credential(read_at)
    try:
        role = Role(row.role)
    except ValueError:  # of a later release
        log.warning("role_unknown", credential=str(row.id), role=row.role)
        return Credential(read_at)
    identity = Identity(row.name, role, tuple(row.namespaces), tuple(row.pools))
    return Credential(read_at, identity, bytes(row.hash or b""))
