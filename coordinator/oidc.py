"""Who calls, by a token that an OIDC issuer has signed (a JWT): its claims become an identity, or nobody.

Nothing about such a token is kept here but that it was verified, for ``FRESH_S`` at most, so that a call costs no
signature check. A role comes from a claim and from nothing else: a token without it is nobody's. Names begin with
``oidc:``, which no stored credential may. Called by ``coordinator.authenticate``, which says the refusal; why a token
was refused is for the log alone, and the token for nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from jwt.exceptions import PyJWTError

from tenure.coordinator.issuer_keys import ALGORITHMS, IssuerKeys
from tenure.coordinator.kept import Kept
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.access import Identity, Role
from tenure.model.clock import Clock
from tenure.model.credentials import MAX_CHARS, OF_ISSUER, validate_credential
from tenure.model.errors import InvalidInput

log = structlog.get_logger(__name__)

FRESH_S = 60.0
"""A token is verified again after so long, or when it has expired."""
LEEWAY_S = 30.0
"""How far the clocks of issuer and coordinator may lie apart."""
MAX_CHARS_OF_TOKEN = 8_192
MAX_KEPT = 10_000
LOG_EVERY_S = 1.0
"""One refusal is logged in so long; those in between are counted."""


class Refused(Exception):
    """This token is nobody's; why, for the log."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The names of the claims that make an identity."""

    role: str = "tenure_role"
    namespaces: str = "tenure_namespaces"
    pools: str = "tenure_pools"
    name: str = "sub"


@dataclass(frozen=True, slots=True)
class _Verified:
    until: float
    identity: Identity


class IssuedTokens:
    """Identifies callers by tokens of one issuer. ``run`` is the body of a task that reads the issuer's keys."""

    def __init__(
        self, issuer: str, audience: str, keys: IssuerKeys, clock: Clock, claims: Claims | None = None
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock
        self._claims = claims or Claims()
        self._verified: Kept[bytes, _Verified] = Kept(MAX_KEPT)
        self._logged_at = float("-inf")
        self._unlogged = 0

    async def run(self) -> None:
        """Read the issuer's keys until cancelled."""
        await self._keys.run()

    async def identify(self, bearer: str) -> Identity | None:
        """Return whose token this is; None for one that is not valid.

        Raises:
            Unavailable: the issuer does not answer, and its keys are not known.
        """
        if len(bearer) > MAX_CHARS_OF_TOKEN or not bearer.isascii():
            self._log("too long, or not ASCII")
            return None
        digest = hashlib.sha256(bearer.encode()).digest()
        kept = self._verified.get(digest)
        if kept is not None and self._clock.monotonic() < kept.until:
            return kept.identity
        try:
            told = await self._verify(bearer)
            identity = identity_of(told, self._claims)
            left_s = float(told["exp"]) + LEEWAY_S - self._clock.wall().timestamp()
        except (Refused, OverflowError) as exc:
            self._log(str(exc))
            return None
        self._verified.put(digest, _Verified(self._clock.monotonic() + min(FRESH_S, left_s), identity))
        return identity

    async def _verify(self, bearer: str) -> Mapping[str, Any]:
        """Return the claims of a token that the issuer has signed for this audience, and that is valid now."""
        try:
            header = jwt.get_unverified_header(bearer)
            algorithm, key_id = header.get("alg"), header.get("kid")
            # Before a key is looked for: what cannot be valid makes nobody ask the issuer.
            if algorithm not in ALGORITHMS or not isinstance(key_id, str):
                raise Refused("an algorithm that is not taken, or no key id")
            key = await self._keys.find(key_id, algorithm)
            if key is None:
                raise Refused(f"the issuer has no key {key_id[:64]!r} for {algorithm}")
            told: dict[str, Any] = jwt.decode(
                bearer,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            # The name alone: messages may quote the token.
            raise Refused(type(exc).__name__) from exc
        return told

    def _log(self, reason: str) -> None:
        now = self._clock.monotonic()
        if now - self._logged_at < LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning("issued_token_refused", reason=reason, others=self._unlogged)
        self._logged_at, self._unlogged = now, 0


def identity_of(told: Mapping[str, Any], claims: Claims) -> Identity:
    """Return the identity that the claims of a verified token make, by the rules of stored credentials.

    A worker or runner without the claim of namespaces has none: its children go to their parent's.

    Raises:
        Refused: a claim is missing, of another type, or not allowed.
    """
    name, role = told.get(claims.name), told.get(claims.role)
    if not isinstance(name, str) or not isinstance(role, str):
        raise Refused(f"{claims.name} and {claims.role} must be texts")
    if not name or name != name.strip() or len(OF_ISSUER) + len(name) > MAX_CHARS:
        raise Refused(f"{claims.name} must have 1 to {MAX_CHARS - len(OF_ISSUER)} characters, and no spaces around")
    namespaces, pools = _scope(told, claims.namespaces), _scope(told, claims.pools)
    try:
        made = validate_credential(name=name, role=role, namespaces=namespaces, pools=pools)
    except InvalidInput as exc:
        raise Refused(f"{name!r}: {exc.message}"[:500]) from exc
    is_confined = made.role is not Role.ADMIN
    return Identity(OF_ISSUER + name, made.role, namespaces if is_confined else made.namespaces, made.pools)


def _scope(told: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """Return a list of texts; empty where there is no such claim. One that is there names something."""
    values = told.get(claim)
    if values is None and claim not in told:
        return ()
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Refused(f"{claim} must be a list of texts that is not empty; without the claim there are none")
    return tuple(values)


def issued_tokens(settings: CoordinatorSettings, clock: Clock) -> IssuedTokens | None:
    """Return what identifies by tokens of the issuer that the settings name; None if they name none.

    Raises:
        ConfigurationError: the file of CA certificates cannot be used.
    """
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    keys = IssuerKeys(settings.oidc_issuer, clock, keys_url=settings.oidc_jwks_url, ca_file=settings.oidc_ca)
    claims = Claims(
        role=settings.oidc_role_claim,
        namespaces=settings.oidc_namespaces_claim,
        pools=settings.oidc_pools_claim,
        name=settings.oidc_name_claim,
    )
    return IssuedTokens(settings.oidc_issuer, settings.oidc_audience, keys, clock, claims)
