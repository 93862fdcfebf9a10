"""Coordinators, a worker and clients as processes, all by mutual TLS; and what stays out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import PATIENCE_S
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.etcd import EtcdServer

from tenure.cli.embedded import ports
from tenure.cli.embedded.member import Member, Role
from tenure.client import TLS, AsyncClient, Client
from tenure.model.errors import Unavailable

Launch = Callable[..., Member]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a process without waiting for it: ``launch(Role.WORKER, {"TENURE_…": "…"})``."""
    launched: list[Member] = []

    def start(role: Role, env: dict[str, str]) -> Member:
        grpc, http = (f"127.0.0.1:{ports.choose()}" for _ in range(2))
        own = {"TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http} if role is Role.COORDINATOR else {}
        number = len(launched) + 1
        member = Member(role, number, [], {**env, **own}, tmp_path / f"log{number}", grpc=grpc, http=http)
        launched.append(member)
        member.start()
        return member

    yield start
    for member in launched:
        if member.alive:
            member.kill(tree=True)


async def tenure(env: dict[str, str], *arguments: str) -> tuple[int | None, str, str]:
    """Run a command; return its exit code and what it said."""
    command = [sys.executable, "-m", "tenure.cli", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def showing(ca: Path, pair: Pair) -> dict[str, str]:
    return {
        "TENURE_TLS_CA": str(ca),
        "TENURE_TLS_CLIENT_CERT": str(pair.cert),
        "TENURE_TLS_CLIENT_KEY": str(pair.key),
    }


async def test_jobs_run_where_all_is_mutual_tls(
    launch: Launch, authority: Callable[[str], Authority], etcd_server: EtcdServer, etcd_prefix: str, database: str
) -> None:
    ours = authority("ours")
    plain = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TENURE_")},
        "TENURE_ETCD_ENDPOINTS": etcd_server.endpoints[0],
        "TENURE_ETCD_PREFIX": etcd_prefix,
    }
    served, worker, client = (ours.issue(f"/CN={name}") for name in ("coordinator", "worker", "client"))
    listening = {
        **plain,
        **showing(ours.ca, served),
        "TENURE_POSTGRES_DSN": database,
        "TENURE_TLS_CERT": str(served.cert),
        "TENURE_TLS_KEY": str(served.key),
        "TENURE_TLS_CLIENT_CA": str(ours.ca),
        "TENURE_TLS_CLIENT_REQUIRED": "true",
    }
    coordinators = [launch(Role.COORDINATOR, listening) for _ in range(2)]
    for one in coordinators:
        async with asyncio.timeout(PATIENCE_S):
            while (await tenure({**listening, "TENURE_HTTP_LISTEN": one.http}, "health", "--ready"))[0] != 0:
                one.check_alive()
    launch(Role.WORKER, {**plain, **showing(ours.ca, worker)})

    tls = TLS(ca_file=ours.ca, cert_file=client.cert, key_file=client.key)
    for one in coordinators:  # the leader, and the one that tells the leader
        async with AsyncClient(one.grpc, tls=tls) as asking:
            job = await asking.submit("noop", {"n": 1})
            assert (await asking.wait(job.id, timeout_s=PATIENCE_S)).state == "completed"

    address = {"TENURE_COORDINATOR": coordinators[0].grpc}
    code, out, err = await tenure({**plain, **address, **showing(ours.ca, client)}, "jobs", "list", "-o", "json")
    assert code == 0 and json.loads(out) and err == ""
    for wrong in ({}, {"TENURE_TLS_CA": str(ours.ca)}, showing(ours.ca, authority("theirs").issue("/CN=client"))):
        with pytest.raises(Unavailable):
            with Client(coordinators[0].grpc, tls=_tls(wrong), timeout_s=2.0) as asking_too:
                asking_too.get(job.id)

    for one in coordinators:
        lines = one.log.read_text().splitlines()
        assert all(json.loads(line)["event"] for line in lines), "handshakes that failed are no lines of another form"

    code, out, _ = await tenure({**plain, "TENURE_HTTP_LISTEN": coordinators[0].http}, "health")
    assert code == 1, "asked without TLS"
    assert out.startswith("not alive: ")
    code, out, _ = await tenure({**plain, **showing(authority("others").ca, client)}, "health", _https(coordinators[0]))
    assert code == 1 and "certificate verify failed" in out


def _tls(env: dict[str, str]) -> TLS | None:
    if not env:
        return None
    return TLS(
        ca_file=env["TENURE_TLS_CA"],
        cert_file=env.get("TENURE_TLS_CLIENT_CERT"),
        key_file=env.get("TENURE_TLS_CLIENT_KEY"),
    )


def _https(member: Member) -> str:
    return f"https://{member.http}"


async def test_a_coordinator_that_others_would_reach_says_what_it_takes(launch: Launch, database: str) -> None:
    for variable in ("TENURE_GRPC_LISTEN", "TENURE_HTTP_LISTEN"):
        env = {**os.environ, "TENURE_POSTGRES_DSN": database, variable: "0.0.0.0:0"}
        code, _, err = await tenure(env, "coordinator")
        assert code == 78
        assert f"{variable} 0.0.0.0:0" in err and "TENURE_ALLOW_INSECURE=true" in err


async def test_a_certificate_that_cannot_be_read_ends_the_start(launch: Launch, tmp_path: Path, database: str) -> None:
    nothing = tmp_path / "nothing.pem"
    env = {
        **os.environ,
        "TENURE_POSTGRES_DSN": database,
        "TENURE_TLS_CERT": str(nothing),
        "TENURE_TLS_KEY": str(nothing),
    }
    code, _, err = await tenure(env, "coordinator")
    assert code == 78 and str(nothing) in err
