"""Real etcd servers as child processes: one, or a cluster of several, on folders that survive restarts.

Invariants: they listen on 127.0.0.1 alone, without a password (whoever has an account on the machine can reach them:
for trying out and for tests); they end when this process ends. A cluster's token is drawn when its folder is made,
so that a cluster that was erased comes back with another cluster id, as a newly made one would. Used by the
deployment and the tests.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tenure.cli.embedded import binaries, ports
from tenure.cli.embedded.folder import Folder
from tenure.cli.embedded.processes import Child, EmbeddedError, spawn

STOP_STEPS = ((signal.SIGTERM, 10.0),)
_PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """How to run a server. ``binary`` None searches; ``fsync`` False needs etcd 3.5 and is ignored before."""

    binary: Path | None = None
    fsync: bool = True
    quota_bytes: int = 0
    """Zero keeps etcd's own (2 GiB)."""
    log_level: str = "warn"
    extra: tuple[str, ...] = ()
    """Further flags, as on the command line."""
    start_timeout_s: float = 60.0


class EtcdMember:
    """One server of a cluster; made by ``EtcdCluster`` and ``EmbeddedEtcd``."""

    def __init__(self, name: str, folder: Folder, log: Path, settings: EtcdSettings) -> None:
        self.name = name
        self.log = log
        self.client_port = 0
        self.peer_port = 0
        self._folder = folder
        self._data = folder.path / name
        self._settings = settings
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        """Its address for the native transport."""
        return f"grpc://127.0.0.1:{self.client_port}"

    @property
    def http_endpoint(self) -> str:
        """Its address for the HTTP transport."""
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def exists(self) -> bool:
        """Whether it has ever been started on this folder."""
        return (self._data / "member").exists()

    def launch(self, initial_cluster: str, token: str) -> None:
        """Start the process without waiting for a quorum.

        Raises:
            EmbeddedError: the program is missing.
        """
        program = binaries.etcd_program(self._settings.binary)
        self._folder.stop_orphan(self.name, STOP_STEPS)
        flags = {
            "name": self.name,
            "data-dir": str(self._data),
            "listen-client-urls": self.http_endpoint,
            "advertise-client-urls": self.http_endpoint,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": initial_cluster,
            "initial-cluster-token": token,
            "initial-cluster-state": "new",
            "logger": "zap",
            "log-outputs": "stderr",
            "log-level": self._settings.log_level,
        }
        if self._settings.quota_bytes:
            flags["quota-backend-bytes"] = str(self._settings.quota_bytes)
        if not self._settings.fsync and binaries.knows_flag(program, "--unsafe-no-fsync"):
            flags["unsafe-no-fsync"] = "true"
        command = [str(program), *(f"--{name}={value}" for name, value in flags.items()), *self._settings.extra]
        self._child = spawn(self.name, command, log=self.log, env=_environment(), death_signal=signal.SIGTERM)
        self._folder.note_child(self._child)

    def wait_until_healthy(self, deadline: float) -> bool:
        """Wait until it answers reads and writes. False when its process ended instead.

        Raises:
            EmbeddedError: the monotonic deadline passed.
        """
        child = self._running()
        while child.alive:
            if self.is_healthy():
                return True
            if time.monotonic() > deadline:
                raise EmbeddedError(f"etcd {self.name} was not healthy in time:\n{child.said()}")
            time.sleep(0.02)
        return False

    def is_healthy(self, timeout_s: float = 2.0) -> bool:
        """Ask its health endpoint, which commits through the quorum."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=timeout_s)
        try:
            connection.request("GET", "/health")
            return json.loads(connection.getresponse().read()).get("health") in ("true", True)
        except (OSError, ValueError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop its process; a no-op when it does not run."""
        if self._child is not None:
            try:
                self._child.stop(STOP_STEPS)
            except BaseException:
                self._child.kill()
                raise
            finally:
                self._forget()

    def kill(self) -> None:
        """SIGKILL its process."""
        self._running().kill()
        self._forget()

    def pause(self) -> None:
        """SIGSTOP its process."""
        self._running().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._running().resume()

    def erase(self) -> None:
        """Remove its data; it must not run."""
        if self.alive:
            raise EmbeddedError(f"etcd {self.name} runs; stop or kill it before its data is erased")
        shutil.rmtree(self._data, ignore_errors=True)

    def said(self) -> str:
        """Return its output since it was started."""
        return self._child.said() if self._child is not None else ""

    def _running(self) -> Child:
        if self._child is None:
            raise EmbeddedError(f"etcd {self.name} is not running")
        return self._child

    def _forget(self) -> None:
        self._child = None
        self._folder.forget_child(self.name)


class EtcdCluster:
    """A cluster of servers. A context manager: started on entry, stopped on exit.

    Args:
        data_dir: its folder; made where missing.
        members: how many, named ``etcd1``, ``etcd2``, …
        settings: how to run each.
        log_dir: where their output goes; the folder by default.
    """

    def __init__(
        self, data_dir: Path, members: int = 3, *, settings: EtcdSettings | None = None, log_dir: Path | None = None
    ) -> None:
        self.folder = Folder(Path(data_dir))
        self._settings = settings or EtcdSettings()
        logs = log_dir or self.folder.path
        names = [f"etcd{number}" for number in range(1, members + 1)] if members > 1 else ["etcd"]
        self.members = [EtcdMember(name, self.folder, logs / f"{name}.log", self._settings) for name in names]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> list[str]:
        """Every member's address for the native transport."""
        return [member.endpoint for member in self.members]

    @property
    def http_endpoints(self) -> list[str]:
        """Every member's address for the HTTP transport."""
        return [member.http_endpoint for member in self.members]

    @property
    def version(self) -> str:
        """The release of the program, such as ``3.5.1``."""
        return binaries.version(binaries.etcd_program(self._settings.binary))

    @property
    def alive(self) -> bool:
        """Whether all members run."""
        return all(member.alive for member in self.members)

    def start(self) -> None:
        """Start the members that do not run and return when all are healthy.

        Raises:
            EmbeddedError: one did not start; the message holds the end of its log.
        """
        self.folder.hold(wait_s=5.0)
        try:
            for _ in range(_PORT_ATTEMPTS):
                if self._start_once():
                    return
            raise EmbeddedError(f"etcd found no free ports in {_PORT_ATTEMPTS} attempts")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every member and let the folder go."""
        for member in self.members:
            member.stop()
        self.folder.release()

    def kill(self, member: int | None = None) -> None:
        """SIGKILL one member (by its place, from 0), or all that run."""
        for each in self._chosen(member):
            if each.alive:
                each.kill()

    def pause(self, member: int | None = None) -> None:
        """SIGSTOP one member, or all."""
        for each in self._chosen(member):
            each.pause()

    def resume(self, member: int | None = None) -> None:
        """SIGCONT one member, or all."""
        for each in self._chosen(member):
            each.resume()

    def restart(self, member: int | None = None) -> None:
        """Start one member again (stopped first where it runs), or all, on the same ports and data.

        Raises:
            EmbeddedError: it did not start.
        """
        for each in self._chosen(member):
            each.stop()
        self.start()

    def erase(self, *, new_cluster_id: bool = True) -> None:
        """Lose all data: kill every member and remove what they stored. ``start`` makes an empty cluster.

        With ``new_cluster_id`` False it comes back under the same id, as when an operator repeats the same command
        line: only the revision, which went backwards, tells.
        """
        self.kill()
        for member in self.members:
            member.erase()
        if new_cluster_id:
            self.folder.note("cluster", {**self.folder.notes("cluster"), "token": secrets.token_hex(8)})

    def leader(self) -> int:
        """Return the place of the member that leads; -1 while there is none."""
        for place, member in enumerate(self.members):
            status = _ask_status(member) if member.alive else {}
            if status and status.get("leader") == status.get("header", {}).get("member_id"):
                return place
        return -1

    def _chosen(self, member: int | None) -> Sequence[EtcdMember]:
        return self.members if member is None else [self.members[member]]

    def _start_once(self) -> bool:
        """Start what does not run. False when a port was taken and the members can be given others."""
        waiting = [member for member in self.members if not member.alive]
        if not waiting:
            return True
        # Members of a cluster know each other by port; a single one, or a new cluster, can move.
        is_bound = len(self.members) > 1 and any(member.exists for member in self.members)
        movable = len(waiting) == len(self.members) and not is_bound
        notes = self.folder.notes("cluster")
        token = str(notes.get("token") or secrets.token_hex(8))
        if len(waiting) == len(self.members):
            known = tuple(int(port) for port in notes.get("ports", ()))
            chosen = ports.choose_many(2 * len(self.members), known) if movable or not known else known
            for place, member in enumerate(self.members):
                member.client_port, member.peer_port = chosen[2 * place], chosen[2 * place + 1]
            self.folder.note("cluster", {"token": token, "ports": list(chosen)})
        initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in waiting:
            member.launch(initial, token)
        deadline = time.monotonic() + self._settings.start_timeout_s
        for member in waiting:
            if not member.wait_until_healthy(deadline):
                said = member.said()
                for each in waiting:
                    each.stop()
                if movable and "address already in use" in said:
                    return False
                raise EmbeddedError(f"etcd did not start in {self.folder.path}:\n{said}")
        return True


class EmbeddedEtcd:
    """One server. A context manager: started on entry, stopped on exit.

    Args:
        data_dir: its folder; made where missing.
        settings: how to run it.
        log_dir: where its output goes; the folder by default.
    """

    def __init__(self, data_dir: Path, *, settings: EtcdSettings | None = None, log_dir: Path | None = None) -> None:
        self._cluster = EtcdCluster(data_dir, 1, settings=settings, log_dir=log_dir)
        self._member = self._cluster.members[0]
        self.start = self._cluster.start
        self.stop = self._cluster.stop
        self.kill = self._member.kill
        self.pause = self._member.pause
        self.resume = self._member.resume
        self.restart = self._cluster.restart
        self.erase = self._cluster.erase

    def __enter__(self) -> Self:
        self._cluster.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.stop()

    @property
    def endpoints(self) -> list[str]:
        """Its address for the native transport, in a list."""
        return self._cluster.endpoints

    @property
    def http_endpoints(self) -> list[str]:
        """Its address for the HTTP transport, in a list."""
        return self._cluster.http_endpoints

    @property
    def port(self) -> int:
        """The port it serves clients on."""
        return self._member.client_port

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._member.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._member.alive

    @property
    def version(self) -> str:
        """The release of the program."""
        return self._cluster.version


def count_keys(endpoints: Sequence[str], prefix: str) -> int:
    """Count the keys under a prefix through the first endpoint that answers, over HTTP; 0 when none does."""
    start = prefix.encode()
    question = {
        "key": base64.b64encode(start).decode(),
        "range_end": base64.b64encode(start[:-1] + bytes([start[-1] + 1])).decode(),
        "count_only": True,
    }
    for endpoint in endpoints:
        answer = _post(endpoint.partition("://")[2], "/v3/kv/range", question)
        if answer:
            return int(answer.get("count", 0))
    return 0


def _ask_status(member: EtcdMember) -> dict[str, Any]:
    return _post(f"127.0.0.1:{member.client_port}", "/v3/maintenance/status", {})


def _post(address: str, path: str, body: dict[str, object]) -> dict[str, Any]:
    """Call etcd's JSON gateway; empty when it does not answer."""
    connection = http.client.HTTPConnection(address, timeout=2.0)
    try:
        connection.request("POST", path, body=json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        return answer if isinstance(answer, dict) else {}
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def _environment() -> dict[str, str]:
    """Ours without what would steer etcd (every flag can be given as ETCD_…) or names secrets of tenure."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "ETCD_UNSUPPORTED_ARCH" or not name.startswith(("ETCD_", "TENURE_"))
    }
