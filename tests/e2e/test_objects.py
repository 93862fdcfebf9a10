"""Large results and artifacts from a handler to whoever reads them: through a folder and a real S3 server, by workers
beside etcd and by runners, and what becomes of them when the store is away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Setting, Stage, either_link
from tests.fixtures.s3 import S3Server

from tenure.client import NotFound, Retry, WrongState
from tenure.client.records import Job
from tenure.model.objects import job_prefix

LARGE = 300_000


async def staged(stage: Setting, server: S3Server | None, **arguments: Any) -> Stage:
    env = dict(arguments.pop("env", {}))
    if server is not None:
        env |= {**server.env, "TENURE_OBJECT_STORE": server.store_url("some/prefix")}
    return await stage(env=env, **arguments)


async def ended(on: Stage, kind: str, payload: Any = None, **spec: Any) -> Job:
    job = await on.client.submit(kind, payload, **spec)
    return await on.client.wait(job.id, timeout_s=60)


@either_link
@pytest.mark.parametrize("kind_of_store", ["folder", "s3"])
async def test_a_large_result_and_artifacts_of_every_mode(
    stage: Setting, kind_of_store: str, request: pytest.FixtureRequest, tmp_path: Path, remote: bool
) -> None:
    server = request.getfixturevalue("s3") if kind_of_store == "s3" else None
    on = await staged(stage, server, coordinators=2)
    for kind in ("saves", "saves-in-thread", "saves-in-process"):
        job = await ended(on, kind, {"result": LARGE})
        assert job.state == "completed", job.error
        assert job.result is None
        assert job.result_object is not None
        assert job.result_object.size_bytes == LARGE + 2
        assert await on.client.result(job) == "x" * LARGE
        assert await on.client.result(job.id) == "x" * LARGE
        found = {one.name: one for one in await on.client.artifacts(job.id)}
        assert found.keys() == {"_result.json", "bytes.bin", "file.txt"}
        assert found["file.txt"].content_type == "text/plain"
        assert found["file.txt"].sha256 == hashlib.sha256(b"from a file").hexdigest()
        saved = await on.client.download(job.id, "file.txt", tmp_path)
        assert (saved, saved.read_bytes()) == (tmp_path / "file.txt", b"from a file")
        saved = await on.client.download(job.id, "bytes.bin", tmp_path / "other")
        assert saved.read_bytes() == bytes(range(256)) * 1_000
        result = await on.client.download(job.id, path=tmp_path)
        assert json.loads(result.read_bytes()) == "x" * LARGE
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    small = await ended(on, "trace", {"n": 1})
    assert (small.result, small.result_object, await on.client.result(small)) == ({"n": 1}, None, {"n": 1})
    with pytest.raises(NotFound, match="kept with the job"):
        await on.client.download(small.id, path=tmp_path)
    with pytest.raises(NotFound, match="saved no nothing"):
        await on.client.download(small.id, "nothing.txt", tmp_path)
    failed = await ended(on, "by-plan", {"fails": True}, retry=Retry(max_attempts=1))
    with pytest.raises(WrongState, match="failed"):
        await on.client.result(failed)


async def test_the_command_line_shows_and_fetches(stage: Setting, tmp_path: Path) -> None:
    on = await stage()
    job = await ended(on, "saves", {"result": LARGE})

    def tenure(*arguments: str) -> str:
        address = on.deployment.coordinator_addresses[0]
        command = [sys.executable, "-m", "tenure.cli", *arguments, "--coordinator", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = await asyncio.to_thread(tenure, "jobs", "get", job.id)
    assert f"293.0 KiB, in the object store: tenure jobs download {job.id}" in told
    told = await asyncio.to_thread(tenure, "jobs", "artifacts", job.id)
    assert "(result)" in told
    assert "file.txt" in told
    listed = json.loads(await asyncio.to_thread(tenure, "jobs", "artifacts", job.id, "-o", "json"))
    assert {one["name"] for one in listed} == {"_result.json", "bytes.bin", "file.txt"}
    await asyncio.to_thread(tenure, "jobs", "download", job.id)
    assert json.loads((tmp_path / f"{job.id}.json").read_text()) == "x" * LARGE
    told = await asyncio.to_thread(tenure, "jobs", "download", job.id, "file.txt", "--to", "there", "-o", "json")
    assert json.loads(told) == {"path": "there", "size_bytes": 11}
    assert (tmp_path / "there").read_bytes() == b"from a file"


@either_link
async def test_a_store_that_is_away_costs_the_result_and_not_the_completion(
    stage: Setting, own_s3: Callable[[], S3Server], remote: bool
) -> None:
    server = await asyncio.to_thread(own_s3)
    on = await staged(stage, server)
    before = await ended(on, "saves", {"result": LARGE})
    assert await on.client.result(before) == "x" * LARGE
    await asyncio.to_thread(server.kill)
    job = await ended(on, "large", {"result": LARGE})
    assert job.state == "completed", job.error
    assert (job.result, job.result_object, job.attempt) == (None, None, 1)
    assert job.result_lost is not None
    assert job.result_lost.size_bytes == LARGE + 2
    assert job.result_lost.reason
    with pytest.raises(NotFound, match="could not be kept"):
        await on.client.result(job)
    # What a handler itself cannot save is for the handler to judge.
    failed = await ended(on, "saves", {"result": 1}, retry=Retry(max_attempts=1))
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.type == "Unavailable"
    await asyncio.to_thread(server.start)
    after = await ended(on, "large", {"result": LARGE})
    assert await on.client.result(after) == "x" * LARGE
    assert await on.client.result(before) == "x" * LARGE


async def test_without_a_store_a_large_result_fails_its_job(stage: Setting) -> None:
    on = await stage(env={"TENURE_OBJECT_STORE": ""})
    job = await ended(on, "large", {"result": LARGE})
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.type == "ResultTooLarge"
    assert job.attempt == 1


@either_link
async def test_a_worker_that_dies_while_it_saves_is_followed_by_another(stage: Setting, remote: bool) -> None:
    """What the first attempt saved stays under its number; the result is the second one's."""
    on = await stage(workers=2)
    job = await on.client.submit("saves-then-holds-first", {"result": LARGE}, ttl_s=2)
    executing = await on.executing(job.id)

    async def saved() -> bool:
        return any(one.name == "first" for one in await on.client.artifacts(job.id))

    await on.until(saved)
    assert executing.claim is not None
    on.member(executing.claim.worker).kill(tree=True)
    done = await on.client.wait(job.id, timeout_s=60)
    assert (done.state, done.attempt) == ("completed", 2)
    assert await on.client.result(done) == "x" * LARGE
    found = [(one.attempt, one.name) for one in await on.client.artifacts(job.id)]
    assert found == [(1, "first"), (2, "_result.json"), (2, "first")]
    folder = on.deployment.folder.path / "objects" / job_prefix("default", uuid.UUID(job.id))
    there = {(one.parent.name, one.name.partition("-")[2]) for one in folder.rglob("*") if one.is_file()}
    assert there == {("1", "first"), ("2", "_result.json"), ("2", "first")}
