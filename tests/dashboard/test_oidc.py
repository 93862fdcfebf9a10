"""Login at an issuer: code with PKCE, and what comes of answers that are not for this browser."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from tests.fixtures.issuer import AUDIENCE
from tests.fixtures.provider import CLIENT_ID, CLIENT_SECRET, Provider, providing

from tenure.client import Caller
from tenure.dashboard import app as dashboard_app
from tenure.dashboard import guard
from tenure.dashboard.app import Dashboard
from tenure.dashboard.oidc import OidcLogin
from tenure.dashboard.pages import login
from tenure.dashboard.sessions import SessionKeys
from tenure.model.clock import SystemClock
from tenure.model.errors import Unauthenticated

BASE = "http://dashboard.test"
BACK = f"{BASE}/ui/login/oidc/back"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that were tried at an API that takes all of them; ``coordinator.oidc`` has its own tests."""
    tried: list[str] = []

    class Client:
        def __init__(self, token: str) -> None:
            self.token = token

        async def caller(self) -> Caller:
            if not self.token:
                raise Unauthenticated("no credentials")
            tried.append(self.token)
            return Caller(name="oidc:alice", role="operator", namespaces=("ns-a",), pools=())

    for module in (login, dashboard_app):
        monkeypatch.setattr(module, "client_of", lambda base, token: Client(token))
    return tried


def _browser(provider: Provider) -> httpx.AsyncClient:
    clock, keys = SystemClock(), SessionKeys()
    keys.use([secrets.token_bytes(32)])
    oidc = OidcLogin(
        provider.url,
        CLIENT_ID,
        CLIENT_SECRET,
        clock,
        redirect_url=BACK,
        audience=AUDIENCE,
    )
    dashboard = Dashboard(clock, keys, asks=True, base_url=BASE, oidc=oidc)
    dashboard.open("unix:/nowhere")
    app = Starlette(routes=dashboard.routes())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)


async def _sent_back(http: httpx.AsyncClient, then: str = "/ui/jobs") -> str:
    """Begin a login, be at the issuer, and return where that sends the browser."""
    begun = await http.get("/ui/login/oidc", params={"then": then})
    assert begun.status_code == 303
    async with httpx.AsyncClient(trust_env=False) as outside:
        answer = await outside.get(begun.headers["location"])
    return str(answer.headers["location"])


async def test_a_login_at_the_issuer_opens_a_session(taken: list[str]) -> None:
    async with providing(BACK) as provider, _browser(provider) as http:
        assert "Log in at 127.0.0.1" in (await http.get("/ui/login")).text
        answer = await http.get(await _sent_back(http))
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/jobs")
        assert len(taken) == 1 and taken[0].count(".") == 2, "an opaque access token is no bearer token here"
        assert taken[0] not in str(answer.headers) and CLIENT_SECRET not in str(answer.headers)
        assert http.cookies.get("tenure_session") and not http.cookies.get("tenure_sign_in")


async def test_an_answer_for_another_browser_opens_nothing(taken: list[str]) -> None:
    async with (
        providing(BACK) as provider,
        _browser(provider) as mine,
        _browser(provider) as other,
    ):
        stolen = await _sent_back(other)
        await _sent_back(mine)
        for path in (stolen, stolen.replace("state=", "state=x"), f"{BASE}/ui/login/oidc/back"):
            answer = await mine.get(path)
            assert answer.status_code == 403 and "not the login that this browser began" in answer.text
        assert taken == []


async def test_a_code_is_of_use_once(taken: list[str]) -> None:
    async with providing(BACK) as provider, _browser(provider) as http:
        back = await _sent_back(http)
        cookie = http.cookies["tenure_sign_in"]
        assert (await http.get(back)).status_code == 303
        http.cookies.set("tenure_sign_in", cookie, domain="dashboard.test")
        assert (await http.get(back)).status_code == 503
        assert len(taken) == 1


async def test_a_token_of_another_login_and_a_refusal_are_told(taken: list[str]) -> None:
    async with providing(BACK) as provider, _browser(provider) as http:
        provider.told = {"nonce": "another"}
        answer = await http.get(await _sent_back(http))
        assert answer.status_code == 403 and "another login" in answer.text
        state = parse_qs(urlsplit(await _sent_back(http)).query)["state"][0]
        answer = await http.get("/ui/login/oidc/back", params={"state": state, "error": "<b>denied</b>"})
        assert answer.status_code == 403 and "&lt;b&gt;denied" in answer.text
        assert taken == []


@pytest.mark.parametrize(
    "described",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "javascript:1"}, {"authorization_endpoint": None}],
)
async def test_a_description_that_does_not_fit_is_not_followed(taken: list[str], described: dict[str, Any]) -> None:
    async with providing(BACK) as provider, _browser(provider) as http:
        provider.described = described
        begun = await http.get("/ui/login/oidc")
        if begun.status_code == 303:
            begun = await http.get(await _sent_back(http))
        assert begun.status_code == 503
        assert taken == []


def test_over_tls_the_cookie_is_this_hosts_alone() -> None:
    keys = SessionKeys()
    keys.use([secrets.token_bytes(32)])
    dashboard = Dashboard(SystemClock(), keys, asks=True, base_url="https://tenure.example.com")
    assert dashboard.cookie == "__Host-tenure"
    assert dashboard.sign_in_cookie.startswith("__Host-")
    response = Response()
    dashboard.set_cookie(response, dashboard.cookie, "v", 60)
    told = response.headers["set-cookie"]
    assert "Secure" in told and "HttpOnly" in told and "Path=/" in told and "Domain" not in told
    assert "strict-transport-security" in guard.protect(Response(), is_tls=True).headers
