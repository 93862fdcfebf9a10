"""What a worker says of itself: ready while it is registered and trusted, alive while its event loops are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from tests.worker.conftest import Scripted, Station, until

from tenure.model.clock import SystemClock
from tenure.store.etcd.keyspace import Keyspace, WorkerValue
from tenure.store.etcd.port import Etcd
from tenure.store.etcd.sessions import Sessions
from tenure.worker import introduction
from tenure.worker.connection import Connection
from tenure.worker.control import Control
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Handler, Mode, Registry
from tenure.worker.introduction import Introduction
from tenure.worker.probes import GAUGES, probes
from tenure.worker.registration import Registration

TTL_S = 5.0


class Jumping(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Worker:
    """The parts of a worker that its probes ask, and the probes."""

    def __init__(self, station: Station) -> None:
        self.clock = Jumping()
        self.keeper = station.keeper
        value = WorkerValue(("default",), ("k",), 1, {})
        self.registration = Registration(
            Sessions(station.etcd, station.keys), self.clock, self.keeper, "w1", value, TTL_S
        )
        registry = Registry([Handler(kind="k", mode=Mode.ASYNC, target=lambda: None)])
        self.engines = Engines(registry)
        control = Control(self.clock, registry, self.engines, 7)
        control.attach(station.link)
        self.introduction = Introduction(station.coordinators, self.clock, "w1")

        async def close() -> None:
            pass

        connection = Connection(self.keeper, self.registration, station.link, dict, self.introduction.problem, close)
        app = probes(7, control, connection, self.engines)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")

    async def problems(self, path: str = "/readyz") -> dict[str, str]:
        """Ask a probe; its status is that of its text."""
        answer = await self.http.get(path)
        problems: dict[str, str] = answer.json()["problems"]
        assert answer.status_code == (503 if problems else 200)
        return problems

    async def is_ready(self) -> bool:
        """Say whether nothing is wrong."""
        return not await self.problems()


@pytest.fixture
async def worker(station: Station) -> AsyncIterator[Worker]:
    """Give a worker that has not registered yet."""
    made = Worker(station)
    yield made
    await made.engines.close()
    await made.http.aclose()


async def test_ready_is_registered_trusted_and_not_draining(worker: Worker) -> None:
    assert await worker.problems() == {"worker": "not registered: starting"}
    task = asyncio.ensure_future(worker.registration.run())
    await worker.registration.registered.wait()
    assert await worker.problems() == {"worker": "no coordinator has answered yet"}
    async with introducing(worker):
        await until(worker.is_ready)
    worker.clock.ahead_s = 3600.0
    assert await worker.problems() == {"worker": "the session is not trusted: it was not renewed in time"}
    worker.clock.ahead_s = 0.0
    worker.registration.drain()
    assert await worker.problems() == {"worker": "draining"}
    assert await worker.problems("/livez") == {}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await worker.registration.close()


@asynccontextmanager
async def introducing(worker: Worker) -> AsyncIterator[None]:
    """Have the worker show its credentials to coordinators, for the length of a block."""
    task = asyncio.ensure_future(worker.introduction.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_worker_whose_credentials_are_refused_is_not_ready(
    worker: Worker, coordinator: Scripted, status: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has seen a job; and ready again once they are taken. One that does not answer changes nothing."""
    monkeypatch.setattr(introduction, "LOOK_S", 0.05)
    monkeypatch.setattr(introduction, "AGAIN_S", 0.05)
    coordinator.refuse_starts = status
    task = asyncio.ensure_future(worker.registration.run())
    await worker.registration.registered.wait()

    async def is_refused() -> bool:
        return await worker.problems() == {"worker": "refused by coordinators: as the test wishes"}

    async with introducing(worker):
        await until(is_refused)
        assert "tenure_worker_ready 0.0" in (await worker.http.get("/metrics")).text
        coordinator.refuse_starts = None
        await until(worker.is_ready)
        asked, coordinator.refuse_starts = coordinator.starts, grpc.StatusCode.UNAVAILABLE

        async def asked_again() -> bool:
            return coordinator.starts > asked

        await until(asked_again)
        assert await worker.is_ready()
        coordinator.refuse_starts = status
        await until(is_refused)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await worker.registration.close()


async def test_a_lost_session_is_told(worker: Worker, etcd: Etcd, keys: Keyspace) -> None:
    task = asyncio.ensure_future(worker.registration.run())
    await worker.registration.registered.wait()
    task.cancel()  # or it would register anew before anybody could ask
    await asyncio.gather(task, return_exceptions=True)
    key = await etcd.get(keys.worker("w1"))
    assert key is not None
    await etcd.revoke(key.lease)

    async def told() -> bool:
        return await worker.problems() == {"worker": "not registered: the session was lost"}

    await until(told)


async def test_an_event_loop_that_has_ended_fails_liveness(worker: Worker) -> None:
    assert await worker.problems("/livez") == {}
    (loop,) = worker.engines.loops()
    loop.post(lambda: loop.loop.stop())  # as a handler can

    async def told() -> bool:
        return await worker.problems("/livez") == {"loops": "ended: tenure-handlers"}

    await until(told)


async def test_the_numbers(worker: Worker) -> None:
    lines = (await worker.http.get("/metrics")).text.splitlines()
    assert "tenure_worker_capacity 7.0" in lines
    assert "tenure_worker_ready 0.0" in lines
    names = {line.split()[0] for line in lines if not line.startswith("#")}
    assert {f"tenure_worker_{name}" for name in GAUGES} <= names
    assert "tenure_worker_keepalive_seconds_count" in names
    assert 'tenure_worker_claims_made_total{result="won"}' in names
