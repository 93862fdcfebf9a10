"""``tenure cluster``: who is there, and ``--watch``, which goes on until it is interrupted."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from tests.cli.test_end_to_end import Tenure
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.live import cluster_picture
from tenure.client.records import ClusterPicture, Coordinator, ServedPool, Worker


@pytest.fixture
def tenure(deployment: DeploymentFactory) -> Tenure:
    """The program, with a coordinator and no worker."""
    return Tenure(deployment(workers=0).env)


def watch(tenure: Tenure, *arguments: str) -> tuple[str, int]:
    """Return the first line, and how it ends when it is interrupted."""
    command = [sys.executable, "-m", "tenure.cli", "cluster", "--watch", *arguments]
    process = subprocess.Popen(command, env=tenure.env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        return line, process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_it_follows_who_is_there(tenure: Tenure) -> None:
    line, code = watch(tenure, "-o", "json")
    picture: dict[str, Any] = json.loads(line)
    [coordinator] = picture["coordinators"]
    assert coordinator["is_leader"] is (picture["leader"] == coordinator["id"])
    assert picture["more_workers"] == 0
    assert code == 130
    line, _ = watch(tenure)
    assert "coordinators 1" in line and "claims 0" in line


def test_the_live_picture_shows_the_busiest_and_escapes_what_is_foreign() -> None:
    def worker(n: int) -> Worker:
        return Worker(
            id=f"w{n}\x1b[31m", pools=("a",), kinds=(), capacity=9, claims=n, labels={}, mode="direct", host="h",
            version="1", draining=n == 1, started_at=None,
        )  # fmt: skip

    shown = io.StringIO()
    picture = ClusterPicture(
        coordinators=(Coordinator(id="c1", grpc="h:1", http="h:2", version="1", is_leader=True, started_at=None),),
        leader="c1",
        workers=tuple(worker(n) for n in range(25)),
        more_workers=2,
        pools=(ServedPool(path="a", workers=25, capacity=225),),
    )
    Console(file=shown, width=120).print(cluster_picture(picture))
    text = shown.getvalue()
    assert "leader c1, 27 workers" in text and "24 of 9" in text and "and 7 more" in text
    assert "\x1b[31m" not in text
