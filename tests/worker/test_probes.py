"""What a worker says of itself: ready while it is registered and trusted, alive while its event loops are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.worker.conftest import Station, until

from tenure.model.clock import SystemClock
from tenure.store.etcd.keyspace import Keyspace, WorkerValue
from tenure.store.etcd.port import Etcd
from tenure.store.etcd.sessions import Sessions
from tenure.worker.control import Control
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Handler, Mode, Registry
from tenure.worker.probes import probes
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
        app = probes(7, control, self.registration, self.keeper, station.link, self.engines)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")

    async def problems(self, path: str = "/readyz") -> dict[str, str]:
        """Ask a probe; its status is that of its text."""
        answer = await self.http.get(path)
        problems: dict[str, str] = answer.json()["problems"]
        assert answer.status_code == (503 if problems else 200)
        return problems


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
    assert await worker.problems() == {}
    worker.clock.ahead_s = 3600.0
    assert await worker.problems() == {"worker": "the session is not trusted: it was not renewed in time"}
    worker.clock.ahead_s = 0.0
    worker.registration.drain()
    assert await worker.problems() == {"worker": "draining"}
    assert await worker.problems("/livez") == {}
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
    assert names == {
        f"tenure_worker_{name}"
        for name in (
            "capacity", "executing", "unreported", "claims", "trust_margin_seconds", "loop_blocked_seconds", "ready",
        )
    }  # fmt: skip
