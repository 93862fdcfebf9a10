"""Unique keys: at most one unfinished job has one, whoever submits, however jobs end; never two of them at once."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts

from tenure.model.errors import Conflict, InvalidInput, WrongState
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.unique import OnDuplicate


def _spec(key: str, on_duplicate: OnDuplicate = OnDuplicate.REFUSE, **more: Any) -> JobSpec:
    return JobSpec(**{"kind": "k", "unique_key": key, "on_duplicate": on_duplicate, **more})


async def _submit(parts: Parts, *specs: JobSpec) -> Any:
    return await parts.submitter.submit_batch(list(specs))


@pytest.fixture
def key() -> str:
    """A key that no other test has."""
    return str(uuid.uuid4())


async def test_a_second_job_is_refused_and_the_first_one_named(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    with pytest.raises(Conflict, match=rf"jobs\[1\]\.unique_key .* is that of job {first.id}, which is ready"):
        await _submit(parts, JobSpec(kind="k", labels={"batch": key}), _spec(key))
    assert not await parts.sql("SELECT FROM tenure.job WHERE labels @> jsonb_build_object('batch', %s::text)", key)


async def test_a_key_is_for_its_namespace_and_kind(parts: Parts, key: str) -> None:
    made = await _submit(parts, _spec(key), _spec(key, kind="other"), _spec(key, namespace="other"))
    assert all(one.created for one in made)


async def test_a_key_twice_in_a_batch_is_refused(parts: Parts, key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await _submit(parts, _spec(key), _spec(key, OnDuplicate.REPLACE))
    assert [violation.field for violation in refused.value.violations] == ["jobs[1].unique_key"]


async def test_the_existing_job_is_the_answer_and_stays_it_for_the_same_request(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    again = _spec(key, OnDuplicate.EXISTING, idempotency_key=key)
    [met] = await _submit(parts, again)
    assert (met.id, met.created, met.duplicate) == (first.id, False, True)
    fence = (await parts.execute(first.id)).fence
    await parts.finish(first.id, fence)
    [repeated] = await _submit(parts, again)
    assert (repeated.id, repeated.created) == (first.id, False)
    [new] = await _submit(parts, again.model_copy(update={"idempotency_key": None}))
    assert new.created


async def test_members_of_a_batch_depend_on_the_job_that_answered(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    _, child = await _submit(parts, _spec(key, OnDuplicate.EXISTING, ref="a"), JobSpec(kind="k", depends_on=("a",)))
    assert await parts.state(child.id) is JobState.WAITING
    await parts.finish(first.id, (await parts.execute(first.id)).fence)
    assert await parts.state(child.id) is JobState.READY


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "expire", "lose"])
async def test_the_key_is_free_when_its_job_has_ended_by_any_path(parts: Parts, key: str, end: str) -> None:
    [first] = await _submit(parts, _spec(key, retry={"max_attempts": 1}, max_crashes=1))
    match end:
        case "complete":
            await parts.finish(first.id, (await parts.execute(first.id)).fence)
        case "fail":
            await parts.finish(first.id, (await parts.execute(first.id)).fence, Outcome.FAILED)
        case "cancel":
            await parts.canceler.cancel(first.id, "")
        case "expire":
            await parts.sql("UPDATE tenure.job SET deadline = now() WHERE id = %s", first.id)
            await parts.db.fetch("expire_idle", {"ids": [first.id], "not_started": "a", "not_ended": "b"})
        case "lose":
            fence = (await parts.execute(first.id)).fence
            await parts.canceler.cancel(first.id, "")
            await parts.finish(first.id, fence, Outcome.RELEASED)
    assert (await parts.row(first.id)).finished_at is not None
    assert (await parts.row(first.id)).unique_key == key
    [second] = await _submit(parts, _spec(key))
    assert second.created


async def test_a_job_that_comes_back_keeps_its_key(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    await parts.finish(first.id, (await parts.execute(first.id)).fence, Outcome.FAILED)
    assert await parts.state(first.id) is JobState.READY
    with pytest.raises(Conflict):
        await _submit(parts, _spec(key))


async def test_an_idle_job_is_replaced_at_once(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    [child] = await _submit(parts, JobSpec(kind="k", depends_on=(str(first.id),)))
    [second] = await _submit(parts, _spec(key, OnDuplicate.REPLACE))
    row = await parts.row(first.id)
    assert (row.state, row.replaced_by) == (JobState.CANCELED, second.id)
    assert "unique key" in row.reason
    assert await parts.state(second.id) is JobState.READY
    assert await parts.state(child.id) is JobState.CANCELED  # as after any cancel
    assert await parts.done(first.id) is not None


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELED, Outcome.RELEASED])
async def test_an_executing_job_is_asked_to_stop_and_the_new_one_held_until_it_has_ended(
    parts: Parts, key: str, outcome: Outcome
) -> None:
    await parts.register()
    [first] = await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    [second] = await _submit(parts, _spec(key, OnDuplicate.REPLACE, start_within_s=60.0, job_timeout_s=600.0))
    before = await parts.row(first.id)
    assert (before.state, before.cancel_requested, before.replaced_by) == (JobState.EXECUTING, True, second.id)
    held = await parts.row(second.id)
    assert (held.state, held.start_by, held.deadline) == (JobState.WAITING, None, None)
    await parts.finish(first.id, fence, outcome)
    after = await parts.row(second.id)
    assert after.state == JobState.READY
    assert after.start_by is not None
    assert after.deadline is not None
    assert (await parts.sql("SELECT due, held_back, waiting_on FROM tenure.job WHERE id = %s", second.id)) == [
        (True, None, 0)
    ]


async def test_a_job_that_is_held_waits_for_what_it_depends_on_too(parts: Parts, key: str) -> None:
    parent, [first] = await parts.submit(), await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    replacing = _spec(key, OnDuplicate.REPLACE, depends_on=(str(parent),))
    [second] = await _submit(parts, replacing)
    await parts.finish(parent, (await parts.execute(parent)).fence)
    assert await parts.state(second.id) is JobState.WAITING
    await parts.finish(first.id, fence)
    assert await parts.state(second.id) is JobState.READY


async def test_whoever_has_the_key_is_held_until_the_replaced_one_is_gone(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    [second] = await _submit(parts, _spec(key, OnDuplicate.REPLACE))
    [third] = await _submit(parts, _spec(key, OnDuplicate.REPLACE))
    assert await parts.state(second.id) is JobState.CANCELED
    await parts.canceler.cancel(third.id, "")
    [fourth] = await _submit(parts, _spec(key))
    assert await parts.state(fourth.id) is JobState.WAITING
    await parts.finish(first.id, fence)
    assert await parts.state(fourth.id) is JobState.READY


async def test_coordinators_that_replace_at_the_same_moment_leave_one_job(
    make_parts: MakeParts, shared_database: str, key: str
) -> None:
    each = [await make_parts(shared_database) for _ in range(3)]
    [first] = await _submit(each[0], _spec(key))
    await each[0].execute(first.id)
    made = await asyncio.gather(*(_submit(parts, _spec(key, OnDuplicate.REPLACE)) for parts in each for _ in range(4)))
    rows = await each[0].sql("SELECT id, state, replaced_by FROM tenure.job WHERE unique_key = %s", key)
    assert len(made) == 12
    assert len([row for row in rows if row.replaced_by is None]) == 1
    assert {row.state for row in rows if row.replaced_by is None} == {"waiting"}
    assert [row.id for row in rows if row.replaced_by is not None] == [first.id]


async def test_coordinators_that_submit_at_the_same_moment_make_one_job(
    make_parts: MakeParts, shared_database: str, key: str
) -> None:
    each = [await make_parts(shared_database) for _ in range(3)]
    made = await asyncio.gather(*(_submit(parts, _spec(key, OnDuplicate.EXISTING)) for parts in each for _ in range(5)))
    assert sum(one.created for [one] in made) == 1
    assert len({one.id for [one] in made}) == 1


async def test_a_retry_takes_the_key_again_or_is_refused(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    await parts.canceler.cancel(first.id, "")
    [second] = await _submit(parts, _spec(key))
    with pytest.raises(WrongState, match=f"is that of job {second.id}"):
        await parts.retryer.retry(first.id)
    await parts.canceler.cancel(second.id, "")
    again, created = await parts.retryer.retry(first.id)
    assert created
    assert (await parts.row(again)).unique_key == key
    with pytest.raises(Conflict):
        await _submit(parts, _spec(key))
