"""``tenure audit list``: against a real deployment, and what reaches a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.fixtures.deployment import DeploymentFactory
from typer.testing import CliRunner

from tenure.cli import audit as audit_command
from tenure.cli.main import app
from tenure.client import AuditEntry, Client


def tenure(env: dict[str, str], *arguments: str) -> Any:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    return subprocess.run(
        [sys.executable, "-m", "tenure.cli", *arguments], env={**own, **env}, capture_output=True, text=True, timeout=60
    )


def test_what_was_done_is_listed(deployment: DeploymentFactory) -> None:
    with deployment(coordinators=1, workers=0) as running, Client(running.coordinator_addresses) as client:
        job = client.submit("noop", namespace="acme", delay_s=3_600.0)
        client.cancel(job.id, "wrong month")
        client.update_namespace("acme", weight=2.0)
        [first] = client.audit(namespace="acme", action="jobs.")
        assert (first.caller, first.role, first.target, first.outcome) == ("anybody", "admin", job.id, "ok")
        assert first.detail == {"reason": "wrong month"}
        assert [one.action for one in client.audit(limit=1)] == ["namespaces.update"]
        done = tenure(running.env, "audit", "list", "--namespace", "acme", "--since", "1h", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert [one["action"] for one in json.loads(done.stdout)] == ["namespaces.update", "jobs.cancel"]
        for option in (("--caller", "eve"), ("--until", "1h"), ("--action", "limits."), ("--target", "x")):
            assert json.loads(tenure(running.env, "audit", "list", *option, "-o", "json").stdout) == []
        table = tenure(running.env, "audit", "list", "--limit", "1")
        assert "namespaces.update" in table.stdout
        assert "--limit" in table.stderr
        wrong = tenure(running.env, "audit", "list", "--since", "yesterday")
        assert (wrong.returncode, "--since" in wrong.stderr) == (2, True)


class Answers:
    """A client that has these entries."""

    def __init__(self, *entries: AuditEntry) -> None:
        self._entries = entries

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def audit(self, **filters: Any) -> Sequence[AuditEntry]:
        """Return them, whatever is looked for."""
        return self._entries


def entry(**given: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "id": "1", "at": datetime(2026, 11, 22, 7, 0, tzinfo=UTC), "caller": "ann", "role": "operator",
        "action": "jobs.cancel", "namespace": "acme", "target": "kind=scan", "outcome": "ok", "detail": {},
    }  # fmt: skip
    return AuditEntry(**{**values, **given})


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    def show(*entries: AuditEntry) -> str:
        monkeypatch.setattr(audit_command, "connect", lambda address: Answers(*entries))
        done = CliRunner().invoke(app, ["audit", "list"])
        assert done.exit_code == 0, done.output
        return done.stdout

    return show


def test_control_characters_of_callers_do_not_reach_a_terminal(shown: Any) -> None:
    told = shown(entry(caller="eve\x1b[2J", target="a\nb\x07", detail={"reason": "x\x1b]0;y\x07"}))
    assert not [c for c in told if not c.isprintable() and c != "\n"]
    assert "\\x1b[2J" in told
    assert "a\\nb" in told


def test_a_long_detail_is_cut_in_a_table(shown: Any) -> None:
    told = shown(entry(detail={"before": {"weight": 1, "backlog": None}, "reason": "r" * 500}))
    assert "before={weight=1} reason=rrr" in told
    assert "r" * 200 not in told
