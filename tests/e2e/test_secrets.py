"""Secrets come from files or from the environment, and get nowhere else, whatever goes wrong.

Not into logs, process titles, keys, metrics or messages. Canaries stand for them.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.e2e.secured import (
    CANARIES,
    DATABASE_PASSWORD,
    TOKEN,
    Secured,
)
from tests.etcd.test_roles import Guarded

from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.embedded.member import Member
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.settings import parsed
from tenure.client import AsyncClient
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.errors import ConfigurationError
from tenure.worker.settings import WorkerSettings

WRONG = "canary-wrong-2b44"
CONFUSED_S = 3.0
"""How long a process is left with what is wrong: it has said all that it says by then."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secrets")
    with EmbeddedPostgres(folder / "postgres", fsync=False) as postgres, EmbeddedEtcd(folder / "etcd") as etcd:
        made = Secured(folder, postgres, etcd)
        made.set_up()
        yield made
        made.close()


def assert_kept(where: str, told: str | bytes) -> None:
    text = told.decode(errors="replace") if isinstance(told, bytes) else told
    for canary in (*CANARIES, WRONG):
        assert canary not in text, f"{where} tells {canary}: {text[-2000:]}"


def title(member: Member) -> bytes:
    return Path(f"/proc/{member.pid}/cmdline").read_bytes()


def family(member: Member) -> list[bytes]:
    """Return the titles of a process and of all its descendants."""
    import psutil

    children = psutil.Process(member.pid).children(recursive=True)
    return [title(member), *(Path(f"/proc/{child.pid}/cmdline").read_bytes() for child in children)]


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_a_healthy_deployment_keeps_them(secured: Secured) -> None:
    coordinator = secured.coordinator()
    secured.until_ready(coordinator)
    worker = secured.worker()
    try:
        secured.until_ready(worker)
        asyncio.run(_one_job(secured))
        for member, http in ((coordinator, secured.http), (worker, secured.worker_http)):
            for each in family(member):
                assert_kept("a process title", each)
            for path in ("/metrics", "/readyz", "/livez"):
                assert_kept(path, get(http, path))
        guarded = Guarded(secured.address, ())
        everything = guarded.call("root", "kv/range", key="AA==", range_end="AA==")
        values = [_plain(kv.get(part, "")) for kv in everything["kvs"] for part in ("key", "value")]
        assert any("workers/" in value for value in values)
        assert_kept("etcd", "\n".join(values))
        with psycopg.connect(secured.postgres.dsn) as admin:
            for (table,) in admin.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'tenure'::regnamespace"
                " AND relkind IN ('r', 'v')"
            ).fetchall():
                for row in admin.execute(f"SELECT t::text FROM {table} t".encode()).fetchall():
                    assert_kept(table, row[0])
            assert_kept("pg_stat_activity", str(admin.execute("SELECT * FROM pg_stat_activity").fetchall()))
    finally:
        for each_member in (worker, coordinator):
            each_member.stop()
    for one in secured.members:
        assert_kept(str(one.log), one.log.read_bytes())


def _plain(value: str) -> str:
    import base64

    return base64.b64decode(value).decode(errors="replace")


async def _one_job(secured: Secured) -> None:
    async with AsyncClient(secured.grpc, token=TOKEN) as client:
        assert (await client.wait((await client.submit("trace", 1)).id, timeout_s=60)).state == "completed"


def dsn(secured: Secured, *, password: str = DATABASE_PASSWORD, host: str = "", database: str = "") -> str:
    told = secured.dsn.replace(DATABASE_PASSWORD, password)
    told = re.sub(r"@[^/]*", f"@{host}", told) if host else told
    return re.sub(r"/[^/?]*\?", f"/{database}?", told) if database else told


BAD: dict[str, Callable[[Secured], dict[str, str]]] = {
    "password": lambda s: {"TENURE_POSTGRES_DSN": dsn(s, password=WRONG)},
    "nobody there": lambda s: {"TENURE_POSTGRES_DSN": dsn(s, host="127.0.0.1:1")},
    "no such host": lambda s: {"TENURE_POSTGRES_DSN": dsn(s, host="nowhere.invalid:5432")},
    "no such database": lambda s: {"TENURE_POSTGRES_DSN": dsn(s, database="nothing")},
    "no TLS there": lambda s: {"TENURE_POSTGRES_DSN": dsn(s).replace("sslmode=disable", "sslmode=verify-full")},
    "malformed option": lambda s: {"TENURE_POSTGRES_DSN": dsn(s) + "&nonsense=1"},
    "malformed port": lambda s: {"TENURE_POSTGRES_DSN": dsn(s, host="127.0.0.1:port")},
    "malformed address": lambda s: {"TENURE_POSTGRES_DSN": f"postgresql://app:{DATABASE_PASSWORD}@[::1/tenure"},
    "no address": lambda s: {"TENURE_POSTGRES_DSN": f"host=127.0.0.1 password='{DATABASE_PASSWORD}"},
    "words": lambda s: {"TENURE_POSTGRES_DSN": f"host=127.0.0.1 {DATABASE_PASSWORD}"},
    "etcd password": lambda s: {"TENURE_ETCD_PASSWORD_FILE": str(_wrong(s))},
    "etcd not there": lambda s: {"TENURE_ETCD_ENDPOINTS": "grpc://127.0.0.1:1"},
    "etcd without TLS": lambda s: {"TENURE_ETCD_ENDPOINTS": s.etcd.endpoints[0].replace("grpc:", "grpcs:")},
    "etcd with password in the URL": lambda s: {"TENURE_ETCD_ENDPOINTS": f"grpc://u:{WRONG}@{s.address}"},
    "etcd over http, wrong password": lambda s: {
        "TENURE_ETCD_ENDPOINTS": f"http://{s.address}",
        "TENURE_ETCD_PASSWORD_FILE": str(_wrong(s)),
    },
}


def _wrong(secured: Secured) -> Path:
    path = secured.folder / "secret-wrong"
    return path if path.exists() else secured.secret("wrong", WRONG)


@pytest.mark.parametrize("wrong", BAD)
def test_processes_keep_them_when_something_is_wrong(secured: Secured, wrong: str) -> None:
    env = BAD[wrong](secured)
    members = [secured.coordinator(**env)]
    if not any(name.startswith("TENURE_POSTGRES") for name in env):
        members.append(secured.worker(**env))
    until = time.monotonic() + CONFUSED_S
    for member in members:
        while member.alive and (time.monotonic() < until or not member.log.stat().st_size):
            if member.alive:
                for each in family(member):
                    assert_kept("a process title", each)
            time.sleep(0.2)
    for member in members:
        if member.alive:
            member.kill(tree=True)
        said = member.log.read_bytes()
        assert said, "it said nothing of what is wrong"
        assert_kept(f"a {member.role}", said)


@pytest.mark.parametrize("wrong", [name for name in BAD if not name.startswith("etcd")])
def test_commands_keep_them_when_something_is_wrong(secured: Secured, wrong: str) -> None:
    env = {**secured.env("coordinator"), **BAD[wrong](secured)}
    for command in (["db", "migrate"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", "tenure.cli", *command], env=env, capture_output=True, timeout=120, check=False
        )
        assert done.returncode != 0, command
        assert b"Traceback" not in done.stderr, done.stderr
        assert_kept(" ".join(command), done.stdout + done.stderr)


SETTINGS = [
    (CoordinatorSettings, "postgres_dsn", "TENURE_POSTGRES_DSN"),
    (CoordinatorSettings, "etcd_password", "TENURE_ETCD_PASSWORD"),
    (WorkerSettings, "etcd_password", "TENURE_ETCD_PASSWORD"),
]


@pytest.mark.parametrize(("kind", "field", "variable"), SETTINGS)
def test_a_setting_comes_from_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[CoordinatorSettings], field: str, variable: str
) -> None:
    path = tmp_path / "secret"
    monkeypatch.setenv("TENURE_POSTGRES_DSN", "postgresql://somewhere")
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(f"{variable}_FILE", str(path))

    def refused() -> str:
        with pytest.raises(ConfigurationError) as caught:
            parsed(kind, {})
        assert_kept("the message", caught.value.message)
        return caught.value.message

    assert str(path) in refused()  # not there
    path.write_text("\n")
    assert "is empty" in refused()
    path.write_bytes(b"\xff" + WRONG.encode())
    assert "UTF-8" in refused()
    path.write_text("x" * 70_000)
    assert "longer" in refused()
    path.write_text(f"{WRONG} \r\n")
    settings = parsed(kind, {})
    assert getattr(settings, field).get_secret_value() == f"{WRONG} "
    assert_kept("the settings", repr(settings))
    monkeypatch.setenv(variable, "also")
    assert f"{variable} and {variable}_FILE" in refused()


def test_commands_read_the_file_too(secured: Secured) -> None:
    env = secured.env("coordinator", TENURE_POSTGRES_DSN_FILE=str(secured.secret("dsn2", secured.dsn)))
    for command in (["db", "status"], ["db", "wait", "--timeout", "5s"]):
        done = subprocess.run(
            [sys.executable, "-m", "tenure.cli", *command], env=env, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
