"""A deployment whose handlers leave a trace, and a client for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded.deployment import Deployment
from tenure.cli.embedded.member import Member
from tenure.client import AsyncClient
from tenure.client.records import Job

PATIENCE_S = 60.0
"""How long a test waits for something that must happen; only a hang takes as long."""


@dataclass(slots=True)
class Line:
    """One line that a handler wrote."""

    word: str
    job_id: str
    attempt: int
    fence: int
    pid: int
    at: float


class Stage:
    """A running deployment, its client and its handlers' trace."""

    def __init__(self, deployment: Deployment, client: AsyncClient, trace: Path) -> None:
        self.deployment = deployment
        self.client = client
        self._trace = trace

    def lines(self, job_id: str | None = None) -> list[Line]:
        """Return what handlers wrote, of one job or of all."""
        if not self._trace.exists():
            return []
        rows = [row.split() for row in self._trace.read_text().splitlines()]
        found = [Line(w, j, int(a), int(f), int(p), float(t)) for w, j, a, f, p, t in rows]
        return [line for line in found if job_id in (None, line.job_id)]

    def runs(self) -> dict[str, int]:
        """Return how often each job ran to its end, by its handler's own account."""
        counts: dict[str, int] = defaultdict(int)
        for line in self.lines():
            if line.word == "ran":
                counts[line.job_id] += 1
        return counts

    async def until(self, check: Callable[[], Awaitable[Any]]) -> Any:
        """Return the first true answer of a check."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await check()
                if answer:
                    return answer
                await asyncio.sleep(0.02)

    async def executing(self, job_id: str, *, attempt: int = 1) -> Job:
        """Return the job once it executes in this attempt or a later one."""

        async def check() -> Job | None:
            job = await self.client.get(job_id)
            return job if job.state == "executing" and job.attempt >= attempt else None

        job: Job = await self.until(check)
        return job

    async def postgres(self, query: LiteralString) -> Any:
        """Return the one value that a query gives."""
        async with await psycopg.AsyncConnection.connect(self.deployment.env["TENURE_POSTGRES_DSN"]) as connection:
            row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return row[0]

    def member(self, worker_id: str) -> Member:
        """Return the process of a worker; a runner's id goes on after the name that its process has."""
        return next(one for one in self.deployment.workers if worker_id.startswith(one.id))


Setting = Callable[..., Awaitable[Stage]]


either_link = pytest.mark.parametrize("remote", [False, True], ids=["direct", "remote"])
"""For tests that workers and runners must pass alike."""


@pytest.fixture
def remote() -> bool:
    """Whether the workers are runners."""
    return False


@pytest.fixture
async def stage(deployment: DeploymentFactory, tmp_path: Path, remote: bool) -> AsyncIterator[Setting]:
    """Set a stage: ``await stage(coordinators=2, workers=3, …)`` with the arguments of ``Deployment``."""
    clients: list[AsyncClient] = []

    async def set_stage(*, pool: str = "default", args: tuple[str, ...] = (), **arguments: Any) -> Stage:
        trace = tmp_path / "trace"
        env = {"TENURE_TEST_TRACE": str(trace), "TENURE_LEADER_TTL_S": "2", **arguments.pop("env", {})}
        worker_args = ["--import", "tests.e2e.handlers", "--pool", pool, *args]
        made = await asyncio.to_thread(deployment, worker_args=worker_args, env=env, remote=remote, **arguments)
        client = AsyncClient(",".join(made.coordinator_addresses))
        clients.append(client)
        return Stage(made, client, trace)

    yield set_stage
    for client in clients:
        await client.close()
