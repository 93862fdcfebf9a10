"""A runner far away: a network of its own, whose only way out is a proxy; coordinators with TLS and credentials."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import namedtuple_row
from tests.chaos.network import Network, why_not
from tests.connect_proxy import ConnectProxy
from tests.e2e.conftest import PATIENCE_S
from tests.fixtures.certificates import Authority
from tests.fixtures.etcd import EtcdServer

from tenure.cli.embedded import ports
from tenure.cli.embedded.member import Member, Role
from tenure.client import TLS, AsyncClient, NewJob

JOBS = 1_000
NAME = "coordinators.test"


class Company:
    """Two coordinators behind one name, and what it takes to join."""

    def __init__(self, folder: Path, ours: Authority, plain: dict[str, str], dsn: str) -> None:
        self.folder = folder
        self.ca = ours.ca
        self.trust = ssl.create_default_context(cafile=str(ours.ca))
        self.dsn = dsn
        served = ours.issue("/CN=coordinator", names=f"IP:127.0.0.1,DNS:localhost,DNS:{NAME}")
        self.env = {
            **plain,
            "TENURE_POSTGRES_DSN": dsn,
            "TENURE_AUTH": "required",
            "TENURE_LEADER_TTL_S": "2",
            "TENURE_TLS_CERT": str(served.cert),
            "TENURE_TLS_KEY": str(served.key),
            "TENURE_TLS_CA": str(ours.ca),
        }
        self.coordinators = [self._coordinator(number) for number in (1, 2)]

    def _coordinator(self, number: int) -> Member:
        grpc, http = (f"127.0.0.1:{ports.choose()}" for _ in range(2))
        env = {**self.env, "TENURE_GRPC_LISTEN": grpc, "TENURE_HTTP_LISTEN": http}
        return Member(Role.COORDINATOR, number, [], env, self.folder / f"coordinator{number}.log", grpc=grpc, http=http)

    async def ready(self, member: Member) -> None:
        """Wait until a coordinator serves."""
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(verify=self.trust) as http:
            while True:
                member.check_alive()
                try:
                    if (await http.get(f"https://{member.http}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    def admin(self) -> str:
        """Make the first token, as whoever has the database may."""
        command = [sys.executable, "-m", "tenure.cli", "db", "admin-token", "root"]
        made = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True, timeout=60)
        return made.stdout.strip()

    def client(self, token: str) -> AsyncClient:
        """Return a client of both."""
        addresses = ",".join(one.grpc for one in self.coordinators)
        return AsyncClient(addresses, token=token, tls=TLS(ca_file=self.ca))

    async def rows(self, query: str) -> list[Any]:
        """Ask the database."""
        async with await psycopg.AsyncConnection.connect(self.dsn, row_factory=namedtuple_row) as connection:
            return await (await connection.execute(query.encode())).fetchall()

    async def post(self, path: str, token: str, body: Any) -> httpx.Response:
        """Call the API of runners from here."""
        async with httpx.AsyncClient(verify=self.trust, timeout=30) as http:
            url = f"https://{self.coordinators[0].http}/v1/runner/{path}"
            return await http.post(url, json=body, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
async def company(
    tmp_path: Path, authority: Callable[[str], Authority], etcd_server: EtcdServer, etcd_prefix: str, database: str
) -> AsyncIterator[Company]:
    plain = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TENURE_")},
        "TENURE_ETCD_ENDPOINTS": etcd_server.endpoints[0],
        "TENURE_ETCD_PREFIX": etcd_prefix,
    }
    made = Company(tmp_path, authority("ours"), plain, database)
    try:
        for one in made.coordinators:
            one.start()
            await made.ready(one)
        yield made
    finally:
        for one in made.coordinators:
            if one.alive:
                one.kill(tree=True)


def _runner(company: Company, token: str, *, proxy: str, trace: Path, prefix: list[str] | None = None) -> Member:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    env |= {
        "HTTPS_PROXY": f"http://{proxy}",
        "TENURE_RUNNER_URL": f"https://{NAME}",
        "TENURE_TOKEN": token,
        "TENURE_TLS_CA": str(company.ca),
        "TENURE_TEST_TRACE": str(trace),
    }
    arguments = ["--import", "tests.e2e.handlers", "--pool", "far/site", "--capacity", "50"]
    log = company.folder / "runner.log"
    return Member(Role.WORKER, 9, arguments, env, log, command="runner", prefix=prefix or [])


def _shut_in(network: Network, proxy: str) -> None:
    """Leave one way out: that port."""
    host, _, port = proxy.rpartition(":")
    for rule in (
        ["-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT"],
        ["-A", "OUTPUT", "-d", host, "-p", "tcp", "--dport", port, "-j", "ACCEPT"],
        ["-P", "OUTPUT", "DROP"],
        ["-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT"],
        ["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"],
        ["-P", "INPUT", "DROP"],
    ):
        subprocess.run([*network.prefix("runner"), "iptables", "-w", *rule], check=True, timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")
async def test_a_runner_behind_a_proxy_completes_its_jobs_while_coordinators_are_killed(
    company: Company, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        network = Network(("runner",))
        stack.callback(network.close)
        host = network.address("runner").rpartition(".")[0] + ".1"
        targets = [one.http for one in company.coordinators]
        proxy = await stack.enter_async_context(ConnectProxy(f"{NAME}:443", targets, host=host))
        _shut_in(network, proxy.address)
        client = await stack.enter_async_context(company.client(company.admin()))
        made = await client.create_token("far-runner", "runner", pools=["far"])
        trace = tmp_path / "trace"
        runner = _runner(company, made.secret or "", proxy=proxy.address, trace=trace, prefix=network.prefix("runner"))
        runner.start()
        stack.callback(runner.kill, tree=True)

        batch = [
            NewJob(kind="hold-on", payload={"seconds": chance.uniform(0.0, 1.0)}, route="far/site/a")
            for _ in range(JOBS)
        ]
        ids = {job.id for job in await client.submit_many(batch)}

        async def left() -> int:
            [row] = await company.rows("SELECT count(*) AS jobs FROM tenure.job")
            return int(row.jobs)

        killed = 0
        async with asyncio.timeout(240):
            while await left():
                victim = company.coordinators[killed % 2]
                await asyncio.sleep(chance.uniform(1.0, 3.0))
                victim.kill()
                killed += 1
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                victim.start()
                await company.ready(victim)
        assert killed >= 2, "not exercised"
        rows = await company.rows("SELECT id::text, state, attempt FROM tenure.history")
        assert {row.id for row in rows} == ids
        assert {row.state for row in rows} == {"completed"}
        attempts = await company.rows("SELECT outcome, worker FROM tenure.attempt")
        outcomes = Counter(row.outcome for row in attempts)
        assert outcomes == {"completed": JOBS}, f"a coordinator that died cost a running job: {outcomes}"
        assert {row.worker.rpartition("-")[0] for row in attempts} == {runner.id}
        assert not proxy.refused
        assert proxy.taken > 1


async def _executing(company: Company, client: AsyncClient, token: str) -> dict[str, Any]:
    """Execute a job as a runner of few words would; return its attempt, with the session."""
    job = await client.submit("by-hand", route="far/site")
    runner = {"name": "hand", "pools": ["far/site"], "kinds": ["by-hand"], "capacity": 1}
    session = (await company.post("session", token, {"runner": runner, "ttl_s": 60})).json()["session"]
    claims: list[Any] = []
    while not claims:
        polled = await company.post("claim", token, {"session": session, "wait_s": 20})
        claims = polled.json()["claims"]
    started = await company.post("start", token, {"claims": [claims[0]["claim"]]})
    [attempt] = started.json()["attempts"]
    assert attempt["job_id"] == job.id
    return {"session": session, **attempt}


async def _until(ask: Callable[[], Awaitable[int]], status: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await ask() != status:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_whoever_is_not_or_no_more_the_attempts_runner_is_refused(company: Company) -> None:
    async with company.client(company.admin()) as client:
        mine = await client.create_token("mine", "runner", pools=["far/site"])
        others = await client.create_token("others", "runner", pools=["far/other"])
        short = await client.create_token("mine", "runner", pools=["far/site"], expires_in_s=1.0)
        worker = await client.create_token("mine", "worker", pools=["far/site"])
        attempt = await _executing(company, client, mine.secret or "")
        token = {"attempt_token": attempt["attempt_token"]}
        finish = {"reports": [{**token, "outcome": "completed", "result": 1}]}

        async def status(path: str, secret: str | None, body: Any) -> int:
            return (await company.post(path, secret or "", body)).status_code

        for path, body in (
            ("finish", finish),
            ("progress", {**token, "fraction": 1}),
            ("renew", {"tokens": [attempt["session"]]}),
        ):
            assert await status(path, others.secret, body) == 403, "another pool's runner"
            assert await status(path, worker.secret, body) == 403, "a worker's credentials"
            assert await status(path, "tnr_" + "0" * 76, body) == 401, "nobody's"
        await _until(lambda: status("progress", short.secret, {**token, "fraction": 1}), 401)  # expired
        elsewhere = {"runner": {"name": "x", "pools": ["far/site"], "kinds": [], "capacity": 1}}
        assert await status("session", others.secret, elsewhere) == 403
        assert (await client.get(attempt["job_id"])).state == "executing"

        assert await status("finish", mine.secret, finish) == 200
        replayed = await company.post("finish", mine.secret or "", {"reports": [{**finish["reports"][0], "result": 2}]})
        assert replayed.json()["reports"][0]["verdict"] == "repeated"
        assert (await client.get(attempt["job_id"])).result == 1

        again = await _executing(company, client, mine.secret or "")
        await client.revoke_claim(again["job_id"])
        late = {"reports": [{"attempt_token": again["attempt_token"], "outcome": "completed"}]}
        await _until(lambda: status("progress", mine.secret, {**late["reports"][0], "fraction": 1}), 409)
        assert await status("finish", mine.secret, late) == 409, "an attempt that was lost"

        last = await _executing(company, client, mine.secret or "")
        await client.revoke_token(mine.token.id)
        report = {"reports": [{"attempt_token": last["attempt_token"], "outcome": "completed"}]}
        await _until(lambda: status("renew", mine.secret, {"tokens": [last["session"]]}), 401)
        assert await status("finish", mine.secret, report) == 401
        assert (await client.get(last["job_id"])).state == "executing"
