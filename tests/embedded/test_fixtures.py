"""The shared fixtures give each test a world of its own."""

from __future__ import annotations

import psycopg
import pytest
from tests.fixtures.etcd import EtcdServer

from tenure.cli.embedded.etcd import count_keys


@pytest.mark.parametrize("turn", [1, 2])
def test_a_database_is_fresh_and_migrated(database: str, turn: int) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM tenure.jobs").fetchone() == (0,)
        connection.execute("CREATE TABLE only_here (n int)")


def test_an_empty_database_has_no_schema(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT to_regnamespace('tenure')").fetchone() == (None,)


def test_a_prefix_is_empty(etcd_server: EtcdServer, etcd_prefix: str) -> None:
    assert count_keys(etcd_server.endpoints, etcd_prefix) == 0
