"""A client in another language: Node.js with nothing but the .proto files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from tests.e2e.conftest import Setting

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
