"""Texts that stand for the right to move one object, signed like the tokens of runners but for another purpose.

``ObjectUrl`` is the last part of a URL of a store that is a folder: whoever has it may do this one thing, with this one
object, until it expires. ``UploadToken`` names an upload that was begun; it is of use only under its attempt's fence.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

from msgspec import DecodeError, Struct, msgpack

from tenure.coordinator.signed_text import SignedText

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
    """Signs such texts, and reads those that were signed with a key that is known."""

    def __init__(self, *known: bytes, is_fresh: Callable[[], bool] = lambda: True) -> None:
        """``is_fresh`` says whether there may be no key that is not known here."""
        self._texts = SignedText(_PURPOSE, _MAC_BYTES, is_fresh)
        self.use = self._texts.use
        self.use(known)

    def sign(self, token: ObjectToken) -> str:
        """Return a token as a text that fits into a URL."""
        return self._texts.seal(msgpack.encode(token))

    def read(self, text: str, kind: type[_T]) -> _T:
        """Return what a text says.

        Raises:
            PermissionDenied: it was not signed here, or is a token of another kind.
            Unavailable: the keys were not read of late, and there may be a newer one.
        """
        data = self._texts.open(text)
        if data is not None:
            with suppress(DecodeError):
                token: ObjectToken = msgpack.decode(data, type=ObjectToken)
                if isinstance(token, kind):
                    return token
        raise self._texts.refusal("this is nothing that a coordinator of this installation has signed")
