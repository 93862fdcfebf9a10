"""Login at an OIDC issuer: authorization code with PKCE. What comes back is a token, which the API judges.

The state, nonce and verifier of a login under way travel in a sealed cookie. Nothing is verified here but that the
answer belongs to this login: whose the token is, and whether it stands, is for ``coordinator.oidc`` to say, as for any
other call. Of an access token and an ID token the first that the API takes becomes the session's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import jwt
import structlog

from tenure.dashboard.sessions import SignIn
from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError, PermissionDenied, Unavailable

log = structlog.get_logger(__name__)

FETCH_S = 10.0
MAX_BYTES = 256 * 1024
SIGN_IN_S = 600
DESCRIBED_S = 3_600.0


class OidcLogin:
    """Sends browsers to the issuer, and takes what they come back with."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        clock: Clock,
        *,
        redirect_url: str,
        scopes: str = "openid profile",
        audience: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """``redirect_url`` is this dashboard's ``/ui/login/oidc/back``, as the issuer knows it.

        Raises:
            ConfigurationError: the file of CA certificates cannot be used.
        """
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._redirect_url = redirect_url
        self._scopes = scopes
        self._audience = audience
        self._described: dict[str, Any] = {}
        self._described_at = float("-inf")
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except OSError as exc:
            raise ConfigurationError(f"cannot read the CA certificates {ca_file}: {exc.strerror}") from exc

    @property
    def name(self) -> str:
        """The host of the issuer, for the page."""
        return urlsplit(self._issuer).hostname or self._issuer

    async def begin(self, then: str) -> tuple[str, SignIn]:
        """Return where to send a browser, and what its cookie must remember.

        Raises:
            Unavailable: the issuer does not answer.
        """
        sign_in = SignIn(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            then=then,
            expires_at=int(self._clock.wall().timestamp()) + SIGN_IN_S,
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sign_in.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_url,
            "scope": self._scopes,
            "state": sign_in.state,
            "nonce": sign_in.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if self._audience:
            asked["audience"] = self._audience
        endpoint = await self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", sign_in

    async def end(self, sign_in: SignIn | None, *, state: str, code: str, error: str) -> list[str]:
        """Return the tokens that a login has brought, the likeliest first.

        Raises:
            PermissionDenied: it is not the login that this browser began, or the issuer refused.
            Unavailable: the issuer does not answer.
        """
        if sign_in is None or not hmac.compare_digest(sign_in.state.encode(), state.encode()):
            raise PermissionDenied("this is not the login that this browser began", hint="log in again")
        if error or not code:
            raise PermissionDenied(f"the issuer did not log you in: {error[:100] or 'no code came back'}")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_url,
            "client_id": self._client_id,
            "code_verifier": sign_in.verifier,
        }
        if self._client_secret:
            form["client_secret"] = self._client_secret
        answer = await self._json("POST", await self._endpoint("token_endpoint"), form)
        id_token = answer.get("id_token")
        if isinstance(id_token, str) and _nonce_of(id_token) != sign_in.nonce:
            raise PermissionDenied("the issuer answered another login", hint="log in again")
        found = [token for token in (answer.get("access_token"), id_token) if isinstance(token, str) and token]
        return [token for token in found if token.count(".") == 2 and token.isascii()]

    async def _endpoint(self, name: str) -> str:
        if self._clock.monotonic() - self._described_at > DESCRIBED_S:
            url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            described = await self._json("GET", url)
            if described.get("issuer") != self._issuer:
                raise Unavailable("the issuer's description is another's")
            self._described, self._described_at = described, self._clock.monotonic()
        endpoint = self._described.get(name)
        own = urlsplit(self._issuer).scheme
        if not isinstance(endpoint, str) or urlsplit(endpoint).scheme not in {"https", own}:
            raise Unavailable(f"the issuer's description has no {name} that can be used")
        return endpoint

    async def _json(self, method: str, url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        is_remote = urlsplit(url).scheme == "https"
        try:
            async with (
                asyncio.timeout(FETCH_S),
                httpx.AsyncClient(verify=self._context, trust_env=is_remote, follow_redirects=False) as http,
                http.stream(method, url, data=form, headers={"Accept": "application/json"}) as answer,
            ):
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise ValueError("too long")
                told = httpx.Response(200, content=bytes(body)).json()
                if answer.status_code != 200 or not isinstance(told, dict):
                    word = str(told.get("error", ""))[:100] if isinstance(told, dict) else ""
                    raise ValueError(f"{answer.status_code} {word}")
                return told
        except (httpx.HTTPError, TimeoutError, ValueError) as exc:
            log.warning("oidc_login_failed", url=url, error=repr(exc)[:300])
            raise Unavailable("the issuer of tokens does not answer as it should", hint="try again") from exc


def _nonce_of(token: str) -> str | None:
    """Read the nonce of an ID token that came from the issuer itself; the API verifies the rest."""
    try:
        told = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    nonce = told.get("nonce")
    return nonce if isinstance(nonce, str) else None
