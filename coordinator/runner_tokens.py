"""Tokens that runners hold: what a session, a claim or an attempt is, signed, so that any coordinator serves any call.

Nothing is kept about them: what a token says was true when it was signed, and etcd and Postgres are asked whether it
still is (a lease that lives, a claim that stands, a fence that is the newest). Each is bound to the name of who called
then, so that a token that was stolen is of no use to another. The key is one for all coordinators, in Postgres;
while it is replaced there are two (``coordinator.signing_keys``).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import DecodeError, Struct, msgpack

from tenure.coordinator.access import caller, require
from tenure.model.access import ANYBODY, Right
from tenure.model.errors import PermissionDenied, Unavailable

log = structlog.get_logger(__name__)

_MAC_BYTES = 16
_PURPOSE = b"tenure runner tokens 1"


class SessionToken(Struct, frozen=True, array_like=True, tag="s"):
    """A runner's session."""

    caller: str
    runner: str
    lease: int
    pools: tuple[str, ...]


class ClaimToken(Struct, frozen=True, array_like=True, tag="c"):
    """A claim that was won for a runner."""

    caller: str
    runner: str
    lease: int
    job: str
    route: str
    revision: int
    ttl_s: float
    attempt_seen: int
    slots: tuple[str, ...] = ()


class AttemptToken(Struct, frozen=True, array_like=True, tag="a"):
    """An attempt that a runner executes, and the claim under which it does."""

    caller: str
    runner: str
    lease: int
    job: str
    route: str
    revision: int
    fence: int


RunnerToken = SessionToken | ClaimToken | AttemptToken
_T = TypeVar("_T", bound=RunnerToken)


class Signer:
    """Signs tokens, and reads those that were signed with a key that is known."""

    def __init__(self, *known: bytes, is_fresh: Callable[[], bool] = lambda: True) -> None:
        """``is_fresh`` says whether there may be no key that is not known here."""
        self._is_fresh = is_fresh
        self._keys: tuple[bytes, ...] = ()
        self._signing = 0
        self.use(known)

    def use(self, known: Sequence[bytes], signing: int = 0) -> bool:
        """Take these keys, newest first, from now on, and sign with one of them; return whether that is a change."""
        before = self._keys, self._signing
        self._keys = tuple(hmac.digest(key, _PURPOSE, hashlib.sha256) for key in known)
        self._signing = signing
        return before != (self._keys, self._signing)

    def sign(self, token: RunnerToken) -> str:
        """Return a token as text."""
        data = msgpack.encode(token)
        return _text(_mac(self._keys[self._signing], data) + data)

    def newer(self, text: str, token: RunnerToken) -> str:
        """Return what to show in the place of a text that ``read`` took; empty if it is as new as can be."""
        if self._signing == len(self._keys) - 1:
            return ""
        signed = _signed(text)
        old = self._keys[self._signing + 1 :]
        return self.sign(token) if any(_is_by(key, signed) for key in old) else ""

    def read(self, text: str, kind: type[_T]) -> _T:
        """Return what a text says.

        Raises:
            PermissionDenied: it was not signed here, or is a token of another kind.
        """
        token = self.read_any(text)
        if not isinstance(token, kind):
            raise PermissionDenied(f"this is not the token of {_WORDS[kind]}")
        return token

    def read_any(self, text: str) -> RunnerToken:
        """Return what a text says, whatever its kind.

        Raises:
            PermissionDenied: it was not signed here, or with a key that is not taken any more.
            Unavailable: the keys were not read of late, and there may be a newer one.
        """
        try:
            signed = _signed(text)
            # Each token has one text for a key, so that nobody names a lease twice in a call by two of them.
            if any(_is_by(key, signed) for key in self._keys) and _text(signed) == text:
                token: RunnerToken = msgpack.decode(signed[_MAC_BYTES:], type=RunnerToken)
                return token
        except (UnicodeEncodeError, Error, ValueError, DecodeError):
            pass
        if not self._is_fresh():
            raise Unavailable(
                "this coordinator has not read the signing keys of late", hint="ask again, or another one"
            )
        raise PermissionDenied("this token is none that a coordinator of this installation has signed")


def _is_by(key: bytes, signed: bytes) -> bool:
    return hmac.compare_digest(_mac(key, signed[_MAC_BYTES:]), signed[:_MAC_BYTES])


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:_MAC_BYTES]


def _signed(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _text(signed: bytes) -> str:
    return urlsafe_b64encode(signed).rstrip(b"=").decode()


_WORDS: dict[type, str] = {
    SessionToken: "a session",
    ClaimToken: "a claim",
    AttemptToken: "an attempt",
}


def require_own(token: RunnerToken, right: Right) -> None:
    """Refuse what was signed for somebody else, or for a pool that who calls may not serve (any more).

    What was signed while nobody was asked for credentials is anybody's, so that asking can begin without an outage.

    Raises:
        PermissionDenied: it is not the caller's.
    """
    if token.caller not in (caller().name, ANYBODY.name):
        log.warning("foreign_token", caller=caller().name, worker=token.runner)
        raise PermissionDenied("this token belongs to somebody else")
    for route in token.pools if isinstance(token, SessionToken) else (token.route,):
        require(right, route=route)
