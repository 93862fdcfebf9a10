"""A schema that a later release has migrated: this one runs on it where it was said to, and is refused elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from typer.testing import CliRunner

from tenure.cli.main import app
from tenure.coordinator.coordinator import main
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.errors import ConfigurationError
from tenure.store.postgres import migrate as migrating
from tenure.store.postgres.migrate import SCRIPTS, migrate, status

OWN = max(path.name[:4] for path in (SCRIPTS / "versions").glob("[0-9]*.py"))
NEXT = f"{int(OWN) + 1:04}"
LATER = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "{next}", "{own}", None, None
oldest = "{oldest}"


def upgrade():
    op.execute("CREATE TABLE tenure.later ()")
"""
CONFIGURATION_ERROR = 78


async def _migrated_by_a_later_release(dsn: str, oldest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{NEXT}_later.py").write_text(LATER.format(next=NEXT, own=OWN, oldest=oldest))
    with monkeypatch.context() as later:
        later.setattr(migrating, "SCRIPTS", scripts)
        assert (await migrate(dsn)).applied[-1:] == (NEXT,)
        assert (await status(dsn)).is_current


@pytest.fixture
async def compatible(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that a later release expanded: code of this schema still runs on it."""
    await _migrated_by_a_later_release(database, OWN, tmp_path, monkeypatch)
    return database


@pytest.fixture
async def contracted(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database on which code of this schema does not run any more."""
    await _migrated_by_a_later_release(database, NEXT, tmp_path, monkeypatch)
    return database


async def test_a_schema_that_was_only_expanded_is_usable_and_left_alone(compatible: str) -> None:
    found = await migrate(compatible)
    assert (found.current, found.wanted, found.oldest, found.applied) == (NEXT, OWN, OWN, ())
    assert (found.is_current, found.is_usable, found.is_newer) == (False, True, True)
    assert (await status(compatible)) == found


async def test_a_contracted_schema_is_refused_with_what_it_takes(contracted: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{NEXT}, which runs with releases of schema {NEXT} or later.* schema {OWN}"
    ):
        await migrate(contracted)
    found = await status(contracted)
    assert (found.is_usable, found.oldest) == (False, NEXT)


async def test_what_nobody_wrote_down_is_refused(compatible: str) -> None:
    """Releases before this one did not say what runs on their schemas."""
    with psycopg.connect(compatible, autocommit=True) as connection:
        connection.execute("DROP TABLE tenure.schema_oldest")
    with pytest.raises(ConfigurationError, match=f"{NEXT}, which this release does not know"):
        await migrate(compatible)


@pytest.mark.parametrize("migrates", [True, False])
def test_a_coordinator_does_not_start_on_a_contracted_schema(contracted: str, migrates: bool) -> None:
    settings: dict[str, Any] = {
        "postgres_dsn": contracted,
        "http_listen": "127.0.0.1:0",
        "grpc_listen": "127.0.0.1:0",
        "migrate": migrates,
    }
    with structlog.testing.capture_logs(), pytest.raises(ConfigurationError, match=f"schema {NEXT}"):
        main(CoordinatorSettings(**settings))


def test_the_commands_say_that_this_release_runs_on_it(compatible: str) -> None:
    told = CliRunner().invoke(app, ["db", "migrate", "--postgres", compatible])
    assert (told.exit_code, told.stdout) == (
        0, f"schema {NEXT} is newer than this release's {OWN}, which runs on it: nothing to do\n",
    )  # fmt: skip
    for command in ("status", "wait"):
        assert CliRunner().invoke(app, ["db", command, "--postgres", compatible]).exit_code == 0


@pytest.mark.parametrize(
    ("command", "code"), [("migrate", CONFIGURATION_ERROR), ("wait", CONFIGURATION_ERROR), ("status", 4)]
)
def test_the_commands_say_that_it_does_not(contracted: str, command: str, code: int) -> None:
    told = CliRunner().invoke(app, ["db", command, "--postgres", contracted])
    assert told.exit_code == code
    assert f"releases of schema {NEXT} or later" in told.stderr
