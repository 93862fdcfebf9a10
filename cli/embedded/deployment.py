"""A whole tenure on one machine: Postgres, etcd, coordinators and workers, started in order, stopped in reverse.

Invariants: nothing of it outlives this process; its data folder survives and can be started again. The stores are
embedded unless the caller names others. Called by ``tenure up``, by the demo and by the tests. It restarts nothing by
itself: ``dead`` and ``revive`` are for a caller that wants that (``tenure up``).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tenure.cli.embedded import ports
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdSettings, count_keys
from tenure.cli.embedded.folder import Folder, write_private
from tenure.cli.embedded.member import Member, Role
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.embedded.processes import EmbeddedError
from tenure.store.postgres.migrate import migrate

DEFAULT_PREFIX = "/tenure/v1/"
GRACE_S = 15.0
"""What a process may take to end beyond the drain of its jobs."""


class Deployment:
    """A deployment. A context manager: ready on entry, stopped on exit.

    Args:
        data_dir: where everything lives: ``postgres/``, ``etcd/``, ``objects/``, ``log/``, ``tenure.env``.
        coordinators: how many.
        workers: how many.
        worker_args: arguments of every worker, such as ``["--import", "my.handlers", "--pool", "a/b"]``.
        env: further environment for coordinators and workers, such as ``{"TENURE_LEADER_TTL_S": "2"}``.
        grpc: ``host:port`` of the first coordinator's gRPC; port 0 is a free one, the same again where possible.
        http: the same for its HTTP.
        postgres_dsn: use this database instead of an embedded server.
        etcd_endpoints: use this etcd (``grpc://host:port``, …) instead of an embedded server.
        etcd_prefix: the prefix of every key.
        remote: whether the workers are runners, which know nothing but the coordinators' HTTP addresses.
        fsync: whether the embedded stores survive a power cut.
        ready_timeout_s: how long each step of the start may take.
        drain_s: how long workers may take to drain when stopped.
        tell: called with one line per step, for people.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        coordinators: int = 2,
        workers: int = 3,
        worker_args: Sequence[str] = (),
        remote: bool = False,
        env: Mapping[str, str] | None = None,
        grpc: str = "127.0.0.1:0",
        http: str = "127.0.0.1:0",
        postgres_dsn: str | None = None,
        etcd_endpoints: Sequence[str] | None = None,
        etcd_prefix: str = DEFAULT_PREFIX,
        fsync: bool = True,
        ready_timeout_s: float = 60.0,
        drain_s: float = 30.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = Folder(Path(data_dir))
        self.coordinators: list[Member] = []
        self.workers: list[Member] = []
        self.postgres: EmbeddedPostgres | None = None
        self.etcd: EmbeddedEtcd | None = None
        logs = self.folder.path / "log"
        if postgres_dsn is None:
            self.postgres = EmbeddedPostgres(self.folder.path / "postgres", fsync=fsync, log=logs / "postgres.log")
        if etcd_endpoints is None:
            self.etcd = EmbeddedEtcd(self.folder.path / "etcd", settings=EtcdSettings(fsync=fsync), log_dir=logs)
        self._postgres_dsn = postgres_dsn
        self._etcd_endpoints = list(etcd_endpoints or ())
        self._etcd_prefix = etcd_prefix
        self._counts = (coordinators, workers)
        self._worker_args = list(worker_args)
        self._remote = remote
        self._extra_env = dict(env or {})
        self._first = (grpc, http)
        self._ready_timeout_s = ready_timeout_s
        self._drain_s = drain_s
        self._tell = tell or (lambda line: None)
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except KeyboardInterrupt:
            self.abort()
            raise

    @property
    def env(self) -> dict[str, str]:
        """The environment with which any other tool joins; the file ``tenure.env`` holds the same."""
        values = {
            "TENURE_POSTGRES_DSN": self._postgres_dsn or "",
            "TENURE_ETCD_ENDPOINTS": ",".join(self._etcd_endpoints),
            "TENURE_ETCD_PREFIX": self._etcd_prefix,
            "TENURE_COORDINATOR": ",".join(self.coordinator_addresses),
            "TENURE_OBJECT_STORE": (self.folder.path / "objects").as_uri(),
        }
        if self.coordinators:
            values["TENURE_GRPC_LISTEN"] = self.coordinators[0].grpc
            values["TENURE_HTTP_LISTEN"] = self.coordinators[0].http
        return values

    @property
    def coordinator_addresses(self) -> list[str]:
        """``host:port`` of every coordinator's gRPC."""
        return [_reachable(member.grpc) for member in self.coordinators]

    @property
    def http_addresses(self) -> list[str]:
        """``host:port`` of every coordinator's HTTP."""
        return [_reachable(member.http) for member in self.coordinators]

    @property
    def env_file(self) -> Path:
        """The file that ``start`` writes once everything is ready."""
        return self.folder.path / "tenure.env"

    def start(self) -> None:
        """Start everything in order and return when it is ready.

        Raises:
            EmbeddedError: a part did not start; what was started is stopped again.
            OSError: the data folder cannot be written.
        """
        self.folder.hold()
        try:
            (self.folder.path / "log").mkdir(exist_ok=True, mode=0o700)
            (self.folder.path / "objects").mkdir(exist_ok=True, mode=0o700)
            self.env_file.unlink(missing_ok=True)
            self._start_stores()
            coordinators, workers = self._counts
            for _ in range(coordinators):
                self.add_coordinator(wait=False)
            self._wait_for_coordinators()
            for _ in range(workers):
                self.add_worker(wait=False)
            self.wait_for_workers(workers)
            self.write_env()
        except BaseException:
            self.abort()
            raise

    def stop(self) -> None:
        """Stop in reverse order: workers drain, coordinators, etcd, Postgres. A no-op when nothing runs."""
        self.env_file.unlink(missing_ok=True)
        for members, grace_s in ((self.workers, self._drain_s + GRACE_S), (self.coordinators, GRACE_S)):
            if any(member.alive for member in members):
                self._tell(f"stopping {len(members)} {members[0].role}{'s' if len(members) > 1 else ''}")
            _stop_all(members, grace_s)
        self._stop_stores()

    def abort(self) -> None:
        """Stop at once: kill workers and coordinators with all their processes, stop the stores."""
        for member in (*self.workers, *self.coordinators):
            if member.alive:
                member.kill(tree=True)
        self._stop_stores()

    def add_coordinator(self, *, wait: bool = True) -> Member:
        """Start one more coordinator; the first takes the given ports, the others free ones.

        Raises:
            EmbeddedError: the port is taken, or it did not become ready.
        """
        number = len(self.coordinators) + 1
        grpc, http = self._addresses(number)
        env = {**self._child_env(), "TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http}
        env["TENURE_POSTGRES_DSN"] = self._postgres_dsn or ""
        member = Member(Role.COORDINATOR, number, (), env, self._log(Role.COORDINATOR, number), grpc=grpc, http=http)
        member.start()
        self.coordinators.append(member)
        if wait:
            self._wait_for_coordinators()
            self.write_env()
        return member

    def add_worker(self, args: Sequence[str] | None = None, *, wait: bool = True) -> Member:
        """Start one more worker, with ``args`` instead of the common ones where given.

        Raises:
            EmbeddedError: it did not register.
        """
        number = len(self.workers) + 1
        env = {**self._child_env(), **self._way_in()}
        arguments = self._worker_args if args is None else list(args)
        command = "runner" if self._remote else "worker"
        member = Member(Role.WORKER, number, arguments, env, self._log(Role.WORKER, number), command=command)
        member.start()
        self.workers.append(member)
        if wait:
            self.wait_for_worker(member)
        return member

    def _way_in(self) -> dict[str, str]:
        """Return what tells a worker where to go; a runner's etcd is nowhere."""
        if self._remote:
            urls = ",".join(f"http://{address}" for address in self.http_addresses)
            return {"TENURE_RUNNER_URL": urls, "TENURE_ETCD_ENDPOINTS": "grpc://127.0.0.1:1"}
        return {"TENURE_COORDINATOR": ",".join(self.coordinator_addresses)}

    def wait_for_worker(self, member: Member) -> None:
        """Wait until a worker has registered in etcd.

        Raises:
            EmbeddedError: its process ended, or it took too long.
        """
        deadline = time.monotonic() + self._ready_timeout_s
        while not count_keys(self._etcd_endpoints, f"{self._etcd_prefix}workers/{member.id}"):
            member.check_alive()
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{member.name} did not register in time:\n{member.said()}")
            time.sleep(0.05)

    def wait_for_workers(self, count: int) -> None:
        """Wait until the first ``count`` workers have registered. Raises as ``wait_for_worker``."""
        if count:
            self._tell(f"starting {count} worker{'s' if count > 1 else ''}")
        for member in self.workers[:count]:
            self.wait_for_worker(member)

    def dead(self) -> list[Member]:
        """Return the coordinators and workers whose process has ended."""
        return [member for member in (*self.coordinators, *self.workers) if not member.alive]

    def revive_stores(self) -> list[str]:
        """Start an embedded store again that has died; return the names of those that were.

        Raises:
            EmbeddedError: one did not start.
        """
        revived = []
        for name, store in (("Postgres", self.postgres), ("etcd", self.etcd)):
            if store is not None and not store.alive:
                store.restart()
                revived.append(name)
        return revived

    def write_env(self) -> None:
        """Write ``tenure.env``, atomically and for the owner alone, as it holds the database's password."""
        write_private(self.env_file, "".join(f"{name}={value}\n" for name, value in self.env.items()))

    def _start_stores(self) -> None:
        if self.postgres is not None:
            self._tell("starting Postgres")
            self.postgres.start()
            self._postgres_dsn = self.postgres.dsn
        if self.etcd is not None:
            self._tell("starting etcd")
            self.etcd.start()
            self._etcd_endpoints = self.etcd.endpoints
        self._tell("migrating the schema")
        dsn = self._postgres_dsn
        assert dsn is not None
        # In a thread, as the caller may run an event loop in this one.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(lambda: asyncio.run(migrate(dsn))).result(timeout=self._ready_timeout_s)

    def _stop_stores(self) -> None:
        try:
            if self.etcd is not None:
                self.etcd.stop()
        finally:
            if self.postgres is not None:
                self.postgres.stop()
            self.folder.release()

    def _wait_for_coordinators(self) -> None:
        count = len(self.coordinators)
        if count:
            self._tell(f"starting {count} coordinator{'s' if count > 1 else ''}")
        deadline = time.monotonic() + self._ready_timeout_s
        for member in self.coordinators:
            if member.exit_code is None or member.alive:
                member.wait_until_ready(deadline)
            else:
                member.check_alive()

    def _addresses(self, number: int) -> tuple[str, str]:
        """Return the addresses of a coordinator: as asked for the first, else those it had before, else free ones."""
        known = self.folder.notes("ports")
        taken = frozenset(
            int(address.rpartition(":")[2]) for each in self.coordinators for address in (each.grpc, each.http)
        )
        chosen: list[str] = []
        for kind, wish in zip(("grpc", "http"), self._first, strict=True):
            host, _, port = wish.rpartition(":")
            if number == 1 and int(port):
                if not ports.is_free(int(port), host):
                    raise EmbeddedError(
                        f"cannot listen on {wish} (--{kind}): it is in use",
                        hint=f"stop what listens there, or give another --{kind}, or port 0 for a free one",
                    )
                chosen.append(wish)
                continue
            mine = frozenset(int(each.rpartition(":")[2]) for each in chosen)
            port_found = ports.choose(int(known.get(f"{kind}{number}", 0)), taken | mine)
            known[f"{kind}{number}"] = port_found
            chosen.append(f"{host}:{port_found}")
        self.folder.note("ports", known)
        return chosen[0], chosen[1]

    def _child_env(self) -> dict[str, str]:
        """The environment that coordinators and workers share: ours, without settings of another tenure."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        return {
            **inherited,
            "TENURE_ETCD_ENDPOINTS": ",".join(self._etcd_endpoints),
            "TENURE_ETCD_PREFIX": self._etcd_prefix,
            "TENURE_OBJECT_STORE": (self.folder.path / "objects").as_uri(),
            "TENURE_WORKER_GRACE_S": f"{self._drain_s:g}",
            "PYTHONUNBUFFERED": "1",
            **self._extra_env,
        }

    def _log(self, role: Role, number: int) -> Path:
        return self.folder.path / "log" / f"{role}{number}.log"


def _stop_all(members: Sequence[Member], grace_s: float) -> None:
    """Ask all to stop at once, then wait for each; kill those that do not."""
    running = [member for member in members if member.alive]
    for member in running:
        member.resume()
        member.terminate()
    deadline = time.monotonic() + grace_s
    for member in running:
        if not member.wait(max(0.0, deadline - time.monotonic())):
            member.kill(tree=True)


def _reachable(address: str) -> str:
    """Return the address under which this machine reaches a listener (one on all interfaces by loopback)."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "[::]", "::") else address
