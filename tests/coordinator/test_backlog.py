"""Bounds of backlogs: what is refused and what is not, and what is counted, on real stores."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta

import pytest
from tests.coordinator.conftest import Parts, leader_of, running, until
from tests.coordinator.test_schedule_service import round_of

from tenure.coordinator import backlog
from tenure.model.errors import BacklogFull, BoundExceeded, Conflict, SubmitRateExceeded
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.schedules import ticks_from, validate_schedule
from tenure.model.states import JobState
from tenure.model.submit import Submitted
from tenure.model.unique import OnDuplicate
from tenure.store.postgres.database import query


async def bound(parts: Parts, most: int, namespace: str = "default") -> None:
    """Set a namespace's bound, and let this coordinator know."""
    params = {
        "name": namespace,
        "weight": None,
        "ageing_s": None,
        "backlog": most,
        "submit_rate": None,
        "submit_burst": None,
    }
    await parts.db.fetch("put_namespace", params)
    await recount(parts)


async def limit_rate(parts: Parts, per_s: float, burst: int | None = None, namespace: str = "default") -> None:
    """Set how fast a namespace may submit, and let this coordinator know."""
    params = {"name": namespace, "weight": None, "ageing_s": None, "backlog": None}
    await parts.db.fetch("put_namespace", {**params, "submit_rate": per_s, "submit_burst": burst})
    await parts.backlogs.refresh()


async def recount(parts: Parts) -> None:
    """Count as the leader does, and read as every coordinator does."""
    await parts.db.fetch("count_backlogs")
    await parts.backlogs.refresh()


async def jobs_in(parts: Parts, namespace: str = "default") -> int:
    rows = await parts.sql("SELECT count(*) AS jobs FROM tenure.job WHERE namespace = %s", namespace)
    count: int = rows[0].jobs
    return count


async def test_what_is_beyond_the_bound_is_refused_with_the_numbers(alone: Parts) -> None:
    await bound(alone, 5)
    for _ in range(3):
        await alone.submit()
    with pytest.raises(BacklogFull, match=r"3 unfinished jobs, with 3 more there would be above 5"):
        await alone.submitter.submit_batch([JobSpec(kind="k")] * 3)
    assert await jobs_in(alone) == 3  # whole or not at all
    await alone.submitter.submit_batch([JobSpec(kind="k")] * 2)
    async with running(alone.submitter.run()):
        with pytest.raises(BoundExceeded):
            await alone.submitter.submit(JobSpec(kind="k"))
        await alone.submitter.submit(JobSpec(kind="k", namespace="other"))
    assert await jobs_in(alone) == 5


async def test_a_job_that_replaces_another_needs_room_too(alone: Parts) -> None:
    await bound(alone, 1)
    [first] = await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="u")])
    with pytest.raises(BacklogFull):
        await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="u", on_duplicate=OnDuplicate.REPLACE)])
    assert await alone.state(first.id) is JobState.READY


async def test_jobs_are_counted_once_before_and_after_the_count(alone: Parts) -> None:
    await bound(alone, 5)
    for _ in range(3):
        await alone.submit()
    await recount(alone)
    await recount(alone)
    for _ in range(2):
        await alone.submit()
    with pytest.raises(BacklogFull):
        await alone.submit()


async def test_what_finished_leaves_room_with_the_next_count(alone: Parts) -> None:
    await bound(alone, 1)
    id = await alone.submit()
    with pytest.raises(BacklogFull):
        await alone.submit()
    await alone.finish(id, (await alone.execute(id)).fence)
    await recount(alone)
    await alone.submit()


async def test_a_job_that_is_there_is_the_answer_though_there_is_no_room(alone: Parts) -> None:
    await bound(alone, 1)
    [first] = await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="u")])
    existing = JobSpec(kind="k", unique_key="u", on_duplicate=OnDuplicate.EXISTING, idempotency_key="once")
    [met] = await alone.submitter.submit_batch([existing])
    assert (met.id, met.created, met.duplicate) == (first.id, False, True)
    with pytest.raises(Conflict, match="is that of job"):
        await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="u")])
    with pytest.raises(BacklogFull):
        await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="other", on_duplicate=OnDuplicate.EXISTING)])


async def test_of_a_stream_as_many_are_taken_as_there_is_room_for(alone: Parts) -> None:
    await bound(alone, 5)
    known = JobSpec(kind="k", idempotency_key="known")
    await alone.submitter.submit_batch([known])
    specs = [*(JobSpec(kind="k", idempotency_key=f"key-{number}") for number in range(9)), known]
    answers = await alone.submitter.submit_each([*specs, JobSpec(kind="k", namespace="other")])
    taken = [isinstance(answer, Submitted) for answer in answers]
    assert taken == [True] * 4 + [False] * 5 + [True] * 2
    assert all(isinstance(answer, (Submitted, BacklogFull)) for answer in answers)
    assert await jobs_in(alone) == 5


async def test_a_repeated_submit_is_answered_though_there_is_no_room(alone: Parts) -> None:
    await bound(alone, 2)
    specs = [JobSpec(kind="k", idempotency_key="one"), JobSpec(kind="k", idempotency_key="two")]
    first = await alone.submitter.submit_batch(specs)
    again = await alone.submitter.submit_batch(specs)
    assert [(one.id, one.created) for one in again] == [(one.id, False) for one in first]
    async with running(alone.submitter.run()):
        assert (await alone.submitter.submit(specs[0])).id == first[0].id
    with pytest.raises(BacklogFull):
        await alone.submitter.submit_batch([specs[0], JobSpec(kind="k", idempotency_key="three")])


async def test_what_was_not_written_takes_no_room(alone: Parts) -> None:
    await bound(alone, 2)
    spec = JobSpec(kind="k", idempotency_key="one")
    await alone.submitter.submit_batch([spec])
    for _ in range(3):
        await alone.submitter.submit_batch([spec])
    await alone.submit()
    assert await jobs_in(alone) == 2


async def test_ticks_and_retries_by_hand_are_counted_and_never_refused(alone: Parts) -> None:
    await bound(alone, 1)
    id = await alone.submit()
    await alone.db.fetch("cancel_idle", {"ids": [id], "reason": ""})
    await recount(alone)
    await alone.submit()
    spec = validate_schedule({"name": "s", "interval_s": 3600, "job": {"kind": "k"}})
    params = {"id": new_id(), "namespace": "default", "name": "s", "spec": spec.stored(), "paused": False}
    last_tick = next(ticks_from(spec, (await alone.db.fetch("time"))[0].now - timedelta(hours=1)))
    await alone.db.fetch("insert_schedule", {**params, "next_at": last_tick, "most": 1_000})
    assert await round_of(alone).round() == 1
    _, created = await alone.retryer.retry(id)
    assert created
    assert await jobs_in(alone) == 3
    await recount(alone)
    with pytest.raises(BacklogFull, match="3 unfinished"):
        await alone.submit()


async def test_the_leader_counts_and_the_bound_can_be_lifted(alone: Parts) -> None:
    await alone.submit()
    await alone.submit(namespace="other")
    params = {
        "name": "default",
        "weight": None,
        "ageing_s": None,
        "backlog": 1,
        "submit_rate": None,
        "submit_burst": None,
    }
    await alone.db.fetch("put_namespace", params)
    async with running(leader_of(alone).run(), alone.backlogs.keep_fresh()):

        async def counted() -> bool:
            return [row.unfinished for row in await alone.db.fetch("namespaces")] == [1]

        async def full() -> bool:
            return alone.backlogs.is_full("default")

        await until(counted)
        await until(full)
        await alone.db.fetch("put_namespace", {**params, "backlog": 0})

        async def lifted() -> bool:
            return not await full()

        await until(lifted)
        await alone.submit()
    assert [row.unfinished for row in await alone.db.fetch("namespaces")] == [None]


async def test_where_nobody_has_a_bound_no_job_is_read(alone: Parts) -> None:
    await alone.submit(namespace=f"n{uuid.uuid4().hex[:8]}")
    [row] = await alone.sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query('count_backlogs')}")
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    loops = []

    def collect(node: dict[str, object]) -> None:
        if node.get("Relation Name") == "job":
            loops.append(node["Actual Loops"])
        for child in node.get("Plans", ()):  # type: ignore[attr-defined]
            collect(child)

    collect(plan[0]["Plan"])
    assert loops == [0]


async def test_what_nobody_counts_for_long_is_kept_in_bounded_room(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a leader, or while counts take too long: as many jobs count against the bound, in few slices."""
    monkeypatch.setattr(backlog, "SLICE_S", 0.0)
    monkeypatch.setattr(backlog, "SLICES", 5)
    await bound(alone, 1_000)
    job = PlannedJob(new_id(), JobSpec(kind="k"), (), b"")
    for _ in range(99):
        with alone.backlogs.writing([job] * 10):
            pass
    assert len(alone.backlogs._accepted["default"].slices) == 5
    with alone.backlogs.writing([job] * 5), pytest.raises(BacklogFull), alone.backlogs.writing([job] * 6):
        pass
    with pytest.raises(KeyError), alone.backlogs.writing([job] * 5):
        raise KeyError
    with alone.backlogs.writing([job] * 5):
        assert alone.backlogs.is_full("default")

    async def forgotten() -> bool:
        await recount(alone)  # which forgets what is older than it, by as long as it takes
        return not alone.backlogs._accepted["default"].jobs

    await until(forgotten)
    with alone.backlogs.writing([job] * 1_000):
        pass


# -- how fast --

SLOWLY = 0.001
"""A token in a quarter of an hour: none comes while a test runs."""


async def test_what_comes_too_fast_is_refused_whole_with_the_numbers_and_when_it_fits(alone: Parts) -> None:
    await limit_rate(alone, SLOWLY, 5)
    await alone.submitter.submit_batch([JobSpec(kind="k")] * 3)
    with pytest.raises(
        SubmitRateExceeded, match=r"may submit 0\.001 jobs a second, at most 5 at once: room for 3"
    ) as it:
        await alone.submitter.submit_batch([JobSpec(kind="k")] * 3)
    assert it.value.retry_after_s == pytest.approx(1_000, rel=0.5)
    assert await jobs_in(alone) == 3
    await alone.submitter.submit_batch([JobSpec(kind="k")] * 2)  # the refused ones took nothing
    await alone.submit(namespace="other")
    await limit_rate(alone, 0)
    await alone.submit()


async def test_a_batch_beyond_the_burst_is_told_that_it_never_fits(alone: Parts) -> None:
    await limit_rate(alone, 100.0)
    with pytest.raises(SubmitRateExceeded, match="at most 100 at once: 101 are more than that") as caught:
        await alone.submitter.submit_batch([JobSpec(kind="k")] * 101)
    assert caught.value.retry_after_s is None


async def test_of_single_submits_at_one_moment_no_more_are_taken_than_fit(alone: Parts) -> None:
    await limit_rate(alone, SLOWLY, 10)
    async with running(alone.submitter.run()):
        asked = [alone.submitter.submit(JobSpec(kind="k")) for _ in range(60)]
        others = [alone.submitter.submit(JobSpec(kind="k", namespace="other")) for _ in range(5)]
        answers = await asyncio.gather(*asked, *others, return_exceptions=True)
        more = await alone.submitter.submit_together([JobSpec(kind="k")] * 3)
    assert all(isinstance(answer, (Submitted, SubmitRateExceeded)) for answer in [*answers, *more])
    assert sum(isinstance(answer, Submitted) for answer in answers[:60]) == await jobs_in(alone) == 10
    assert all(isinstance(answer, Submitted) for answer in answers[60:])
    assert all(isinstance(answer, SubmitRateExceeded) for answer in more)


async def test_a_repeated_submit_is_answered_however_fast_it_comes(alone: Parts) -> None:
    await limit_rate(alone, SLOWLY, 1)
    spec = JobSpec(kind="k", idempotency_key="one")
    async with running(alone.submitter.run()):
        first = await alone.submitter.submit(spec)
        for _ in range(3):
            assert (await alone.submitter.submit(spec)).id == first.id
        [streamed, refused] = await alone.submitter.submit_each([spec, JobSpec(kind="k", idempotency_key="two")])
    assert isinstance(streamed, Submitted)
    assert streamed.id == first.id
    assert isinstance(refused, SubmitRateExceeded)
