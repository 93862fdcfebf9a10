"""Unique keys: at most one unfinished job has one, whoever submits, however jobs end; never two of them at once."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import PATIENCE_S, MakeParts, Parts, leader_of, running

from tenure.coordinator.workflows import Workflows
from tenure.model.dependencies import Trigger, Verdict, verdict
from tenure.model.errors import Conflict, InvalidInput, WrongState
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.unique import OnDuplicate
from tenure.model.workflows import WorkflowState
from tenure.store.etcd.keyspace import CancelRequest, parse_inbox


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


async def test_replaced_by_sql_its_worker_and_its_dependants_are_told_by_the_leader(alone: Parts, key: str) -> None:
    worker = "w1"
    await alone.register(worker, capacity=1)
    [first] = await _submit(alone, _spec(key))
    await alone.execute(first.id, worker=worker)
    [idle] = await _submit(alone, _spec(key + "-idle"))
    [child] = await _submit(alone, JobSpec(kind="k", depends_on=(str(idle.id),)))
    sql = "SELECT tenure.submit_job(kind => 'k', unique_key => %s, on_duplicate => 'replace')"
    for name in (key, key + "-idle"):
        await alone.sql(sql, name)

    async def is_told() -> bool:
        items = (await alone.etcd.list(alone.keys.inbox(worker))).items
        asked = [one.job for one in map(parse_inbox, (item.value for item in items)) if isinstance(one, CancelRequest)]
        return asked == [str(first.id)] and await alone.state(child.id) is JobState.CANCELED

    async with running(leader_of(alone).run()), asyncio.timeout(PATIENCE_S):
        while not await is_told():  # noqa: ASYNC110 - of two stores, which tell nobody
            await asyncio.sleep(0.05)
    row = await alone.row(idle.id)
    assert row.state == JobState.CANCELED


async def test_a_job_that_is_held_waits_for_what_it_depends_on_too(parts: Parts, key: str) -> None:
    parent, [first] = await parts.submit(), await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    replacing = _spec(key, OnDuplicate.REPLACE, depends_on=(str(parent),))
    [second] = await _submit(parts, replacing)
    await parts.finish(parent, (await parts.execute(parent)).fence)
    assert await parts.state(second.id) is JobState.WAITING
    await parts.finish(first.id, fence)
    assert await parts.state(second.id) is JobState.READY


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("ends", list(itertools.product((Outcome.COMPLETED, Outcome.FAILED), repeat=2)))
@pytest.mark.parametrize("gone_after", [0, 1, 2])
async def test_a_job_that_is_held_runs_by_its_trigger_and_no_sooner(
    parts: Parts, key: str, trigger: Trigger, ends: tuple[Outcome, ...], gone_after: int
) -> None:
    parents = [await parts.submit(retry={"max_attempts": 1}) for _ in ends]
    [first] = await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    depends_on = tuple(str(id) for id in parents)
    [second] = await _submit(parts, _spec(key, OnDuplicate.REPLACE, depends_on=depends_on, trigger=trigger))
    assert await parts.state(second.id) is JobState.WAITING
    decided = Verdict.WAIT
    for ended in range(len(ends) + 1):
        if ended:
            id, end = parents[ended - 1], ends[ended - 1]
            await parts.finish(id, (await parts.execute(id)).fence, end)
        if ended == gone_after:
            await parts.finish(first.id, fence)
        if decided is Verdict.WAIT:
            completed = ends[:ended].count(Outcome.COMPLETED)
            decided = verdict(trigger, left=len(ends) - ended, completed=completed, otherwise=ended - completed)
        await parts.dependants.sweep()
        expected = {
            Verdict.WAIT: JobState.WAITING,
            Verdict.RUN: JobState.READY if ended >= gone_after else JobState.WAITING,
            Verdict.BROKEN: JobState.CANCELED,
        }[decided]
        assert await parts.state(second.id) is expected
        if expected is JobState.WAITING and ended < gone_after:
            assert "replaces" in {one.code for one in await parts.explainer.obstacles(second.id)}


@pytest.mark.parametrize("trigger", [Trigger.ALL_COMPLETED, Trigger.ANY_COMPLETED])
async def test_a_job_that_is_held_waits_though_what_it_depends_on_has_ended(
    parts: Parts, key: str, trigger: Trigger
) -> None:
    parent, [first] = await parts.submit(), await _submit(parts, _spec(key))
    await parts.finish(parent, (await parts.execute(parent)).fence)
    fence = (await parts.execute(first.id)).fence
    replacing = _spec(key, OnDuplicate.REPLACE, depends_on=(str(parent),), trigger=trigger)
    [second] = await _submit(parts, replacing)
    await parts.dependants.sweep()
    assert await parts.state(second.id) is JobState.WAITING
    assert [one.code for one in await parts.explainer.obstacles(second.id)] == ["replaces"]
    await parts.finish(first.id, fence)
    assert await parts.state(second.id) is JobState.READY


async def test_a_job_may_wait_for_the_one_that_it_replaces(parts: Parts, key: str) -> None:
    [first] = await _submit(parts, _spec(key))
    fence = (await parts.execute(first.id)).fence
    replacing = _spec(key, OnDuplicate.REPLACE, depends_on=(str(first.id),), trigger=Trigger.ALL_FINISHED)
    [second] = await _submit(parts, replacing)
    await parts.finish(first.id, fence, Outcome.CANCELED)
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


async def test_held_keys_cost_a_group_a_few_statements(parts: Parts, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    half = 50
    held = [_spec(f"{key}-{n}") for n in range(half)]
    first: Any = await parts.submitter.submit_each(held)
    transactions = 0
    write = parts.db.transaction

    async def counted(statements: Any) -> Any:
        nonlocal transactions
        transactions += 1
        return await write(statements)

    monkeypatch.setattr(parts.db, "transaction", counted)
    met = [_spec(f"{key}-{n}", OnDuplicate.EXISTING, idempotency_key=f"{key}-{n}") for n in range(half)]
    refused = [_spec(f"{key}-{n}") for n in range(half)]
    repeated = [_spec(f"{key}-new", OnDuplicate.EXISTING) for _ in range(half)]
    free = [_spec(f"{key}-free-{n}", OnDuplicate.EXISTING) for n in range(half)]
    mixed = [one for four in zip(met, refused, repeated, free, strict=True) for one in four]
    answers: Any = await parts.submitter.submit_each(mixed)
    assert [answer.id for answer in answers[::4]] == [one.id for one in first]
    assert all(answer.duplicate and not answer.created for answer in answers[::4])
    assert all(isinstance(answer, Conflict) for answer in answers[1::4])
    assert [answer.created for answer in answers[2::4]] == [True] + [False] * (half - 1)
    assert len({answer.id for answer in answers[2::4]}) == 1
    assert all(answer.created for answer in answers[3::4])
    assert transactions < 10
    await parts.canceler.cancel(first[0].id, "")
    again: Any = (await parts.submitter.submit_each(met[:1]))[0]
    assert (again.id, again.created) == (first[0].id, False)  # its idempotency key was taken for the answer


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


async def test_a_dependant_is_not_retried_where_its_parents_key_is_taken(parts: Parts, key: str) -> None:
    """The parent is not retried in the same go, then, so that the dependant could only be canceled again."""
    mark = {"test": key}
    [first] = await _submit(parts, _spec(key, labels=mark))
    [child] = await _submit(parts, JobSpec(kind="k", depends_on=(str(first.id),), labels=mark))
    await parts.canceler.cancel(first.id, "")
    [second] = await _submit(parts, _spec(key))
    rows = await parts.db.fetch("jobs_by_id", {"ids": sorted([first.id, child.id])})
    assert [row.state for row in rows] == ["canceled", "canceled"]
    ids = {"ids": [row.id for row in rows], "new_ids": [new_id(), new_id()], "lanes": [1, 1]}
    assert await parts.db.fetch("retry_jobs", ids) == []
    await parts.canceler.cancel(second.id, "")
    assert len(await parts.db.fetch("retry_jobs", ids)) == 2


async def test_members_of_workflows_are_replaced_and_held_as_other_jobs_are(parts: Parts, key: str) -> None:
    workflows = Workflows(parts.db, parts.clock, parts.canceler)
    idle, child = await parts.submitter.submit_batch([_spec(key, ref="a"), JobSpec(kind="k", depends_on=("a",))])
    [executing] = await _submit(parts, _spec(key, OnDuplicate.REPLACE))
    # A replaced member is a canceled one, with what depends on it.
    assert {await parts.state(id) for id in (idle.id, child.id)} == {JobState.CANCELED}
    assert idle.workflow_id is not None
    [summary] = await workflows.summaries(await parts.db.fetch("workflows_by_id", {"ids": [idle.workflow_id]}))
    assert summary.state is WorkflowState.CANCELED
    fence = (await parts.execute(executing.id)).fence
    held, after = await parts.submitter.submit_batch(
        [_spec(key, OnDuplicate.REPLACE, ref="a"), JobSpec(kind="k", depends_on=("a",))]
    )
    assert held.workflow_id is not None
    assert await parts.state(held.id) is JobState.WAITING
    await workflows.cancel(held.workflow_id, None, "", None)
    assert {await parts.state(id) for id in (held.id, after.id)} == {JobState.CANCELED}
    assert await parts.state(executing.id) is JobState.EXECUTING
    again, _ = await parts.retryer.retry(held.id)
    row = await parts.row(again)
    assert (row.state, row.workflow_id, row.unique_key) == ("waiting", held.workflow_id, key)
    await parts.finish(executing.id, fence)
    assert await parts.state(again) is JobState.READY
    [shown] = [row for row in await parts.db.fetch("workflow_jobs", _page(idle.workflow_id)) if row.id == idle.id]
    assert shown.replaced_by == executing.id


def _page(workflow_id: uuid.UUID) -> dict[str, Any]:
    return {"workflow_id": workflow_id, "after": uuid.UUID(int=0), "limit": 10}


async def test_a_member_that_is_broken_keeps_its_unique_key_in_history(parts: Parts, key: str) -> None:
    parent = await parts.submit(retry={"max_attempts": 1})
    [child] = await _submit(parts, _spec(key, depends_on=(str(parent),)))
    await parts.finish(parent, (await parts.execute(parent)).fence, Outcome.FAILED)
    row = await parts.row(child.id)
    assert (row.state, row.unique_key) == ("canceled", key)
    [second] = await _submit(parts, _spec(key))
    assert second.created
