"""Who gets in, what a session is worth, and what other sites cannot do with it."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import httpx
import pytest
from tests.coordinator.conftest import until
from tests.dashboard.conftest import Place, Start, csrf_of, post

from tenure.dashboard.guard import HEADERS


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=True, coordinators=2)


async def test_without_a_session_every_page_leads_to_the_login(place: Place) -> None:
    async with place.browser_without_script() as http:
        for path in ("/ui/", "/ui/jobs?kind=a", "/ui/letters", "/ui/jobs/all/cancel"):
            answer = await http.get(path)
            assert answer.status_code == 303 and answer.headers["location"].startswith("/ui/login?then=%2Fui%2F"), path
        assert (await http.get("/ui/live/overview")).status_code == 401
        assert (await http.get("/")).headers["location"] == "/ui/"


async def test_a_token_opens_a_session_whose_cookie_shows_nothing_of_it(place: Place) -> None:
    async with place.browser_without_script("viewer") as http:
        cookie = http.cookies["tenure_session"]
        assert place.secrets["viewer"] not in cookie
        page = await http.get("/ui/")
        assert page.status_code == 200 and "a viewer" in page.text and "Logged in as a viewer." in page.text
        assert "Logged in as" not in (await http.get("/ui/")).text, "it is said once"
        set_cookie = page.headers["set-cookie"]
        assert "HttpOnly" in set_cookie and "SameSite=lax" in set_cookie


@pytest.mark.parametrize("token", ["", "nonsense", "tnr_0000_1111", "a.b.c", "\u00e4", "x" * 5_000])
async def test_what_is_no_token_opens_nothing(place: Place, token: str) -> None:
    async with place.browser_without_script() as http:
        page = await http.get("/ui/login")
        answer = await post(http, "/ui/login", page.text, token=token)
        assert answer.status_code == 403 and "not valid here" in answer.text
        assert (await http.get("/ui/")).status_code == 303


async def test_a_workers_token_opens_nothing(place: Place) -> None:
    async with place.client() as client, place.browser_without_script() as http:
        made = await client.create_token("a worker", role="worker", pools=["*"])
        page = await http.get("/ui/login")
        answer = await post(http, "/ui/login", page.text, token=made.secret or "")
        assert answer.status_code == 403 and "may not read anything" in answer.text
        assert (await http.get("/ui/")).status_code == 303


async def test_who_sees_one_namespace_sees_that_and_nothing_else(place: Place) -> None:
    async with place.client() as client:
        made = await client.create_token("team", role="operator", namespaces=["ns-a"])
        place.secrets["team"] = made.secret or ""
        foreign = await client.submit("noop", delay_s=3_600)
        own = await client.submit("noop", delay_s=3_600, namespace="ns-a")
        await client.cancel(own.id)
        async with place.browser_without_script("team") as http:
            listed = (await http.get("/ui/jobs")).text
            assert own.id in listed and foreign.id not in listed
            page = await http.get(f"/ui/jobs/{foreign.id}")
            assert page.status_code == 404
            answer = await post(http, f"/ui/jobs/{foreign.id}/cancel", listed)
            assert answer.status_code == 404
            audit = await http.get("/ui/audit")
            assert audit.status_code == 200 and own.id in audit.text
        assert (await client.get(foreign.id)).state == "ready"


async def test_a_session_of_before_the_login_is_not_the_one_after(place: Place) -> None:
    async with place.browser_without_script() as http:
        before = csrf_of((await http.get("/ui/login")).text)
        await post(http, "/ui/login", (await http.get("/ui/login")).text, token=place.secrets["viewer"])
        assert csrf_of((await http.get("/ui/")).text) not in ("", before)


async def test_any_coordinator_serves_a_session(place: Place) -> None:
    async with place.browser_without_script("viewer") as http:
        for address in place.deployment.http_addresses:
            page = await http.get(f"http://{address}/ui/")
            assert page.status_code == 200 and "a viewer" in page.text
            assert "2 coordinators" in page.text and "Without the figures" not in page.text


async def test_logging_out_ends_the_session_here(place: Place) -> None:
    async with place.browser_without_script("viewer") as http:
        page = await http.get("/ui/")
        assert (await post(http, "/ui/logout", page.text)).headers["location"] == "/ui/login"
        assert (await http.get("/ui/")).status_code == 303
        assert "You are logged out." in (await http.get("/ui/login")).text


async def test_a_revoked_token_ends_its_session(place: Place) -> None:
    async with place.client() as client:
        made = await client.create_token("for a while", role="viewer", namespaces=["*"])
        place.secrets["for a while"] = made.secret or ""
        async with place.browser_without_script("for a while") as http:
            assert (await http.get("/ui/")).status_code == 200
            await client.revoke_token(made.token.id)

            async def refused() -> httpx.Response | None:
                answer = await http.get("/ui/jobs")
                return answer if answer.status_code != 200 else None

            answer = await until(refused)
            assert answer.headers["location"].startswith("/ui/login")
            assert "Your session is over" in (await http.get("/ui/login")).text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
async def test_another_sites_form_does_nothing(place: Place, headers: dict[str, str]) -> None:
    async with place.client() as client, place.browser_without_script("operator") as http:
        job = await client.submit("noop", delay_s=3600)
        page = await http.get(f"/ui/jobs/{job.id}")
        form = {"csrf": csrf_of(page.text), "reason": "evil"}
        answer = await http.post(f"/ui/jobs/{job.id}/cancel", data=form, headers=headers)
        assert answer.status_code == 403 and "sent by another site" in answer.text
        assert (await client.get(job.id)).state == "ready"


@pytest.mark.parametrize("csrf", [None, "", "guess"])
async def test_a_form_without_the_sessions_text_does_nothing(place: Place, csrf: str | None) -> None:
    async with place.client() as client, place.browser_without_script("operator") as http:
        job = await client.submit("noop", delay_s=3600)
        form = {"reason": "evil"} if csrf is None else {"csrf": csrf}
        answer = await http.post(f"/ui/jobs/{job.id}/cancel", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 403 and "not of your session" in answer.text
        assert (await http.get(f"/ui/jobs/{job.id}/cancel")).status_code == 405, "an act is no GET"
        assert (await client.get(job.id)).state == "ready"


async def test_a_viewers_cancel_is_refused_by_the_api_in_words(place: Place) -> None:
    async with place.client() as client, place.browser_without_script("viewer") as http:
        job = await client.submit("noop", delay_s=3600)
        page = await http.get(f"/ui/jobs/{job.id}")
        assert "Cancel this job" not in page.text and "cancels no jobs" in page.text
        answer = await post(http, f"/ui/jobs/{job.id}/cancel", page.text)
        assert answer.status_code == 403
        assert "a viewer (viewer) may not operate" in answer.text and "unix:" not in answer.text
        assert (await client.get(job.id)).state == "ready"
        assert [entry.outcome for entry in [e async for e in client.audit(action="jobs.cancel", limit=1)]] == ["denied"]


async def test_every_answer_has_the_headers_that_protect_it(place: Place) -> None:
    async with place.browser_without_script("viewer") as http:
        for path in ("/ui/", "/ui/jobs", "/ui/jobs/nope", "/ui/login", "/", "/ui/static/nope", "/ui/logout"):
            answer = await http.get(path)
            missing = {name for name, value in HEADERS.items() if answer.headers.get(name) != value}
            assert missing == set() or answer.status_code == 405, (path, answer.status_code, missing)
        page = await http.get("/ui/")
        static = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
        answer = await http.get(static)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
        for path in ("/ui/static/..%2fapp.py", "/ui/static/%2e%2e/app.py", "/ui/static/.hidden"):
            assert (await http.get(path)).status_code == 404


def test_the_api_of_the_dashboard_is_in_a_folder_for_its_process_alone(place: Place) -> None:
    folders = Path(tempfile.gettempdir()).glob("tenure-*")
    sockets = [path for path in folders if path.is_dir() and (path / "api").exists()]
    assert sockets
    for folder in sockets:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_listing_by_the_time_of_the_end_offers_no_act_over_all(place: Place) -> None:
    async with place.client() as client, place.browser_without_script("operator") as http:
        job = await client.submit("noop", delay_s=3_600)
        await client.cancel(job.id)
        page = await http.get("/ui/jobs", params={"ended_after": "2026-01-01T00:00Z"})
        assert job.id in page.text and "cancel-all" not in page.text
        page = await http.get("/ui/jobs", params={"ended_before": "2026-01-01T00:00Z"})
        assert job.id not in page.text
        assert "cancel-all" in (await http.get("/ui/jobs")).text
        assert (await http.get("/ui/jobs", params={"ended_before": "yesterday"})).status_code == 400


async def test_forms_are_bounded(place: Place) -> None:
    async with place.browser_without_script("viewer") as http:
        page = await http.get("/ui/")
        answer = await post(http, "/ui/theme", page.text, theme="x" * 100_000)
        assert answer.status_code == 400 and "longer than" in answer.text
        answer = await http.post("/ui/theme", content=b"{}", headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 400
