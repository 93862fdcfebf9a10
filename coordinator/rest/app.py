"""The HTTP application of a coordinator's API: paths, JSON in and out, errors, and the bounds of a request.

One table says which path takes and gives what; routes and the OpenAPI document are made from it. Until the coordinator
has its stores every call is answered with 503.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tenure.coordinator.access import called_by
from tenure.coordinator.metrics import RUNNER_CALLS, RUNNER_S, count_refusal
from tenure.coordinator.rest.objects import ObjectRoutes
from tenure.coordinator.rest.openapi import document
from tenure.coordinator.rest.runner_service import RunnerService, all_lost
from tenure.coordinator.uploads import ObjectAccess
from tenure.model.access import ANYBODY, Identity
from tenure.model.clock import Clock, SystemClock, elapsed_s
from tenure.model.errors import (
    BoundExceeded,
    FieldViolation,
    InvalidInput,
    PermissionDenied,
    TenureError,
    Unauthenticated,
    Unavailable,
)
from tenure.probes.connections import MOST
from tenure.store.objects.folder import FolderObjects
from tenure.v1 import runner_api as api

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of a request: a batch of results, each with its own, smaller bound."""
BODY_TIMEOUT_S = 30.0
"""For a request to arrive in."""


class Endpoint(NamedTuple):
    """A call: what it takes, what it gives, and the method of ``RunnerService`` that serves it."""

    takes: type[msgspec.Struct]
    gives: type[msgspec.Struct]
    method: Callable[[RunnerService, Any, asyncio.Event], Awaitable[msgspec.Struct]]
    mends: bool = False
    """Half a character (a lone surrogate, which is no JSON to msgspec) costs its text a mark, not the call."""


ENDPOINTS: dict[str, Endpoint] = {
    "session": Endpoint(api.OpenSession, api.Session, RunnerService.open_session),
    "close": Endpoint(api.CloseSession, api.Done, RunnerService.close_session),
    "claim": Endpoint(api.Poll, api.Polled, RunnerService.poll),
    "start": Endpoint(api.Start, api.Started, RunnerService.start),
    "renew": Endpoint(api.Renew, api.Renewals, RunnerService.renew),
    "release": Endpoint(api.Release, api.Done, RunnerService.release),
    "progress": Endpoint(api.Progress, api.Done, RunnerService.progress),
    "checkpoint": Endpoint(api.Checkpoint, api.Done, RunnerService.checkpoint),
    "children": Endpoint(api.SubmitChildren, api.SubmittedChildren, RunnerService.children),
    "upstream": Endpoint(api.ReadUpstream, api.UpstreamPage, RunnerService.upstream),
    "logs": Endpoint(api.AppendLogs, api.AppendedAll, RunnerService.logs, mends=True),
    "finish": Endpoint(api.Finish, api.FinishedAll, RunnerService.finish),
    "upload": Endpoint(api.CreateUpload, api.Upload, RunnerService.upload),
    "uploaded": Endpoint(api.CompleteUpload, api.Done, RunnerService.uploaded),
}


class Identify(Protocol):
    """Says who calls; see ``coordinator.authenticate``."""

    async def identify(self, *, bearer: str | None, subjects: Sequence[str] = ()) -> Identity:
        """Raise ``Unauthenticated`` for whoever is nobody."""
        ...


OnDenied = Callable[[str, PermissionDenied], Awaitable[None]]
"""Told of a call that was denied; see ``coordinator.audit``."""


class TooLong(BoundExceeded):
    """A request's body is larger than any may be."""

    http_status = 413


class RestApi:
    """The routes. ``open`` lets calls in, ``calls`` of them at a time."""

    def __init__(self, clock: Clock | None = None, *, calls: int = MOST) -> None:
        self._most = calls
        self._under_way = 0
        self._objects = ObjectRoutes(_refusal, clock or SystemClock())
        self._service: RunnerService | None = None
        self._identify: Identify | None = None
        self._on_denied: OnDenied | None = None

    def open(self, service: RunnerService, identify: Identify | None, on_denied: OnDenied | None = None) -> None:
        """Serve from now on; without ``identify`` whoever calls is ``ANYBODY``."""
        self._service, self._identify, self._on_denied = service, identify, on_denied

    def open_objects(self, access: ObjectAccess) -> None:
        """Serve objects from now on, if their store is a folder."""
        if isinstance(access.store, FolderObjects):
            self._objects.open(access.store, access.signer)

    def close(self) -> None:
        """Let no more calls in; those that are being served go on."""
        self._service = None
        self._objects.close()

    def routes(self) -> list[Route]:
        """Return the routes of the API and of its description."""
        described = msgspec.json.encode(
            document({api.PREFIX + path: (one.takes, one.gives) for path, one in ENDPOINTS.items()})
        )

        async def openapi(request: Request) -> Response:
            return Response(described, media_type="application/json")

        return [
            *(Route(api.PREFIX + path, self._serving(path, one), methods=["POST"]) for path, one in ENDPOINTS.items()),
            Route("/openapi.json", openapi),
            *self._objects.routes(),
        ]

    def _serving(self, path: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        decoder = msgspec.json.Decoder(endpoint.takes)

        async def serve(request: Request) -> Response:
            began = elapsed_s()
            response = await answer_to(request)
            RUNNER_CALLS.add(1, path, str(response.status_code))
            RUNNER_S.observe(elapsed_s() - began, path)
            return response

        async def answer_to(request: Request) -> Response:
            self._under_way += 1
            try:
                self._require_room()
                # Before the body is read: who is nobody is not listened to.
                identity = await self._who(request)
                asked = _decoded(decoder, await _body(request), mends=endpoint.mends)
                with called_by(identity):
                    try:
                        async with _disconnected(request) as gone:
                            answer = await endpoint.method(self._ready(), asked, gone)
                    except PermissionDenied as exc:
                        if self._on_denied is not None:
                            await self._on_denied(f"runner.{path}", exc)
                        raise
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as exc:  # the top of a call
                count_refusal("http", exc)
                return _refusal(exc)
            finally:
                self._under_way -= 1
            lost = isinstance(answer, api.FinishedAll) and all_lost(answer.reports)
            return Response(msgspec.json.encode(answer), 409 if lost else 200, media_type="application/json")

        return serve

    def _require_room(self) -> None:
        if self._under_way > self._most:
            raise Unavailable(
                f"this coordinator answers {self._most:,} calls over HTTP, as many as it may",
                hint="ask again later, or another one; TENURE_MAX_HTTP_CONNECTIONS says how many",
            )

    def _ready(self) -> RunnerService:
        if self._service is None:
            raise Unavailable("this coordinator is starting, or stopping; ask again, or another one")
        return self._service

    async def _who(self, request: Request) -> Identity:
        self._ready()
        if self._identify is None:
            return ANYBODY
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        return await self._identify.identify(bearer=bearer, subjects=_subjects(request))


def _subjects(request: Request) -> list[str]:
    """Return the names in the client certificate that TLS has verified, if one was shown; see ``probes.tls``."""
    told = request.scope.get("state", {}).get("subjects", {})
    return [*told.get("x509_common_name", ()), *told.get("x509_subject_alternative_name", ())]


async def _body(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidInput([FieldViolation("content-encoding", f"is {encoding[:50]!r}; bodies are taken as they are")])
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if declared.isdecimal() and int(declared) <= MAX_BODY_BYTES:
                async for part in request.stream():
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        break
                else:
                    return bytes(body)
    except TimeoutError as exc:
        raise Unavailable(f"the request did not arrive within {BODY_TIMEOUT_S:g} s") from exc
    raise TooLong(f"the request is longer than {MAX_BODY_BYTES} bytes")


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes, *, mends: bool = False) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        description, _, path = str(exc).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        raise InvalidInput([FieldViolation(field or "body", description)]) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if mends and (mended := _mended(body)) is not None:
            return _decoded(decoder, mended)
        raise InvalidInput([FieldViolation("body", str(exc)[:300])], hint="send JSON, as /openapi.json says") from exc


def _mended(body: bytes) -> bytes | None:
    """Return JSON with a mark for each half of a character; None where more is wrong with it."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None


@asynccontextmanager
async def _disconnected(request: Request) -> Any:
    """Give an event that is set when the client goes away."""
    gone = asyncio.Event()

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    listening = asyncio.create_task(listen())
    try:
        yield gone
    finally:
        listening.cancel()


def _refusal(exc: Exception) -> Response:
    if not isinstance(exc, TenureError):
        log.exception("call_failed")
        exc = TenureError("internal error; the coordinator's log has the details")
    fields = exc.violations if isinstance(exc, InvalidInput) else ()
    problem = api.Problem(
        exc.grpc_status,
        exc.message,
        exc.hint or "",
        tuple(api.Violation(one.field, one.description) for one in fields),
    )
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(exc, Unauthenticated) else {}
    return Response(
        msgspec.json.encode(api.Refusal(problem)), exc.http_status, headers=headers, media_type="application/json"
    )
