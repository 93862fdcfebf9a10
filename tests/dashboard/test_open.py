"""A dashboard that asks nobody who they are: for trying out, on loopback; and one that is switched off."""

from __future__ import annotations

import pytest
from tests.dashboard.conftest import Place, Start, post


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=False)


async def test_nobody_is_asked_and_acts_need_the_sessions_text_all_the_same(place: Place) -> None:
    async with place.client() as client, place.browser_without_script() as http:
        job = await client.submit("noop", delay_s=3_600)
        page = await http.get(f"/ui/jobs/{job.id}")
        assert page.status_code == 200 and "Log out" not in page.text
        assert (await http.get("/ui/login")).headers["location"] == "/ui/"
        evil = await http.post(
            f"/ui/jobs/{job.id}/cancel", data={"csrf": "x"}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert evil.status_code == 403
        answer = await post(http, f"/ui/jobs/{job.id}/cancel", page.text, reason="no more")
        assert answer.status_code == 303
        assert (await client.get(job.id)).state == "canceled"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7071", "127.0.0.1.evil.example"])
async def test_a_name_that_somebody_points_here_leads_to_nothing(place: Place, host: str) -> None:
    async with place.browser_without_script() as http:
        answer = await http.get("/ui/jobs", headers={"Host": host})
        assert answer.status_code == 403 and "not served under this name" in answer.text
        assert "set-cookie" not in answer.headers


async def test_other_paths_are_what_they_were(place: Place) -> None:
    async with place.browser_without_script() as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/openapi.json")).headers["content-type"] == "application/json"
        assert (await http.get("/ui/nope")).status_code == 404


async def test_a_dashboard_is_switched_off(start: Start) -> None:
    place = start(asks=False, TENURE_DASHBOARD="false")
    async with place.browser_without_script() as http:
        assert (await http.get("/readyz")).status_code == 200
        for path in ("/", "/ui/", "/ui/jobs", "/ui/login"):
            assert (await http.get(path)).status_code == 404, path
