"""``tenure top`` and what Tab offers, on a real deployment; the picture for terminals of any width."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli import completing
from tenure.cli.embedded.deployment import Deployment
from tenure.cli.top import picture, sparkline
from tenure.client import Client, Worker
from tenure.client.overview import Figures, Overview, PoolOverview

pytestmark = pytest.mark.timeout(170)


@pytest.fixture
def made(deployment: DeploymentFactory) -> Iterator[Deployment]:
    yield deployment()


def environment(made: Deployment, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    return {**own, **made.env, **more}


def test_top_and_tab(made: Deployment) -> None:
    with Client(made.coordinator_addresses) as client:
        jobs = [client.submit("noop", namespace="acme").id for _ in range(3)]
        client.wait_many(jobs, 60)

    def tenure(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "tenure"), *arguments],
            env=environment(made, **more), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    overview = json.loads(tenure("top", "--once", "-o", "json"))
    assert overview["leader"] and overview["workers"] == 1
    shown = tenure("top", "--once")
    assert overview["leader"] in shown and "last minute" in shown and made.workers[0].id in shown

    def offered(words: str) -> list[str]:
        arguments = words.split(" ")
        told = tenure(
            _TENURE_COMPLETE="complete_bash",
            COMP_WORDS=f"tenure {words}",
            COMP_CWORD=str(len(arguments)),
            _TYPER_COMPLETE_ARGS=f"tenure {words}",
        )
        return told.split()

    assert set(jobs) <= set(offered("jobs get "))
    assert "acme" in offered("jobs list --namespace a")
    assert "noop" in offered("jobs list --kind n")
    assert "default" in offered("jobs list --pool ")
    assert "owners" in offered("jobs own")


class _Context:
    params = {"coordinator": "127.0.0.1:1"}  # noqa: RUF012


@pytest.mark.parametrize("offer", [completing.jobs, completing.kinds, completing.namespaces, completing.limits])
def test_without_a_coordinator_nothing_is_offered_nor_said(
    offer: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(offer)
    assert offer(_Context(), "") == []
    assert capsys.readouterr() == ("", "")


NOW = datetime.now(UTC)
POOL = PoolOverview(
    pool="default", ready=12_345, executing=3, oldest_ready_at=NOW - timedelta(minutes=5), workers=2, paused=True,
    last_minute=Figures(completed=60), last_hour=Figures(failed=2),
)  # fmt: skip
OVERVIEW = Overview(
    at=NOW, pools=(POOL,), last_minute=Figures(submitted=5, completed=60, failed=1, lost=1), last_hour=Figures(),
    minutes=tuple(Figures(completed=number) for number in range(60)), ready=12_345, ready_at_least=True, executing=3,
    executing_at_least=False, waiting=0, waiting_at_least=False, delayed=0, delayed_at_least=False,
    oldest_ready_at=NOW - timedelta(minutes=5), workers=2, draining_workers=1, capacity=64, claims=3, leader=None,
    leader_term=0, coordinators=2, silent=("c\x1b[2J",), counted_since=NOW,
)  # fmt: skip
WORKER = Worker(
    id="w\x1b[2J", pools=("default",), kinds=("k",), capacity=32, claims=3, labels={}, mode="direct", host="h",
    version="1", draining=True, started_at=NOW,
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_picture(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(picture(OVERVIEW, [WORKER] * 100, width, 24))
    told = out.getvalue()
    assert ("no leader" in told and "12,345+" in told and "paused" in told) or width == 60
    assert "\x1b" not in told, "what workers call themselves does nothing to a terminal"
    assert len(told.splitlines()) < 60


def test_a_series() -> None:
    assert sparkline([0, 1, 8]) == " ▁█"
    assert sparkline([0, 0]) == "  "
    assert sparkline([]) == ""


def test_bash_completes() -> None:
    """What the shell runs after ``tenure --install-completion``, without the installing."""
    script = """
        eval "$(_TENURE_COMPLETE=source_bash tenure)"
        COMP_WORDS=(tenure jobs own); COMP_CWORD=2
        _tenure_completion tenure
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["owners"], done.stderr
