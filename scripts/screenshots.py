"""Make the pictures of docs/DASHBOARD.md: a deployment with something to see, looked at in a headless Chromium.

``.venv/bin/python scripts/screenshots.py`` needs the chromium that Debian packages, and about a minute. Where nobody is
asked for credentials there is no login; so that one page is of a second deployment.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import sys
import tempfile
import time

from playwright.async_api import Page, ViewportSize, async_playwright

from tenure.cli.embedded.deployment import Deployment
from tenure.client import AsyncClient, NewJob, NewSchedule, Retry

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "dashboard"
MAX_BYTES = 150_000
"""Of a picture: they are in every clone."""
VIEWPORT: ViewportSize = {"width": 1280, "height": 760}
LOGIN_ENV = {
    "TENURE_AUTH": "required",
    "TENURE_HTTP_ADVERTISE": "https://tenure.example.com",
    "TENURE_OIDC_ISSUER": "https://login.example.com",
    "TENURE_OIDC_AUDIENCE": "tenure",
    "TENURE_OIDC_CLIENT_ID": "tenure",
}
HANDLERS = """
import asyncio

from tenure.worker.handler import handler


@handler("import")
async def load(payload, ctx):
    for number in range(400):
        ctx.log.info(f"read part {number} of 400", rows=1000 * number)
        await ctx.progress(number / 400, f"part {number} of 400")
        await asyncio.sleep(0.25)


@handler("resize")
async def resize(payload, ctx):
    raise OSError(f"no space left for {payload['file']}")
"""


async def fill(client: AsyncClient) -> dict[str, str]:
    """Submit something to see; return the paths of the pages to look at."""
    await client.put_limit("database", concurrent=4)
    await client.put_limit("mail", rate=100, interval_s=60, burst=20)
    await client.put_limit("tenant-*", concurrent=2)
    await client.pause(pool="video", reason="the codec is exchanged")
    job = NewJob(kind="noop", route="reports", payload={"report": "turnover", "of": "yesterday"})
    await client.create_schedule(
        NewSchedule(name="nightly-report", cron="0 3 * * *", time_zone="Europe/Berlin", job=job)
    )
    for _ in range(3):
        await client.submit_many([NewJob(kind="noop", route="reports/daily") for _ in range(400)])
        await asyncio.sleep(0.5)
    await client.submit_many(
        [
            NewJob(kind="resize", route="images", payload={"file": f"{n}.png"}, retry=Retry(max_attempts=1))
            for n in range(7)
        ]
    )
    await client.submit_many([NewJob(kind="sleep", payload={"seconds": 300}, limits=["database"]) for _ in range(9)])
    for tenant, jobs in (("tenant-north", 3), ("tenant-south", 1)):
        await client.submit_many([NewJob(kind="sleep", payload={"seconds": 300}, limits=[tenant]) for _ in range(jobs)])
    parts = [f"part-{n}" for n in range(5)]
    made = await client.submit_many(
        [
            NewJob(kind="noop", ref="fetch"),
            *(NewJob(kind="sleep", payload={"seconds": 4 + 60 * (n > 2)}, ref=part, depends_on=["fetch"])
              for n, part in enumerate(parts)),
            NewJob(kind="noop", ref="merge", depends_on=parts),
            NewJob(kind="noop", ref="publish", depends_on=["merge"]),
        ],
        workflow="nightly import",
    )  # fmt: skip
    loading = await client.submit("import", {"source": "https://data.example.com/2026-11", "parts": 400})
    await asyncio.sleep(4)
    await client.revoke_claim(loading.id)  # so that it has two attempts
    await asyncio.sleep(4)
    return {
        "overview": "/ui/",
        "jobs": "/ui/jobs?state=executing",
        "job": f"/ui/jobs/{loading.id}",
        "workflow": f"/ui/workflows/{made.workflow_id}",
        "workers": "/ui/workers",
        "letters": "/ui/letters",
        "limits": "/ui/limits",
        "schedule": "/ui/schedules/default/nightly-report",
        "preview": "/ui/jobs/all/retry?kind=resize&state=failed",
    }


async def shoot(page: Page, url: str, name: str) -> None:
    """Save what a page shows, without what is empty below it, and no more than fits a small file."""
    await page.goto(url)
    await page.wait_for_timeout(2_000)
    await page.set_viewport_size({**VIEWPORT, "height": 200})
    height = min(VIEWPORT["height"], await page.evaluate("document.documentElement.scrollHeight"))
    while len(saved := await _saved(page, height)) > MAX_BYTES:
        height -= 40
    (TARGET / f"{name}.png").write_bytes(saved)
    await page.set_viewport_size(VIEWPORT)


async def _saved(page: Page, height: int) -> bytes:
    await page.set_viewport_size({**VIEWPORT, "height": height})
    return await page.screenshot()


async def main() -> None:
    """Make them all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("needs chromium: apt-get install chromium")
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "pictured.py").write_text(HANDLERS)
        deployment = Deployment(
            pathlib.Path(folder) / "data",
            coordinators=2,
            workers=2,
            worker_args=("--import", "pictured", "--pool", "default", "--pool", "reports", "--pool", "images"),
            env={"PYTHONPATH": folder},
            fsync=False,
            drain_s=2.0,
        )
        asking = Deployment(pathlib.Path(folder) / "asks", coordinators=1, workers=0, env=LOGIN_ENV, fsync=False)
        began = time.monotonic()
        try:
            await asyncio.to_thread(deployment.start)
            await asyncio.to_thread(asking.start)
            async with AsyncClient(deployment.coordinator_addresses) as client:
                pages = await fill(client)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = await browser.new_page(viewport=VIEWPORT, color_scheme="light")
                url = f"http://{deployment.http_addresses[0]}"
                for name, path in pages.items():
                    await shoot(page, url + path, name)
                await shoot(page, f"http://{asking.http_addresses[0]}/ui/login", "login")
                await page.emulate_media(color_scheme="dark")
                await shoot(page, f"{url}/ui/", "overview-dark")
                await shoot(page, url + pages["job"], "job-dark")
                await browser.close()
        finally:
            await asyncio.to_thread(deployment.abort)
            await asyncio.to_thread(asking.abort)
        print(f"made in {time.monotonic() - began:.0f} s: {', '.join(sorted(file.name for file in TARGET.iterdir()))}")


if __name__ == "__main__":
    asyncio.run(main())
