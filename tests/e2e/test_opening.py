"""A coordinator or a worker that starts before its stores: waits, says what for, and stops when told to."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import PATIENCE_S
from tests.fixtures.etcd import EtcdServer

from tenure.cli.embedded import ports
from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.embedded.member import Member, Role
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.store.postgres.migrate import migrate

CONFIGURATION_ERROR = 78
Launch = Callable[..., Member]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start one coordinator or worker, without waiting for it: ``launch(Role.WORKER, TENURE_…="…")``."""
    launched: list[Member] = []

    def start(role: Role = Role.COORDINATOR, **settings: str) -> Member:
        grpc, http = (f"127.0.0.1:{ports.choose()}" for _ in range(2))
        env = {**os.environ, "TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http, **settings}
        member = Member(role, len(launched) + 1, [], env, tmp_path / f"log{len(launched)}", grpc=grpc, http=http)
        launched.append(member)
        member.start()
        return member

    yield start
    for member in launched:
        if member.alive:
            member.kill(tree=True)


async def until_said(member: Member, words: str) -> None:
    """Wait until a member's log has these words."""
    async with asyncio.timeout(PATIENCE_S):
        while words not in member.log.read_text():
            member.check_alive()
            await asyncio.sleep(0.02)


async def readiness(member: Member) -> tuple[int, int, dict[str, str]]:
    """Ask the probes: status of ``/livez``, status of ``/readyz``, and the problems that it names."""
    async with httpx.AsyncClient(base_url=f"http://{member.http}", timeout=PATIENCE_S) as client:
        ready = await client.get("/readyz")
        return (await client.get("/livez")).status_code, ready.status_code, ready.json()["problems"]


async def until_told(member: Member, *numbers: str) -> None:
    """Wait until a coordinator's metrics have these lines, each without ``tenure_coordinator_``."""
    async with httpx.AsyncClient(base_url=f"http://{member.http}", timeout=PATIENCE_S) as client:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                lines = (await client.get("/metrics")).text.splitlines()
                if {f"tenure_coordinator_{number}" for number in numbers} <= set(lines):
                    return
                await asyncio.sleep(0.05)


async def until_ready(member: Member) -> None:
    """Wait until a coordinator is ready."""
    await asyncio.to_thread(member.wait_until_ready, time.monotonic() + PATIENCE_S)


def until_listening(member: Member) -> None:
    """Wait until a coordinator's probes are served."""
    host, _, port = member.http.rpartition(":")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        member.check_alive()
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {member.http}")


async def ended(member: Member) -> int | None:
    """Wait for the end of a process; return its exit code."""
    assert await asyncio.to_thread(member.wait, PATIENCE_S), f"it runs on:\n{member.said()}"
    return member.exit_code


async def test_a_coordinator_waits_for_postgres(
    launch: Launch, own_postgres: Callable[..., EmbeddedPostgres], etcd_server: EtcdServer, etcd_prefix: str
) -> None:
    server = await asyncio.to_thread(own_postgres)
    await asyncio.to_thread(server.stop)
    coordinator = launch(
        TENURE_POSTGRES_DSN=server.dsn,
        TENURE_ETCD_ENDPOINTS=etcd_server.endpoints[0],
        TENURE_ETCD_PREFIX=etcd_prefix,
    )
    await until_said(coordinator, "waiting_for_store")
    alive, ready, problems = await readiness(coordinator)
    assert (alive, ready) == (200, 503)
    assert problems["start"].startswith("waiting for Postgres: ")
    assert "check TENURE_POSTGRES_DSN" in coordinator.log.read_text(), "the next step"
    await asyncio.to_thread(server.start)
    await until_ready(coordinator)
    coordinator.terminate()
    assert await ended(coordinator) == 0


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_coordinator_that_waits_for_postgres_stops_when_told_to(
    launch: Launch, own_postgres: Callable[..., EmbeddedPostgres], etcd_server: EtcdServer, frozen: bool
) -> None:
    server = await asyncio.to_thread(own_postgres)
    dsn = server.dsn
    await asyncio.to_thread(server.pause if frozen else server.stop)
    coordinator = launch(TENURE_POSTGRES_DSN=dsn, TENURE_ETCD_ENDPOINTS=etcd_server.endpoints[0])
    if frozen:
        await asyncio.to_thread(until_listening, coordinator)
    else:
        await until_said(coordinator, "waiting_for_store")
    coordinator.terminate()
    assert await ended(coordinator) == 0
    assert "coordinator_stopped" in coordinator.log.read_text()
    if frozen:
        assert "waiting_for_store" not in coordinator.log.read_text(), "it did not wait for the connection to time out"
        server.resume()


async def test_a_wrong_password_of_postgres_ends_a_coordinator(
    launch: Launch, own_postgres: Callable[..., EmbeddedPostgres], etcd_server: EtcdServer
) -> None:
    server = await asyncio.to_thread(own_postgres)
    wrong = server.dsn.replace(f":{server.dsn.split('@')[0].rpartition(':')[2]}@", ":wrong@")
    coordinator = launch(TENURE_POSTGRES_DSN=wrong, TENURE_ETCD_ENDPOINTS=etcd_server.endpoints[0])
    assert await ended(coordinator) == CONFIGURATION_ERROR
    said = coordinator.log.read_text()
    assert "error: Postgres refuses: " in said and "password authentication failed" in said
    assert "waiting_for_store" not in said and "Traceback" not in said


async def test_a_port_that_is_taken_ends_a_coordinator(launch: Launch, database: str, etcd_server: EtcdServer) -> None:
    """Found once the probes are served already: told as any other configuration error all the same."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        coordinator = launch(
            TENURE_POSTGRES_DSN=database,
            TENURE_ETCD_ENDPOINTS=etcd_server.endpoints[0],
            TENURE_GRPC_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}",
        )
        assert await ended(coordinator) == CONFIGURATION_ERROR
    assert "Traceback" not in coordinator.log.read_text()


async def test_coordinator_and_worker_wait_for_etcd(
    launch: Launch, own_etcd: Callable[..., EmbeddedEtcd], database: str
) -> None:
    """Without it a coordinator is ready, as submits need Postgres alone; a worker goes on trying to register."""
    server = await asyncio.to_thread(own_etcd)
    [endpoint] = server.endpoints
    await asyncio.to_thread(server.stop)
    coordinator = launch(TENURE_POSTGRES_DSN=database, TENURE_ETCD_ENDPOINTS=endpoint)
    worker, given_up = (launch(Role.WORKER, TENURE_ETCD_ENDPOINTS=endpoint) for _ in range(2))
    await until_said(coordinator, "coordinator_ready")
    alive, ready, problems = await readiness(coordinator)
    assert (alive, ready, problems) == (200, 200, {})
    await until_told(coordinator, 'ready{check="postgres"} 1.0', 'ready{check="etcd"} 0.0', "leads 0.0")
    await until_said(worker, "registration_failed")
    await until_said(given_up, "registration_failed")
    given_up.terminate()
    assert await ended(given_up) == 0
    await asyncio.to_thread(server.start)
    await until_said(coordinator, "term_begins")
    await until_told(coordinator, 'ready{check="etcd"} 1.0', "leads 1.0")
    await until_said(worker, "worker_ready")


async def test_a_coordinator_does_not_wait_for_a_schema_that_it_may_not_make(
    launch: Launch, empty_database: str, etcd_server: EtcdServer
) -> None:
    settings = {"TENURE_POSTGRES_DSN": empty_database, "TENURE_ETCD_ENDPOINTS": etcd_server.endpoints[0]}
    coordinator = launch(**settings, TENURE_MIGRATE="false")
    assert await ended(coordinator) == CONFIGURATION_ERROR
    assert "tenure db migrate" in coordinator.log.read_text()
    await migrate(empty_database)
    await until_ready(launch(**settings, TENURE_MIGRATE="false"))
