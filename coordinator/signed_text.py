"""Texts that coordinators sign and read again, with the installation's keys; what they say is their owners' affair.

A text is a MAC and what it is of, in URL-safe base64. Each purpose has keys of its own, derived from those of the
installation, so that a text that was signed for one is nothing to another. Invariant: a key and what it signs have one
text.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable, Sequence

from tenure.model.errors import PermissionDenied, Unavailable


class SignedText:
    """Signs with one of the keys that are known, and reads what was signed with any of them."""

    def __init__(self, purpose: bytes, mac_bytes: int, is_fresh: Callable[[], bool]) -> None:
        """``is_fresh`` says whether there may be no key that is not known here."""
        self._purpose = purpose
        self._mac_bytes = mac_bytes
        self._is_fresh = is_fresh
        self._keys: tuple[bytes, ...] = ()
        self._signing = 0

    def use(self, known: Sequence[bytes], signing: int = 0) -> bool:
        """Take these keys, newest first, from now on, and sign with one of them; return whether that is a change."""
        before = self._keys, self._signing
        self._keys = tuple(hmac.digest(key, self._purpose, hashlib.sha256) for key in known)
        self._signing = signing
        return before != (self._keys, self._signing)

    def seal(self, data: bytes) -> str:
        """Return what stands for these bytes."""
        return _text(self._mac(self._keys[self._signing], data) + data)

    def is_old(self, text: str) -> bool:
        """Say whether a text that ``open`` took was signed with a key that is older than the one that signs."""
        old = self._keys[self._signing + 1 :]
        return bool(old) and self._is_by_any(old, _signed(text))

    def open(self, text: str) -> bytes | None:
        """Return what was sealed, or None where no key that is known has signed it."""
        try:
            signed = _signed(text)
            if self._is_by_any(self._keys, signed) and _text(signed) == text:
                return signed[self._mac_bytes :]
        except (UnicodeEncodeError, Error, ValueError):
            pass
        return None

    def refusal(self, message: str) -> PermissionDenied | Unavailable:
        """Return how to refuse a text that nobody has signed: not at all sure, where keys were not read of late."""
        if self._is_fresh():
            return PermissionDenied(message)
        return Unavailable("this coordinator has not read the signing keys of late", hint="ask again, or another one")

    def _is_by_any(self, keys: Sequence[bytes], signed: bytes) -> bool:
        mac, data = signed[: self._mac_bytes], signed[self._mac_bytes :]
        return any(hmac.compare_digest(self._mac(key, data), mac) for key in keys)

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, hashlib.sha256)[: self._mac_bytes]


def _signed(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _text(signed: bytes) -> str:
    return urlsafe_b64encode(signed).rstrip(b"=").decode()
