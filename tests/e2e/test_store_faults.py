"""What happens when a store fails under running jobs: cut, away, full, failed over, without quorum, compacted.

Coordinators and workers are real processes; the faults are done to real servers, or to the proxies in front of them.
Each test shows first that its fault bit, since a pass without it would prove nothing, and then that nothing was lost
or doubled.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import grpc
import psycopg
import pytest
import pytest_asyncio
from tests.e2e.conftest import Setting, Stage
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.network import ProxyFactory
from tests.proxy import Direction, Proxy

from tenure.cli.embedded import binaries, identity
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdCluster, EtcdSettings
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.client import NewJob
from tenure.model.errors import BoundExceeded
from tenure.model.fence import epoch_of
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import HoldValue, Keyspace
from tenure.store.etcd.port import Delete, Etcd, Put, Txn
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub

HOLDING_S = 2.0
"""How long a handler runs that is to end during a fault."""
CALL_S = 20.0
"""Longer than a coordinator may let a call wait for Postgres."""
STARTS = "-- ready or restarting -> executing%"
ENDS = "-- executing -> completed%"
MIB = 1024 * 1024


@dataclass
class Rig:
    """A stage whose coordinators reach the stores through proxies."""

    on: Stage
    dsn: str
    """Postgres itself, past the proxy."""
    postgres: Proxy
    etcd: Proxy

    async def rows(self, query: LiteralString, *params: Any) -> list[Any]:
        """Ask Postgres itself, past the proxy."""
        return await ask(self.dsn, query, *params)

    async def answer_lost(self) -> None:
        """Let go of what the proxy holds back by resetting every connection to Postgres."""
        assert await self.postgres.cut(), "nobody was connected: the fault did not bite"
        self.postgres.heal()

    @asynccontextmanager
    async def locked(self, job_id: str) -> AsyncIterator[Callable[[LiteralString], Awaitable[Any]]]:
        """Lock a job's row in a session of our own; gives a check that a statement like this waits for the lock."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as session:
            await session.execute("SELECT 1 FROM tenure.job WHERE id = %s FOR UPDATE", [job_id])

            async def waits(pattern: LiteralString) -> Any:
                return await self.rows(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND query LIKE %s",
                    pattern,
                )

            yield waits

    async def recorded_once(self, job_id: str) -> None:
        """See that a job completed, with one attempt, recorded once, and that no claim of it is left."""
        done = await self.on.client.wait(job_id)
        assert (done.state, done.attempt, done.crashes) == ("completed", 1, 0)
        assert await self.rows("SELECT count(*) FROM tenure.history WHERE id = %s", job_id) == [(1,)]
        assert await self.rows("SELECT outcome FROM tenure.attempt WHERE job_id = %s", job_id) == [("completed",)]
        assert await self.rows("SELECT 1 FROM tenure.job WHERE id = %s", job_id) == []

        async def released() -> bool:
            return all(claim.job_id != job_id for claim in await self.on.client.claims())

        await self.on.until(released)


async def ask(dsn: str, query: LiteralString, *params: Any) -> list[Any]:
    """Run one query on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        cursor = await connection.execute(query, params)
        return await cursor.fetchall() if cursor.description is not None else []


def port_of(address: str) -> int:
    """Return the port of a connection URL or an endpoint."""
    return int(address.partition("@")[2].partition("/")[0].rpartition(":")[2] or address.rpartition(":")[2])


MakeRig = Callable[..., Awaitable[Rig]]
StartPostgres = Callable[..., EmbeddedPostgres]


@pytest_asyncio.fixture
async def rig(stage: Setting, proxy: ProxyFactory, database: str, etcd_server: EtcdServer) -> AsyncIterator[MakeRig]:
    """Set a stage behind proxies: ``await rig(workers=2, …)``; ``postgres_dsn`` and ``etcd_endpoint`` name others."""
    stages: list[Stage] = []

    async def make(
        *, postgres_dsn: str = database, etcd_endpoint: str = etcd_server.endpoints[0], **arguments: Any
    ) -> Rig:
        postgres, etcd = await proxy(port_of(postgres_dsn)), await proxy(port_of(etcd_endpoint))
        on = await stage(
            postgres_dsn=postgres_dsn.replace(f":{port_of(postgres_dsn)}/", f":{postgres.port}/"),
            etcd_endpoints=[f"grpc://{etcd.address}"],
            **arguments,
        )
        stages.append(on)
        return Rig(on, postgres_dsn, postgres, etcd)

    yield make
    for on in stages:  # while the proxies still serve, which needs this loop
        await asyncio.to_thread(on.deployment.stop)


# -- Postgres: connections cut --


async def test_the_answer_to_a_finish_is_lost(rig: MakeRig) -> None:
    """Committed, but nobody heard: the report is repeated and answered from what was recorded."""
    behind = await rig(coordinators=2)
    job = await behind.on.client.submit("hold-on", {"seconds": HOLDING_S})
    await behind.on.executing(job.id)
    async with behind.locked(job.id) as waits:  # it is on its way, and only its answer is to be lost
        await behind.on.until(lambda: waits(ENDS))
        behind.postgres.blackhole(Direction.TO_CLIENT)

    async def committed() -> Any:
        return await behind.rows("SELECT 1 FROM tenure.history WHERE id = %s", job.id)

    await behind.on.until(committed)
    await behind.answer_lost()
    await behind.recorded_once(job.id)


async def test_a_finish_is_cut_before_its_commit(rig: MakeRig) -> None:
    """The connection breaks while the statement waits for a lock: whether it commits or not, it is recorded once."""
    behind = await rig(coordinators=2)
    job = await behind.on.client.submit("hold-on", {"seconds": HOLDING_S})
    await behind.on.executing(job.id)
    async with behind.locked(job.id) as waits:
        await behind.on.until(lambda: waits(ENDS))
        await behind.answer_lost()
    await behind.recorded_once(job.id)
    assert len([line for line in behind.on.lines(job.id) if line.word == "ended"]) == 1


async def test_the_answer_to_a_submit_is_lost(rig: MakeRig) -> None:
    """Committed, but nobody heard: the client sends the same key again and gets the one job."""
    behind = await rig(coordinators=2)
    await behind.on.client.wait((await behind.on.client.submit("trace", "first")).id)
    behind.postgres.blackhole(Direction.TO_CLIENT)
    submitting = asyncio.create_task(behind.on.client.submit("trace", "only once"))

    async def committed() -> Any:
        return await behind.rows("SELECT id FROM tenure.jobs WHERE payload::text = '\"only once\"'")

    [(written,)] = await behind.on.until(committed)
    assert not submitting.done()
    await behind.answer_lost()
    job = await submitting
    assert job.id == str(written)
    await behind.recorded_once(job.id)
    assert await committed() == [(written,)]
    assert behind.on.runs()[job.id] == 1


async def test_the_answer_to_a_start_is_lost(rig: MakeRig) -> None:
    """Committed, but nobody heard: the row carries this claim, so the attempt is this worker's, and it runs once."""
    behind = await rig(coordinators=2, workers=0)
    job = await behind.on.client.submit("trace", 1)
    async with behind.locked(job.id) as waits:
        await asyncio.to_thread(behind.on.deployment.add_worker)
        await behind.on.until(lambda: waits(STARTS))
        behind.postgres.blackhole(Direction.TO_CLIENT)

    async def started() -> Any:
        return await behind.rows("SELECT fence FROM tenure.job WHERE id = %s AND state = 'executing'", job.id)

    [(fence,)] = await behind.on.until(started)
    await behind.answer_lost()
    await behind.recorded_once(job.id)
    assert [(line.attempt, line.fence) for line in behind.on.lines(job.id)] == [(1, fence)]


# -- Postgres: away, crowded, full, failed over --


@pytest.mark.parametrize("away_s", [4.0, pytest.param(32.0, marks=pytest.mark.long)])
async def test_postgres_is_away_for_long(own_postgres: StartPostgres, stage: Setting, away_s: float) -> None:
    """Jobs run on and end meanwhile: their claims are kept alive past many TTLs, and they report when it is back."""
    server = own_postgres()
    on = await stage(postgres_dsn=server.dsn, coordinators=2, workers=2)
    jobs = [await on.client.submit("hold-on", {"seconds": HOLDING_S}, ttl_s=2) for _ in range(10)]
    for job in jobs:
        await on.executing(job.id)
    await asyncio.to_thread(server.stop)
    away_until = time.monotonic() + away_s
    await on.until(lambda: _all_ended(on, jobs))
    assert await refusal_of(on, "refused") == "UNAVAILABLE"
    assert len(await claims_of(on)) == len(jobs)
    await asyncio.sleep(max(0.0, away_until - time.monotonic()))
    assert len(await claims_of(on)) == len(jobs), "claims are kept alive until the reports are answered"
    await asyncio.to_thread(server.start)
    done = await on.client.wait_many([job.id for job in jobs])
    assert {(job.state, job.attempt, job.crashes) for job in done} == {("completed", 1, 0)}
    assert (await on.client.wait((await on.client.submit("trace", "after")).id)).state == "completed"


async def test_foreign_sessions_take_every_connection(own_postgres: StartPostgres, stage: Setting) -> None:
    """No connection can be had: calls are refused after a bounded wait, claims are kept alive, and it recovers."""
    server = own_postgres(settings={"max_connections": "24"})
    dsn = server.dsn
    on = await stage(postgres_dsn=dsn, coordinators=2, workers=1, env={"TENURE_POSTGRES_WAIT_S": "1"})
    job = await on.client.submit("hold-on", {"seconds": HOLDING_S}, ttl_s=2)
    await on.executing(job.id)
    with crowd(dsn):
        assert await refusal_of(on, "crowded out") == "UNAVAILABLE"
        await on.until(lambda: _all_ended(on, [job]))
        await asyncio.sleep(3.0)  # more than the TTL
        assert len(await claims_of(on)) == 1
    done = await on.client.wait(job.id)
    assert (done.state, done.attempt) == ("completed", 1)
    assert (await on.client.wait((await on.client.submit("trace", "after")).id)).state == "completed"
    assert await ask(dsn, "SELECT 1 FROM tenure.jobs WHERE payload::text = '\"crowded out\"'") == []


async def test_a_locked_table_costs_a_bounded_wait(rig: MakeRig) -> None:
    """Every connection of the pool waits for a lock: calls are refused, claims are kept alive, and it recovers."""
    small = {"TENURE_POSTGRES_WAIT_S": "1", "TENURE_LOCK_TIMEOUT_S": "1", "TENURE_POSTGRES_POOL_MAX": "3"}
    behind = await rig(env=small)
    job = await behind.on.client.submit("hold-on", {"seconds": HOLDING_S}, ttl_s=2)
    await behind.on.executing(job.id)
    async with await psycopg.AsyncConnection.connect(behind.dsn) as session:
        await session.execute("LOCK TABLE tenure.job IN ACCESS EXCLUSIVE MODE")
        refused = await asyncio.gather(*(refusal_of(behind.on, n) for n in range(20)))
        assert set(refused) == {"UNAVAILABLE"}
        await behind.on.until(lambda: _all_ended(behind.on, [job]))
        await asyncio.sleep(3.0)  # more than the TTL
    await behind.recorded_once(job.id)
    assert (await behind.on.client.wait((await behind.on.client.submit("trace", "after")).id)).state == "completed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_postgres_runs_out_of_disk(tmp_path: Path, own_postgres: StartPostgres, stage: Setting) -> None:
    """Submits are refused and none is acknowledged falsely; what runs keeps its claim; all goes on with new room."""
    with small_disk(tmp_path / "postgres0", 224 * MIB) as disk:
        server = own_postgres(fsync=True, settings={"max_wal_size": "64MB", "min_wal_size": "32MB"})
        on = await stage(postgres_dsn=server.dsn, coordinators=2, workers=2)
        doomed = await on.client.submit("hold-on", {"seconds": HOLDING_S}, ttl_s=2)
        first = await on.executing(doomed.id)
        running = await on.client.submit("hold-on", {"seconds": HOLDING_S * 2}, ttl_s=2)
        kept = await on.executing(running.id)
        assert first.claim is not None and kept.claim is not None
        ballast = fill(disk)
        acknowledged, status = await _submit_until_refused(on)
        assert acknowledged and status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
        if first.claim.worker != kept.claim.worker:
            on.member(first.claim.worker).kill()
        await on.until(lambda: _all_ended(on, [running]))
        await asyncio.sleep(5.0)  # more than the TTL, and time for whatever would spin
        assert not await _said(on, "term_failed")
        assert max(worker.log.read_text().count("reports_not_answered") for worker in on.deployment.workers) < 15
        ballast.unlink()
        if not server.alive:  # it panics when there is no room for WAL either: then a supervisor starts it again
            await asyncio.to_thread(server.restart)
        done = await on.client.wait(running.id)
        assert (done.state, done.attempt) == ("completed", 1)
        finished = await on.client.wait_many([*acknowledged, doomed.id])
        assert {job.state for job in finished} == {"completed"}
        assert (await on.client.wait((await on.client.submit("trace", "after")).id)).state == "completed"
        await asyncio.to_thread(on.deployment.stop)
        await asyncio.to_thread(server.stop)


async def test_postgres_fails_over_to_a_standby(tmp_path: Path, own_postgres: StartPostgres, rig: MakeRig) -> None:
    """The connection moves to a replica, later promoted: a new timeline, so a new epoch; what ran completes."""
    primary = own_postgres(fsync=True)
    dsn = primary.dsn
    standby = await asyncio.to_thread(copied, primary, tmp_path / "standby")
    behind = await rig(postgres_dsn=dsn, coordinators=2, workers=2)
    running = await behind.on.client.submit("hold-on", {"seconds": HOLDING_S * 2}, ttl_s=5)
    before = await behind.on.executing(running.id)
    waiting = await behind.on.client.submit("trace", "before", delay_s=HOLDING_S)
    await behind.on.until(lambda: _caught_up(dsn))
    await behind.postgres.refuse()
    await asyncio.to_thread(primary.kill)
    behind.postgres.redirect(standby.port)
    await behind.postgres.accept()
    await behind.on.until(lambda: _said(behind.on, "Postgres is a standby"))
    assert await refusal_of(behind.on, "too early") == "UNAVAILABLE"
    await ask(standby.dsn, "SELECT pg_promote()")
    after = await behind.on.client.submit("trace", "after")
    done = {job.id: job for job in await behind.on.client.wait_many([running.id, waiting.id, after.id])}
    assert {(job.state, job.attempt) for job in done.values()} == {("completed", 1)}
    epoch = (await behind.on.client.cluster()).epoch
    assert epoch > 1
    assert epoch_of(before.fence) == epoch_of(done[running.id].fence) == 1
    assert epoch_of(done[after.id].fence) == epoch
    await asyncio.to_thread(behind.on.deployment.stop)
    await asyncio.to_thread(standby.stop)


# -- etcd --


@pytest.mark.parametrize("away_s", [7.0, pytest.param(20.0, marks=pytest.mark.long)])
async def test_etcd_has_no_quorum_for_long(etcd_cluster: EtcdCluster, stage: Setting, away_s: float) -> None:
    """Handlers that can be killed stop before their leases can expire; submits go on; all is done after the heal."""
    on = await stage(etcd_endpoints=etcd_cluster.endpoints, coordinators=2, workers=2)
    running = [await on.client.submit("process-hold-on", {"seconds": 8}, ttl_s=5) for _ in range(4)]
    first = [await on.executing(job.id) for job in running]
    await on.until(lambda: _all_began(on, running))
    for place in (0, 1):
        await asyncio.to_thread(etcd_cluster.kill, place)
    lost_at = time.monotonic()
    meanwhile = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(20)])
    await on.until(lambda: _silent(on, running))
    assert {job.state for job in [await on.client.get(job.id) for job in meanwhile]} == {"ready"}
    await asyncio.sleep(max(0.0, lost_at + away_s - time.monotonic()))
    await asyncio.to_thread(etcd_cluster.start)
    done = await on.client.wait_many([*(job.id for job in running), *(job.id for job in meanwhile)])
    assert {job.state for job in done} == {"completed"}
    again = {job.id: job for job in done}
    for before in first:
        mine = on.lines(before.id)
        stopped_at = max(line.at for line in mine if line.attempt == 1)
        assert stopped_at < min(line.at for line in mine if line.attempt > 1), "a handler outlived its lease"
        assert again[before.id].attempt > 1 and again[before.id].fence > before.fence
    assert set(on.runs()) == {job.id for job in meanwhile}


async def test_etcd_runs_out_of_space(own_etcd: Callable[..., EmbeddedEtcd], stage: Setting) -> None:
    """The NOSPACE alarm: named by logs and doctor; nothing is lost, and all goes on once it is disarmed."""
    server = own_etcd(EtcdSettings(fsync=False, quota_bytes=16 * MIB))
    on = await stage(etcd_endpoints=server.endpoints, coordinators=2, workers=1)
    running = await on.client.submit("hold-on", {"seconds": HOLDING_S * 2}, ttl_s=2)
    await on.executing(running.id)
    etcd = connect(server.endpoints)
    await _fill_etcd(etcd)
    meanwhile = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(20)])
    done = await on.client.wait(running.id)
    assert (done.state, done.attempt) == ("completed", 1), "leases are renewed although nothing can be written"
    await on.until(lambda: _said(on, "space exceeded"))
    told = await asyncio.to_thread(doctor, on)
    assert told.returncode == 1
    alarms = [each for each in json.loads(told.stdout) if "NOSPACE" in each["detail"]]
    assert alarms and "disarm" in alarms[0]["next_step"]
    await etcd.compact((await etcd.status()).revision)
    for command in (["defrag"], ["alarm", "disarm"]):
        await asyncio.to_thread(etcdctl, server.endpoints, *command)
    finished = await on.client.wait_many([job.id for job in meanwhile])
    assert {job.state for job in finished} == {"completed"}
    assert set(on.runs().values()) == {1}
    await etcd.close()


async def test_history_is_compacted_while_the_leader_looks_away(rig: MakeRig) -> None:
    """The leader's watches resume where nothing is remembered any more: they list again, and miss no deletion."""
    behind = await rig(workers=2, env={"TENURE_LEADER_TTL_S": "60", "TENURE_SWEEP_S": "3600"})
    on = behind.on
    keys = Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"])
    job = await on.client.submit("hold-on", {"seconds": HOLDING_S * 2}, ttl_s=10)
    first = await on.executing(job.id)
    etcd = connect([f"grpc://127.0.0.1:{behind.etcd.server_port}"])
    await behind.etcd.refuse()
    await etcd.txn(Txn((), (Delete(keys.claim(job.id)),)))
    for n in range(10):
        await etcd.txn(Txn((), (Put(f"{keys.prefix}elsewhere", str(n).encode()),)))
    await etcd.compact((await etcd.txn(Txn((), (Delete(f"{keys.prefix}elsewhere"),)))).revision)
    await behind.etcd.accept()
    second = await on.executing(job.id, attempt=2)
    outcomes = [one.outcome for one in await on.client.attempts(job.id)]
    assert outcomes[0] in ("released", "lost"), "the vanished claim was reaped, by the listing alone: the sweep sleeps"
    assert second.fence > first.fence
    await on.until(lambda: _said(on, "view_relisted"))
    assert (await on.client.wait(job.id)).state == "completed"
    await etcd.close()


async def test_etcd_moves_its_leader(etcd_cluster: EtcdCluster, stage: Setting) -> None:
    """An orderly change, twice: what runs notices nothing."""
    on = await stage(etcd_endpoints=etcd_cluster.endpoints, coordinators=2, workers=2)
    running = [await on.client.submit("hold-on", {"seconds": 6}, ttl_s=5) for _ in range(10)]
    for job in running:
        await on.executing(job.id)
    meanwhile: list[str] = []
    for _ in range(2):
        before = etcd_cluster.leader()
        moved = await asyncio.to_thread(move_leader, etcd_cluster)
        assert moved != before
        jobs = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(50)])
        await on.client.wait_many([job.id for job in jobs])
        meanwhile += [job.id for job in jobs]
    done = await on.client.wait_many([job.id for job in running])
    assert {(job.state, job.attempt) for job in done} == {("completed", 1)}
    assert on.runs() == dict.fromkeys(meanwhile, 1)


async def test_a_hold_stops_a_job_while_nothing_else_is_up(stage: Setting) -> None:
    """The kill switch with Postgres and every coordinator down: ``etcdctl put`` reaches the worker by itself."""
    on = await stage(own_stores=True, fsync=True, coordinators=2, workers=2)
    deployment = on.deployment
    assert deployment.postgres is not None and deployment.etcd is not None
    held = await on.client.submit("process-hold-on", {"seconds": 600})
    other = await on.client.submit("process-hold-on", {"seconds": 600})
    await on.until(lambda: _all_began(on, [held, other]))
    for coordinator in deployment.coordinators:
        await asyncio.to_thread(coordinator.kill)
    await asyncio.to_thread(deployment.postgres.kill)
    key = Keyspace(deployment.env["TENURE_ETCD_PREFIX"]).hold(held.id)
    await asyncio.to_thread(etcdctl, deployment.etcd.endpoints, "put", key, HoldValue("runaway").to_json().decode())
    await on.until(lambda: _silent(on, [held]))
    assert any("job_is_held" in worker.output() for worker in deployment.workers)
    assert not await _silent(on, [other]), "only the held job stops"
    await asyncio.to_thread(deployment.postgres.start)
    for coordinator in deployment.coordinators:
        await asyncio.to_thread(coordinator.start)

    async def handed_back() -> bool:
        return (await on.client.get(held.id)).state == "ready"

    await on.until(handed_back)
    attempts = await on.client.attempts(held.id)
    assert [attempt.outcome for attempt in attempts] == ["released"]
    await asyncio.to_thread(etcdctl, deployment.etcd.endpoints, "del", key)
    again = await on.executing(held.id, attempt=2)
    assert (again.errors, again.crashes) == (0, 0)
    for job in (held, other):
        await on.client.cancel(job.id)
        await on.client.wait(job.id)


# -- hands --


async def claims_of(on: Stage) -> list[str]:
    """Return the claims in etcd, asked of etcd itself."""
    etcd = connect(on.deployment.env["TENURE_ETCD_ENDPOINTS"].split(","))
    try:
        listing = await etcd.list(Keyspace(on.deployment.env["TENURE_ETCD_PREFIX"]).claims, keys_only=True)
        return [item.key for item in listing.items]
    finally:
        await etcd.close()


@contextmanager
def crowd(dsn: str) -> Iterator[None]:
    """Take every connection that Postgres gives, those of tenure too."""
    sessions = [psycopg.connect(dsn, autocommit=True, connect_timeout=5)]
    try:
        full = 0
        while full < 20:  # tenure's pools try to come back for a while
            sessions[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tenure-%%'"
            )
            try:
                sessions.append(psycopg.connect(dsn, autocommit=True, connect_timeout=5))
            except psycopg.OperationalError as exc:
                assert "too many clients" in str(exc) or "remaining connection slots" in str(exc), exc
                full += 1
                time.sleep(0.05)
        yield
    finally:
        for session in sessions:
            session.close()


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a disk of this size."""
    folder.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room but a little that is left; return the file that takes it."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (room.f_bavail * room.f_frsize) - 6 * MIB)
    return ballast


def copied(primary: EmbeddedPostgres, folder: Path) -> EmbeddedPostgres:
    """Make a running standby of a server, by ``pg_basebackup``."""
    programs = binaries.postgres_folder()
    how = identity.choose(folder, programs / "postgres")
    folder.mkdir(mode=0o755)
    (folder / "password").write_text((primary.folder.path / "password").read_text())
    how.hand_over(folder)
    copy: list[str | Path] = [
        programs / "pg_basebackup",
        "-d",
        primary.dsn_of(""),
        "-D",
        folder / "pgdata",
        "-R",
        "-c",
        "fast",
    ]
    subprocess.run([*how.prefix, *copy], check=True, timeout=60)
    standby = EmbeddedPostgres(folder, fsync=False)
    standby.start()
    return standby


def etcdctl(endpoints: list[str], *arguments: str) -> str:
    """Run etcdctl against the first endpoint."""
    program = binaries.etcd_program().with_name("etcdctl")
    address = endpoints[0].removeprefix("grpc://")
    done = subprocess.run(
        [program, f"--endpoints={address}", *arguments],
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def move_leader(cluster: EtcdCluster) -> int:
    """Hand the leadership to the next member; return its place."""
    before = cluster.leader()
    after = (before + 1) % len(cluster.members)
    status = json.loads(etcdctl([cluster.endpoints[after]], "endpoint", "status", "--write-out=json"))
    etcdctl([cluster.endpoints[before]], "move-leader", f"{status[0]['Status']['header']['member_id']:x}")
    return cluster.leader()


def doctor(on: Stage) -> subprocess.CompletedProcess[str]:
    """Run ``tenure doctor`` on a deployment."""
    return subprocess.run(
        [sys.executable, "-m", "tenure.cli", "doctor", "--output", "json"],
        env={**os.environ, **on.deployment.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def refusal_of(on: Stage, payload: object) -> str:
    """Submit a job by one call, without the client's patience; return the status with which it was refused."""
    async with grpc.aio.insecure_channel(on.deployment.coordinator_addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _submit(channel, payload)
        return refused.value.code().name


async def _submit_until_refused(on: Stage) -> tuple[list[str], str]:
    """Submit large jobs until one is refused; return those acknowledged, and the status of the refusal."""
    acknowledged: list[str] = []
    async with grpc.aio.insecure_channel(on.deployment.coordinator_addresses[0]) as channel:
        for _ in range(2_000):
            try:
                acknowledged.append(await _submit(channel, os.urandom(50_000).hex()))
            except grpc.aio.AioRpcError as refusal:
                return acknowledged, refusal.code().name
    raise AssertionError("the disk never became full: the fault did not bite")


async def _submit(channel: grpc.aio.Channel, payload: object) -> str:
    spec = job_pb2.JobSpec(kind="noop", payload=json.dumps(payload))
    answer = await JobServiceStub(channel).SubmitJob(pb.SubmitJobRequest(job=spec), timeout=CALL_S)
    return str(answer.job.id)


async def _all_began(on: Stage, jobs: list[Any]) -> bool:
    """Whether the handlers of all these jobs run, by their own account."""
    began = {line.job_id for line in on.lines() if line.word == "began"}
    return began >= {job.id for job in jobs}


async def _all_ended(on: Stage, jobs: list[Any]) -> bool:
    """Whether the handlers of all these jobs have ended, by their own account."""
    ended = {line.job_id for line in on.lines() if line.word == "ended"}
    return ended >= {job.id for job in jobs}


async def _silent(on: Stage, jobs: list[Any]) -> bool:
    """Whether handlers that leave a line every tenth of a second have left none for a second."""
    last = max(line.at for line in on.lines() if line.job_id in {job.id for job in jobs})
    return time.monotonic() - last > 1.0


async def _said(on: Stage, words: str) -> bool:
    return any(words in member.log.read_text() for member in (*on.deployment.coordinators, *on.deployment.workers))


async def _caught_up(dsn: str) -> bool:
    """Whether a standby has replayed all that was written."""
    rows = await ask(dsn, "SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication")
    return bool(rows) and all(row[0] for row in rows)


async def _fill_etcd(etcd: Etcd) -> None:
    """Write until etcd has no more room."""
    for _ in range(200):
        try:
            await etcd.txn(Txn((), (Put("/ballast", os.urandom(MIB)),)))
        except BoundExceeded:
            return
    raise AssertionError("the quota was never reached: the fault did not bite")
