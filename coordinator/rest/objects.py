"""``/v1/objects/<token>``: one object of a store that is a folder, for whoever holds a signed URL and nobody else.

The token says which object, which method, how large and until when; there is no listing and no other way in. Bytes go
through in pieces: memory is bounded by how many transfers may be under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

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

MAX_TRANSFERS = 64
SILENCE_S = 30.0
"""How long a sender may say nothing."""
SLOWEST_BYTES_S = 32 * 1024
"""Who is slower is cut off, but not within the first ``SILENCE_S``."""
Refuse = Callable[[Exception], Response]
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
        self._under_way = 0

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
        try:
            async with self._place(), asyncio.timeout(_limit_s(url)):
                pieces = _in_time(request.stream())
                await store.receive(url.key, pieces, size_bytes=url.size_bytes, sha256=url.sha256)
        except TimeoutError as exc:
            raise Unavailable("it came too slowly") from exc
        return Response(status_code=201)

    async def _send(self, store: FolderObjects, url: ObjectUrl) -> Response:
        found = await store.head(url.key)
        if found is None or found.size_bytes != url.size_bytes:
            raise NotFound("the object is not there any more")
        return _Sending(store.stream(url.key), url, self._place)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._under_way >= MAX_TRANSFERS:
            raise Unavailable(f"{MAX_TRANSFERS} objects are under way; ask again, or another coordinator")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


class _Sending(Response):
    """An object on its way out, piece by piece, as fast as it is taken."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], url: ObjectUrl, place: Place) -> None:
        super().__init__(status_code=200, headers=_headers(url))
        self._pieces = pieces
        self._place = place
        self._limit_s = _limit_s(url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette: the response as an application."""
        try:
            async with self._place(), asyncio.timeout(self._limit_s), aclosing(self._pieces):
                await self._send_all(receive, send)
        except Unavailable as exc:
            await Response(exc.message, exc.http_status)(scope, receive, send)
        except TimeoutError:
            log.warning("object_not_taken_in_time", limit_s=round(self._limit_s))
            raise

    async def _send_all(self, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                if gone.done():  # what is sent to nobody is taken at once
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _limit_s(url: ObjectUrl) -> float:
    """Return how long a transfer may take in all."""
    return SILENCE_S + url.size_bytes / SLOWEST_BYTES_S


def _headers(url: ObjectUrl) -> dict[str, str]:
    return {
        "content-type": url.content_type,
        "content-length": str(url.size_bytes),
        "content-disposition": f'attachment; filename="{url.file_name}"',
        **_SAFE,
    }


async def _in_time(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass pieces on, as long as one comes now and then."""
    going = aiter(pieces)
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                piece = await anext(going)
        except StopAsyncIteration:
            return
        except TimeoutError as exc:
            raise Unavailable(f"nothing came for {SILENCE_S:g} s") from exc
        yield piece
