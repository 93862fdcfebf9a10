"""A deployment with a dashboard, people with tokens, and a real Chromium that Debian packages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.postgres import PostgresServer
from typer.testing import CliRunner

from tenure.cli.embedded.deployment import Deployment
from tenure.cli.main import app
from tenure.client import AsyncClient

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 60_000
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium (it is never downloaded)"
)


@dataclass
class Place:
    """A running deployment, and who may do what there. Without ``secrets`` nobody is asked."""

    deployment: Deployment
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The root of the coordinator's HTTP."""
        return f"http://{self.deployment.http_addresses[0]}"

    def client(self, who: str = "admin") -> AsyncClient:
        """Return a client of the API."""
        return AsyncClient(self.deployment.coordinator_addresses, token=self.secrets.get(who, ""))

    @asynccontextmanager
    async def browser_without_script(self, who: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """Give an HTTP client that keeps cookies, logged in if that is asked for."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False) as http:
            if who is not None:
                page = await http.get("/ui/login")
                answer = await post(http, "/ui/login", page.text, token=self.secrets[who])
                assert answer.status_code == 303, answer.text
            yield http


async def post(http: httpx.AsyncClient, path: str, page: str, **form: str) -> httpx.Response:
    """Send a form as a browser does that shows this page."""
    return await http.post(path, data={"csrf": csrf_of(page), **form}, headers={"Sec-Fetch-Site": "same-origin"})


def csrf_of(page: str) -> str:
    """Return the text that a page's forms are sent with."""
    return page.partition('name="csrf" value="')[2].partition('"')[0]


def _tenure(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


Start = Callable[..., Place]


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    postgres_template: str,
    etcd_server: EtcdServer,
) -> Iterator[Start]:
    """Start deployments for the tests of a module."""
    made: list[tuple[Deployment, str]] = []
    before = dict(os.environ)

    def begin(*, asks: bool, coordinators: int = 1, http: str = "127.0.0.1:0", **env: str) -> Place:
        folder = tmp_path_factory.mktemp("dashboard")
        dsn = postgres_server.create_database(postgres_template)
        secrets: dict[str, str] = {}
        if asks:
            secrets["admin"] = _tenure("db", "admin-token", "--postgres", dsn)
            env |= {"TENURE_AUTH": "required", "TENURE_TOKEN": secrets["admin"]}
            os.environ["TENURE_TOKEN"] = secrets["admin"]  # with which the deployment sees that workers are there
        deployment = Deployment(
            folder / "data",
            coordinators=coordinators,
            workers=1,
            worker_args=("--import", "tests.dashboard.handlers", "--allow-command"),
            http=http,
            fsync=False,
            drain_s=5.0,
            postgres_dsn=dsn,
            etcd_endpoints=etcd_server.endpoints,
            etcd_prefix=f"/{folder.name}/",
            env=env,
        )
        made.append((deployment, dsn))
        deployment.start()
        place = Place(deployment, secrets)
        for role in ("viewer", "operator") if asks else ():
            address = ",".join(deployment.coordinator_addresses)
            told = _tenure(
                "tokens",
                "create",
                f"a {role}",
                "--role",
                role,
                "--namespace",
                "*",
                "-o",
                "json",
                "--coordinator",
                address,
            )
            secrets[role] = json.loads(told)["secret"]
        return place

    yield begin
    os.environ.clear()
    os.environ.update(before)
    for deployment, dsn in made:
        try:
            deployment.stop()
        finally:
            deployment.abort()
            postgres_server.drop_database(dsn)


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Seen:
    """A page of a browser, and what went wrong there: errors of scripts, and what the policy of contents forbade."""

    def __init__(self, page: Page, place: Place) -> None:
        self.page = page
        self.place = place
        self.wrong: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", self._note)
        page.on("dialog", self._dismiss)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    async def _dismiss(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    async def open(self, path: str) -> None:
        """Go to a page."""
        await self.page.goto(self.place.url + path)

    async def log_in(self, who: str) -> None:
        """Log in as a person does."""
        await self.open("/ui/login")
        await self.page.fill("#token", self.place.secrets[who])
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_selector("#logout")

    async def text(self, selector: str = "main") -> str:
        """Return what is read there."""
        return await self.page.inner_text(selector)


Look = Callable[[Place], Awaitable[Seen]]


@pytest_asyncio.fixture
async def look(browser: Browser) -> AsyncIterator[Look]:
    """Open pages; nothing may have gone wrong there in the end."""
    opened: list[Seen] = []

    async def open_page(place: Place) -> Seen:
        context = await browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        seen = Seen(await context.new_page(), place)
        opened.append(seen)
        return seen

    yield open_page
    assert [one.wrong for one in opened if one.wrong] == []


AXE = Path(__file__).parent / "vendor" / "axe.min.js"


async def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page, by the rules of WCAG 2.1 AA."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
    )
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
