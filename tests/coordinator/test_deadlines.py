"""Jobs that must have started, or ended, by a time: judged by Postgres' clock, by the start and by the leader alike."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.coordinator.conftest import Parts, leader_of, reaper_of, running, until

from tenure.coordinator import overdue
from tenure.coordinator.overdue import Overdue
from tenure.coordinator.passing import Span
from tenure.model.jobs import JobSpec, RetrySpec
from tenure.model.states import JobState, Outcome

PAST = "UPDATE tenure.job SET start_by = start_by - interval '2 h', deadline = deadline - interval '2 h' WHERE id = %s"


def sweeper(parts: Parts) -> Overdue:
    return Overdue(parts.db, parts.finisher, parts.dependants)


async def pass_time(parts: Parts, *ids: uuid.UUID) -> None:
    """Set the deadlines of jobs back by two hours."""
    for id in ids:
        await parts.sql(PAST, id)


def seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds()


async def test_a_job_that_does_not_start_in_time_fails_and_takes_its_dependants_along(alone: Parts) -> None:
    late, on_time = await alone.submit(start_within_s=3_600.0), await alone.submit(start_within_s=3_600.0)
    child = await alone.submit(depends_on=(str(late),))
    await pass_time(alone, late)
    assert await sweeper(alone).sweep() == 1
    row = await alone.row(late)
    assert (row.state, row.reason, row.attempt) == ("failed", "did not start in time", 0)
    assert await alone.done(late) is not None
    assert await alone.state(child) is JobState.CANCELED
    assert await alone.state(on_time) is JobState.READY
    assert await sweeper(alone).sweep() == 0
    retried, _ = await alone.retryer.retry(late)
    row = await alone.row(retried)
    assert 3_500 < seconds(row.start_by, row.created_at) <= 3_600.1, "a retry has its own time"


async def test_only_the_first_start_counts(alone: Parts) -> None:
    id = await alone.submit(start_within_s=3_600.0)
    started = await alone.execute(id)
    await pass_time(alone, id)
    assert await sweeper(alone).sweep() == 0
    await alone.finish(id, started.fence, Outcome.RELEASED)
    assert await sweeper(alone).sweep() == 0
    assert (await alone.execute(id)).attempt == 2


@pytest.mark.parametrize("spec", [{"start_within_s": 3_600.0}, {"job_timeout_s": 3_600.0}])
async def test_a_start_after_the_time_is_refused_before_any_sweep(alone: Parts, spec: dict[str, float]) -> None:
    id = await alone.submit(**spec)
    claimed = await alone.claim(id)
    await pass_time(alone, id)
    assert await alone.starter.start("w1", [claimed]) == []
    assert await alone.state(id) is JobState.READY
    assert await sweeper(alone).sweep() == 1


async def test_starts_race_the_sweep_and_one_of_them_wins(alone: Parts) -> None:
    """The time is up while the starts are under way: each job executes or has failed, and none is both."""
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    ids = [one.id for one in await alone.submitter.submit_batch([JobSpec(kind="k", start_by=soon)] * 60)]
    claims = [await alone.claim(id) for id in ids]

    async def start_one_by_one() -> set[uuid.UUID]:
        return {row.id for claim in claims for row in await alone.starter.start("w1", [claim])}

    async def sweep_all() -> int:
        failed = 0
        while datetime.now(UTC) < soon + timedelta(seconds=0.5):
            failed += await sweeper(alone).sweep()
            await asyncio.sleep(0)
        return failed

    started, failed = await asyncio.gather(start_one_by_one(), sweep_all())
    failed += await sweeper(alone).sweep()
    states = [await alone.state(id) for id in ids]
    assert set(states) <= {JobState.EXECUTING, JobState.FAILED}
    assert states.count(JobState.EXECUTING) == len(started)
    assert states.count(JobState.FAILED) == failed


async def test_times_count_from_the_first_possible_start(alone: Parts) -> None:
    asked: dict[str, Any] = {"start_within_s": 60.0, "job_timeout_s": 600.0}
    at_once = await alone.row(await alone.submit(**asked))
    assert abs(seconds(at_once.start_by, at_once.created_at) - 60) < 1
    assert abs(seconds(at_once.deadline, at_once.created_at) - 600) < 1
    later = await alone.row(await alone.submit(**asked, delay_s=1_000.0))
    assert abs(seconds(later.start_by, later.activate_at) - 60) < 1
    assert abs(seconds(later.deadline, later.activate_at) - 600) < 1
    past = datetime.now(UTC) - timedelta(days=1)
    since = await alone.row(await alone.submit(**asked, activate_at=past))
    assert abs(seconds(since.start_by, since.created_at) - 60) < 1
    far = datetime.max.replace(tzinfo=UTC)
    assert (await alone.row(await alone.submit(**asked, activate_at=far))).deadline <= far


async def test_one_that_waits_has_its_time_from_when_it_no_longer_does(alone: Parts) -> None:
    parent = await alone.submit()
    waiting = await alone.submit(depends_on=(str(parent),), start_within_s=60.0, job_timeout_s=600.0)
    fixed = datetime.now(UTC) + timedelta(hours=1)
    dated = await alone.submit(depends_on=(str(parent),), start_by=fixed)
    row = await alone.row(waiting)
    assert (row.state, row.start_by, row.deadline) == ("waiting", None, None)
    assert (await alone.row(dated)).start_by == fixed
    started = await alone.execute(parent)
    await alone.sql("UPDATE tenure.job SET created_at = now() - interval '1 d', activate_at = now() - interval '1 d'")
    await alone.finish(parent, started.fence)
    row = await alone.row(waiting)
    assert row.state == "ready"
    assert 50 < seconds(row.start_by, datetime.now(UTC)) < 70
    assert 590 < seconds(row.deadline, datetime.now(UTC)) < 610
    # A parent that had completed before is no reason to wait.
    ready = await alone.row(await alone.submit(depends_on=(str(parent),), start_within_s=60.0, job_timeout_s=600.0))
    assert ready.state == "ready"
    assert 50 < seconds(ready.start_by, datetime.now(UTC)) < 70
    assert 590 < seconds(ready.deadline, datetime.now(UTC)) < 610
    # An instant holds for one that waits, too.
    await pass_time(alone, dated)
    child = await alone.submit(depends_on=(str(ready.id),), start_by=fixed)
    await pass_time(alone, child)
    assert await sweeper(alone).sweep() == 2
    assert [await alone.state(id) for id in (dated, child)] == [JobState.FAILED] * 2


async def test_a_retried_dependant_has_its_time_when_it_no_longer_waits(alone: Parts) -> None:
    specs = [
        JobSpec(kind="k", ref="a", retry=RetrySpec(max_attempts=1)),
        JobSpec(kind="k", depends_on=("a",), start_within_s=60.0, job_timeout_s=600.0),
    ]
    first, _ = (one.id for one in await alone.submitter.submit_batch(specs))
    await alone.finish(first, (await alone.execute(first)).fence, Outcome.FAILED)
    filters = dict.fromkeys(
        (
            "namespace",
            "namespaces",
            "kind",
            "route",
            "labels",
            "parent_id",
            "created_after",
            "created_before",
            "workflow_id",
        )
    )
    await alone.retryer.retry_matching({**filters, "states": ["failed", "canceled"]}, Span.up_to_now(), preview=False)
    [waiting] = await alone.sql("SELECT * FROM tenure.job WHERE state = 'waiting'")
    assert (waiting.start_by, waiting.deadline) == (None, None)
    [parent] = await alone.sql("SELECT id FROM tenure.job WHERE state = 'ready'")
    await alone.finish(parent.id, (await alone.execute(parent.id)).fence)
    row = await alone.row(waiting.id)
    assert row.state == "ready"
    assert 590 < seconds(row.deadline, datetime.now(UTC)) < 610


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.RELEASED, Outcome.RESCHEDULED])
async def test_past_its_deadline_a_job_does_not_come_back(alone: Parts, outcome: Outcome) -> None:
    id = await alone.submit(job_timeout_s=3_600.0, retry=RetrySpec(max_attempts=10))
    started = await alone.execute(id)
    assert 3_590 < started.timeout_s <= 3_600, "the worker ends it by itself when the time is up"
    await pass_time(alone, id)
    assert (await alone.finish(id, started.fence, outcome)).state is JobState.FAILED
    row = await alone.row(id)
    assert row.reason == "did not end in time"
    assert await alone.outcomes(id) == [str(outcome)]


async def test_a_job_that_completes_late_has_completed(alone: Parts) -> None:
    id = await alone.submit(job_timeout_s=3_600.0)
    started = await alone.execute(id)
    await pass_time(alone, id)
    assert (await alone.finish(id, started.fence)).state is JobState.COMPLETED


@pytest.mark.parametrize("state", ["ready", "backing off", "waiting", "restarting"])
async def test_a_deadline_ends_what_nobody_executes(alone: Parts, state: str) -> None:
    id = await alone.submit(job_timeout_s=3_600.0, retry=RetrySpec(max_attempts=9, initial_backoff_s=600.0))
    if state == "waiting":
        await alone.sql("UPDATE tenure.job SET state = 'waiting', due = false, waiting_on = 1 WHERE id = %s", id)
    elif state != "ready":
        started = await alone.execute(id)
        if state == "backing off":
            await alone.finish(id, started.fence, Outcome.FAILED)
        else:
            await alone.lose_claim(id)
            await (await reaper_of(alone)).sweep()
            assert await alone.state(id) is JobState.RESTARTING
    await pass_time(alone, id)
    assert await sweeper(alone).sweep() == 1
    row = await alone.row(id)
    assert (row.state, row.reason) == ("failed", "did not end in time")


@pytest.mark.parametrize("claim_is_there", [True, False])
async def test_the_leader_ends_an_attempt_that_its_worker_does_not(alone: Parts, claim_is_there: bool) -> None:
    id, other = [await alone.submit(job_timeout_s=3_600.0, retry=RetrySpec(max_attempts=9)) for _ in range(2)]
    started = await alone.execute(id)
    await alone.execute(other)
    await pass_time(alone, id)
    if not claim_is_there:
        await alone.lose_claim(id)
    assert await (await reaper_of(alone)).sweep() == 1
    row = await alone.row(id)
    assert (row.state, row.reason) == ("failed", "did not end in time")
    assert await alone.outcomes(id) == ["timed_out" if claim_is_there else "lost"]
    assert await alone.claim_of(id) is None
    assert (await alone.finish(id, started.fence)).verdict == "lost"
    assert await alone.state(other) is JobState.EXECUTING


async def test_a_worker_that_asks_again_how_it_started_is_told_the_time_that_is_left(alone: Parts) -> None:
    bounded, free = await alone.submit(job_timeout_s=3_600.0), await alone.submit()
    for id in (bounded, free):
        claimed = await alone.claim(id)
        [first] = await alone.starter.start("w1", [claimed])
        [again] = await alone.starter.start("w1", [claimed])
        assert again.fence == first.fence
        if id is free:
            assert (first.timeout_s, again.timeout_s) == (None, None)
        else:
            assert 0 < again.timeout_s <= first.timeout_s
            await pass_time(alone, id)
            [late] = await alone.starter.start("w1", [claimed])
            assert 0 < late.timeout_s < 0.1


async def test_pages_of_overdue_jobs_are_all_ended(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "PAGE_JOBS", 3)
    ids = [await alone.submit(start_within_s=3_600.0, job_timeout_s=7_100.0) for _ in range(8)]
    await pass_time(alone, *ids)
    assert await sweeper(alone).sweep() == 8
    assert {(await alone.row(id)).reason for id in ids} == {"did not start in time"}


async def test_the_leader_looks_by_itself(alone: Parts) -> None:
    id = await alone.submit(start_within_s=0.2)
    async with running(leader_of(alone).run()):

        async def is_over() -> bool:
            return await alone.state(id) is JobState.FAILED

        await until(is_over)
