"""The HTTP side of a process: liveness and readiness for probes, numbers for Prometheus.

The same words for coordinators and workers; what a process is asked about itself is handed in as checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tenure.model.errors import ConfigurationError
from tenure.probes.connections import KEEP_ALIVE_S, MOST, Door, fitting
from tenure.probes.tls import ServerTLS

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
        encode, content_type = choose_encoder(request.headers.get("accept", ""))  # OpenMetrics, for who asks for it
        return Response(encode(registry), headers={"Content-Type": content_type})

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


class HttpServer:
    """Built stopped. ``address`` is known once ``bind`` was called (port 0 takes a free one).

    ``variable`` is the setting that ``listen`` came from, for messages. With ``tls`` it speaks TLS alone, and
    ``scope["state"]["subjects"]`` holds who a verified client certificate is of (see ``probes.tls.subjects``);
    without TLS there is no such entry. Of connections, ``probes.connections`` tells what ``most`` means.
    """

    def __init__(
        self, app: Starlette, *, listen: str, variable: str, tls: ServerTLS | None = None, most: int = MOST
    ) -> None:
        self._listen = listen
        self._variable = variable
        self._tls = tls
        self._most = fitting(most)
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",  # a connection that is upgraded would leave its bounds behind
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(self._config)
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
        tls = self._tls.context if self._tls else None
        door = Door(self._socket, self._config, self._server.server_state, most=self._most, tls=tls)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._server.serve(sockets=[]))  # it listens to nothing: connections come by the door
                await door.run()
        finally:
            self._socket.close()
