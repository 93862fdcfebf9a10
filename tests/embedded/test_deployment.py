"""The deployment as tests and the demo use it: members are added, killed, revived."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded.deployment import Deployment
from tenure.cli.embedded.member import is_ready
from tenure.cli.embedded.processes import EmbeddedError
from tenure.cli.up import FIRST_DELAY_S, LONGEST_DELAY_S, SETTLED_S, Revival, Watch


def test_members_can_be_added(deployment: DeploymentFactory) -> None:
    made = deployment(coordinators=1, workers=0)
    assert made.coordinator_addresses
    second = made.add_coordinator()
    assert is_ready(second.http)
    assert made.env["TENURE_COORDINATOR"].count(",") == 1
    worker = made.add_worker(["--capacity", "3"])
    assert worker.alive
    assert made.workers == [worker]


def test_workers_hold_no_database_password(deployment: DeploymentFactory) -> None:
    made = deployment()
    with open(f"/proc/{made.workers[0].pid}/environ") as file:
        assert "TENURE_POSTGRES_DSN" not in file.read()


def test_the_watch_starts_what_died(deployment: DeploymentFactory) -> None:
    made = deployment()
    said = io.StringIO()
    watch = Watch(made, Console(file=said))
    worker, coordinator = made.workers[0], made.coordinators[0]
    before = worker.id
    worker.kill()
    coordinator.kill()
    assert set(made.dead()) == {worker, coordinator}
    watch.look(time.monotonic())
    assert not made.dead()
    made.wait_for_worker(worker)
    coordinator.wait_until_ready(time.monotonic() + 60)
    assert worker.id != before
    assert "worker1 ended with -9" in said.getvalue()


def test_the_watch_starts_dead_stores_on_the_same_ports(deployment: DeploymentFactory) -> None:
    made = deployment(own_stores=True, coordinators=1, workers=0)
    assert made.postgres is not None and made.etcd is not None
    env = made.env
    watch = Watch(made, Console(file=io.StringIO()))
    made.postgres.kill()
    made.etcd.kill()
    watch.look(time.monotonic())
    assert made.postgres.alive and made.etcd.alive
    assert made.postgres.dsn == env["TENURE_POSTGRES_DSN"]
    assert ",".join(made.etcd.endpoints) == env["TENURE_ETCD_ENDPOINTS"]
    made.coordinators[0].wait_until_ready(time.monotonic() + 60)


def test_a_member_that_cannot_start_shows_its_words(deployment: DeploymentFactory) -> None:
    with pytest.raises(EmbeddedError, match=r"no\.such\.module"):
        deployment(worker_args=["--import", "no.such.module"])


def test_delays_grow_and_are_forgotten_by_a_settled_process() -> None:
    revival = Revival(started_at=0.0)
    waits = []
    now = 1.0
    for _ in range(8):
        waits.append(revival.died(now))
        revival.started(now)
        now += 1.0
    assert waits[:4] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert waits[-1] == LONGEST_DELAY_S
    assert revival.died(now + SETTLED_S) == 0.0


def test_an_aborted_deployment_can_be_stopped_again(deployment: DeploymentFactory) -> None:
    made: Deployment = deployment(workers=0)
    made.abort()
    assert made.dead() == made.coordinators
    made.stop()
