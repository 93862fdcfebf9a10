"""Rolling from the previous minor version to this one and back, one process at a time, with jobs running throughout.

Coordinators and workers of both versions stand side by side on one Postgres and one etcd; every process drains, ends
and is started again as the other version. No job is lost, none is recorded twice, and a handler runs once per attempt.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from tests.coordinator.conftest import until
from tests.e2e.conftest import PATIENCE_S
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.previous import Previous

from tenure.cli.embedded import ports
from tenure.cli.embedded.member import Member, Role
from tenure.client import AsyncClient, NewJob, Retry

COORDINATORS = 2
WORKERS = 2
UNFINISHED = 40
"""About how many jobs are there at any time."""
GRACE_S = 60.0
"""Of a drain: jobs here take half a second, so that no attempt is released on a slow machine either."""


class Fleet:
    """Coordinators and workers that can be of either version."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self._env = env
        self.trace = folder / "trace"
        self._folder = folder
        self.members = [self._coordinator(n + 1) for n in range(COORDINATORS)]
        self.members += [self._worker(n + 1) for n in range(WORKERS)]

    @property
    def addresses(self) -> list[str]:
        """Where the coordinators serve gRPC."""
        return [member.grpc for member in self.members if member.grpc]

    def start(self, python: str) -> None:
        """Start all as one version."""
        for member in self.members:
            member.python = python
            member.start()
        for member in self.members:
            self._until_ready(member)

    def migrate(self) -> None:
        """Migrate the database as this version."""
        command = [sys.executable, "-m", "tenure.cli", "db", "migrate"]
        subprocess.run(command, env=self._env, check=True, timeout=PATIENCE_S)

    def begin(self, *members: Member) -> None:
        """Start some, as the versions that they are of."""
        for member in members:
            member.start()
            self._until_ready(member)

    def roll(self, member: Member, python: str) -> None:
        """Have one process drain and end, and start it as the other version."""
        member.stop(GRACE_S + PATIENCE_S)
        assert member.exit_code == 0, member.said()
        member.python = python
        member.start()
        self._until_ready(member)

    def kill(self) -> None:
        """End what runs."""
        for member in self.members:
            if member.alive:
                member.kill(tree=True)

    def _coordinator(self, number: int) -> Member:
        grpc, http = (f"127.0.0.1:{port}" for port in ports.choose_many(2))
        env = {**self._env, "TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http}
        return Member(Role.COORDINATOR, number, [], env, self._folder / f"c{number}.log", grpc=grpc, http=http)

    def _worker(self, number: int) -> Member:
        arguments = ["--import", "tests.e2e.handlers", "--capacity", "20"]
        return Member(Role.WORKER, number, arguments, self._env, self._folder / f"w{number}.log")

    def _until_ready(self, member: Member) -> None:
        deadline = time.monotonic() + PATIENCE_S
        if member.http:
            member.wait_until_ready(deadline)
            return
        while "worker_ready" not in member.output():
            member.check_alive()
            assert time.monotonic() < deadline, member.said()
            time.sleep(0.05)


class Load:
    """Submits jobs of several shapes until told to stop; remembers what was acknowledged."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.ids: list[str] = []
        self.is_over = False

    async def run(self) -> None:
        """Submit a batch, again and again; what is under way at the end is waited for."""
        while not self.is_over:
            batch = [
                NewJob(kind="trace", payload=len(self.ids), ref="first", ttl_s=5),
                NewJob(kind="trace", depends_on=("first",), ttl_s=5),
                NewJob(kind="hold-on", payload={"seconds": 0.5}),
                NewJob(kind="flaky", payload={"succeeds_at": 2}, retry=Retry(initial_backoff_s=0.1)),
                NewJob(kind="process-hold-on", payload={"seconds": 0.3}),
            ]
            self.ids += [job.id for job in await self._client.submit_many(batch)]
            await asyncio.sleep(0.2)
            for job in self.ids[-UNFINISHED:][:1]:
                await self._client.wait(job)  # no faster than the machine bears

    async def until_done(self) -> None:
        """Wait until what was acknowledged last before this call has ended: the fleet as it now is does work."""
        await self._client.wait_many(self.ids[-5:])


@pytest.fixture
def fleet(
    previous: Previous, etcd_server: EtcdServer, etcd_prefix: str, empty_database: str, tmp_path: Path
) -> Iterator[Fleet]:
    """Give a fleet on a database that the previous version migrated."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")} | {
        "TENURE_POSTGRES_DSN": empty_database,
        "TENURE_ETCD_ENDPOINTS": ",".join(etcd_server.endpoints),
        "TENURE_ETCD_PREFIX": etcd_prefix,
        "TENURE_LEADER_TTL_S": "2",
        "TENURE_WORKER_GRACE_S": f"{GRACE_S:g}",
        "TENURE_GRACE_S": f"{GRACE_S:g}",
        "TENURE_OBJECT_STORE": (tmp_path / "objects").as_uri(),
        "TENURE_TEST_TRACE": str(tmp_path / "trace"),
    }
    subprocess.run([previous.python, "-m", "tenure.cli", "db", "migrate"], env=env, check=True, timeout=PATIENCE_S)
    made = Fleet(env, tmp_path)
    yield made
    made.kill()


@asynccontextmanager
async def _loading(client: AsyncClient) -> AsyncIterator[Load]:
    load = Load(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        yield load
        load.is_over = True


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_rolling_upgrade_and_a_rollback_lose_and_double_nothing(
    fleet: Fleet, previous: Previous, empty_database: str
) -> None:
    await asyncio.to_thread(fleet.start, str(previous.python))
    async with AsyncClient(",".join(fleet.addresses)) as client:
        async with _loading(client) as load:
            for python in (sys.executable, str(previous.python)):
                # A coordinator, a worker, and so on: each version's coordinators meet each version's workers.
                for member in (fleet.members[0], fleet.members[2], fleet.members[1], fleet.members[3]):
                    await asyncio.to_thread(fleet.roll, member, python)
                    await load.until_done()
                versions = {one.version for one in (await client.cluster()).coordinators}
                versions |= {one.version for one in await client.workers()}
                assert (versions == {previous.version}) is (python == str(previous.python))
                assert len(versions) == 1
        assert {job.state for job in await client.wait_many(load.ids)} == {"completed"}
    async with await psycopg.AsyncConnection.connect(empty_database) as connection:
        ended = await (await connection.execute("SELECT id::text, kind FROM tenure.history")).fetchall()
        tried = await (await connection.execute("SELECT job_id::text, outcome FROM tenure.attempt")).fetchall()
    assert sorted(id for id, _ in ended) == sorted(load.ids)
    completed = Counter(job for job, outcome in tried if outcome == "completed")
    assert completed == Counter(load.ids)
    attempts, runs = Counter(job for job, _ in tried), _runs(fleet.trace)
    traced = [id for id, kind in ended if kind != "flaky"]  # that one leaves no line
    assert {id: runs[id] for id in traced} == {id: attempts[id] for id in traced}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_worker_that_meets_both_releases_loses_no_log_and_no_large_result(
    fleet: Fleet, previous: Previous
) -> None:
    """The old one answers UNIMPLEMENTED to what it does not know, and knows of no result that is kept elsewhere."""
    old, new, worker, _ = fleet.members
    old.python = str(previous.python)
    await asyncio.to_thread(fleet.migrate)
    await asyncio.to_thread(fleet.begin, old, worker)
    async with AsyncClient(old.grpc) as client:
        # Begun while there is none but the old one: the worker's calls go there, and stay there while that answers.
        ids = [(await client.submit("logs-and-large", {"result": 200_000})).id for _ in range(3)]

        async def are_executing() -> bool:
            return {(await client.get(id)).state for id in ids} == {"executing"}

        await until(are_executing)
    await asyncio.to_thread(fleet.begin, new)
    await asyncio.to_thread(Path(f"{fleet.trace}.over").touch)
    async with AsyncClient(new.grpc) as client:
        ids += [(await client.submit("logs-and-large", {"result": 200_000})).id for _ in range(20)]
        for id in ids:
            job = await client.wait(id, timeout_s=PATIENCE_S)
            assert (job.state, job.result_lost, job.attempt) == ("completed", None, 1), job.error
            assert await client.result(job) == "x" * 200_000
            lines = [line.message async for line in client.logs(id)]
            assert lines == [f"line {number}" for number in range(10)]


def _runs(trace: Path) -> Counter[str]:
    """Return how often each job's handler began, by its own account."""
    lines = [line.split() for line in trace.read_text().splitlines()]
    return Counter(job for word, job, *_ in lines if word in ("ran", "began"))
