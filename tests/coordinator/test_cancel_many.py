"""Cancels of many jobs: what matches, nothing else, in windows; executing ones are asked through inboxes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.coordinator.conftest import Parts

from tenure.coordinator import cancel
from tenure.coordinator.passing import Span
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.store.etcd.keyspace import CancelRequest, parse_inbox

ANY: dict[str, Any] = dict.fromkeys(
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
ACTIVE = {**ANY, "states": ["executing", "ready", "restarting", "waiting"]}


async def test_a_pool_that_is_removed_takes_its_jobs_along(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "WINDOW_JOBS", 3)
    await alone.register("w1")
    await alone.register("w2")
    idle = [await alone.submit(route=f"pool-a/{n}") for n in range(5)]
    late = await alone.submit(route="pool-a", delay_s=3_600.0)
    at_work = [await alone.submit(route="pool-a") for _ in range(4)]
    fences = {str(id): (await alone.execute(id, worker=f"w{1 + n % 2}")).fence for n, id in enumerate(at_work)}
    child = await alone.submit(route="elsewhere", depends_on=(str(idle[0]),))
    others = [await alone.submit(route="pool-ab"), await alone.submit(route="x/pool-a")]
    filters = {**ACTIVE, "route": "pool-a"}

    seen = await alone.canceler.cancel_matching(filters, Span.up_to_now(), "gone", preview=True)
    assert (seen.canceled, seen.asked, seen.dependants, seen.rest) == (6, 4, 0, None)
    assert len(await alone.sql("SELECT 1 FROM tenure.job")) == 13

    done = await alone.canceler.cancel_matching(filters, Span.up_to_now(), "gone", preview=False)
    assert (done.canceled, done.asked, done.dependants, done.rest) == (6, 4, 1, None)
    assert set(done.ids) == {*idle, late, *at_work}
    for id in (*idle, late):
        row = await alone.row(id)
        assert (row.state, row.reason) == ("canceled", "gone")
        assert await alone.done(id) is not None
    assert await alone.state(child) is JobState.CANCELED
    assert [await alone.state(id) for id in others] == [JobState.READY] * 2
    for worker in ("w1", "w2"):
        requests = [parse_inbox(item.value) for item in (await alone.etcd.list(alone.keys.inbox(worker))).items]
        assert len(requests) == 2
        assert all(isinstance(one, CancelRequest) and one.fence == fences[one.job] for one in requests)
    answer = await alone.finish(at_work[0], fences[str(at_work[0])], Outcome.CANCELED)
    assert answer.state is JobState.CANCELED


async def test_only_the_states_that_are_named_are_touched(alone: Parts) -> None:
    ready, executing = await alone.submit(), await alone.submit()
    await alone.execute(executing)
    waiting = await alone.submit(depends_on=(str(executing),))
    done = await alone.canceler.cancel_matching({**ANY, "states": ["waiting"]}, Span.up_to_now(), "", preview=False)
    assert (done.canceled, done.asked) == (1, 0)
    done = await alone.canceler.cancel_matching({**ANY, "states": ["executing"]}, Span.up_to_now(), "", preview=False)
    assert (done.canceled, done.asked) == (0, 1)
    assert [await alone.state(id) for id in (waiting, ready, executing)] == ["canceled", "ready", "executing"]
    assert (await alone.row(executing)).cancel_requested


async def test_a_worker_that_is_away_is_left_to_the_sweep(alone: Parts) -> None:
    id = await alone.submit()
    await alone.execute(id, worker="gone")
    done = await alone.canceler.cancel_matching(ACTIVE, Span.up_to_now(), "", preview=False)
    assert done.asked == 1
    assert (await alone.row(id)).cancel_requested


async def test_a_pass_ends_at_the_jobs_there_were(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "WINDOW_JOBS", 2)
    monkeypatch.setattr(cancel, "PASS_S", 0.0)
    for _ in range(5):
        await alone.submit()
    span: Span | None = Span.up_to_now()
    counts = []
    while span is not None:
        newer = await alone.submit()
        done = await alone.canceler.cancel_matching(ACTIVE, span, "", preview=False)
        counts.append(done.canceled)
        span = done.rest
    assert counts == [2, 2, 1]
    assert await alone.state(newer) is JobState.READY


async def test_a_mass_cancel_races_starts_and_ends_and_leaves_none_over(alone: Parts) -> None:
    """Every job is canceled, asked to stop, or has completed before; none comes back to be run."""
    specs = [JobSpec(kind="k") for _ in range(40)]
    ids = [one.id for one in await alone.submitter.submit_batch(specs)]
    fences = {id: (await alone.execute(id)).fence for id in ids[:20]}
    claims = [await alone.claim(id) for id in ids[20:]]

    async def come_back() -> None:
        await asyncio.gather(*(alone.finish(id, fence, Outcome.RELEASED) for id, fence in fences.items()))

    _, started, done = await asyncio.gather(
        come_back(),
        alone.starter.start("w1", claims),
        alone.canceler.cancel_matching(ACTIVE, Span.up_to_now(), "", preview=False),
    )
    rows = [await alone.row(id) for id in ids]
    assert {row.state for row in rows} <= {"canceled", "executing"}
    assert all(row.cancel_requested for row in rows if row.state == "executing")
    assert done.canceled + done.asked >= len(ids)
    for row in started:
        assert (await alone.finish(row.id, row.fence, Outcome.RELEASED)).state in (JobState.CANCELED, None)
    assert {await alone.state(id) for id in ids} == {JobState.CANCELED}
