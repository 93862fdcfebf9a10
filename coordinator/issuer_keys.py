"""The public keys of an OIDC issuer: read over HTTPS, kept, and read again, by one task for all callers.

Invariant: a key that is known is answered at once, whatever the issuer does at that moment. Keys are read again when
they are ``FRESH_S`` old, and for a key that nobody knows, but then at most once in ``UNKNOWN_S``, so that tokens with
made-up keys are no flood at the issuer. While the issuer is away, what was read goes on for ``TRUST_S``.

Called by ``coordinator.oidc``. What a token says is not for here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError
from msgspec import Struct, json

from tenure.coordinator.issuer_url import require_url
from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError, Unavailable

log = structlog.get_logger(__name__)

FRESH_S = 600.0
"""Keys are read again after so long."""
UNKNOWN_S = 30.0
"""For keys that are not known they are read again at most so often."""
AGAIN_S = 5.0
"""After the issuer did not answer it is asked again at most so often."""
TRUST_S = 3_600.0
"""For so long after they were read keys are good although the issuer does not answer."""
FETCH_S = 5.0
"""How long an issuer may take, for its description and its keys together."""
MAX_BYTES = 1 << 20
MAX_KEYS = 100
MIN_RSA_BITS = 2_048
MAX_RSA_BITS = 8_192

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_KEY: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Type and curve of a key, and the algorithms that go with it. No symmetric one, ever: the keys are public."""
ALGORITHMS = tuple(name for names in _BY_KEY.values() for name in names)
_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
"""What is taken of a key: no private part that somebody published by mistake."""

Keys = Mapping[tuple[str, str], PyJWK]
"""By key id and algorithm."""


class _Description(Struct):
    issuer: str
    jwks_uri: str


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """Finds keys. ``run`` is the body of a task that reads them.

    Raises:
        ConfigurationError: the file of CA certificates cannot be used.
    """

    def __init__(self, issuer: str, clock: Clock, *, keys_url: str | None = None, ca_file: Path | None = None) -> None:
        self._issuer = issuer
        self._keys_url = keys_url
        self._clock = clock
        self._context = _context(ca_file)
        self._keys: Keys = {}
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._is_away = False
        """Whether the issuer did not answer when it was asked last."""
        self._wanted = asyncio.Event()
        self._answer: asyncio.Future[None] | None = None
        """Done when the reading that is wanted or under way has ended, well or not."""

    async def run(self) -> None:
        """Read keys, at first and whenever they are wanted, until cancelled."""
        # A proxy of the environment may carry HTTPS, and sees nothing of it; what goes to this machine needs none.
        is_remote = urlsplit(self._keys_url or self._issuer).scheme == "https"
        async with httpx.AsyncClient(verify=self._context, trust_env=is_remote, follow_redirects=False) as http:
            self._ask()
            while True:
                try:
                    async with asyncio.timeout(FRESH_S):
                        await self._wanted.wait()
                except TimeoutError:
                    self._ask()
                await self._read(http)

    async def find(self, key_id: str, algorithm: str) -> PyJWK | None:
        """Return the key for signatures by an algorithm; None if the issuer has none.

        Blocks for a key that is not known, for as long as it takes to read them again.

        Raises:
            Unavailable: the issuer does not answer, and its keys are not known, or may not be the newest.
        """
        age_s = self._clock.monotonic() - self._read_at
        known = self._keys.get((key_id, algorithm)) if age_s < TRUST_S else None
        if known is not None:
            if age_s >= FRESH_S:
                self._ask_after(AGAIN_S)
            return known
        self._ask_after(UNKNOWN_S if age_s < TRUST_S else AGAIN_S)
        if self._answer is not None:
            await asyncio.shield(self._answer)
        known = self._keys.get((key_id, algorithm))
        if self._clock.monotonic() - self._read_at >= TRUST_S or (known is None and self._is_away):
            raise Unavailable("the issuer of tokens does not answer")
        return known

    def _ask_after(self, pause_s: float) -> None:
        """Have keys read, unless that was done less than so long ago."""
        if self._clock.monotonic() - self._asked_at >= pause_s:
            self._ask()

    def _ask(self) -> None:
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._asked_at = self._clock.monotonic()
            self._wanted.set()

    async def _read(self, http: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                keys = await self._fetched(http)
            self._keys, self._read_at, self._is_away = keys, self._clock.monotonic(), False
            log.debug("issuer_keys_read", issuer=self._issuer, keys=sorted({key_id for key_id, _ in keys}))
        except Exception as exc:  # whatever an issuer answers: the next reading may do better
            self._is_away = True
            log.warning("issuer_keys_not_read", issuer=self._issuer, error=repr(exc)[:300])
        finally:
            self._wanted.clear()
            answer, self._answer = self._answer, None
            if answer is not None and not answer.done():
                answer.set_result(None)

    async def _fetched(self, http: httpx.AsyncClient) -> Keys:
        url = self._keys_url
        if url is None:
            described = await _get(http, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            description = json.decode(described, type=_Description)
            if description.issuer != self._issuer:
                raise ValueError(f"it says that it is {description.issuer[:200]!r}")
            url = require_url(description.jwks_uri)
            if url.startswith("http:") and self._issuer.startswith("https:"):
                raise ValueError("an issuer of HTTPS has its keys there, too")
        keys = keys_of(json.decode(await _get(http, url), type=_KeySet).keys)
        if not keys:
            raise ValueError("it has no key that can be used")
        return keys


def keys_of(published: Sequence[Mapping[str, Any]]) -> Keys:
    """Return the keys of a key set that can be used; others are passed over, as they may be for another purpose."""
    found: dict[tuple[str, str], PyJWK] = {}
    for one in published[:MAX_KEYS]:
        key_id = one.get("kid")
        if (
            not isinstance(key_id, str)
            or one.get("use", "sig") != "sig"
            or "verify" not in one.get("key_ops", "verify")
        ):
            continue
        public = {name: one[name] for name in _PUBLIC if isinstance(one.get(name), str)}
        fitting = _BY_KEY.get((public.get("kty", ""), public.get("crv", "")), ())
        for algorithm in fitting:
            if one.get("alg", algorithm) != algorithm:
                continue
            try:
                key = PyJWK(public, algorithm=algorithm)
            except (PyJWTError, ValueError, TypeError):
                log.warning("issuer_key_not_usable", key_id=key_id[:64])
                break
            if _is_strong(key):
                found.setdefault((key_id, algorithm), key)
    return found


def _is_strong(key: PyJWK) -> bool:
    return not isinstance(key.key, RSAPublicKey) or MIN_RSA_BITS <= key.key.key_size <= MAX_RSA_BITS


async def _get(http: httpx.AsyncClient, url: str) -> bytes:
    """Return the body of an answer, read to a bound and as it was sent."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with http.stream("GET", url, headers=headers, timeout=FETCH_S) as response:
        if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError(f"GET {url} is answered by {response.status_code}, or packed")
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"GET {url} is answered by more than {MAX_BYTES} bytes")
        return bytes(body)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"TENURE_OIDC_CA: {ca_file} holds no CA certificates that can be used: {exc}") from exc
