"""The embedded Postgres: data survives, nothing is left running, taken ports and folders are told apart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tenure.cli.embedded import binaries, identity
from tenure.cli.embedded.folder import Folder
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.embedded.processes import EmbeddedError, descendants, identity_of, spawn

Start = Callable[..., EmbeddedPostgres]


def remember(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS memory (n int)")
        connection.execute("INSERT INTO memory VALUES (1)")


def remembered(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM memory").fetchone()
        assert row is not None
        return int(row[0])


def test_a_restart_keeps_data_and_port(own_postgres: Start) -> None:
    server = own_postgres()
    dsn, pid = server.dsn, server.pid
    remember(dsn)
    server.restart()
    assert server.dsn == dsn
    assert server.pid != pid
    assert remembered(dsn) == 1


def test_a_killed_server_recovers_what_was_committed(own_postgres: Start) -> None:
    server = own_postgres(fsync=True)
    remember(server.dsn)
    backends = descendants(server.pid)
    server.kill()
    assert not any(identity_of(pid) for pid in backends)
    server.start()
    assert remembered(server.dsn) == 1


def test_only_the_password_opens_it(own_postgres: Start) -> None:
    server = own_postgres()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn.replace(server.dsn.split(":")[2].split("@")[0], "guess"))


def test_secrets_are_readable_by_the_owner_alone(own_postgres: Start) -> None:
    server = own_postgres()
    assert stat.S_IMODE((server.folder.path / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600
    command = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert (server.folder.path / "password").read_text().strip() not in command


def test_a_taken_port_is_replaced_unless_it_was_asked_for(own_postgres: Start) -> None:
    server = own_postgres()
    port = server.port
    server.stop()
    with socket.create_server(("127.0.0.1", port)):
        server.start()
        assert server.port != port
        with pytest.raises(EmbeddedError, match=f"port {port} of 127.0.0.1 is in use"):
            own_postgres(port=port)


def test_a_folder_serves_one_process_at_a_time(own_postgres: Start) -> None:
    server = own_postgres()
    with pytest.raises(EmbeddedError, match=f"in use by another process .pid {os.getpid()}."):
        Folder(server.folder.path).hold()


def test_an_orphan_is_stopped_before_the_next_start(own_postgres: Start) -> None:
    server = own_postgres()
    remember(server.dsn)
    run = server.folder.notes("postgres.run")
    orphan = server.pid
    # As if the parent had been killed where the kernel knows no leash: nobody holds the folder, the server runs on.
    server._child = None
    server.folder.release()
    again = EmbeddedPostgres(server.folder.path, fsync=False)
    assert run["pid"] == orphan
    with again:
        assert not identity_of(orphan)
        assert remembered(again.dsn) == 1


def test_a_process_that_took_over_an_old_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = spawn("stranger", ["sleep", "60"], log=tmp_path / "log", env=dict(os.environ))
    folder = Folder(tmp_path / "data")
    folder.hold()
    folder.note("postgres.run", {"pid": stranger.pid, "identity": "another"})
    folder.stop_orphan("postgres", ((signal.SIGKILL, 1.0),))
    assert stranger.alive
    stranger.kill()


def test_an_interrupted_first_start_is_begun_anew(own_postgres: Start, tmp_path: Path) -> None:
    half = tmp_path / "postgres0" / "pgdata.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    remember(own_postgres().dsn)


def test_data_of_another_major_release_is_refused(own_postgres: Start) -> None:
    server = own_postgres()
    server.stop()
    (server.folder.path / "pgdata" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="PostgreSQL 9"):
        server.start()
    (server.folder.path / "pgdata" / "PG_VERSION").write_text("18\n")


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="no postgres program in"):
        EmbeddedPostgres(tmp_path / "data", bin_dir=tmp_path).start()


def test_a_pause_stops_every_backend(own_postgres: Start) -> None:
    server = own_postgres()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("SELECT 1")
        server.pause()
        states = {
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            for pid in (server.pid, *descendants(server.pid))
        }
        assert states == {"T"}
        server.resume()
        assert connection.execute("SELECT 2").fetchone() == (2,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to shed root")
@pytest.mark.parametrize("may_enter", [True, False])
def test_root_without_user_namespaces_runs_it_as_nobody(monkeypatch: pytest.MonkeyPatch, may_enter: bool) -> None:
    program = binaries.postgres_folder() / "postgres"
    if not identity._works(identity.SETPRIV if may_enter else identity.SETPRIV_OVERRIDE, program):
        pytest.skip("setpriv cannot do this here")
    monkeypatch.setattr(identity, "NAMESPACE", identity.Identity(("false",)))
    folder = Path("/var/tmp") / f"tenure-test-{os.getpid()}-{may_enter}"
    folder.mkdir(mode=0o755 if may_enter else 0o700)
    try:
        server = EmbeddedPostgres(folder, fsync=False)
        with server:
            remember(server.dsn)
            assert Path(f"/proc/{server.pid}").stat().st_uid == identity.NOBODY
        with server:
            assert remembered(server.dsn) == 1
    finally:
        shutil.rmtree(folder)
