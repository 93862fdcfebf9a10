"""A real Postgres server as a child process, on a data folder that survives restarts.

Invariants: it listens on 127.0.0.1 alone and asks for a password (made at the first start, kept in the folder, mode
0600); it ends when this process ends, however that happens; a folder is never half initialised (``initdb`` works
beside it and is renamed). Used by the deployment, by ``tenure up`` and by the tests. It neither migrates nor backs up.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tenure.cli.embedded import binaries, identity, ports
from tenure.cli.embedded.folder import Folder, write_private
from tenure.cli.embedded.processes import Child, EmbeddedError, spawn

USER = "tenure"
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
"""Fast shutdown (roll back and checkpoint), then immediate (recover at the next start)."""
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "jit": "off",
}
WITHOUT_FSYNC: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
READY = frozenset({"ready", "standby"})
"""What its pid file says once it takes connections; a standby takes those that read."""
_PORT_ATTEMPTS = 5


class EmbeddedPostgres:
    """One server. A context manager: started on entry, stopped on exit.

    Args:
        data_dir: its folder; made where missing.
        port: the port to listen on; 0 takes the last one again where it is free, else another.
        bin_dir: the folder of its programs; None searches (``binaries.postgres_folder``).
        database: the database that ``dsn`` names; made where missing.
        fsync: False trades safety against a power cut for speed, for tests.
        settings: further server settings, such as ``{"max_connections": "50"}``.
        log: where its output goes; ``postgres.log`` in the folder by default.
        start_timeout_s: how long a start may take.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        bin_dir: Path | None = None,
        database: str = "tenure",
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.folder = Folder(Path(data_dir))
        self.database = database
        self.log = log or self.folder.path / "postgres.log"
        self._pgdata = self.folder.path / "pgdata"
        self._wanted_port = port
        self._bin_dir = bin_dir
        self._settings = {**SETTINGS, **({} if fsync else WITHOUT_FSYNC), **(settings or {})}
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs."""
        return self._child is not None and self._child.alive

    @property
    def dsn(self) -> str:
        """A libpq connection URL with the password. Not for logs."""
        return self.dsn_of(self.database)

    def dsn_of(self, database: str) -> str:
        """Return the connection URL of another database on this server."""
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self._port}/{database}?sslmode=disable"

    @property
    def version(self) -> str:
        """The release of the server programs, such as ``18.6``."""
        return binaries.version(self._programs() / "postgres")

    def start(self) -> None:
        """Start the server and return when it takes connections; a no-op when it runs.

        Raises:
            EmbeddedError: it did not start; the message holds the end of its log.
        """
        if self.alive:
            return
        self.folder.hold(wait_s=5.0)
        try:
            self.folder.stop_orphan("postgres", STOP_STEPS)
            programs = self._programs()
            how = identity.choose(self._pgdata, programs / "postgres")
            if not self._pgdata.exists():
                self._initialise(programs, how)
            self._launch(programs, how)
            self._create_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and let the folder go; a no-op when it does not run. A second Ctrl-C kills it."""
        if self._child is not None:
            try:
                self._child.stop(STOP_STEPS)
            except BaseException:
                self._child.kill()
                raise
            finally:
                self._child = None
                self.folder.forget_child("postgres")
        self.folder.release()

    def kill(self) -> None:
        """SIGKILL the server with all its backends, as a crash would. ``start`` recovers it."""
        child = self._running()
        child.kill()
        self.folder.forget_child("postgres")
        self._child = None

    def restart(self) -> None:
        """Stop and start on the same port."""
        self._wanted_port = self._port
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP the server with all its backends."""
        self._running().pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().resume()

    def _running(self) -> Child:
        if self._child is None:
            raise EmbeddedError(f"the Postgres of {self.folder.path} is not running")
        return self._child

    def _password(self) -> str:
        return (self.folder.path / "password").read_text().strip()

    def _programs(self) -> Path:
        version_file = self._pgdata / "PG_VERSION"
        major = version_file.read_text().strip() if version_file.exists() else None
        folder = binaries.postgres_folder(self._bin_dir, major)
        found = binaries.version(folder / "postgres").split(".")[0]
        if major is not None and found != major:
            raise EmbeddedError(
                f"{self._pgdata} was made by PostgreSQL {major}, but {folder} holds {found}",
                hint=f"use the programs of {major} (TENURE_PG_BIN), or pg_upgrade, or another data directory",
            )
        return folder

    def _initialise(self, programs: Path, how: identity.Identity) -> None:
        scratch = self.folder.path / "pgdata.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        password_file = self.folder.path / "password"
        write_private(password_file, secrets.token_urlsafe(24) + "\n")
        how.hand_over(scratch, password_file)
        command: list[str | Path] = [
            *how.prefix, programs / "initdb", "--pgdata", scratch, "--username", USER, "--auth", "scram-sha-256",
            "--pwfile", password_file, "--encoding", "UTF8", "--locale", "C", "--no-sync",
        ]  # fmt: skip
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=_environment(),
            start_new_session=True,
        )
        if answer.returncode != 0:
            raise EmbeddedError(
                f"initdb failed in {self.folder.path}: {(answer.stderr or answer.stdout).strip()[-2000:]}"
            )
        scratch.replace(self._pgdata)

    def _launch(self, programs: Path, how: identity.Identity) -> None:
        remembered = int(self.folder.notes("server").get("port", 0))
        for _ in range(_PORT_ATTEMPTS):
            port = self._wanted_port or ports.choose(remembered)
            settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
            command: list[str | Path] = [
                *how.prefix,
                programs / "postgres",
                "-D",
                self._pgdata,
                "-p",
                str(port),
                *settings,
            ]
            self._child = spawn("postgres", command, log=self.log, env=_environment(), death_signal=signal.SIGINT)
            self.folder.note_child(self._child)
            if self._wait_until_ready(self._child):
                self._port = port
                self.folder.note("server", {"port": port})
                return
            said = self._child.said()
            self.folder.forget_child("postgres")
            self._child = None
            if "Address already in use" not in said:
                raise EmbeddedError(f"Postgres did not start in {self.folder.path}:\n{said}")
            if self._wanted_port:
                raise EmbeddedError(
                    f"port {port} of 127.0.0.1 is in use", hint="choose another port, or 0 for a free one"
                )
            remembered = 0
        raise EmbeddedError(f"Postgres found no free port in {_PORT_ATTEMPTS} attempts")

    def _wait_until_ready(self, child: Child) -> bool:
        """Wait for the server's own word in its pid file. False when it ended instead."""
        deadline = time.monotonic() + self._start_timeout_s
        while child.alive:
            with contextlib.suppress(OSError):
                lines = (self._pgdata / "postmaster.pid").read_text().splitlines()
                if len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() in READY:
                    return True
            if time.monotonic() > deadline:
                child.stop(STOP_STEPS)
                raise EmbeddedError(f"Postgres was not ready after {self._start_timeout_s} s:\n{child.said()}")
            time.sleep(0.01)
        return False

    def _create_database(self) -> None:
        with psycopg.connect(self.dsn_of("postgres"), connect_timeout=10, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))


def _environment() -> dict[str, str]:
    """Ours without what would steer Postgres (PGDATA, PGPORT, …), and in plain C for messages and sorting."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "TENURE_"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
