"""``tenure tokens`` and ``tenure db admin-token``: what people and scripts read from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from tests.cli.test_end_to_end import Tenure
from tests.fixtures.deployment import DeploymentFactory

ABSENT = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def tenure(deployment: DeploymentFactory) -> Iterator[Tenure]:
    made = deployment(workers=0, env={"TENURE_AUTH": "required"})
    yield Tenure(made.env)


def test_tokens_from_the_first_to_the_last(tenure: Tenure) -> None:
    refused = tenure("tokens", "list")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert "no credentials" in refused.stderr and "try: " in refused.stderr

    first = tenure("db", "admin-token", "--expires-in", "1h")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("tnr_") and first.stdout.count("\n") == 1
    assert first.stdout.strip() not in first.stderr
    tenure.env["TENURE_TOKEN"] = first.stdout.strip()

    made = tenure("tokens", "create", "ci", "--role", "submitter", "--namespace", "a", "-n", "b")
    assert made.stdout.startswith("tnr_") and made.stdout.count("\n") == 1
    assert "ci may act as submitter of a, b" in made.stderr
    worker = tenure.json("tokens", "create", "w", "--role", "worker", "--pool", "scan", "--expires-in", "30d")
    assert worker["pools"] == ["scan"] and worker["namespaces"] == ["*"] and worker["secret"].startswith("tnr_")
    until = datetime.fromisoformat(worker["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < until <= timedelta(days=30)
    bound = tenure.json("tokens", "create", "c", "--role", "viewer", "-n", "*", "--certificate-subject", "c.example")
    assert (bound["secret"], bound["certificate_subject"]) == (None, "c.example")
    again = tenure.json("tokens", "create", "c", "--role", "viewer", "-n", "*", "--certificate-subject", "c.example")
    assert again["id"] == bound["id"]
    taken = tenure("tokens", "create", "d", "--role", "viewer", "-n", "*", "--certificate-subject", "c.example")
    assert taken.returncode == 4, "it stands for somebody else"

    listed = tenure.json("tokens", "list")
    assert [one["name"] for one in listed] == ["c", "w", "ci", "admin"]
    assert {one["name"]: one["created_by"] for one in listed} == {
        "c": "admin", "w": "admin", "ci": "admin", "admin": "tenure db"
    }  # fmt: skip
    text = json.dumps(listed) + tenure("tokens", "list", "--all").stdout
    assert "hash" not in text and worker["secret"].rpartition("_")[2] not in text
    with psycopg.connect(tenure.env["TENURE_POSTGRES_DSN"]) as connection:
        kept = str(connection.execute("SELECT t::text FROM tenure.token t").fetchall())
    assert worker["secret"].rpartition("_")[2] not in kept

    revoked = tenure("tokens", "revoke", worker["id"])
    assert "is revoked" in revoked.stdout
    assert tenure.json("tokens", "revoke", worker["id"])["revoked_at"]
    assert tenure("tokens", "revoke", ABSENT).returncode == 3
    assert [one["name"] for one in tenure.json("tokens", "list")] == ["c", "ci", "admin"]
    assert len(tenure.json("tokens", "list", "--all")) == 4

    narrow = tenure("tokens", "create", "n", "--role", "worker", "--pool", "scan", "--namespace", "a")
    assert "n may act as worker of scan (children in a)" in narrow.stderr

    tenure.env["TENURE_TOKEN"] = made.stdout.strip()
    denied = tenure("tokens", "list")
    assert denied.returncode == 8 and "ci (submitter) may not administer" in denied.stderr
    assert tenure("submit", "noop", "--namespace", "a").returncode == 0
    assert tenure("submit", "noop", "--namespace", "c").returncode == 8


def test_the_signing_key_is_shown_and_replaced(tenure: Tenure) -> None:
    shown = tenure("db", "signing-key")
    assert shown.returncode == 0 and "gone" in shown.stdout
    before = tenure.json("db", "signing-key")
    assert (before["previous_until"], before["attempts_before"]) == (None, 0)
    after = tenure.json("db", "signing-key", "--replace", "--keep", "2h")
    assert after["signs_at"] > before["signs_at"] and after["previous_until"] > after["signs_at"]
    again = tenure("db", "signing-key", "--replace")
    assert (again.returncode, again.stdout) == (4, "") and "--keep 0s" in again.stderr
    assert tenure("db", "signing-key", "--replace", "--keep", "5s").returncode == 2
    dropped = tenure.json("db", "signing-key", "--replace", "--keep", "0s")
    assert dropped["previous_until"] is None


def test_what_is_wrong_with_a_token_is_said_field_by_field(tenure: Tenure) -> None:
    tenure.env["TENURE_TOKEN"] = tenure("db", "admin-token").stdout.strip()
    for arguments, fields in (
        (("x", "--role", "king"), ["role"]),
        (("x", "--role", "coordinator"), ["role"]),
        (("x", "--role", "viewer"), ["namespaces"]),
        (("x", "--role", "worker"), ["pools"]),
        (("x", "--role", "runner", "--pool", "/a"), ["pools[0]"]),
        (("x", "--role", "viewer", "-n", "A B", "--pool", "p"), ["pools", "namespaces[0]"]),
        (("x", "--role", "admin", "-n", "a"), ["namespaces"]),
        (("", "--role", "admin"), ["name"]),
        (("x", "--role", "admin", "--expires-in", "3651d"), ["expires_in"]),
        (("x", "--role", "admin", "--expires-in", "0"), ["expires_in"]),
        (("x", "--role", "admin", "--expires-at", "2020-01-01T00:00:00Z"), ["expires_at"]),
        (("x", "--role", "admin", "--expires-in", "1h", "--expires-at", "2030-01-01T00:00:00Z"), ["expires_at"]),
    ):
        done = tenure("tokens", "create", *arguments)
        assert done.returncode == 2 and done.stdout == "", arguments
        told = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert told == fields, done.stderr


def test_the_epoch_is_raised_and_never_lowered(tenure: Tenure) -> None:
    epoch = tenure.json("db", "raise-epoch")["epoch"]
    raised = tenure("db", "raise-epoch")
    assert (raised.returncode, raised.stdout.split(":")[0]) == (0, f"epoch {epoch + 1}")
    assert tenure.json("db", "raise-epoch", "--to", str(epoch + 5)) == {"epoch": epoch + 5}
    refused = tenure("db", "raise-epoch", "--to", str(epoch + 5))
    assert refused.returncode == 2 and f"more than {epoch + 5}" in refused.stderr
    assert tenure.json("db", "raise-epoch", "--to", str(epoch + 6)) == {"epoch": epoch + 6}
