"""Retry of failed and canceled jobs: a new job for each, once, with what the old one had been asked for."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts

from tenure.coordinator import passing, retry
from tenure.coordinator.passing import Span
from tenure.model.errors import NotFound, WrongState
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, RetrySpec
from tenure.model.states import JobState, Outcome

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
FAILED = {**ANY, "states": ["failed"]}
BOTH = {**ANY, "states": ["canceled", "failed"]}


async def failed(parts: Parts, **spec: Any) -> uuid.UUID:
    """Return a job that has failed."""
    id = await parts.submit(**{"retry": RetrySpec(max_attempts=1), **spec})
    await parts.finish(id, (await parts.execute(id)).fence, Outcome.FAILED)
    return id


async def canceled(parts: Parts, **spec: Any) -> uuid.UUID:
    """Return a job that was canceled."""
    id = await parts.submit(**spec)
    await parts.canceler.cancel(id, "on second thoughts")
    return id


async def test_a_retry_is_a_copy_with_a_fresh_budget(parts: Parts) -> None:
    asked = {
        "kind": "k",
        "payload": '{"a": [1, 2]}',
        "namespace": "acme",
        "route": "pool-x/y",
        "priority": 7,
        "retry": RetrySpec(max_attempts=1, initial_backoff_s=3.0),
        "ttl_s": 12.0,
        "timeout_s": 34.0,
        "max_crashes": 5,
        "labels": {"a": "b"},
    }
    old = await failed(parts, **asked, idempotency_key="one", delay_s=0.0)
    new, created = await parts.retryer.retry(old)
    assert created and new != old
    row, before = await parts.row(new), await parts.row(old)
    same = ("kind", "payload", "namespace", "route", "priority", "ttl_s", "timeout_s", "max_crashes", "retry", "labels")
    assert [getattr(row, name) for name in same] == [getattr(before, name) for name in same]
    assert (row.state, row.attempt, row.errors, row.crashes, row.error, row.reason) == ("ready", 0, 0, 0, None, "")
    assert (row.retry_of, before.retried_by, row.retried_by, before.retry_of) == (old, new, None, None)
    assert before.state == "failed"
    assert row.idempotency_key is None, "the key stands for the job that was submitted under it"
    assert row.labels and json.loads(row.labels) == {"a": "b"}
    # It is dispatched and runs like any other.
    started = await parts.execute(new)
    assert (started.attempt, started.payload) == (1, '{"a": [1, 2]}')
    await parts.finish(new, started.fence)
    row = await parts.row(new)
    assert (row.state, row.retry_of) == ("completed", old)


async def test_a_job_has_one_retry_however_many_ask_at_once(make_parts: MakeParts, shared_database: str) -> None:
    coordinators = [await make_parts(shared_database) for _ in range(3)]
    for _ in range(5):
        old = await failed(coordinators[0])
        answers = await asyncio.gather(*(parts.retryer.retry(old) for parts in coordinators for _ in range(4)))
        assert len({new for new, _ in answers}) == 1
        assert sum(created for _, created in answers) == 1
        rows = await coordinators[0].sql("SELECT id FROM tenure.job WHERE retry_of = %s", old)
        assert [row.id for row in rows] == [answers[0][0]]


async def test_a_retry_can_be_retried_when_it_has_failed_too(parts: Parts) -> None:
    first = await failed(parts)
    second, _ = await parts.retryer.retry(first)
    with pytest.raises(WrongState, match="ready"):
        await parts.retryer.retry(second)
    await parts.finish(second, (await parts.execute(second)).fence, Outcome.FAILED)
    third, created = await parts.retryer.retry(second)
    assert created
    assert (await parts.row(third)).retry_of == second
    assert await parts.retryer.retry(first) == (second, False)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.EXECUTING, JobState.READY])
async def test_what_has_not_failed_is_refused_with_its_state(parts: Parts, state: JobState) -> None:
    id = await parts.submit()
    if state is not JobState.READY:
        started = await parts.execute(id)
        if state is JobState.COMPLETED:
            await parts.finish(id, started.fence)
    with pytest.raises(WrongState, match=f"is {state}"):
        await parts.retryer.retry(id)
    assert (await parts.row(id)).retried_by is None


async def test_what_is_not_there_is_not_found(parts: Parts) -> None:
    with pytest.raises(NotFound):
        await parts.retryer.retry(new_id())


async def test_dead_letters_are_retried_once_and_only_those_that_match(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "WINDOW_JOBS", 4)
    wanted = {await failed(alone, kind="a", route="pool-a/x") for _ in range(9)}
    others = {
        await failed(alone, kind="b", route="pool-a"),
        await failed(alone, kind="a", route="pool-ab"),
        await failed(alone, kind="a", route="pool-a", labels={"x": "y"}),
        await canceled(alone, kind="a", route="pool-a"),
    }
    filters = {**FAILED, "kind": "a", "route": "pool-a"}
    span = Span.up_to_now()
    seen = await alone.retryer.retry_matching(filters, span, preview=True)
    assert (seen.jobs, seen.skipped, seen.rest) == (10, 0, None)
    assert set(seen.ids) <= wanted | others
    assert await alone.sql("SELECT 1 FROM tenure.job") == []
    done = await alone.retryer.retry_matching({**filters, "labels": None}, span, preview=False)
    assert (done.jobs, done.skipped) == (10, 0)
    retried = {row.retry_of for row in await alone.sql("SELECT retry_of FROM tenure.job")}
    assert wanted < retried and len(retried) == 10
    assert set(alone.hinted_lanes)
    again = await alone.retryer.retry_matching(filters, Span.up_to_now(), preview=False)
    assert (again.jobs, again.skipped) == (0, 0)
    labeled = await alone.retryer.retry_matching({**BOTH, "labels": '{"x": "z"}'}, Span.up_to_now(), preview=True)
    assert labeled.jobs == 0
    both = await alone.retryer.retry_matching(BOTH, Span.up_to_now(), preview=True)
    assert both.jobs == 3


async def test_a_pass_goes_on_where_its_time_was_up(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WINDOW_JOBS", 2)
    monkeypatch.setattr(retry, "PASS_S", 0.0)
    old = [await failed(alone) for _ in range(5)]
    span: Span | None = Span.up_to_now()
    counts = []
    while span is not None:
        done = await alone.retryer.retry_matching(FAILED, span, preview=False)
        counts.append(done.jobs)
        for new in done.ids:  # one that fails again at once is not part of this pass
            await alone.finish(new, (await alone.execute(new)).fence, Outcome.FAILED)
        span = done.rest
    assert counts == [2, 2, 1]
    rows = await alone.sql("SELECT retry_of FROM tenure.history WHERE retry_of IS NOT NULL")
    assert {row.retry_of for row in rows} == set(old)
    assert passing.PASS_S > 0


async def test_a_retried_dependant_waits_for_the_retry_of_its_parent(parts: Parts) -> None:
    specs = [
        JobSpec(kind="k", ref="parent", retry=RetrySpec(max_attempts=1)),
        JobSpec(kind="k", ref="child", depends_on=("parent",)),
        JobSpec(kind="k", depends_on=("child",)),
    ]
    parent, child, grandchild = (one.id for one in await parts.submitter.submit_batch(specs))
    await parts.finish(parent, (await parts.execute(parent)).fence, Outcome.FAILED)
    assert await parts.state(grandchild) is JobState.CANCELED
    with pytest.raises(WrongState, match=f"depends on job {parent}, which is failed"):
        await parts.retryer.retry(child)
    new_parent, _ = await parts.retryer.retry(parent)
    new_child, _ = await parts.retryer.retry(child)
    assert await parts.state(new_child) is JobState.WAITING
    await parts.finish(new_parent, (await parts.execute(new_parent)).fence)
    assert await parts.state(new_child) is JobState.READY
    # Its parent is complete by now: the third waits for the second alone.
    new_grandchild, _ = await parts.retryer.retry(grandchild)
    assert await parts.state(new_grandchild) is JobState.WAITING
    await parts.finish(new_child, (await parts.execute(new_child)).fence)
    assert await parts.state(new_grandchild) is JobState.READY


async def test_a_whole_broken_chain_is_retried_in_one_go(alone: Parts) -> None:
    # The dependants come first in the batch, so that their ids are lower than those of their parents.
    specs = [
        JobSpec(kind="k", ref="c", depends_on=("b",)),
        JobSpec(kind="k", ref="b", depends_on=("a",)),
        JobSpec(kind="k", ref="a", retry=RetrySpec(max_attempts=1)),
    ]
    _, _, first = (one.id for one in await alone.submitter.submit_batch(specs))
    await alone.finish(first, (await alone.execute(first)).fence, Outcome.FAILED)
    done = await alone.retryer.retry_matching(BOTH, Span.up_to_now(), preview=False)
    assert (done.jobs, done.skipped) == (3, 0)
    for _ in range(3):
        [ready] = await alone.sql("SELECT id FROM tenure.job WHERE state = 'ready'")
        await alone.finish(ready.id, (await alone.execute(ready.id)).fence)
    rows = await alone.sql("SELECT state FROM tenure.history WHERE retry_of IS NOT NULL")
    assert [row.state for row in rows] == ["completed"] * 3


async def test_dependants_alone_are_skipped_and_counted(alone: Parts) -> None:
    specs = [
        JobSpec(kind="k", ref="a", retry=RetrySpec(max_attempts=1)),
        JobSpec(kind="k", ref="b", depends_on=("a",)),
        JobSpec(kind="k", depends_on=("b",)),
    ]
    first, *_ = (one.id for one in await alone.submitter.submit_batch(specs))
    await alone.finish(first, (await alone.execute(first)).fence, Outcome.FAILED)
    done = await alone.retryer.retry_matching({**ANY, "states": ["canceled"]}, Span.up_to_now(), preview=False)
    assert (done.jobs, done.skipped) == (0, 2)
    assert await alone.sql("SELECT 1 FROM tenure.job") == []
