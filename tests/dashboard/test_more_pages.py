"""Workflows, schedules, workers, limits, the audit log and retention, in Chromium, on a real deployment."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect
from tests.coordinator.conftest import until
from tests.dashboard.conftest import PATIENCE_MS, Look, Place, Start, needs_chromium, violations

from tenure.client import JobState, NewJob, NewSchedule

pytestmark = needs_chromium
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=True)


async def test_a_workflow_is_drawn_and_moves_to_its_end(place: Place, look: Look) -> None:
    async with place.client() as client:
        made = await client.submit_many(
            [
                NewJob(kind="sleep", payload={"seconds": 1}, ref="first"),
                NewJob(kind="noop", ref="<i>left</i>", depends_on=["first"]),
                NewJob(kind="noop", ref="right", depends_on=["first"]),
                NewJob(kind="sleep", payload={"seconds": 600}, ref="last", depends_on=["<i>left</i>", "right"]),
            ],
            workflow="drawn",
        )
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open("/ui/workflows")
        await seen.page.get_by_role("link", name=made.workflow_id or "").click()
        await expect(seen.page.locator(".graph svg rect")).to_have_count(4)
        assert "<i>left</i>" in await seen.page.locator(".graph").inner_text()
        await expect(seen.page.locator("main tbody tr", has_text="completed")).to_have_count(3)
        await expect(seen.page.locator("main tbody tr", has_text="executing")).to_have_count(1)
        assert await violations(seen.page) == []
        await seen.page.keyboard.press("c")
        await seen.page.keyboard.type("enough")
        await seen.page.keyboard.press("Enter")
        await expect(seen.page.locator("#said")).to_contain_text("1 asked to stop")
        await expect(seen.page.locator("#state")).to_contain_text("canceled")


async def test_a_large_workflow_is_folded(place: Place, look: Look) -> None:
    async with place.client() as client:
        jobs = [NewJob(kind="noop", ref="root", delay_s=3_600)]
        jobs += [NewJob(kind="noop", depends_on=["root"]) for _ in range(500)]
        made = await client.submit_many(jobs, workflow="large")
        seen = await look(place)
        await seen.log_in("viewer")
        await seen.open(f"/ui/workflows/{made.workflow_id}")
        await expect(seen.page.locator("main")).to_contain_text("Folded")
        assert await seen.page.locator(".graph svg rect").count() == 2
        assert await seen.page.locator("main tbody tr").count() == 100
        await client.cancel_workflow(made.workflow_id or "")


async def test_a_schedule_is_paused_resumed_and_triggered(place: Place, look: Look) -> None:
    async with place.client() as client:
        job = NewJob(kind="noop", payload={"of": "a schedule"})
        await client.create_schedule(NewSchedule(name="nightly", cron="0 3 * * *", time_zone="Europe/Berlin", job=job))
        seen = await look(place)
        await seen.log_in("operator")
        await seen.open("/ui/schedules")
        await seen.page.get_by_role("link", name="nightly").click()
        ticks = seen.page.get_by_role("region", name="Table of ticks to come").locator("tbody tr")
        made = seen.page.get_by_role("region", name="Table of its jobs").locator("tbody tr")
        await expect(ticks).to_have_count(10)
        await expect(made).to_have_text("None.")
        assert await violations(seen.page) == []
        await seen.page.click("#pause")
        await expect(seen.page.locator("h1")).to_contain_text("paused")
        assert (await client.get_schedule("nightly")).is_paused
        await seen.page.click("#pause")
        await expect(seen.page.locator("#said")).to_contain_text("ticks again")
        assert not (await client.get_schedule("nightly")).is_paused
        await seen.page.click("#trigger")
        await expect(seen.page.locator("#said")).to_contain_text("Triggered")
        assert "a schedule" in await seen.text("#payload")
        id = (await seen.text("#job-id")).strip()
        await client.wait(id, timeout_s=60)
        other = await client.submit("noop")  # of this kind, and made by nobody
        await client.wait(other.id, timeout_s=60)
        await expect(seen.page.locator("#state")).to_contain_text("completed")
        await expect(seen.page.locator("#story")).to_contain_text("for the tick")
        await seen.page.click("#to-schedule")
        await expect(made).to_have_count(1)
        await expect(made).to_contain_text(id)
        await expect(made).to_contain_text("completed")
        await expect(made.locator("td").nth(2)).to_have_text(re.compile(r"\d+\.\d s"))
        assert await violations(seen.page) == []


async def test_workers_claims_and_slots_are_seen_as_they_are(place: Place, look: Look) -> None:
    async with place.client() as client:
        await client.put_limit("db", concurrent=3)
        seen = await look(place)
        await seen.log_in("operator")
        limits = await look(place)
        await limits.log_in("viewer")
        await limits.open("/ui/limits")
        slots = limits.page.locator("main tbody tr", has_text="db")
        await expect(slots).to_contain_text("none")
        await seen.open("/ui/workers")
        assert "worker1" in await seen.text() and "coordinator1" in await seen.text()
        held = await client.submit("sleep", {"seconds": 600}, limits=["db"])

        async def executes() -> bool:
            return (await client.get(held.id)).state is JobState.EXECUTING

        await until(executes)
        claim = seen.page.locator("main tbody tr", has_text=held.id)
        await expect(claim).to_contain_text(re.compile(r"\d+ of 10 s"))
        assert await violations(seen.page) == []
        await expect(slots).to_contain_text("1 of 3")  # on the page that was there before the job
        assert await violations(limits.page) == []
        await client.cancel(held.id)
        await expect(slots).to_contain_text("none")
        await seen.open("/ui/workers")
        await expect(claim).to_have_count(0)


async def test_a_pool_is_paused_and_resumed(place: Place, look: Look) -> None:
    seen = await look(place)
    await seen.log_in("operator")
    await seen.open("/ui/limits")
    await seen.page.fill("#p-name", "some/pool")
    await seen.page.fill("#p-reason", "<b>a new release</b>")
    await seen.page.click("#pause")
    row = seen.page.locator("main tbody tr", has_text="some/pool")
    await expect(row).to_contain_text("<b>a new release</b>")
    await row.get_by_role("button").click()
    await expect(row).to_have_count(0)
    await seen.page.fill("#p-name", "No Such Name!")
    await seen.page.click("#pause")
    await expect(seen.page.get_by_role("alert")).to_contain_text("subject.pool")


async def test_acts_are_found_in_the_audit_log_by_who_may_read_it(place: Place, look: Look) -> None:
    async with place.client("operator") as client:
        job = await client.submit("noop", delay_s=3_600)
        await client.cancel(job.id, "for the audit")
    seen = await look(place)
    await seen.log_in("admin")
    await seen.open(f"/ui/audit?action=jobs.&target={job.id}")
    row = seen.page.locator("main tbody tr")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("a operator")
    await row.locator("summary").click()
    assert await violations(seen.page) == []
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.open("/ui/audit")
    await expect(seen.page.locator("h1")).to_have_text("You may not do this")


async def test_policies_and_holds_are_listed(place: Place, look: Look) -> None:
    async with place.client() as client:
        await client.put_retention(kind="noop", state="completed", keep_s=86_400)
        await client.put_hold("case", "4711", "asked by <court>")
    seen = await look(place)
    await seen.log_in("viewer")
    await seen.open("/ui/retention")
    text = await seen.text()
    assert "noop" in text and "1 d" in text and "case=4711" in text and "<court>" in text
    assert await violations(seen.page) == []
