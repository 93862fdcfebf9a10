"""A client and runners in other languages: with nothing but the .proto files, or the JSON of /openapi.json."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import Setting

from tenure.client import Retry

ROOT = Path(__file__).resolve().parents[2]


async def _run(*argv: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
async def test_a_node_client_submits_and_waits(stage: Setting, tmp_path: Path) -> None:
    """The example, installed from its lock file and run against a real deployment."""
    folder = tmp_path / "client_node"
    shutil.copytree(ROOT / "examples" / "client_node", folder, ignore=shutil.ignore_patterns("node_modules"))
    code, out, err = await _run("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    assert code == 0, out + err
    on = await stage()
    env = {"TENURE_COORDINATOR": on.deployment.coordinator_addresses[0], "TENURE_PROTO": str(ROOT / "proto")}
    code, out, err = await _run("node", "submit.js", "trace", '{"from": "node"}', cwd=folder, env=env)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["result"] == {"from": "node"}
    assert answer["state"] == "JOB_STATE_COMPLETED"
    assert (await on.client.get(answer["id"])).state == "completed"
    code, out, err = await _run("node", "submit.js", "no such kind", cwd=folder, env=env)
    assert code == 2
    assert err.startswith("INVALID_ARGUMENT: job.kind")


RUNNERS = ROOT / "examples"


@asynccontextmanager
async def _beside(*argv: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of a block."""
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_a_node_runner_executes_renews_stops_and_drains(stage: Setting) -> None:
    on = await stage(workers=0, coordinators=2)
    urls = ",".join(f"http://{address}" for address in on.deployment.http_addresses)
    async with _beside("node", str(RUNNERS / "runner_node" / "runner.js"), env={"TENURE_RUNNER_URL": urls}) as runner:
        jobs = [await on.client.submit("node-echo", {"n": n, "ü": [n]}) for n in range(20)]
        for n, job in enumerate(jobs):
            done = await on.client.wait(job.id, timeout_s=60)
            assert (done.state, done.result["echo"], done.attempt) == ("completed", {"n": n, "ü": [n]}, 1)
        long = await on.client.submit("node-echo", {"seconds": 5}, ttl_s=2)  # longer than its lease: it is renewed
        canceled = await on.client.submit("node-echo", {"seconds": 60})
        timed_out = await on.client.submit("node-echo", {"seconds": 60}, timeout_s=1, retry=Retry(max_attempts=1))
        await on.executing(canceled.id)
        await on.client.cancel(canceled.id)
        assert (await on.client.wait(canceled.id, timeout_s=60)).state == "canceled"
        assert (await on.client.wait(timed_out.id, timeout_s=60)).state == "failed"
        done = await on.client.wait(long.id, timeout_s=60)
        assert (done.state, done.attempt) == ("completed", 1)
        last = await on.client.submit("node-echo", {"seconds": 1})
        await on.executing(last.id)
        runner.terminate()
        assert await asyncio.wait_for(runner.wait(), 60) == 0
        assert (await on.client.get(last.id)).state == "completed"
        assert not [one for one in await on.client.workers() if one.mode == "remote"]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
async def test_a_runner_of_a_few_lines_of_shell(stage: Setting) -> None:
    on = await stage(workers=0)
    job = await on.client.submit("curl-upper", "shouted, please")
    env = {"TENURE_RUNNER_URL": f"http://{on.deployment.http_addresses[0]}"}
    async with _beside("sh", str(RUNNERS / "runner_curl.sh"), env=env) as runner:
        done = await on.client.wait(job.id, timeout_s=60)
        assert (done.state, done.result) == ("completed", "SHOUTED, PLEASE")
        assert await asyncio.wait_for(runner.wait(), 60) == 0
