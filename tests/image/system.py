"""Tenure in containers: one network with Postgres, three members of etcd, and containers of the image."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import psycopg
from tests.fixtures import backend

from tenure.cli.embedded import ports

PATIENCE_S = 180.0
"""How long anything may take; only a hang takes as long."""
STOP_S = 60
"""What a container is given to stop by itself, above the grace of any process in it."""
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": "10001",
}
"""What a careful operator takes away from a container."""
MEMBERS = ("etcd-a", "etcd-b", "etcd-c")

T = TypeVar("T")


def until(check: Callable[[], T | None], what: str) -> T:
    """Return the first answer of a check that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not in {PATIENCE_S:g} s: {what}")


class System:
    """Containers by the names that they have in their network."""

    def __init__(self, engine: Any, image: str, network: str, folder: Path) -> None:
        self._engine = engine
        self._image = image
        self._network = engine.networks.create(network)
        self._containers: list[tuple[str, Any]] = []
        self._ports: dict[str, int] = {}
        # The handlers' own account of what ran, for a user that exists in the container alone.
        self.trace = folder / "trace"
        self.trace.mkdir()
        self.trace.chmod(0o777)
        self._password = network.rpartition("-")[2]

    def start_stores(self) -> None:
        """Start Postgres and etcd, and wait for Postgres (who needs etcd waits for it by himself)."""
        settings = {"POSTGRES_USER": "tenure", "POSTGRES_PASSWORD": self._password, "POSTGRES_DB": "tenure"}
        self.run("postgres", image=backend.POSTGRES_IMAGE, env=settings, publish=5432)
        cluster = ",".join(f"{name}=http://{name}:2380" for name in MEMBERS)
        for name in MEMBERS:
            flags = {
                "name": name,
                "listen-client-urls": "http://0.0.0.0:2379",
                "advertise-client-urls": f"http://{name}:2379",
                "listen-peer-urls": "http://0.0.0.0:2380",
                "initial-advertise-peer-urls": f"http://{name}:2380",
                "initial-cluster": cluster,
                "log-level": "warn",
            }
            command = ["/usr/local/bin/etcd", *(f"--{flag}={value}" for flag, value in flags.items())]
            self.run(name, command, image=backend.ETCD_IMAGE)
        until(self._postgres_answers, "Postgres answers")

    def run(
        self,
        name: str,
        command: list[str] | None = None,
        *,
        image: str = "",
        env: dict[str, str] | None = None,
        publish: int = 0,
        **options: Any,
    ) -> Any:
        """Start a container of this name; one port may be published, at the same place for the same name."""
        if publish:
            port = self._ports.setdefault(name, ports.choose())
            options["ports"] = {f"{publish}/tcp": ("127.0.0.1", port)}
        container = self._engine.containers.create(
            image or self._image, command, environment=env, network=self._network.name, hostname=name,
            name=f"{self._network.name}-{name}-{len(self._containers)}",
            networking_config={self._network.name: self._engine.api.create_endpoint_config(aliases=[name])}, **options,
        )  # fmt: skip
        self._containers.append((name, container))
        container.start()
        return container

    def tenure(self, name: str, *command: str, image: str = "", **env: str) -> Any:
        """Start a process of tenure as an operator would: nothing is set but addresses, and that no TLS is wanted."""
        stores = {
            "TENURE_ETCD_ENDPOINTS": ",".join(f"grpc://{member}:2379" for member in MEMBERS),
            "TENURE_TEST_TRACE": "/trace/lines",
        }
        if command[0] in ("coordinator", "db"):
            stores["TENURE_POSTGRES_DSN"] = f"postgresql://tenure:{self._password}@postgres:5432/tenure"
            stores["TENURE_ALLOW_INSECURE"] = "true"
        return self.run(
            name, list(command), image=image, env={**stores, **env}, publish=7070 * (command[0] == "coordinator"),
            volumes={str(self.trace): {"bind": "/trace", "mode": "rw"}}, **HARDENED,
        )  # fmt: skip

    def healthy(self, container: Any) -> Any:
        """Return the container once the image's own health check says so."""

        def is_healthy() -> bool:
            container.reload()
            assert container.status != "exited", container.logs().decode()
            return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

        until(is_healthy, f"{container.name} is healthy")
        return container

    def said(self, container: Any, event: str) -> None:
        """Return once a container has logged this."""
        until(lambda: event.encode() in container.logs(), f"{container.name} says {event}")

    def address(self, name: str) -> str:
        """Return where the published port of this name is to be reached from here."""
        return f"127.0.0.1:{self._ports[name]}"

    def query(self, text: LiteralString) -> Any:
        """Return the one value that a query gives."""
        with psycopg.connect(self._dsn(), connect_timeout=10) as connection:
            row = connection.execute(text).fetchone()
        assert row is not None
        return row[0]

    def lines(self, word: str) -> Counter[str]:
        """Return how often each job left this word in its handler's own trace."""
        path = self.trace / "lines"
        text = path.read_text() if path.exists() else ""
        return Counter(re.findall(rf"^{word} (\S+) ", text, re.MULTILINE))

    def remove(self, *, show_logs: bool) -> None:
        """Remove every container and the network."""
        for name, container in reversed(self._containers):
            if show_logs:
                sys.stderr.write(f"\n--- {name}\n{container.logs(tail=60).decode(errors='replace')}\n")
            container.remove(force=True, v=True)
        self._network.remove()

    def _dsn(self) -> str:
        return f"postgresql://tenure:{self._password}@{self.address('postgres')}/tenure"

    def _postgres_answers(self) -> bool:
        try:
            return bool(self.query("SELECT true"))
        except psycopg.OperationalError:
            return False
