"""Sessions: who is logged in, in a cookie that only coordinators of this installation can read or make.

The keys are derived from the installation's signing keys for this purpose alone, so that any coordinator serves any
session, and a replaced key ends those that were sealed with it when it is forgotten. Invariant: what a cookie says was
sealed here, and not longer ago than it may stand; everything else is no session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from tenure.model.clock import Clock

_PURPOSE = b"tenure dashboard sessions 1"
MAX_COOKIE_CHARS = 3_900
"""Browsers keep cookies of 4,096 bytes with their names."""
HOURS_S = 12 * 3600
"""How long a session stands at most; a token that expires earlier is refused by the API, and the session ends."""


class SessionKeys:
    """Seals texts and opens them, with the keys that ``use`` was given last."""

    def __init__(self) -> None:
        self._fernet: MultiFernet | None = None

    def use(self, known: Sequence[bytes], signing: int = 0) -> None:
        """Take these keys, newest first, from now on, and seal with one of them."""
        keys = [known[signing], *known[:signing], *known[signing + 1 :]]
        self._fernet = MultiFernet([Fernet(urlsafe_b64encode(_derived(key))) for key in keys])

    def seal(self, data: bytes) -> str:
        """Return what stands for these bytes, and shows nothing of them."""
        assert self._fernet is not None  # the coordinator reads the keys before it serves
        return self._fernet.encrypt(data).decode()

    def open(self, text: str) -> bytes | None:
        """Return what was sealed, or None where it was not sealed here."""
        if self._fernet is None or len(text) > 2 * MAX_COOKIE_CHARS:
            return None
        try:
            return self._fernet.decrypt(text.encode("ascii"))
        except (InvalidToken, UnicodeEncodeError):
            return None


def _derived(key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE, hashlib.sha256)


class Session(msgspec.Struct, frozen=True, tag="session", omit_defaults=True):
    """What a cookie says. Without a token nobody is logged in."""

    csrf: str
    expires_at: int
    token: str = ""
    said: str = ""
    """For the next page: what became of an act, in words."""
    failed: bool = False
    """It did not work."""

    def __repr__(self) -> str:
        return "Session(…)"  # a token is in no log

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class SignIn(msgspec.Struct, frozen=True, tag="sign-in"):
    """A login at an issuer that is under way."""

    state: str
    nonce: str
    verifier: str
    then: str
    expires_at: int

    def __repr__(self) -> str:
        return "SignIn(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


_T = TypeVar("_T", Session, SignIn)


def new_session(clock: Clock, token: str = "") -> Session:
    """Return a session of somebody with a token, or of nobody."""
    return Session(secrets.token_urlsafe(18), int(clock.wall().timestamp()) + HOURS_S, token)


def write(keys: SessionKeys, value: Session | SignIn) -> str:
    """Return the text of a cookie."""
    return keys.seal(msgspec.msgpack.encode(value))


def read(keys: SessionKeys, text: str | None, kind: type[_T], clock: Clock) -> _T | None:
    """Return what a cookie says, None for one that says nothing any more."""
    data = keys.open(text) if text else None
    if data is None:
        return None
    try:
        found = msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError:
        return None
    return found if found.expires_at > clock.wall().timestamp() else None


def replace_said(session: Session, said: str, *, failed: bool = False) -> Session:
    """Return the session with something to say."""
    return msgspec.structs.replace(session, said=said[:600], failed=failed)
