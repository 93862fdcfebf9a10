"""The probes of a worker process: what a kubelet would see while a handler misbehaves, and while it drains."""

from __future__ import annotations

from pathlib import Path

import httpx
from tests.e2e.conftest import PATIENCE_S, Setting

from tenure.cli.embedded import ports


async def test_a_handler_that_blocks_its_loop_is_told_but_kills_no_worker(stage: Setting, tmp_path: Path) -> None:
    listen = f"127.0.0.1:{ports.choose()}"
    on = await stage(args=("--http-listen", listen), drain_s=PATIENCE_S)
    (worker,) = on.deployment.workers
    async with httpx.AsyncClient(base_url=f"http://{listen}", timeout=PATIENCE_S) as http:

        async def number(name: str) -> float:
            lines = (await http.get("/metrics")).text.splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(f"tenure_worker_{name} "))

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await on.until(ready)
        assert (await number("ready"), await number("executing"), await number("claims")) == (1.0, 0.0, 0.0)
        assert await number("trust_margin_seconds") > 0
        job = await on.client.submit("blocking", None)

        async def blocked() -> bool:
            return await number("loop_blocked_seconds") > 0

        await on.executing(job.id)
        await on.until(blocked)
        assert (await number("executing"), await number("claims")) == (1.0, 1.0)
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200

        worker.terminate()

        async def draining() -> bool:
            ready = await http.get("/readyz")
            return (ready.status_code, ready.json()["problems"]) == (503, {"worker": "draining"})

        await on.until(draining)
        assert (await http.get("/livez")).status_code == 200
    (tmp_path / "trace.over").touch()
    done = await on.client.wait(job.id, timeout_s=PATIENCE_S)
    assert (done.state, done.attempt) == ("completed", 1)
    assert worker.wait(PATIENCE_S)
