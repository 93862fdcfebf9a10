"""A deployment in which everybody shows who they are: client, worker, coordinators, and a worker that may no more."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.e2e.conftest import PATIENCE_S, Setting, either_link
from typer.testing import CliRunner

from tenure.cli.main import app
from tenure.client import AsyncClient, PermissionDenied, Unauthenticated
from tenure.model.clock import SystemClock
from tenure.v1 import worker_service_pb2 as pb
from tenure.v1.bearer import Bearer
from tenure.worker.coordinators import Coordinators


async def test_jobs_run_where_everybody_shows_who_they_are(
    stage: Setting, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    root = (await asyncio.to_thread(command, "db", "admin-token", "--postgres", database)).strip()
    assert root.startswith("tnr_") and "\n" not in root
    file = tmp_path / "worker.token"
    file.write_text(root)  # until there is one for workers; the file is read again
    monkeypatch.setenv("TENURE_TOKEN", root)
    env = {"TENURE_AUTH": "required", "TENURE_TOKEN_FILE": str(file)}
    on = await stage(coordinators=2, workers=1, env=env)
    address = ",".join(on.deployment.coordinator_addresses)
    monkeypatch.setenv("TENURE_COORDINATOR", address)

    made = await asyncio.to_thread(
        command, "tokens", "create", "the workers", "--role", "worker", "--pool", "default", "-o", "json"
    )
    worker = json.loads(made)
    file.write_text(worker["secret"] + "\n")
    team = (
        await asyncio.to_thread(command, "tokens", "create", "team", "--role", "submitter", "--namespace", "team")
    ).strip()
    async with AsyncClient(address, token=team) as client:
        for coordinator in on.deployment.coordinator_addresses:
            async with AsyncClient(coordinator, token=team) as one:
                job = await one.submit("noop", {"n": 1}, namespace="team")
                assert (await one.wait(job.id, timeout_s=60)).state == "completed"
        with pytest.raises(PermissionDenied, match="team \\(submitter\\) may not submit in namespace default"):
            await client.submit("noop")
        with pytest.raises(PermissionDenied):
            await client.cancel(job.id)
    async with AsyncClient(address, token="") as client:
        with pytest.raises(Unauthenticated, match="no credentials"):
            await client.submit("noop", namespace="team")

    listed = json.loads(await asyncio.to_thread(command, "tokens", "list", "-o", "json"))
    assert {one["name"] for one in listed} == {"admin", "the workers", "team"}
    assert root.rpartition("_")[2] not in str(listed)
    addresses = list(on.deployment.coordinator_addresses)
    calls = Coordinators(lambda: addresses, SystemClock(), bearer=Bearer(worker["secret"]))
    await calls.call("ReportProgress", pb.ReportProgressRequest())
    await asyncio.to_thread(command, "tokens", "revoke", worker["id"])
    with pytest.raises(Unauthenticated):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await calls.call("ReportProgress", pb.ReportProgressRequest())
                await asyncio.sleep(0.1)
    await calls.close()
    said = "".join(member.output() for member in (*on.deployment.coordinators, *on.deployment.workers))
    assert root not in said and team not in said and worker["secret"] not in said


@either_link
async def test_attempts_go_on_while_the_signing_key_is_replaced(
    stage: Setting, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    """Coordinators notice by themselves, and so do runners; once the old key is gone nobody has lost anything."""

    def tenure(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--postgres", database])
        assert done.exit_code == 0, done.output
        return done.stdout

    root = (await asyncio.to_thread(tenure, "db", "admin-token")).strip()
    monkeypatch.setenv("TENURE_TOKEN", root)
    on = await stage(coordinators=2, workers=1, env={"TENURE_AUTH": "required", "TENURE_TOKEN": root})

    async def all_read(keys: int) -> bool:
        entries = [json.loads(_last(member.output(), "signing_keys_read")) for member in on.deployment.coordinators]
        return all((entry["keys"], entry["signs"]) == (keys, "newest") for entry in entries)

    async def has_renewed() -> bool:
        return not remote or "session_token_renewed" in on.deployment.workers[0].output()

    held = await on.client.submit("deaf", None)
    await on.executing(held.id)
    told = json.loads(await asyncio.to_thread(tenure, "db", "signing-key", "--replace", "--keep", "1h", "-o", "json"))
    assert told["previous_until"] > told["signs_at"] and told["attempts_before"] == 1
    await on.postgres("UPDATE tenure.signing_key SET signs_at = now() RETURNING 1")  # instead of half a minute
    await on.until(lambda: all_read(2))
    await on.until(has_renewed)
    meanwhile = await on.client.submit("trace", 1)
    assert (await on.client.wait(meanwhile.id, timeout_s=PATIENCE_S)).state == "completed"
    (tmp_path / "trace.over").touch()
    done = await on.client.wait(held.id, timeout_s=PATIENCE_S)
    assert (done.state, done.attempt) == ("completed", 1)

    await on.postgres("UPDATE tenure.signing_key SET previous_until = now() RETURNING 1")
    await on.until(lambda: all_read(1))
    after = await on.client.submit("trace", 2)
    assert (await on.client.wait(after.id, timeout_s=PATIENCE_S)).state == "completed"
    assert on.runs() == {meanwhile.id: 1, after.id: 1}


def _last(said: str, word: str) -> str:
    return [line for line in said.splitlines() if word in line][-1]


async def test_a_hint_reaches_the_leader_by_the_token_of_coordinators(
    stage: Setting, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader polls once a minute: what starts sooner was hinted at by the coordinator that took it."""
    made = await asyncio.to_thread(CliRunner().invoke, app, ["db", "admin-token", "--postgres", database])
    root = made.stdout.strip()
    monkeypatch.setenv("TENURE_TOKEN", root)
    env = {"TENURE_AUTH": "required", "TENURE_TOKEN": root, "TENURE_POLL_S": "60"}
    on = await stage(coordinators=2, workers=1, env=env)
    for address in on.deployment.coordinator_addresses:
        async with AsyncClient(address) as client:
            job = await client.submit("noop")
            assert (await client.wait(job.id, timeout_s=40)).state == "completed"
