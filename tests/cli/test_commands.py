"""The command line without any server: help, usage, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tenure.cli.main import app
from tenure.cli.up import up_command

COMMANDS = [
    "coordinator",
    "worker",
    "submit",
    "jobs list",
    "jobs get",
    "jobs wait",
    "jobs watch",
    "jobs cancel",
    "jobs attempts",
    "jobs owners",
    "jobs retry",
    "schedules create",
    "schedules update",
    "schedules list",
    "schedules get",
    "schedules delete",
    "schedules pause",
    "schedules resume",
    "schedules trigger",
    "schedules backfill",
    "schedules preview",
    "workflows list",
    "workflows get",
    "workflows watch",
    "workflows draw",
    "workflows cancel",
    "kinds set",
    "kinds get",
    "kinds list",
    "kinds delete",
    "audit list",
    "workers list",
    "tokens create",
    "tokens list",
    "tokens revoke",
    "claims list",
    "claims watch",
    "claims revoke",
    "cluster",
    "top",
    "db migrate",
    "db status",
    "db wait",
    "db admin-token",
    "db roles",
    "db raise-epoch",
    "db signing-key",
    "etcd roles",
    "doctor",
    "health",
    "version",
    "up",
]
NOBODY = "127.0.0.1:1"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    for name in (
        "TENURE_COORDINATOR",
        "TENURE_POSTGRES_DSN",
        "TENURE_ETCD_ENDPOINTS",
        "TENURE_TOKEN",
        "TENURE_TOKEN_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    yield CliRunner()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(runner: CliRunner, command: str) -> None:
    result = runner.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert f"{command} [OPTIONS]" in result.stdout
    assert "[[" not in result.stdout and "...]" not in result.stdout


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {child}")


def test_every_option_has_help() -> None:
    up = typer.Typer()
    up.command()(up_command)
    seen = [*_commands(typer.main.get_command(app), "tenure"), ("tenure up", typer.main.get_command(up))]
    mute = [
        f"{name} {option.opts[0]}"
        for name, command in seen
        for option in command.params
        if not option.help and "completion" not in option.name
    ]
    assert len(seen) > len(COMMANDS)
    assert not mute


OTHER_FORMS = {"tenure jobs logs", "tenure jobs download", "tenure workflows draw"}
"""Whose -o is a file, or text as it was written."""


def test_forms_are_the_same_everywhere() -> None:
    forms = {}
    for name, command in _commands(typer.main.get_command(app), "tenure"):
        for option in command.params:
            if "-o" in option.opts and name not in OTHER_FORMS:
                with command.make_context(name, [], resilient_parsing=True) as context:
                    forms[name] = option.get_help_record(context)[0]
    assert len(forms) > 50
    assert set(forms.values()) == {"-o, --output <table|wide|json|yaml|name>"}


LISTINGS = [
    "jobs list",
    "workers list",
    "claims list",
    "pools list",
    "limits list",
    "schedules list",
    "workflows list",
    "cluster",
]


@pytest.mark.parametrize("command", LISTINGS)
def test_listings_can_be_watched(runner: CliRunner, command: str) -> None:
    assert "--watch" in runner.invoke(app, [*command.split(), "--help"]).stdout


def test_alone_it_prints_help(runner: CliRunner) -> None:
    result = runner.invoke(app, [])
    assert "Exit codes:" in result.output


def test_help_imports_nothing_heavy() -> None:
    """Each of these takes longer than all the rest."""
    help = [sys.executable, "-X", "importtime", "-m", "tenure.cli", "--help"]
    done = subprocess.run(help, capture_output=True, text=True, check=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint({"grpc", "psycopg", "sqlalchemy", "pydantic", "etcd3gw"})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit"], 2, "KIND"),
        (["nosuch"], 2, "nosuch"),
        (["submit", "noop", "{"], 2, "is not JSON"),
        (["submit", "noop", "--delay", "soon"], 2, "--delay"),
        (["submit", "noop", "--label", "x"], 2, "KEY=VALUE"),
        (["submit", "noop", "--timeout", "5s"], 2, "--wait"),
        (["submit", "noop", "--trigger", "odd"], 2, "'--trigger': 'odd' is not one of"),
        (
            ["submit", "--from", "-", "--pool", "p", "--wait"],
            2,
            "--pool: is for one job, not for --from\nerror: --wait: is",
        ),
        (["submit", "noop", "{}", "--from", "-"], 2, "JSON: is for one job"),
        (["schedules", "create", "s", "noop"], 2, "give either --cron or --every"),
        (["schedules", "create", "s", "noop", "--every", "5s", "--cron", "@daily"], 2, "give either --cron or --every"),
        (["schedules", "preview"], 2, "give either --cron or --every"),
        (["jobs", "list", "--state", "odd"], 2, "odd"),
        (["jobs", "retry"], 2, "ID: is missing"),
        (["jobs", "cancel"], 2, "ID: is missing"),
        (["jobs", "cancel", "x", "--all"], 2, "not both"),
        (["jobs", "retry", "x", "--kind", "k"], 2, "not both"),
        (["jobs", "retry", "x", "--preview"], 2, "--preview: is for options that select jobs"),
        (["jobs", "list", "-c", "nowhere"], 2, "HOST:PORT"),
        (["db", "migrate"], 78, "TENURE_POSTGRES_DSN"),
        (["db", "status", "--postgres", "postgresql://127.0.0.1:1/x"], 6, "Postgres"),
        (["db", "wait", "--postgres", "postgresql://127.0.0.1:1/x", "--timeout", "0"], 7, "not ready"),
        (["claims", "watch"], 78, "TENURE_ETCD_ENDPOINTS"),
        (["coordinator"], 78, "TENURE_POSTGRES_DSN is not set"),
        (["worker", "--pool", "BAD POOL"], 78, "BAD POOL"),
        (["worker", "--capacity", "0"], 78, "CAPACITY is refused: must be at least 1"),
        (["worker", "--import", "no.such.module"], 78, "no.such.module"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(runner: CliRunner, arguments: list[str], code: int, words: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "try" in result.stderr.lower(), "an error names the next step"
    assert "Traceback" not in result.output
    assert not result.stdout


@pytest.mark.timeout(60)
def test_nobody_there(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.cli.session.TIMEOUT_S", 1.0)
    result = runner.invoke(app, ["jobs", "list", "-c", NOBODY])
    assert result.exit_code == 6
    assert "no coordinator answers" in result.stderr
    assert "try:" in result.stderr
    result = runner.invoke(app, ["--debug", "jobs", "list", "-c", NOBODY])
    assert result.exception is not None, "--debug lets the error through"


def test_doctor_without_anything(runner: CliRunner) -> None:
    result = runner.invoke(app, ["doctor", "-c", NOBODY, "-o", "json"])
    assert result.exit_code == 1
    findings = json.loads(result.stdout)
    assert [finding["level"] for finding in findings] == ["fail", "skip", "skip", "skip"]
    assert all(finding["next_step"] for finding in findings)


def test_version(runner: CliRunner) -> None:
    found = json.loads(runner.invoke(app, ["version", "-o", "json"]).stdout)
    assert {"tenure", "grpcio", "python"} <= set(found)
    assert runner.invoke(app, ["--version"]).stdout.strip() == found["tenure"]
