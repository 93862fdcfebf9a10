"""Login at an OIDC issuer as people do it, from the button to the logout: with a coordinator, an issuer, a Chromium."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

from playwright.async_api import expect
from tests.dashboard.conftest import PATIENCE_MS, Look, Start, needs_chromium, violations
from tests.fixtures.issuer import AUDIENCE
from tests.fixtures.provider import CLIENT_ID, CLIENT_SECRET, providing

from tenure.cli.embedded import ports

pytestmark = needs_chromium
expect.set_options(timeout=PATIENCE_MS)


async def test_people_log_in_at_the_issuer_and_out_again(start: Start, look: Look) -> None:
    http = f"127.0.0.1:{ports.choose()}"
    async with providing(f"http://{http}/ui/login/oidc/back") as provider:
        place = await asyncio.to_thread(
            start,
            asks=True,
            http=http,
            TENURE_HTTP_ADVERTISE=f"http://{http}",
            TENURE_OIDC_ISSUER=provider.url,
            TENURE_OIDC_AUDIENCE=AUDIENCE,
            TENURE_OIDC_CLIENT_ID=CLIENT_ID,
            TENURE_OIDC_CLIENT_SECRET=CLIENT_SECRET,
        )
        provider.told = {"sub": "alice", "tenure_role": "viewer", "tenure_namespaces": ["default"]}
        seen = await look(place)
        visited: list[str] = []
        seen.page.on("request", lambda request: visited.append(request.url))
        await seen.open("/ui/jobs?kind=noop")
        assert await violations(seen.page) == []
        await seen.page.click("#oidc")
        await seen.page.wait_for_url(f"{place.url}/ui/jobs?kind=noop")
        who = seen.page.locator("header .who")
        await expect(who).to_contain_text("oidc:alice")
        await expect(who).to_contain_text("viewer")
        assert any(url.startswith(f"{provider.url}/authorize?") for url in visited), "by way of the issuer"
        said = "".join(member.output() for member in place.deployment.coordinators)
        assert CLIENT_SECRET not in said + "".join(visited) and not re.search(r"eyJ[\w-]+\.", said + "".join(visited))
        await seen.page.click("#logout")
        await seen.page.wait_for_url("**/ui/login")
        await seen.open("/ui/jobs")
        assert urlsplit(seen.page.url).path == "/ui/login", "who is logged out sees no jobs"

        # Whoever the issuer knows, and gives no role, is nobody here; and is told so.
        provider.told = {"sub": "mallory", "tenure_role": None, "tenure_namespaces": None}
        await seen.page.click("#oidc")
        await expect(seen.page.locator("main")).to_contain_text("the issuer knows you")
        await expect(seen.page.locator("#logout")).to_have_count(0)
