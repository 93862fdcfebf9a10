"""What operators do, in Chromium: with a mouse, with keys alone, in the dark; and what nobody must be able to."""

from __future__ import annotations

import asyncio
import html
import re

import psycopg
import pytest
from playwright.async_api import expect
from tests.coordinator.conftest import until
from tests.dashboard.conftest import PATIENCE_MS, Look, Place, Start, needs_chromium, post, violations
from tests.dashboard.handlers import HOSTILE

from tenure.client import JobState, NewJob, NewSchedule, Retry

pytestmark = needs_chromium
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=True)


async def _executing(place: Place, kind: str = "chatty") -> str:
    async with place.client() as client:
        job = await client.submit(kind)

        async def executes() -> bool:
            return (await client.get(job.id)).state is JobState.EXECUTING

        await until(executes)
        return job.id


async def _cancel(place: Place, job_id: str) -> None:
    async with place.client() as client:
        await client.cancel(job_id)


async def test_the_overview_moves_while_jobs_complete(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.log_in("viewer")
    completed = seen.page.locator("#completed-minute")
    before = int((await completed.inner_text()).replace(",", ""))
    async with place.client() as client:
        done = await client.submit_many([NewJob(kind="noop") for _ in range(25)])
        await client.wait_many([job.id for job in done], timeout_s=60)
    await expect(completed).to_have_text(re.compile(rf"^(?!{before}$)\d+$"))
    assert "coordinator1" in await seen.text()
    assert await seen.page.locator("svg.minutes rect.completed").count() > 0


async def test_jobs_are_filtered_paged_and_opened(place: Place, look: Look) -> None:
    async with place.client() as client:
        made = await client.submit_many(
            [NewJob(kind="give-back", payload={"n": n}, labels={"batch": "paged"}) for n in range(60)]
        )
        await client.wait_many([job.id for job in made], timeout_s=60)
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.page.get_by_role("link", name="Jobs", exact=True).click()
    await seen.page.fill("#f-kind", "give-back")
    await seen.page.fill("#f-label", "batch=paged")
    await seen.page.check("input[name=state][value=completed]")
    await seen.page.click("text=Filter >> nth=0")
    await expect(seen.page.locator("main tbody tr")).to_have_count(50)
    await seen.page.click("text=Next page")
    await expect(seen.page.locator("main tbody tr")).to_have_count(10)
    await seen.page.locator("main tbody a").last.click()
    assert '"n": 0' in await seen.text("#payload") and '"n": 0' in await seen.text("#result")
    assert "completed" in await seen.text("#state")
    assert await seen.page.locator("svg.timeline rect.bar.completed").count() == 1
    assert "worker1" in await seen.text("#story")


async def test_a_log_grows_and_progress_moves_while_one_looks(place: Place, look: Look) -> None:
    id = await _executing(place)
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.open(f"/ui/jobs/{id}")
    lines = seen.page.locator("#log .line")
    await expect(lines.first).to_contain_text("line 1")
    before = await lines.count()
    await expect(lines.nth(before + 5)).to_contain_text("line")
    texts = [re.search(r"line (\d+)", text) for text in await lines.all_inner_texts()]
    numbers = [int(found[1]) for found in texts if found]
    assert numbers == list(range(1, len(numbers) + 1)), "each once, in order"
    await expect(seen.page.locator("#head")).to_contain_text(re.compile(r"at line \d+"))
    assert (
        await seen.page.evaluate("performance.getEntriesByType('resource').filter(e => /live/.test(e.name)).length") < 2
    )
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    await seen.page.evaluate(hide % "true")
    await asyncio.sleep(1.5)  # what was under way has come
    before = await lines.count()
    await asyncio.sleep(1.5)
    assert await lines.count() == before, "a page that nobody sees is not live"
    await seen.page.evaluate(hide % "false")
    await expect(lines.nth(before + 3)).to_contain_text("line")
    await _cancel(place, id)
    await expect(seen.page.locator("#state")).to_contain_text("canceled")


async def test_a_job_is_canceled_with_keys_alone(place: Place, look: Look) -> None:
    id = await _executing(place)
    seen = await look(place)
    await seen.log_in("operator")
    await seen.open(f"/ui/jobs/{id}")
    await seen.page.keyboard.press("?")
    await expect(seen.page.get_by_role("dialog")).to_be_visible()
    await seen.page.keyboard.press("Escape")
    await expect(seen.page.get_by_role("dialog")).to_be_hidden()
    await seen.page.keyboard.press("c")
    await seen.page.keyboard.type("because of c and g j")
    await seen.page.keyboard.press("Enter")
    await expect(seen.page.locator("#said")).to_contain_text(re.compile("asked to stop|Canceled"))
    await expect(seen.page.locator("#state")).to_contain_text("canceled")
    async with place.client() as client:
        assert "because of c and g j" in (await client.get(id)).reason
        [entry] = [entry async for entry in client.audit(action="jobs.cancel", target=id, limit=1)]
        assert entry.caller == "a operator"
    await seen.page.keyboard.press("g")
    await seen.page.keyboard.press("j")
    await seen.page.wait_for_url("**/ui/jobs")
    await seen.page.keyboard.press("/")
    assert await seen.page.evaluate("document.activeElement.id") == "f-kind"


async def test_keys_can_be_switched_off(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.page.keyboard.press("?")
    await seen.page.click("#switch-keys")
    await seen.page.wait_for_selector("body[data-keys=off]")
    await seen.page.keyboard.press("?")
    await expect(seen.page.get_by_role("dialog")).to_be_hidden()
    await seen.page.click("#help-button")
    await seen.page.click("#switch-keys")
    await seen.page.wait_for_selector("body[data-keys=on]")
    await seen.page.keyboard.press("?")
    await expect(seen.page.get_by_role("dialog")).to_be_visible()


async def test_everything_that_can_be_done_is_reached_by_tab_and_shows_the_focus(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.log_in("operator")
    await seen.open("/ui/jobs")
    wanted = await seen.page.evaluate(
        "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary')]"
        ".filter(e => e.checkVisibility()).length"
    )
    reached = set()
    for _ in range(wanted + 10):
        await seen.page.keyboard.press("Tab")
        told = await seen.page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " e.dataset.seen ||= String(Math.random());"
            " return [e.tagName, e.dataset.seen, s.outlineStyle, parseFloat(s.outlineWidth)] })()"
        )
        if told[0] != "BODY":
            reached.add(told[1])
            assert told[2] != "none" and told[3] >= 2, told
    assert len(reached) >= wanted


async def test_many_are_canceled_after_a_preview(place: Place, look: Look) -> None:
    async with place.client() as client:
        made = await client.submit_many([NewJob(kind="noop", delay_s=3_600, labels={"b": "1"}) for _ in range(7)])
        other = await client.submit("noop", delay_s=3_600)
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open("/ui/jobs?label=b%3D1")
        await seen.page.click("#cancel-all")
        if await seen.page.locator("#count-longer").count():  # a busy machine
            await seen.page.click("#count-longer")
        await expect(seen.page.locator("h1")).to_have_text("Cancel 7 jobs?")
        await expect(seen.page.locator("ul.ids li")).to_have_count(7)
        assert {(await client.get(job.id)).state for job in made} == {"ready"}, "a preview does nothing"
        await seen.page.fill("#reason", "many")
        await seen.page.click("#do-it")
        await expect(seen.page.locator("#said")).to_contain_text("7 canceled")
        assert {(await client.get(job.id)).state for job in made} == {"canceled"}
        assert (await client.get(other.id)).state == "ready"
        await seen.open("/ui/jobs/all/cancel")
        await expect(seen.page.locator("main")).to_contain_text("every job is meant")
        await client.cancel(other.id)


async def test_a_preview_that_cannot_count_in_time_says_so_and_the_act_is_over_all(place: Place) -> None:
    async with place.client() as client, place.browser_without_script("operator") as http:
        made = await client.submit_many([NewJob(kind="noop", delay_s=3_600, labels={"slow": "1"}) for _ in range(30)])
        path = "/ui/jobs/all/cancel?label=slow%3D1"
        async with await psycopg.AsyncConnection.connect(place.deployment.env["TENURE_POSTGRES_DSN"]) as connection:
            await connection.execute("LOCK TABLE tenure.job IN ACCESS EXCLUSIVE MODE")
            page = (await http.get(path)).text
            await connection.rollback()
        assert "Cancel all matching jobs?" in page and "all that match this filter" in page
        longer = re.search(r'id="count-longer" href="([^"]+)"', page)
        assert longer is not None
        counted = (await http.get(html.unescape(longer[1]))).text
        assert "Cancel 30 jobs?" in counted and "count-longer" not in counted
        answer = await post(http, "/ui/jobs/all/cancel", page, label="slow=1")  # the form that was never counted
        assert answer.status_code == 303
        assert {(await client.get(job.id)).state for job in made} == {"canceled"}


async def test_what_jobs_say_is_shown_as_text(place: Place, look: Look) -> None:
    async with place.client() as client:
        job = await client.submit("hostile", {"a": HOSTILE, HOSTILE: 1}, labels={"k": "v"})
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open(f"/ui/jobs/{job.id}")
        await expect(seen.page.locator("#state")).to_contain_text(re.compile("failed|ready|executing"))
        await client.cancel(job.id)

        async def ended() -> bool:
            return (await client.get(job.id)).is_terminal

        await until(ended)
        await seen.open(f"/ui/jobs/{job.id}")
        for place_of in ("#payload", "#log", "#head"):
            text = await seen.text(place_of)
            assert "<script>alert(1)</script>" in text, place_of
            assert "\\x1b[31mred" in text or "\\u001b[31mred" in text, place_of  # JSON has codes of its own
            assert not {"\x1b", "\u202e"} & set(text), place_of
        await seen.open(
            "/ui/jobs?kind=%3Cscript%3Ealert(1)%3C%2Fscript%3E&label=%22%3E%3Cimg%20src%3Dx%20onerror%3Da()%3E"
        )
        assert await seen.page.locator("main img, main script").count() == 0
    # That no script ran, and that the policy forbade none, is for the fixture to say.


async def test_failed_jobs_are_retried_from_the_dead_letters(place: Place, look: Look) -> None:
    async with place.client() as client:
        made = [await client.submit("hostile", retry=Retry(max_attempts=1), labels={"d": "1"}) for _ in range(3)]
        await client.wait_many([job.id for job in made], timeout_s=60)
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open("/ui/letters?kind=hostile")
        row = seen.page.locator("main tbody tr", has_text="ValueError")
        await expect(row).to_have_count(1)
        await row.get_by_role("button", name=re.compile("^Retry")).click()
        await expect(seen.page.locator("#said")).to_contain_text(re.compile(r"\d+ retried"))
        assert all([(await client.get(job.id)).retried_by for job in made])


async def test_a_token_that_may_no_more_is_told_so_and_a_login_leads_back(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.open("/ui/jobs?kind=give-back")
    await expect(seen.page.locator("h1")).to_have_text("Log in")
    await seen.page.fill("#token", "tnr_wrong")
    await seen.page.keyboard.press("Enter")
    await expect(seen.page.get_by_role("alert")).to_contain_text("not valid here")
    await seen.page.fill("#token", place.secrets["viewer"])
    await seen.page.click("main button")
    await seen.page.wait_for_url("**/ui/jobs?kind=give-back")
    await seen.page.click("#logout")
    await expect(seen.page.get_by_role("status")).to_contain_text("logged out")


async def test_light_and_dark_by_the_system_and_by_choice(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.log_in("viewer")

    async def background() -> int:
        color = await seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)[:3]))

    assert await background() > 600
    await seen.page.emulate_media(color_scheme="dark")
    assert await background() < 200
    await seen.page.click("button[name=theme][value=light]")
    await seen.page.wait_for_load_state()
    assert await background() > 600, "what was chosen stands above the system"
    await seen.page.emulate_media(color_scheme="light")
    await seen.page.click("button[name=theme][value=dark]")
    await seen.page.wait_for_load_state()
    assert await background() < 200


_RATIO_OF_GRAPH = """() => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((sum, one, at) => {
    const part = one / 255;
    return sum + [0.2126, 0.7152, 0.0722][at] * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const fill = (one) => light(getComputedStyle(one).fill);
  const boxes = [...document.querySelectorAll(".graph g")];
  const ground = light(getComputedStyle(document.querySelector(".graph")).backgroundColor);
  return {
    ground,
    boxes: boxes.map((one) => fill(one.querySelector("rect"))),
    texts: boxes.flatMap((one) =>
      [...one.querySelectorAll("text")].map((text) => ratio(fill(text), fill(one.querySelector("rect"))))),
    lines: [...document.querySelectorAll(".graph svg > path, .graph rect")].map(
      (one) => ratio(light(getComputedStyle(one).stroke), ground)),
  };
}"""
"""How light the ground and the boxes of a graph are (0 to 1), and the contrast of its texts and lines (WCAG 2.1)."""


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_graph_has_the_colors_of_the_theme(place: Place, look: Look, theme: str) -> None:
    async with place.client() as client:
        jobs = [
            NewJob(kind="noop", ref="done"),
            NewJob(kind="hostile", ref="failed", retry=Retry(max_attempts=1)),
            NewJob(kind="noop", ref="canceled", depends_on=["failed"]),
            NewJob(kind="chatty", ref="going"),
            NewJob(kind="noop", ref="ready", delay_s=3_600),
            NewJob(kind="noop", ref="waiting", depends_on=["going"]),
        ]
        made = await client.submit_many(jobs, workflow="all colors")
        seen = await look(place)
        await seen.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        await seen.log_in("viewer")
        await seen.open(f"/ui/workflows/{made.workflow_id}")
        for state in ("completed", "failed", "canceled", "executing", "ready", "waiting"):
            await expect(seen.page.locator(f".graph g.{state}")).to_have_count(1)
        found = await seen.page.evaluate(_RATIO_OF_GRAPH)
        assert len(found["boxes"]) == 6 and len(set(found["boxes"])) == 6, "each state has a color of its own"
        is_dark = [light < 0.2 for light in (found["ground"], *found["boxes"])]
        assert is_dark == [theme == "dark"] * 7, found
        assert min(found["texts"]) >= 4.5 and min(found["lines"]) >= 3, found
        assert await violations(seen.page) == []
        await client.cancel_workflow(made.workflow_id or "")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pages_are_accessible_by_the_rules_of_wcag(place: Place, look: Look, theme: str) -> None:
    async with place.client() as client:
        done = await client.submit("give-back", {"a": 1})
        await client.wait(done.id, timeout_s=60)
        drawn = await client.submit_many(
            [NewJob(kind="noop", ref="a"), NewJob(kind="noop", depends_on=["a"])], workflow="looked at"
        )
        await client.put_limit("looked-at", concurrent=3)
        job = NewJob(kind="noop")
        await client.create_schedule(NewSchedule(name=f"in-{theme}", cron="0 3 * * *", time_zone="UTC", job=job))
        await client.pause(pool="nobody/there", reason="to be seen")
        await client.put_retention(kind="noop", state="completed", keep_s=86_400)
    id = await _executing(place)
    seen = await look(place)
    await seen.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    await seen.open("/ui/login")
    assert await violations(seen.page) == []
    await seen.log_in("admin")
    pages = await seen.page.eval_on_selector_all("header nav a", "all => all.map(one => one.getAttribute('href'))")
    assert len(pages) == 9
    others = ("/ui/jobs/all/retry", f"/ui/workflows/{drawn.workflow_id}", f"/ui/schedules/default/in-{theme}")
    for path in (*pages, *others, f"/ui/jobs/{done.id}", f"/ui/jobs/{id}", "/ui/jobs/x"):
        await seen.open(path)
        dark = await seen.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (theme == "dark")
        assert await violations(seen.page) == [], path
    await seen.page.keyboard.press("?")
    assert await violations(seen.page) == []
    await _cancel(place, id)


async def test_pages_work_without_javascript(place: Place) -> None:
    async with place.client() as client, place.browser_without_script("operator") as http:
        job = await client.submit("noop", delay_s=3_600)
        pages = await asyncio.gather(*(http.get(path) for path in ("/ui/", "/ui/jobs", f"/ui/jobs/{job.id}")))
        assert [page.status_code for page in pages] == [200, 200, 200]
        assert "Cancel this job" in pages[2].text and "not_due" in pages[2].text and job.id in pages[1].text
        await client.cancel(job.id)
