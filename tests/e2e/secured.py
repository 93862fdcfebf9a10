"""A tenure with the least rights: users of their own for coordinators and workers, their passwords in files.

The stores are of the test's own, as roles, users and authentication belong to a whole server.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

import psycopg
from psycopg import sql
from tests.etcd.test_roles import PREFIX, enable, run

from tenure.cli.embedded import ports
from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.embedded.member import Member, Role
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.store.postgres import roles
from tenure.store.postgres.migrate import migrate

READY_S = 60.0
DATABASE_PASSWORD = "canary-db-6f21c9"
COORDINATOR_PASSWORD = "canary-co-88d0aa"
WORKER_PASSWORD = "canary-wo-17e3b4"
TOKEN = "canary-to-5c9d02"
CANARIES = (DATABASE_PASSWORD, COORDINATOR_PASSWORD, WORKER_PASSWORD, TOKEN)


class Secured:
    """Stores with roles and users, and the processes that a test starts on them."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, etcd: EmbeddedEtcd) -> None:
        self.folder = folder
        self.postgres = postgres
        self.etcd = etcd
        self.members: list[Member] = []
        self.address = etcd.endpoints[0].removeprefix("grpc://")
        self.dsn = re.sub(r"//[^@]*@", f"//app_coordinator:{DATABASE_PASSWORD}@", postgres.dsn)
        self.grpc, self.http, self.worker_http = (f"127.0.0.1:{port}" for port in ports.choose_many(3))

    def set_up(self) -> None:
        """Migrate as the administrator, then hand out the rights."""
        asyncio.run(migrate(self.postgres.dsn))
        with psycopg.connect(self.postgres.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE app_coordinator LOGIN PASSWORD {}").format(DATABASE_PASSWORD))
        asyncio.run(roles.apply(self.postgres.dsn, [("app_coordinator", "tenure_coordinator")]))
        enable(self.address)
        for user, password in (("coordinator", COORDINATOR_PASSWORD), ("worker", WORKER_PASSWORD)):
            run(self.address, "--user", f"{user}=tenure-{user}", "--password-file", str(self.secret(user, password)))

    def secret(self, name: str, text: str) -> Path:
        """Write a secret down as an agent does, for the owner alone."""
        path = self.folder / f"secret-{name}"
        path.write_text(text + "\n")
        path.chmod(0o400)
        return path

    def env(self, user: str, **more: str) -> dict[str, str]:
        """Return the environment of a process that is this user in etcd."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        return {
            **inherited,
            "TENURE_ETCD_ENDPOINTS": self.etcd.endpoints[0],
            "TENURE_ETCD_PREFIX": PREFIX,
            "TENURE_ETCD_USER": user,
            "TENURE_ETCD_PASSWORD_FILE": str(self.folder / f"secret-{user}"),
            "TENURE_LEADER_TTL_S": "2",
            "TENURE_LOG_LEVEL": "DEBUG",
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    def coordinator(self, **env: str) -> Member:
        """Start a coordinator; its DSN is in a file unless ``env`` says otherwise."""
        told = {"TENURE_GRPC_LISTEN": self.grpc, "TENURE_HTTP_LISTEN": self.http, "TENURE_MIGRATE": "false"}
        if "TENURE_POSTGRES_DSN" not in env:
            told["TENURE_POSTGRES_DSN_FILE"] = str(self.folder / "secret-dsn")
            if not (self.folder / "secret-dsn").exists():
                self.secret("dsn", self.dsn)
        return self._start(Role.COORDINATOR, (), {**self.env("coordinator"), **told, **env})

    def worker(self, **env: str) -> Member:
        """Start a worker."""
        trace = {"TENURE_TEST_TRACE": str(self.folder / "trace"), "TENURE_TOKEN": TOKEN}
        arguments = ("--import", "tests.e2e.handlers", "--http-listen", self.worker_http)
        return self._start(Role.WORKER, arguments, {**self.env("worker"), **trace, **env})

    def _start(self, role: Role, arguments: tuple[str, ...], env: dict[str, str]) -> Member:
        log = self.folder / f"{role.value}{len(self.members)}.log"
        http = self.http if role is Role.COORDINATOR else self.worker_http
        member = Member(role, len(self.members), arguments, env, log, grpc=self.grpc, http=http)
        member.start()
        self.members.append(member)
        return member

    def until_ready(self, *members: Member) -> None:
        """Wait until members serve."""
        for member in members:
            member.wait_until_ready(time.monotonic() + READY_S)

    def close(self) -> None:
        """End the processes."""
        for member in self.members:
            if member.alive:
                member.kill(tree=True)
