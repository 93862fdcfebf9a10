"""The probes: alive while the process is, ready while no check of readiness has a problem."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from tests.coordinator.conftest import running

from tenure.coordinator.metrics import REGISTRY
from tenure.model.errors import ConfigurationError
from tenure.probes.server import Check, HttpServer, application


def _server(ready: dict[str, Check], *, listen: str = "127.0.0.1:0") -> HttpServer:
    return HttpServer(application(ready, REGISTRY), listen=listen, variable="TENURE_HTTP_LISTEN")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_every_address_is_every_address_of_ipv4_too() -> None:
    server = _server({}, listen="[::]:0")
    server.bind()
    address = server.address.replace("[::]", "127.0.0.1")
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_liveness_and_readiness_are_different_questions() -> None:
    problems: dict[str, str | None] = {"postgres": None, "stop": None}

    async def postgres() -> str | None:
        return problems["postgres"]

    async def stop() -> str | None:
        return problems["stop"]

    server = _server({"postgres": postgres, "stop": stop})
    server.bind()
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{server.address}", timeout=20) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "problems": {}})
        problems["stop"] = "stopping"
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["problems"] == {"stop": "stopping"}
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/else")).status_code == 404


async def test_a_check_that_comes_while_others_are_asked_breaks_no_answer() -> None:
    checks: dict[str, Check] = {}

    async def postgres() -> str | None:
        checks["stop"] = postgres
        return None

    checks["postgres"] = postgres
    server = _server(checks)
    server.bind()
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{server.address}", timeout=20) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with taken:
        host, port = taken.sockets[0].getsockname()[:2]
        with pytest.raises(ConfigurationError):
            _server({}, listen=f"{host}:{port}").bind()


@pytest.mark.parametrize("listen", ["127.0.0.1:x", "nowhere", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_configuration_error(listen: str) -> None:
    with pytest.raises(ConfigurationError):
        _server({}, listen=listen).bind()
