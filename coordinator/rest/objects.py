"""``/v1/objects/<token>``: one object of a store that is a folder, for whoever holds a signed URL and nobody else.

The token says which object, which method, how large and until when; there is no listing and no other way in. Bytes go
through in pieces: memory is bounded by how many transfers may be under way, uploads and downloads apart, so that
neither keeps the other out. Of who sends or reads a least rate is asked, all along; the time that the store takes is
not theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tenure.coordinator.object_tokens import ObjectSigner, ObjectUrl
from tenure.coordinator.transfers import OBJECTS_PATH
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, NotFound, PermissionDenied, Unavailable
from tenure.store.objects.folder import FolderObjects

log = structlog.get_logger(__name__)

MAX_UPLOADS = 64
MAX_DOWNLOADS = 64
STRETCH_BYTES = 1024 * 1024
STRETCH_S = 30.0
"""How long the other side may keep this one waiting for each ``STRETCH_BYTES``, and for what is left at the end."""
Refuse = Callable[[Exception], Response]
T = TypeVar("T")
Place = Callable[[], AbstractAsyncContextManager[None]]
_SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cache-control": "private, no-store",
    "referrer-policy": "no-referrer",
}


class ObjectRoutes:
    """The route. ``open`` lets transfers in; without it there is nothing to be had."""

    def __init__(self, refuse: Refuse, clock: Clock) -> None:
        self._refuse = refuse
        self._clock = clock
        self._store: FolderObjects | None = None
        self._signer: ObjectSigner | None = None
        self._uploads = _Places(MAX_UPLOADS, "uploads")
        self._downloads = _Places(MAX_DOWNLOADS, "downloads")

    def open(self, store: FolderObjects, signer: ObjectSigner) -> None:
        """Serve from now on."""
        self._store, self._signer = store, signer

    def close(self) -> None:
        """Let no more in; what is under way goes on."""
        self._store = None

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route(OBJECTS_PATH + "{token}", self._serve, methods=["GET", "PUT"])]

    async def _serve(self, request: Request) -> Response:
        try:
            if self._store is None or self._signer is None:
                raise NotFound("there is no such object here")
            url = self._signer.read(request.path_params["token"], ObjectUrl)
            method = "GET" if request.method == "HEAD" else request.method
            if url.method != method:
                raise PermissionDenied(f"this URL is not for {method}")
            if self._clock.wall().timestamp() > url.expires_at:
                raise PermissionDenied("this URL has expired", hint="ask for another one")
            if request.method == "HEAD":
                return Response(headers=_headers(url))
            return await (self._receive(request, self._store, url) if method == "PUT" else self._send(self._store, url))
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as exc:  # the top of a call
            return self._refuse(exc)

    async def _receive(self, request: Request, store: FolderObjects, url: ObjectUrl) -> Response:
        declared = request.headers.get("content-length", str(url.size_bytes))
        if declared != str(url.size_bytes):
            raise InvalidInput([FieldViolation("content-length", f"must be {url.size_bytes}, as was announced")])
        if request.headers.get("content-encoding", "identity") != "identity":
            raise InvalidInput([FieldViolation("content-encoding", "bodies are taken as they are")])
        async with self._uploads.one():
            pieces = _in_time(request.stream(), _Pace())
            await store.receive(url.key, pieces, size_bytes=url.size_bytes, sha256=url.sha256)
        return Response(status_code=201)

    async def _send(self, store: FolderObjects, url: ObjectUrl) -> Response:
        found = await store.head(url.key)
        if found is None or found.size_bytes != url.size_bytes:
            raise NotFound("the object is not there any more")
        return _Sending(store.stream(url.key), url, self._downloads.one)


class _Places:
    """Bounds how many transfers one way are under way."""

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self._what = what
        self._under_way = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises ``Unavailable``: there is none."""
        if self._under_way >= self.most:
            raise Unavailable(f"{self.most} {self._what} are under way; ask again, or another coordinator")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


class _Pace:
    """Bounds how long the other side keeps this one waiting, stretch by stretch."""

    def __init__(self) -> None:
        self._left_s = STRETCH_S
        self._bytes = 0

    async def wait(self, step: Awaitable[T]) -> T:
        """Wait for the other side. Raises ``TimeoutError``: it is too slow."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(max(0.0, self._left_s)):
            result = await step
        self._left_s -= loop.time() - began
        return result

    def passed(self, count: int) -> None:
        """Take note of what came, or was taken."""
        self._bytes += count
        if self._bytes >= STRETCH_BYTES:
            self._left_s, self._bytes = STRETCH_S, 0


class _Sending(Response):
    """An object on its way out, piece by piece, as fast as it is taken."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], url: ObjectUrl, place: Place) -> None:
        super().__init__(status_code=200, headers=_headers(url))
        self._pieces = pieces
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette: the response as an application."""
        try:
            async with self._place(), aclosing(self._pieces):
                await self._send_all(receive, send)
        except Unavailable as exc:
            await Response(exc.message, exc.http_status)(scope, receive, send)
        except TimeoutError:
            log.warning("object_not_taken_in_time", bytes=STRETCH_BYTES, limit_s=STRETCH_S)
            raise

    async def _send_all(self, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnect(receive))
        pace = _Pace()
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                if gone.done():  # what is sent to nobody is taken at once
                    return
                await pace.wait(send({"type": "http.response.body", "body": piece, "more_body": True}))
                pace.passed(len(piece))
            await pace.wait(send({"type": "http.response.body", "body": b"", "more_body": False}))
        finally:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(url: ObjectUrl) -> dict[str, str]:
    return {
        "content-type": url.content_type,
        "content-length": str(url.size_bytes),
        "content-disposition": f'attachment; filename="{url.file_name}"',
        **_SAFE,
    }


async def _in_time(pieces: AsyncIterator[bytes], pace: _Pace) -> AsyncIterator[bytes]:
    """Pass pieces on, as long as they come fast enough."""
    going = aiter(pieces)
    while True:
        try:
            piece = await pace.wait(anext(going))
        except StopAsyncIteration:
            return
        except TimeoutError as exc:
            raise Unavailable(f"it comes too slowly: {STRETCH_BYTES} bytes must come in {STRETCH_S:g} s") from exc
        pace.passed(len(piece))
        yield piece
