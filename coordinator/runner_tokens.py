"""Tokens that runners hold: what a session, a claim or an attempt is, signed, so that any coordinator serves any call.

Nothing is kept about them: what a token says was true when it was signed, and etcd and Postgres are asked whether it
still is (a lease that lives, a claim that stands, a fence that is the newest). Each is bound to the name of who called
then, so that a token that was stolen is of no use to another. The key is one for all coordinators, in Postgres;
while it is replaced there are two (``coordinator.signing_keys``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from msgspec import DecodeError, Struct, msgpack

from tenure.coordinator.access import caller, require
from tenure.coordinator.signed_text import SignedText
from tenure.model.access import ANYBODY, Right
from tenure.model.errors import PermissionDenied

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
        self._texts = SignedText(_PURPOSE, _MAC_BYTES, is_fresh)
        self.use = self._texts.use
        self.use(known)

    def sign(self, token: RunnerToken) -> str:
        """Return a token as text."""
        return self._texts.seal(msgpack.encode(token))

    def newer(self, text: str, token: RunnerToken) -> str:
        """Return what to show in the place of a text that ``read`` took; empty if it is as new as can be."""
        return self.sign(token) if self._texts.is_old(text) else ""

    def read(self, text: str, kind: type[_T]) -> _T:
        """Return what a text says.

        Raises:
            PermissionDenied: it was not signed here, or is a token of another kind.
            Unavailable: as ``read_any``.
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
        data = self._texts.open(text)
        if data is not None:
            with suppress(DecodeError):
                token: RunnerToken = msgpack.decode(data, type=RunnerToken)
                return token
        raise self._texts.refusal("this token is none that a coordinator of this installation has signed")


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
