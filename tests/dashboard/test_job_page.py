"""What an operator does on the page of one job, in Chromium: go to its parents, retry, take, delete, download."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect
from tests.coordinator.conftest import until
from tests.dashboard.conftest import PATIENCE_MS, Look, Place, Start, needs_chromium

from tenure.client import JobState, NewJob, Retry
from tenure.client.records import Job

pytestmark = needs_chromium
expect.set_options(timeout=PATIENCE_MS)
ONCE = Retry(max_attempts=1)


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=True)


async def _failed(place: Place, **labels: str) -> Job:
    async with place.client() as client:
        job = await client.submit("hostile", retry=ONCE, labels=labels)
        return await client.wait(job.id, timeout_s=60)


async def _press(page: Page, act: str) -> None:
    """Open what asks whether an act is meant, and say yes."""
    asking = page.locator(f"#acts details:has(form[action$='/{act}'])")
    await asking.locator("summary").click()
    await asking.get_by_role("button").click()


async def _downloaded(link: Locator, to: Path) -> tuple[str, str]:
    """Follow a link; return the name of the file that the browser saved, and its text."""
    async with link.page.expect_download() as begun:
        await link.click()
    saved = await begun.value
    await saved.save_as(to / "file")
    return saved.suggested_filename, (to / "file").read_text(encoding="utf-8")


async def test_a_child_that_its_parent_took_along_leads_to_it(place: Place, look: Look) -> None:
    async with place.client() as client:
        well, ill = await client.submit("noop"), await client.submit("hostile", retry=ONCE)
        child = await client.submit("noop", depends_on=[well.id, ill.id], upstream_failure="fail")
        ended = await client.wait(child.id, timeout_s=60)
    assert ended.state is JobState.FAILED
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.open(f"/ui/jobs/{child.id}")
    await expect(seen.page.locator("#state")).to_contain_text("failed")
    assert ill.id in await seen.text("#head"), "the reason says which parent it was"
    parents = seen.page.locator("section[aria-labelledby=parents-title] a")
    assert sorted(await parents.all_inner_texts()) == sorted([well.id, ill.id])
    for parent, state in ((well, "completed"), (ill, "failed")):
        await seen.open(f"/ui/jobs/{child.id}")
        await parents.filter(has_text=parent.id).click()
        await seen.page.wait_for_url(f"**/ui/jobs/{parent.id}")
        await expect(seen.page.locator("#job-id")).to_have_text(parent.id)
        await expect(seen.page.locator("#state")).to_contain_text(state)


async def test_a_failed_job_is_retried_by_its_button(place: Place, look: Look) -> None:
    failed = await _failed(place)
    seen = await look(place)
    await seen.log_in("operator")
    await seen.open(f"/ui/jobs/{failed.id}")
    await seen.page.click("#retry")
    await seen.page.wait_for_url(lambda url: not url.endswith(failed.id))
    await expect(seen.page.locator("#said")).to_be_visible()
    async with place.client() as client:
        again = (await client.get(failed.id)).retried_by
        assert again is not None
        await expect(seen.page.locator("#job-id")).to_have_text(again)
        await expect(seen.page.locator("#state")).to_contain_text("failed")  # the retry is as hopeless
        await seen.page.click("#to-retried")
        await expect(seen.page.locator("#job-id")).to_have_text(failed.id)
        await expect(seen.page.locator("#retry")).to_have_count(0)
        await expect(seen.page.locator("#to-retry")).to_have_text(again)
        [entry] = [entry async for entry in client.audit(action="jobs.retry", target=failed.id, limit=5)]
        assert (entry.caller, entry.outcome) == ("a operator", "ok")


async def test_an_executing_job_is_taken_from_its_worker_and_starts_again(place: Place, look: Look) -> None:
    async with place.client() as client:
        job = await client.submit("chatty")

        async def executes() -> bool:
            return (await client.get(job.id)).state is JobState.EXECUTING

        await until(executes)
        before = await client.get(job.id)
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open(f"/ui/jobs/{job.id}")
        await _press(seen.page, "revoke")
        await expect(seen.page.locator("#said")).to_be_visible()
        # One row per attempt: the first has ended, and the page sees the second begin by itself.
        rows = seen.page.locator("#story tbody tr")
        await expect(rows).to_have_count(2)
        await expect(seen.page.locator("#state")).to_contain_text("executing")
        after = await client.get(job.id)
        assert (after.attempt, after.crashes) == (2, 0) and (after.fence or 0) > (before.fence or 0)
        first, second = await client.attempts(job.id)
        assert first.finished_at and first.outcome != "completed" and not second.finished_at
        await client.cancel(job.id)
        await client.wait(job.id, timeout_s=60)


async def test_a_job_that_has_ended_is_deleted_from_listings(place: Place, look: Look) -> None:
    failed = await _failed(place, of="deletion")
    seen = await look(place)
    await seen.log_in("operator")
    listed = seen.page.locator("main tbody a", has_text=failed.id)
    await seen.open("/ui/jobs?label=of%3Ddeletion")
    await expect(listed).to_have_count(1)
    await listed.click()
    await _press(seen.page, "delete")
    await expect(seen.page.locator("#said")).to_be_visible()
    await expect(seen.page.locator("#acts form[action$='/delete']")).to_have_count(0)
    await seen.open("/ui/jobs?label=of%3Ddeletion")
    await expect(listed).to_have_count(0)
    await seen.page.check("input[name=deleted]")
    await seen.page.locator("form.filter button").first.click()
    await expect(listed).to_have_count(1)


async def test_what_went_in_and_came_out_is_downloaded(place: Place, look: Look, tmp_path: Path) -> None:
    payload = {"n": 1, "text": "<b>ü\u202e"}
    async with place.client() as client:
        job = await client.submit("save", payload)
        assert (await client.wait(job.id, timeout_s=60)).state is JobState.COMPLETED
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.open(f"/ui/jobs/{job.id}")

    def link(to: str) -> Locator:
        return seen.page.locator(f"main a[href*='/ui/jobs/{job.id}/{to}']")

    for name in ("payload", "result"):
        file, text = await _downloaded(link(f"{name}.json"), tmp_path)
        assert (file, json.loads(text)) == (f"{job.id}-{name}.json", payload)
    file, text = await _downloaded(link("log.txt"), tmp_path)
    assert file == f"{job.id}.log" and re.search(r" 1 info +saved soon", text, re.IGNORECASE)
    file, text = await _downloaded(link("artifacts/1/"), tmp_path)
    assert text == "some bytes\n" and file.endswith("it.txt")


async def test_failed_jobs_of_a_label_are_retried_after_a_preview(place: Place, look: Look) -> None:
    async with place.client() as client:
        made = await client.submit_many([NewJob(kind="hostile", retry=ONCE, labels={"r": "1"}) for _ in range(3)])
        await client.wait_many([job.id for job in made], timeout_s=60)
        other = await _failed(place, r="2")
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open("/ui/jobs?label=r%3D1&state=failed")
        await seen.page.click("#retry-all")
        await seen.page.wait_for_url("**/ui/jobs/all/retry?**")

        async def counted() -> bool:
            await seen.page.reload()  # a machine with much to do may not count in time, and the page then says so
            return await seen.text("h1") == "Retry 3 jobs?"

        await until(counted)
        assert sorted(await seen.page.locator("ul.ids a").all_inner_texts()) == sorted(job.id for job in made)
        assert not any([(await client.get(job.id)).retried_by for job in made]), "a preview does nothing"
        await seen.page.click("#do-it")
        await expect(seen.page.locator("#said")).to_contain_text("3 retried")
        assert all([(await client.get(job.id)).retried_by for job in made])
        assert (await client.get(other.id)).retried_by is None
