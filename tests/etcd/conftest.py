"""The contract suite runs every test on both transports: ``transport`` is the parameter, ``etcd`` the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from tests.fixtures.etcd import EtcdServer

from tenure.model.clock import SystemClock
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd

Connector = Callable[..., Awaitable[Etcd]]


@pytest.fixture(params=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    """Give the scheme of the endpoints."""
    return str(request.param)


@pytest.fixture
def clock() -> SystemClock:
    """Give the machine's clock."""
    return SystemClock()


@pytest_asyncio.fixture
async def connection(transport: str) -> AsyncIterator[Connector]:
    """Open connections that are closed after the test: ``await connection("127.0.0.1:2379", ...)``."""
    async with AsyncExitStack() as stack:

        async def open_one(*addresses: str, tls: bool = False, **options: object) -> Etcd:
            scheme = transport + "s" * tls
            etcd = connect([f"{scheme}://{address}" for address in addresses], **options)  # type: ignore[arg-type]
            stack.push_async_callback(etcd.close)
            return etcd

        yield open_one


@pytest_asyncio.fixture
async def etcd(connection: Connector, etcd_server: EtcdServer) -> Etcd:
    """Give a connection to the shared server."""
    return await connection(*(endpoint.removeprefix("grpc://") for endpoint in etcd_server.endpoints))


@pytest.fixture
def keys(etcd_prefix: str) -> Keyspace:
    """Give the test's own keys."""
    return Keyspace(etcd_prefix)
