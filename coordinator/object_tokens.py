"""Texts that stand for the right to move one object, signed like the tokens of runners but for another purpose.

``ObjectUrl`` is the last part of a URL of a store that is a folder: whoever has it may do this one thing, with this one
object, until it expires. ``UploadToken`` names an upload that was begun; it is of use only under its attempt's fence.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import Literal, TypeVar

from msgspec import DecodeError, Struct, msgpack

from tenure.model.errors import PermissionDenied

_MAC_BYTES = 32
_PURPOSE = b"tenure object urls 1"


class ObjectUrl(Struct, frozen=True, array_like=True, tag="o"):
    """What may be done with which object, and until when (seconds since 1970, by the coordinators' clocks)."""

    method: Literal["GET", "PUT"]
    key: str
    expires_at: int
    size_bytes: int
    sha256: bytes
    content_type: str
    file_name: str = ""


class UploadToken(Struct, frozen=True, array_like=True, tag="u"):
    """An upload of an attempt. ``upload_id`` is the store's own, of one in parts."""

    job: str
    fence: int
    name: str
    key: str
    size_bytes: int
    sha256: bytes
    content_type: str
    upload_id: str = ""


ObjectToken = ObjectUrl | UploadToken
_T = TypeVar("_T", bound=ObjectToken)


class ObjectSigner:
    """Signs such texts, and reads those that were signed with the same key."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, _PURPOSE, hashlib.sha256)

    def sign(self, token: ObjectToken) -> str:
        """Return a token as a text that fits into a URL."""
        data = msgpack.encode(token)
        return _text(self._mac(data) + data)

    def read(self, text: str, kind: type[_T]) -> _T:
        """Return what a text says.

        Raises:
            PermissionDenied: it was not signed here, or is a token of another kind.
        """
        try:
            signed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            data = signed[_MAC_BYTES:]
            if hmac.compare_digest(self._mac(data), signed[:_MAC_BYTES]) and _text(signed) == text:
                token: ObjectToken = msgpack.decode(data, type=ObjectToken)
                if isinstance(token, kind):
                    return token
        except (UnicodeEncodeError, Error, ValueError, DecodeError):
            pass
        raise PermissionDenied("this is nothing that a coordinator of this installation has signed")

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, hashlib.sha256)


def _text(signed: bytes) -> str:
    return urlsafe_b64encode(signed).rstrip(b"=").decode()
