"""The HTTP side of a process: liveness and readiness for probes, numbers for Prometheus.

The same words for coordinators and workers; what a process is asked about itself is handed in as checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from tenure.model.errors import ConfigurationError
from tenure.probes.tls import ServerTLS, subjects

KEEP_ALIVE_S = 75
"""How long a connection may say nothing: longer than runners and usual proxies keep one, so that they never use one
that is just being closed."""
Check = Callable[[], Awaitable[str | None]]
"""Answers None if all is well, else what is wrong."""


def application(
    ready: Mapping[str, Check],
    registry: CollectorRegistry,
    *,
    alive: Mapping[str, Check] = {},
    more: Sequence[Route] = (),
) -> Starlette:
    """Build the routes; ``ready`` is what readiness depends on, ``alive`` what only a restart would heal.

    ``more`` are routes beside these.
    """

    async def livez(request: Request) -> JSONResponse:
        return await _answer(alive)

    async def readyz(request: Request) -> JSONResponse:
        return await _answer(ready)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics), *more])


async def _answer(checks: Mapping[str, Check]) -> JSONResponse:
    problems = {name: problem for name, check in tuple(checks.items()) if (problem := await check()) is not None}
    return JSONResponse(
        {"status": "unavailable" if problems else "ok", "problems": problems}, status_code=503 if problems else 200
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Verified(H11Protocol):
    """A connection over TLS, which knows whose certificate its client showed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "subjects": subjects(transport.get_extra_info("peercert"))}


class HttpServer:
    """Built stopped. ``address`` is known once ``bind`` was called (port 0 takes a free one).

    ``variable`` is the setting that ``listen`` came from, for messages. With ``tls`` it speaks TLS alone, and
    ``scope["state"]["subjects"]`` holds who a verified client certificate is of (see ``probes.tls.subjects``);
    without TLS there is no such entry.
    """

    def __init__(self, app: Starlette, *, listen: str, variable: str, tls: ServerTLS | None = None) -> None:
        self._listen = listen
        self._variable = variable
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="auto" if tls is None else _Verified,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        if tls is not None:
            config.load()
            config.ssl = tls.context
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self.address = listen

    def bind(self) -> None:
        """Take the port.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        host, _, port = self._listen.rpartition(":")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bare = host.strip("[]")
            both = bare == "::" and socket.has_dualstack_ipv6()  # as gRPC does: every address, those of IPv4 too
            self._socket = socket.create_server((bare, int(port)), family=family, backlog=512, dualstack_ipv6=both)
        except (OSError, ValueError, OverflowError) as exc:
            raise ConfigurationError(
                f"cannot listen for HTTP on {self._listen}: {exc}",
                hint=f"is another process there? set {self._variable}",
            ) from exc
        self.address = f"{host}:{self._socket.getsockname()[1]}"

    async def run(self) -> None:
        """Serve until cancelled: the body of a task."""
        assert self._socket is not None  # bind comes first
        try:
            await self._server.serve(sockets=[self._socket])
        except asyncio.CancelledError:
            self._server.should_exit = True
            raise
        finally:
            self._socket.close()
