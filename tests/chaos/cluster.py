"""The real processes of a chaos run, each a participant of its network: Postgres, three etcds, coordinators, workers.

Owns: how they are started, and that coordinators and workers that die are started again, as a supervisor would
(``supervise``). Whoever stops one on purpose for a while says so (``absent``). Logs and data stay in the run's folder.
Stores are started again by whoever killed them: the nemesis. Nothing outlives the runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos import effects
from tests.chaos.network import Network
from tests.chaos.observer import note_starts

from tenure.cli.embedded import binaries, identity
from tenure.cli.embedded.member import Member, Role, is_ready
from tenure.cli.embedded.postgres import SETTINGS, EmbeddedPostgres
from tenure.cli.embedded.processes import Child, EmbeddedError, spawn
from tenure.model.errors import TenureError
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import Keyspace, LeaderValue
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.migrate import migrate

ROOT = Path(__file__).parents[2]
DEBIAN_ETCD = Path("/usr/bin/etcd")
POSTGRES = "postgres"
PREFIX = "/tenure/v1/"
READY_S = 90.0
RESTART_S = 0.5
"""How long a supervisor takes to notice."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


class EtcdServer:
    """One member of the etcd cluster."""

    def __init__(self, name: str, network: Network, folder: Path, program: Path) -> None:
        self.name = name
        self.host = network.address(name)
        self.child: Child | None = None
        self._prefix = network.prefix(name)
        self._folder = folder
        self._program = program

    @property
    def endpoint(self) -> str:
        """Its address for the native transport."""
        return f"grpc://{self.host}:2379"

    @property
    def peer(self) -> str:
        """Its name and address for the other members."""
        return f"{self.name}=http://{self.host}:2380"

    def start(self, peers: Sequence[str]) -> None:
        """Start its process on its data."""
        flags = {
            "name": self.name,
            "data-dir": self._folder / self.name,
            "listen-client-urls": f"http://{self.host}:2379",
            "advertise-client-urls": f"http://{self.host}:2379",
            "listen-peer-urls": f"http://{self.host}:2380",
            "initial-advertise-peer-urls": f"http://{self.host}:2380",
            "initial-cluster": ",".join(peers),
            "initial-cluster-state": "new",
            "logger": "zap",
            "log-outputs": "stderr",
            "log-level": "warn",
        }
        command: list[str | Path] = [
            *self._prefix,
            self._program,
            *(f"--{name}={value}" for name, value in flags.items()),
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "TENURE_"))}
        log = self._folder / "log" / f"{self.name}.log"
        self.child = spawn(self.name, command, log=log, env=env, death_signal=signal.SIGKILL)

    def running(self) -> Child:
        """Return its process."""
        assert self.child is not None
        return self.child


class PostgresServer:
    """The database, reachable from the participants by password."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.child: Child | None = None
        self._host = network.address(POSTGRES)
        self._prefix = network.prefix(POSTGRES)
        self._data = folder / "postgres"
        self._log = folder / "log" / "postgres.log"
        self._local_dsn = ""

    @property
    def dsn(self) -> str:
        """Its address. Holds the password."""
        address = self._local_dsn.rpartition("@")[0]
        return f"{address}@{self._host}:5432/tenure?sslmode=disable&connect_timeout=3"

    def make(self) -> None:
        """Make the database, and let it be reached by network."""
        with EmbeddedPostgres(self._data, log=self._log) as server:
            self._local_dsn = server.dsn
        with (self._data / "pgdata" / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def start(self) -> None:
        """Start it and wait until it takes connections; it recovers what a crash left."""
        programs = binaries.postgres_folder()
        pgdata = self._data / "pgdata"
        how = identity.choose(pgdata, programs / "postgres")
        settings = {**SETTINGS, "listen_addresses": self._host}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [
            *self._prefix,
            *how.prefix,
            programs / "postgres",
            "-D",
            pgdata,
            "-p",
            "5432",
            *arguments,
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "TENURE_"))}
        env |= {"LC_ALL": "C", "TZ": "UTC"}
        child = self.child = spawn("postgres", command, log=self._log, env=env, death_signal=signal.SIGINT)
        deadline = time.monotonic() + READY_S
        while not self._is_ready(child):
            if not child.alive or time.monotonic() > deadline:
                raise EmbeddedError(f"Postgres did not start:\n{child.said()}")
            time.sleep(0.02)

    def _is_ready(self, child: Child) -> bool:
        with contextlib.suppress(OSError):
            lines = (self._data / "pgdata" / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready"
        return False


class Cluster:
    """Everything that runs. ``start`` and ``stop`` block: call them in a thread.

    Args:
        folder: the run's; ``history/``, ``store/``, ``log/`` and the stores' data go there.
        coordinators: how many.
        workers: how many.
        etcd: the program; None takes Debian's where it is, which is the oldest supported release.
    """

    def __init__(self, folder: Path, *, coordinators: int = 2, workers: int = 4, etcd: Path | None = None) -> None:
        self.folder = folder
        for name in ("history", "store", "log"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        etcds = [f"etcd-{number}" for number in range(1, 4)]
        self.coordinator_names = [f"coordinator-{number}" for number in range(1, coordinators + 1)]
        self.worker_names = [f"worker-{number}" for number in range(1, workers + 1)]
        self.network = Network([POSTGRES, *etcds, *self.coordinator_names, *self.worker_names])
        program = binaries.etcd_program(etcd or (DEBIAN_ETCD if DEBIAN_ETCD.exists() else None))
        self.etcd_version = binaries.version(program)
        self.etcds = [EtcdServer(name, self.network, folder, program) for name in etcds]
        self.postgres = PostgresServer(self.network, folder)
        self.members: dict[str, Member] = {}
        """Coordinators and workers by the names of their participants."""
        self.restarts = 0
        self._absent: set[str] = set()

    @property
    def endpoints(self) -> list[str]:
        """Every etcd's address."""
        return [one.endpoint for one in self.etcds]

    @property
    def coordinators(self) -> list[str]:
        """``host:port`` of every coordinator's gRPC."""
        return [f"{self.network.address(name)}:7070" for name in self.coordinator_names]

    def connect(self) -> Etcd:
        """Return a connection of the runner's to etcd."""
        return connect(self.endpoints)

    def start(self) -> None:
        """Start everything and return when it serves."""
        self.postgres.make()
        self.postgres.start()
        asyncio.run(migrate(self.postgres.dsn))
        asyncio.run(note_starts(self.postgres.dsn))
        for one in self.etcds:
            one.start(self._peers())
        asyncio.run(self._etcd_answers())
        for name in self.coordinator_names:
            self._start_member(name)
        deadline = time.monotonic() + READY_S
        for name in self.coordinator_names:
            self.members[name].wait_until_ready(deadline)
        for name in self.worker_names:
            self._start_member(name)

    def stop(self) -> None:
        """Drain the workers, stop the rest, remove the network."""
        try:
            for names, grace_s in ((self.worker_names, 20.0), (self.coordinator_names, 10.0)):
                running = [self.members[name] for name in names if name in self.members and self.members[name].alive]
                for member in running:
                    member.resume()
                    member.terminate()
                deadline = time.monotonic() + grace_s
                for member in running:
                    if not member.wait(max(0.1, deadline - time.monotonic())):
                        member.kill(tree=True)
        finally:
            for one in self.etcds:
                if one.child is not None:
                    one.child.kill()
            if self.postgres.child is not None:
                self.postgres.child.stop(((signal.SIGINT, 10.0),))
            self.network.close()

    async def supervise(self) -> None:
        """Start again what died, unless somebody keeps it down. The body of a task."""
        while True:
            await asyncio.sleep(RESTART_S)
            for name, member in self.members.items():
                if not member.alive and name not in self._absent:
                    self.restarts += 1
                    await asyncio.to_thread(member.start)

    @contextlib.contextmanager
    def absent(self, name: str) -> Iterator[None]:
        """Keep a member down for a while once it is dead."""
        self._absent.add(name)
        try:
            yield
        finally:
            self._absent.discard(name)

    def start_etcd(self, place: int) -> None:
        """Start a member of etcd again on its data."""
        self.etcds[place].start(self._peers())

    async def etcd_leader(self) -> int:
        """Return the place of etcd's leader, the first where none can be told."""
        for place, one in enumerate(self.etcds):
            etcd = connect([one.endpoint], timeout_s=1.0)
            try:
                status = await etcd.status(timeout_s=1.0)
                if status.leader_id == status.member_id:
                    return place
            except TenureError:
                continue  # away: another may know
            finally:
                await etcd.close()
        return 0

    async def leader(self, etcd: Etcd) -> str:
        """Return the participant that leads, the first coordinator where none can be told."""
        try:
            found = await etcd.get(Keyspace(PREFIX).leader, timeout_s=2.0)
        except TenureError:
            found = None
        held_by = LeaderValue.from_json(found.value).coordinator if found is not None else ""
        return next((name for name in self.coordinator_names if self.members[name].id == held_by), "coordinator-1")

    def is_serving(self) -> bool:
        """Say whether every coordinator is ready."""
        return all(is_ready(self.members[name].http) for name in self.coordinator_names)

    def clock_file(self, name: str) -> Path:
        """Return the file that says by how much a member's wall clock is wrong; it exists where that is possible."""
        return self.folder / f"clock-{name}"

    def _peers(self) -> list[str]:
        return [one.peer for one in self.etcds]

    async def _etcd_answers(self) -> None:
        etcd = self.connect()
        deadline = time.monotonic() + READY_S
        while True:
            try:
                await etcd.get("nothing")
                break
            except TenureError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
        await etcd.close()

    def _start_member(self, name: str) -> None:
        role, _, number = name.partition("-")
        host = self.network.address(name)
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TENURE_")},
            "TENURE_ETCD_ENDPOINTS": ",".join(self.endpoints),
            "TENURE_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            effects.FOLDER: str(self.folder),
            effects.WRITER: name,
            **self._clock_env(name),
        }
        grpc = http = ""
        arguments: list[str] = []
        if role == Role.COORDINATOR:
            grpc, http = f"{host}:7070", f"{host}:7071"
            env |= {"TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http, "TENURE_POSTGRES_DSN": self.postgres.dsn}
            env |= {"TENURE_LEADER_TTL_S": "3", "TENURE_ALLOW_INSECURE": "true"}
        else:
            env |= {"TENURE_COORDINATOR": ",".join(self.coordinators), "TENURE_WORKER_SESSION_TTL_S": "5"}
            arguments = ["--import", "tests.chaos.handlers", "--grace", "5s", "--capacity", "16"]
        prefix = self.network.prefix(name)
        log = self.folder / "log" / f"{name}.log"
        member = Member(Role(role), int(number), arguments, env, log, grpc=grpc, http=http, prefix=prefix)
        member.start()
        self.members[name] = member

    def _clock_env(self, name: str) -> dict[str, str]:
        """One coordinator and one worker get a wall clock that can be set wrong; only theirs, as the library costs."""
        if not FAKETIME.exists() or name not in (self.coordinator_names[-1], self.worker_names[-1]):
            return {}
        self.clock_file(name).write_text("+0\n")
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock_file(name)),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }
