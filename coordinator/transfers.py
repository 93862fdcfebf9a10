"""How workers and readers reach objects without the store's credentials: by URLs, each good for one thing and a while.

In S3 they are presigned, and the bytes go past the coordinators. A folder is reached through the coordinators' own HTTP
(``rest.objects``); then a URL is a path, for whoever hands it out to say where that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from tenure.coordinator.object_tokens import ObjectSigner, ObjectUrl
from tenure.model.clock import Clock
from tenure.model.errors import NotFound
from tenure.model.objects import OBJECTS_PATH, part_bytes_for, part_sizes
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.port import ObjectStore

URL_S = 600.0
"""How long a URL is good for. A request that has begun by then may take longer."""
NO_HEADERS: Mapping[str, str] = {}


class File(NamedTuple):
    """What is to be moved."""

    key: str
    size_bytes: int
    sha256: bytes
    content_type: str


class UploadPlan(NamedTuple):
    """Where to PUT a file: whole, or in parts."""

    url: str = ""
    headers: Mapping[str, str] = NO_HEADERS
    part_bytes: int = 0
    part_urls: Sequence[str] = ()
    upload_id: str = ""


class Download(NamedTuple):
    """Where to GET a file, and until when."""

    url: str
    expires_at: datetime


class Transfers(Protocol):
    """URLs to and from one store."""

    async def begin(self, file: File, upload_id: str = "") -> UploadPlan:
        """Return where to PUT a file; with ``upload_id`` anew, for an upload in parts that was begun."""
        ...

    async def end(self, file: File, upload_id: str, tags: Sequence[str]) -> None:
        """Make one of the parts, if it went in parts.

        Raises:
            NotFound: there is no such upload (any more), or not these parts.
        """
        ...

    async def download(self, file: File, file_name: str) -> Download:
        """Return where to GET a file."""
        ...


class S3Links(Protocol):
    """What a bucket signs; see ``store.objects.s3``, which is imported only where it is used."""

    async def sign_get(self, key: str, *, expires_s: float, content_type: str, file_name: str) -> tuple[str, object]:
        """Sign a GET."""
        ...

    async def sign_put(
        self, key: str, *, expires_s: float, size_bytes: int, sha256: bytes, content_type: str
    ) -> tuple[str, Mapping[str, str]]:
        """Sign a PUT."""
        ...

    async def begin_parts(self, key: str, *, content_type: str) -> str:
        """Begin an upload in parts."""
        ...

    async def sign_parts(self, key: str, upload_id: str, sizes: Sequence[int], *, expires_s: float) -> Sequence[str]:
        """Sign a PUT for each part."""
        ...

    async def end_parts(self, key: str, upload_id: str, tags: Sequence[str]) -> None:
        """End an upload in parts."""
        ...


class S3Transfers:
    """See ``Transfers``."""

    def __init__(self, store: S3Links, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def begin(self, file: File, upload_id: str = "") -> UploadPlan:
        """See ``Transfers``."""
        size = part_bytes_for(file.size_bytes)
        if not size:
            url, headers = await self._store.sign_put(
                file.key,
                expires_s=URL_S,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                content_type=file.content_type,
            )
            return UploadPlan(url, headers)
        upload_id = upload_id or await self._store.begin_parts(file.key, content_type=file.content_type)
        urls = await self._store.sign_parts(file.key, upload_id, part_sizes(file.size_bytes, size), expires_s=URL_S)
        return UploadPlan(part_bytes=size, part_urls=urls, upload_id=upload_id)

    async def end(self, file: File, upload_id: str, tags: Sequence[str]) -> None:
        """See ``Transfers``."""
        if upload_id:
            await self._store.end_parts(file.key, upload_id, tags)

    async def download(self, file: File, file_name: str) -> Download:
        """See ``Transfers``."""
        expires_at = self._clock.wall() + timedelta(seconds=URL_S)
        url, _ = await self._store.sign_get(
            file.key, expires_s=URL_S, content_type=file.content_type, file_name=file_name
        )
        return Download(url, expires_at)


class FolderTransfers:
    """See ``Transfers``; its URLs are paths of the coordinators' HTTP listeners."""

    def __init__(self, signer: ObjectSigner, clock: Clock) -> None:
        self._signer = signer
        self._clock = clock

    async def begin(self, file: File, upload_id: str = "") -> UploadPlan:
        """See ``Transfers``."""
        url = ObjectUrl("PUT", file.key, self._expires_at(), file.size_bytes, file.sha256, file.content_type)
        return UploadPlan(OBJECTS_PATH + self._signer.sign(url), {"content-type": file.content_type})

    async def end(self, file: File, upload_id: str, tags: Sequence[str]) -> None:
        """See ``Transfers``."""
        if upload_id or tags:
            raise NotFound("this upload does not go in parts")

    async def download(self, file: File, file_name: str) -> Download:
        """See ``Transfers``."""
        at = self._expires_at()
        url = ObjectUrl("GET", file.key, at, file.size_bytes, file.sha256, file.content_type, file_name)
        return Download(OBJECTS_PATH + self._signer.sign(url), datetime.fromtimestamp(at, UTC))

    def _expires_at(self) -> int:
        return int(self._clock.wall().timestamp() + URL_S)


def transfers_of(store: ObjectStore, signer: ObjectSigner, clock: Clock) -> Transfers:
    """Return the URLs to a store."""
    if isinstance(store, FolderObjects):
        return FolderTransfers(signer, clock)
    return S3Transfers(store, clock)  # type: ignore[arg-type]  # the other one that there is
