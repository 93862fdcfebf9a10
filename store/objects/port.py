"""What tenure asks of an object store. Keys are made by ``model.objects``; values are opaque.

Invariants of every adapter, proven by one contract suite (tests/objects): a put is whole or not at all, to readers too,
and over an old value replaces it; a key that is not there is ``NotFound``; one that is no key (``objects.keys``) is
``InvalidInput``; whatever else goes wrong is ``Unavailable`` (worth another try) or ``ConfigurationError`` (it is not:
credentials, bucket). Every call is bounded in time; a stream is, from piece to piece.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """A store of objects under one prefix. Safe to use from many tasks."""

    has_storage_classes: bool
    """Whether ``put`` heeds one; elsewhere it is ignored."""

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        storage_class: str | None = None,
    ) -> None:
        """Write an object; large ones go in parts. ``storage_class`` None: the bucket's default."""
        ...

    async def get(self, key: str) -> bytes:
        """Read an object whole. Raises ``NotFound``."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read a part of an object; what lies behind its end is left out. Raises ``NotFound``."""
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """Read an object in pieces. Raises ``NotFound``."""
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None where there is none."""
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Sequence[ObjectInfo]]:
        """Yield pages of the objects whose keys begin with ``prefix`` and come after ``after``, in the order of keys.

        ``prefix`` is empty or ends with a slash. At most a thousand or so in a page, and no empty ones. Some S3 servers
        have an order of their own where one name begins with another (``a/`` before ``a-b/``); ``after`` is by that.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no matter."""
        ...

    async def drop_unfinished(self, prefix: str) -> None:
        """Forget uploads in parts that were begun for keys under ``prefix``, and never ended; where there are such."""
        ...

    async def check(self) -> None:
        """Ask the store for something that costs little.

        Raises:
            Unavailable: it does not answer. ConfigurationError: credentials, bucket or folder are not right.
        """
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...
