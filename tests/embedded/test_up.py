"""``tenure up`` from the outside: ready, interrupted, killed, started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.embedded.conftest import Up, still_running

from tenure.cli.embedded import member
from tenure.cli.embedded.member import is_ready
from tenure.cli.embedded.processes import identity_of

Start = Callable[..., Up]
SMALL = ("--coordinators", "1", "--workers", "1")


def submit(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tenure.cli", "submit", *arguments]
    return subprocess.run(
        command, env={**os.environ, **up.env}, capture_output=True, text=True, timeout=60, check=False
    )


def jobs(up: Up) -> int:
    with psycopg.connect(up.env["TENURE_POSTGRES_DSN"]) as connection:
        row = connection.execute("SELECT count(*) FROM tenure.jobs").fetchone()
        assert row is not None
        return int(row[0])


def test_it_says_where_things_are_and_stops_cleanly(start_up: Start) -> None:
    up = start_up("--coordinators", "2", "--workers", "2")
    up.wait_until_ready()
    env = up.env
    assert stat.S_IMODE((up.data / "tenure.env").stat().st_mode) == 0o600
    assert is_ready(env["TENURE_HTTP_LISTEN"])
    assert env["TENURE_GRPC_LISTEN"] in env["TENURE_COORDINATOR"]
    assert len(env["TENURE_COORDINATOR"].split(",")) == 2
    members = up.members()
    assert len([pid for pid in members if "tenure.cli" in Path(f"/proc/{pid}/cmdline").read_text()]) >= 4
    assert up.finish(signal.SIGINT) == 0, up.output.read_text()
    assert not still_running(members)
    assert not (up.data / "tenure.env").exists()
    said = up.output.read_text()
    assert "tenure is ready" in said
    assert f"join       set -a; . {up.data / 'tenure.env'}; set +a\n" in said, "in one line, to be copied"
    assert env["TENURE_POSTGRES_DSN"].split(":")[2].split("@")[0] not in said


def test_a_second_start_continues_on_the_same_ports(start_up: Start) -> None:
    first = start_up(*SMALL)
    first.wait_until_ready()
    env = first.env
    assert submit(first, "nobody-serves-this").returncode == 0
    assert first.finish(signal.SIGTERM) == 0
    second = start_up(*SMALL)
    second.wait_until_ready()
    assert second.env == env
    assert jobs(second) == 1


def test_killed_it_leaves_nothing_behind_and_can_be_started_again(start_up: Start) -> None:
    up = start_up(*SMALL)
    up.wait_until_ready()
    members = up.members()
    assert len(members) >= 4
    up.finish(signal.SIGKILL)
    again = start_up(*SMALL)
    assert not still_running(members)
    (up.data / "tenure.env").unlink(missing_ok=True)
    again.wait_until_ready()


def test_a_second_signal_stops_at_once(start_up: Start) -> None:
    up = start_up(*SMALL, "--drain", "120")
    up.wait_until_ready()
    members = up.members()
    # A worker that hears nothing cannot drain.
    worker = next(pid for pid in members if "worker" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(worker, signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 20
    while "stopping 1 worker" not in up.output.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    assert up.finish(signal.SIGINT) in (0, 130)
    assert time.monotonic() - began < 30
    assert not still_running(members)


def test_an_interrupted_start_leaves_nothing_behind(start_up: Start) -> None:
    up = start_up(*SMALL)
    deadline = time.monotonic() + 60
    while not up.output.exists() or "starting etcd" not in up.output.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    members = up.members()
    assert up.finish(signal.SIGINT) == 130
    assert not still_running(members)


def test_a_taken_port_is_named(start_up: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start_up(*SMALL, grpc=f"127.0.0.1:{port}")
        assert up.process.wait(60) == 1
    said = up.output.read_text()
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_a_second_one_on_the_same_data_is_refused(start_up: Start) -> None:
    up = start_up(*SMALL)
    up.wait_until_ready()
    second = start_up(*SMALL)
    assert second.process.wait(60) == 1
    assert "in use by another process" in second.output.read_text()
    assert identity_of(up.process.pid)
    assert is_ready(up.env["TENURE_HTTP_LISTEN"])


@pytest.mark.parametrize("allowed", [False, True])
def test_others_reach_it_only_if_that_is_said(start_up: Start, allowed: bool) -> None:
    up = start_up(*SMALL, grpc="0.0.0.0:0", prefix=("env", f"TENURE_ALLOW_INSECURE={str(allowed).lower()}"))
    if allowed:
        up.wait_until_ready()
        assert submit(up, "noop", "--wait").returncode == 0
        assert up.finish(signal.SIGINT) == 0
    else:
        assert up.process.wait(60) == 1
        said = up.output.read_text()
        assert "TENURE_GRPC_LISTEN 0.0.0.0:" in said and "TENURE_ALLOW_INSECURE=true" in said


def test_bad_addresses_are_refused(start_up: Start) -> None:
    up = start_up(*SMALL, grpc="localhost")
    assert up.process.wait(60) == 2
    assert "HOST:PORT" in up.output.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_an_ordinary_user(start_up: Start) -> None:
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # The real one: the link in the virtual environment may point to where only root may enter.
    needed = (Path(sys.executable).resolve(), Path(member.__file__).resolve())
    if any(subprocess.run([*user, "test", "-r", path], timeout=10, check=False).returncode for path in needed):
        pytest.skip("the interpreter or the checkout cannot be entered by another user here")
    folder = Path("/var/tmp") / f"tenure-user-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    try:
        up = start_up(*SMALL, data=folder / "data", prefix=user)
        up.wait_until_ready()
        members = up.members()
        assert up.finish(signal.SIGINT) == 0, up.output.read_text()
        assert not still_running(members)
    finally:
        shutil.rmtree(folder)
