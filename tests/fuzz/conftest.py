"""A whole coordinator, in a process of its own, for all fuzzing of a module."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.postgres import PostgresServer

from tenure.cli.embedded.deployment import Deployment


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    postgres_template: str,
    etcd_server: EtcdServer,
) -> Iterator[Deployment]:
    """A coordinator and a worker on real stores; what the coordinator logged is looked at when all is over."""
    dsn = postgres_server.create_database(postgres_template)
    made = Deployment(
        Path(tmp_path_factory.mktemp("fuzz")),
        coordinators=1,
        workers=1,
        postgres_dsn=dsn,
        etcd_endpoints=etcd_server.endpoints,
        etcd_prefix=f"/fuzz-{uuid.uuid4().hex}/",
        fsync=False,
        drain_s=2.0,
    )
    with made:
        [coordinator] = made.coordinators
        pid = coordinator.pid
        yield made
        assert coordinator.alive
        assert coordinator.pid == pid
    postgres_server.drop_database(dsn)
