"""Parking against real stores: one fenced transaction, children only, and a job that comes back with what it left."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.coordinator.conftest import Parts

from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.finish import Verdict
from tenure.coordinator.overdue import Overdue
from tenure.coordinator.park import Park
from tenure.model.dependencies import Trigger
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.submit import Parent, keyed_after_parent
from tenure.v1 import job_pb2
from tenure.v1 import worker_service_pb2 as pb

RACES = 40


async def _children(parts: Parts, id: uuid.UUID, fence: int, *specs: dict[str, Any]) -> list[uuid.UUID]:
    """Submit children of an executing attempt; each is called after its place."""
    asked = [JobSpec(**{"kind": "k", "ref": f"child-{n}", **spec}) for n, spec in enumerate(specs)]
    submitted = await parts.submitter.submit_batch(keyed_after_parent(asked), parent=Parent(id, fence))
    return [one.id for one in submitted]


async def _park(parts: Parts, id: uuid.UUID, fence: int, children: Sequence[uuid.UUID], **park: Any) -> Any:
    return await parts.finish(id, fence, Outcome.PARKED, park=Park(tuple(children), **park))


async def _parked(parts: Parts, many: int = 2, spec: dict[str, Any] | None = None, **park: Any) -> Any:
    """Return a parked job, its fence and its children."""
    id = await parts.submit(**(spec or {}))
    fence = (await parts.execute(id)).fence
    children = await _children(parts, id, fence, *({} for _ in range(many)))
    answer = await _park(parts, id, fence, children, **park)
    assert (answer.verdict, answer.state) == (Verdict.RECORDED, JobState.WAITING)
    return id, fence, children


async def _end(parts: Parts, id: uuid.UUID, outcome: Outcome = Outcome.COMPLETED, **report: Any) -> None:
    await parts.finish(id, (await parts.execute(id)).fence, outcome, **report)


async def test_a_parked_job_waits_without_a_worker_and_comes_back(parts: Parts) -> None:
    id, fence, children = await _parked(parts, checkpoint='{"at": 7}')
    assert await parts.claim_of(id) is None
    row = await parts.row(id)
    assert (row.state, row.fence, row.worker, row.attempt, row.errors, row.crashes) == ("waiting", None, None, 1, 0, 0)
    [tried] = await parts.db.fetch("attempts_of", {"id": id})
    assert (tried.outcome, tried.fence) == ("parked", fence)
    await _end(parts, children[0])
    assert await parts.state(id) is JobState.WAITING
    await _end(parts, children[1], Outcome.FAILED, retryable=False)
    assert await parts.state(id) is JobState.READY
    again = await parts.execute(id)
    assert (again.attempt, again.checkpoint, again.parked_attempt) == (2, '{"at": 7}', 1)
    assert again.fence > fence
    await parts.finish(id, again.fence)
    row = await parts.row(id)
    assert (row.state, row.attempt, row.errors, row.crashes) == ("completed", 2, 0, 0)


async def test_one_whose_children_have_ended_is_ready_at_once(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    children = await _children(parts, id, fence, {}, {})
    for child in children:
        await _end(parts, child)
    parts.hinted.clear()
    assert (await _park(parts, id, fence, children)).state is JobState.READY
    [lane] = [row.lane for row in await parts.sql("SELECT lane FROM tenure.job WHERE id = %s", id)]
    assert lane in parts.hinted_lanes
    fence = (await parts.execute(id)).fence
    assert (await _park(parts, id, fence, [])).state is JobState.READY


async def test_a_stale_fence_cannot_park(parts: Parts) -> None:
    id = await parts.submit()
    stale = (await parts.execute(id)).fence
    children = await _children(parts, id, stale, {})
    await parts.finish(id, stale, Outcome.RELEASED)
    fence = (await parts.execute(id)).fence
    answer = await _park(parts, id, stale, children, checkpoint='"stale"')
    assert answer.verdict is Verdict.LOST
    [row] = await parts.sql("SELECT state, fence, checkpoint, parked_attempt FROM tenure.job WHERE id = %s", id)
    assert (row.state, row.fence, row.checkpoint, row.parked_attempt) == ("executing", fence, None, None)
    assert await parts.sql("SELECT 1 FROM tenure.dependency WHERE child_id = %s", id) == []
    assert await parts.claim_of(id) is not None


async def test_a_repeated_park_is_answered_from_the_record(parts: Parts) -> None:
    id, fence, children = await _parked(parts)
    assert (await _park(parts, id, fence, children)).verdict is Verdict.REPEATED
    for child in children:
        await _end(parts, child)
    assert (await parts.execute(id)).attempt == 2
    assert (await _park(parts, id, fence, children)).verdict is Verdict.REPEATED
    assert await parts.state(id) is JobState.EXECUTING


@pytest.mark.parametrize(
    "whom", ["somebody's", "its own parent", "unknown", "waits for its parent", "waits for others"]
)
async def test_it_may_wait_for_its_own_children_only(parts: Parts, whom: str) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    stranger = await parts.submit()
    good, upwards, sideways = await _children(
        parts, id, fence, {}, {"depends_on": (str(id),)}, {"depends_on": ("child-0", str(stranger))}
    )
    bad = {
        "somebody's": stranger,
        "its own parent": id,
        "unknown": uuid.uuid4(),
        "waits for its parent": upwards,
        "waits for others": sideways,
    }[whom]
    answer = await _park(parts, id, fence, [good, bad], checkpoint='"kept?"')
    assert answer.verdict is Verdict.INVALID
    direct = f"park.children[1]: job {bad} is no child of this job"
    indirect = {upwards: id, sideways: stranger}
    assert answer.message == (
        f"park.children: one of them waits for job {indirect[bad]}, which is no child of this job"
        if bad in indirect
        else direct
    )
    [row] = await parts.sql("SELECT state, checkpoint FROM tenure.job WHERE id = %s", id)
    assert (row.state, row.checkpoint) == ("executing", None)
    await _end(parts, stranger)
    if whom == "waits for others":  # no longer
        assert (await _park(parts, id, fence, [good, bad])).state is JobState.WAITING


async def test_children_may_wait_for_each_other_and_park_in_turn(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    first, second = await _children(parts, id, fence, {}, {"depends_on": ("child-0",)})
    assert (await _park(parts, id, fence, [second])).state is JobState.WAITING
    below_fence = (await parts.execute(first)).fence
    [below] = await _children(parts, first, below_fence, {})
    assert (await _park(parts, first, below_fence, [below])).state is JobState.WAITING
    await _end(parts, below)
    await _end(parts, first)
    await _end(parts, second)
    assert await parts.state(id) is JobState.READY


async def test_parking_again_forgets_what_was_waited_for_before(parts: Parts) -> None:
    id, _, (first, second) = await _parked(parts, trigger=Trigger.ANY_FINISHED, checkpoint="1")
    await _end(parts, first)
    again = await parts.execute(id)
    [third] = await _children(parts, id, again.fence, {"ref": "third"})
    assert (await _park(parts, id, again.fence, [third, first])).state is JobState.WAITING
    await _end(parts, second)
    [row] = await parts.sql("SELECT state, waiting_on FROM tenure.job WHERE id = %s", id)
    assert (row.state, row.waiting_on) == ("waiting", 1)
    await _end(parts, third)
    last = await parts.execute(id)
    assert (last.attempt, last.parked_attempt, last.checkpoint) == (3, 2, "1")
    upstream = await _read(parts, id, last.fence)
    assert {job.job_id for job in upstream} == {str(first), str(third)}


async def test_what_it_depended_on_when_submitted_no_longer_counts(parts: Parts) -> None:
    early, late = await parts.submit(), await parts.submit()
    id = await parts.submit(depends_on=(str(early), str(late)), trigger=Trigger.ANY_COMPLETED)
    await _end(parts, early)
    fence = (await parts.execute(id)).fence
    children = await _children(parts, id, fence, {})
    await _park(parts, id, fence, children)
    await _end(parts, late)
    assert await parts.state(id) is JobState.WAITING
    [row] = await parts.db.fetch("dependencies_of", {"ids": [id]})
    assert set(row.parents) == {early, late}
    await _end(parts, children[0])
    assert await parts.state(id) is JobState.READY


@pytest.mark.parametrize(("choice", "end"), [("cancel", JobState.CANCELED), ("fail", JobState.FAILED)])
async def test_a_parking_whose_trigger_cannot_be_met_ends_the_job(parts: Parts, choice: str, end: JobState) -> None:
    spec = {"upstream_failure": choice}
    id, _, children = await _parked(parts, spec=spec, trigger=Trigger.ALL_COMPLETED)
    await _end(parts, children[1], Outcome.FAILED, retryable=False)
    row = await parts.row(id)
    assert (row.state, row.reason) == (end, f"job {children[1]}, which it depends on, failed")
    # And at once where that is so already.
    other = await parts.submit(**spec)
    fence = (await parts.execute(other)).fence
    [child] = await _children(parts, other, fence, {})
    await _end(parts, child, Outcome.FAILED, retryable=False)
    await _park(parts, other, fence, [child], trigger=Trigger.ALL_COMPLETED)
    assert await parts.state(other) is end
    assert await parts.claim_of(other) is None


async def test_a_cancel_that_came_first_wins(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    children = await _children(parts, id, fence, {})
    await parts.canceler.cancel(id, "enough")
    answer = await _park(parts, id, fence, children)
    assert (answer.verdict, answer.state) == (Verdict.RECORDED, JobState.CANCELED)
    assert (await parts.row(id)).reason == "enough"


async def _cancel(parts: Parts, id: uuid.UUID) -> None:
    await parts.canceler.cancel(id, "enough")


async def _replace_by_sql(parts: Parts, id: uuid.UUID) -> None:
    key = (await parts.row(id)).unique_key
    await parts.sql("SELECT tenure.submit_job(kind => 'k', unique_key => %s, on_duplicate => 'replace')", key)


STOPS = pytest.mark.parametrize("stop", [_cancel, _replace_by_sql])
Stop = Callable[[Parts, uuid.UUID], Awaitable[None]]


@STOPS
async def test_a_cancel_takes_the_children_along(parts: Parts, stop: Stop) -> None:
    id, _, (idle, busy, over) = await _parked(parts, 3, {"unique_key": str(uuid.uuid4())})
    await _end(parts, over)
    fence = (await parts.execute(busy)).fence
    deep = await _children(parts, busy, fence, {})
    await stop(parts, id)
    assert [await parts.state(one) for one in (id, idle, busy, over, deep[0])] == [
        JobState.CANCELED,
        JobState.CANCELED,
        JobState.EXECUTING,
        JobState.COMPLETED,
        JobState.READY,
    ]
    assert (await parts.row(busy)).cancel_requested
    assert (await parts.row(idle)).reason == "the job that waited for it was canceled"


@STOPS
async def test_a_cancel_goes_down_through_what_is_parked_below(parts: Parts, stop: Stop) -> None:
    id, _, (child,) = await _parked(parts, 1, {"unique_key": str(uuid.uuid4())})
    fence = (await parts.execute(child)).fence
    [below] = await _children(parts, child, fence, {})
    await _park(parts, child, fence, [below])
    await stop(parts, id)
    assert {await parts.state(one) for one in (id, child, below)} == {JobState.CANCELED}


async def test_the_time_of_a_job_goes_on_while_it_is_parked(alone: Parts) -> None:
    id, _, children = await _parked(alone, spec={"job_timeout_s": 600.0, "start_within_s": 60.0})
    before = (await alone.row(id)).deadline
    assert before is not None
    await _end(alone, children[0])
    assert (await alone.row(id)).deadline == before
    await _end(alone, children[1])
    assert (await alone.row(id)).deadline == before
    late, _, _ = await _parked(alone, spec={"job_timeout_s": 600.0})
    await alone.sql("UPDATE tenure.job SET deadline = now() WHERE id = %s", late)
    assert await Overdue(alone.db, alone.finisher, alone.dependants).sweep() == 1
    assert await alone.state(late) is JobState.FAILED


async def test_a_child_that_ends_while_its_parent_parks_is_never_missed(parts: Parts) -> None:
    """The end and the park at the same moment, many times: the parent always comes back."""

    async def race(index: int) -> uuid.UUID:
        id = await parts.submit()
        fence = (await parts.execute(id)).fence
        [child] = await _children(parts, id, fence, {})
        child_fence = (await parts.execute(child)).fence
        both = [parts.finish(child, child_fence), _park(parts, id, fence, [child])]
        await asyncio.gather(*(both if index % 2 else reversed(both)))
        return id

    parked = await asyncio.gather(*(race(index) for index in range(RACES)))
    assert {await parts.state(id) for id in parked} == {JobState.READY}


async def test_it_says_what_a_parked_job_waits_for(parts: Parts) -> None:
    id, _, children = await _parked(parts, 5, trigger=Trigger.ANY_COMPLETED)
    [obstacle] = await parts.explainer.obstacles(id)
    first = ", ".join(str(child) for child in sorted(children)[:3])
    assert (obstacle.code, obstacle.message) == (
        "parked",
        f"it is parked and waits for one of 5 jobs that it submitted to complete: {first}, …",
    )


# -- results of upstream jobs --


async def _read(parts: Parts, id: uuid.UUID, fence: int) -> list[pb.UpstreamJob]:
    service = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    request = pb.ReadUpstreamRequest(job_id=str(id), fence=fence)
    jobs: list[pb.UpstreamJob] = []
    while True:
        page = await service.ReadUpstream(request, None)  # type: ignore[arg-type]  # it does not look at the call
        assert page.verdict == pb.VERDICT_RECORDED
        jobs.extend(page.jobs)
        if not page.next_page_token:
            return jobs
        request.page_token = page.next_page_token


async def test_upstream_tells_of_each_parent_how_it_ended(parts: Parts) -> None:
    good, bad, open_ = await parts.submit(), await parts.submit(retry={"max_attempts": 1}), await parts.submit()
    id = await parts.submit(depends_on=(str(good), str(bad), str(open_)), trigger=Trigger.ANY_COMPLETED)
    await _end(parts, bad, Outcome.FAILED)
    await _end(parts, good, result='{"n": 1}')
    fence = (await parts.execute(id)).fence
    told = {job.job_id: job for job in await _read(parts, id, fence)}
    ends = [told[str(one)].state for one in (good, bad, open_)]
    assert ends == [job_pb2.JOB_STATE_COMPLETED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_READY]
    assert told[str(good)].result == '{"n": 1}'
    assert told[str(bad)].error.type == "failed"
    assert told[str(bad)].reason == "error 1 of 1"
    assert not told[str(open_)].result


async def test_upstream_comes_in_pages_bounded_in_bytes(parts: Parts) -> None:
    parents = [await parts.submit() for _ in range(40)]
    id = await parts.submit(depends_on=tuple(map(str, parents)))
    for parent in parents:
        await _end(parts, parent, result=f'"{"x" * 60_000}"')
    fence = (await parts.execute(id)).fence
    service = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    page = await service.ReadUpstream(pb.ReadUpstreamRequest(job_id=str(id), fence=fence), None)  # type: ignore[arg-type]
    assert 1_000_000 < sum(len(job.result) for job in page.jobs) < 1_200_000
    assert [job.job_id for job in await _read(parts, id, fence)] == [str(parent) for parent in sorted(parents)]


async def test_upstream_is_refused_under_an_old_fence(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    assert await _read(parts, id, fence) == []
    service = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    request = pb.ReadUpstreamRequest(job_id=str(id), fence=fence - 1)
    page = await service.ReadUpstream(request, None)  # type: ignore[arg-type]
    assert (page.verdict, list(page.jobs)) == (pb.VERDICT_LOST, [])
