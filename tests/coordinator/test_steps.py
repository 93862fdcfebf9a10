"""The steps of a job's life that any coordinator carries out: submit, start, finish, announce, cancel, wake."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts, running, until

from tenure.coordinator import lanes as lanes_module
from tenure.coordinator.announce import KEYS_PER_LEASE, Announcer, Ended
from tenure.coordinator.finish import AttemptError, Report, Verdict
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.start import ClaimedJob
from tenure.model.errors import BoundExceeded, Conflict, InvalidInput, OwnershipLost, Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.submit import Parent, Submitted, keyed_after_parent
from tenure.store.etcd.claims import ClaimOutcome, ClaimRequest, claim_batch
from tenure.store.etcd.keyspace import CancelRequest, ClaimValue, DoneValue, parse_inbox, stamp
from tenure.store.etcd.port import Get, KeyValue, Txn, TxnResult
from tenure.store.postgres.database import Database


def _spec(**values: object) -> JobSpec:
    return JobSpec.model_validate({"kind": "k", **values})


# -- submit --


async def test_submits_that_come_together_are_all_written(parts: Parts) -> None:
    async with running(parts.submitter.run()):
        answers = await asyncio.gather(*(parts.submitter.submit(_spec(payload=str(n))) for n in range(100)))
    assert all(answer.created for answer in answers)
    for n, answer in enumerate(answers):
        assert (await parts.row(answer.id)).payload == str(n)
    assert parts.hinted_lanes


async def test_one_key_is_one_job_however_many_submit_it_where(make_parts: MakeParts, shared_database: str) -> None:
    coordinators = [await make_parts(shared_database) for _ in range(2)]
    key = str(uuid.uuid4())
    async with running(*(one.submitter.run() for one in coordinators)):
        answers = await asyncio.gather(
            *(one.submitter.submit(_spec(idempotency_key=key)) for one in coordinators for _ in range(10))
        )
    assert len({answer.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1


async def test_a_key_with_another_request_is_refused_and_its_neighbours_are_not(parts: Parts) -> None:
    key = str(uuid.uuid4())
    async with running(parts.submitter.run()):
        first = await parts.submitter.submit(_spec(idempotency_key=key, payload="1"))
        same, other, neighbour = await asyncio.gather(
            parts.submitter.submit(_spec(idempotency_key=key, payload="1")),
            parts.submitter.submit(_spec(idempotency_key=key, payload="2")),
            parts.submitter.submit(_spec()),
            return_exceptions=True,
        )
    assert same == Submitted(first.id, False)
    assert isinstance(other, Conflict)
    assert str(first.id) in other.message
    assert isinstance(neighbour, Submitted) and neighbour.created


async def test_labels_in_another_order_are_the_same_request(parts: Parts) -> None:
    key = str(uuid.uuid4())
    [first] = await parts.submitter.submit_batch([_spec(idempotency_key=key, labels={"a": "1", "b": "2"})])
    [second] = await parts.submitter.submit_batch([_spec(idempotency_key=key, labels={"b": "2", "a": "1"})])
    assert (first.id, second.created) == (second.id, False)


async def test_a_repeated_batch_answers_with_the_first_jobs(parts: Parts) -> None:
    key = str(uuid.uuid4())
    batch = [
        _spec(ref="a", idempotency_key=f"{key}a"),
        _spec(ref="b", idempotency_key=f"{key}b", depends_on=("a",)),
        _spec(ref="c", idempotency_key=f"{key}c", depends_on=("a", "b")),
    ]
    first = await parts.submitter.submit_batch(batch)
    again = await parts.submitter.submit_batch(batch)
    assert [one.id for one in again] == [one.id for one in first]
    assert [one.created for one in again] == [False] * 3
    grown = await parts.submitter.submit_batch([*batch, _spec(ref="d", depends_on=("c",))])
    assert [one.created for one in grown] == [False, False, False, True]
    [row] = await parts.db.fetch("dependencies_of", {"ids": [grown[3].id]})
    assert row.parents == [first[2].id]


async def test_a_conflict_inside_a_batch_writes_nothing_and_names_the_member(parts: Parts) -> None:
    key = str(uuid.uuid4())
    await parts.submit(idempotency_key=key)
    mark = str(uuid.uuid4())
    with pytest.raises(Conflict, match=r"jobs\[1\]"):
        await parts.submitter.submit_batch(
            [_spec(idempotency_key=mark), _spec(idempotency_key=key, payload="{}"), _spec()]
        )
    assert await parts.sql("SELECT 1 FROM tenure.job WHERE idempotency_key = %s", mark) == []


async def test_a_key_given_twice_in_a_batch_is_refused(parts: Parts) -> None:
    with pytest.raises(InvalidInput) as refused:
        await parts.submitter.submit_batch([_spec(idempotency_key="x"), _spec(), _spec(idempotency_key="x")])
    assert [violation.field for violation in refused.value.violations] == ["jobs[2].idempotency_key"]


async def test_a_dependency_on_a_job_that_does_not_exist_is_refused(parts: Parts) -> None:
    stranger = str(new_id())
    with pytest.raises(InvalidInput) as refused:
        await parts.submitter.submit_batch([_spec(), _spec(depends_on=(stranger,))])
    assert [violation.field for violation in refused.value.violations] == ["jobs[1].depends_on"]


async def test_a_defect_in_one_member_of_a_group_is_its_own(parts: Parts) -> None:
    """A value that no rule caught, and Postgres refuses, must not fail those that came at the same moment."""
    bad = _spec().model_copy(update={"payload": "not json"})
    async with running(parts.submitter.run()):
        answers = await asyncio.gather(
            parts.submitter.submit(_spec()),
            parts.submitter.submit(bad),
            parts.submitter.submit(_spec()),
            return_exceptions=True,
        )
    assert [isinstance(answer, Submitted) for answer in answers] == [True, False, True]


async def test_children_are_fenced_and_keyed_after_their_parent(parts: Parts) -> None:
    parent = await parts.submit()
    first = await parts.execute(parent)
    specs = keyed_after_parent([_spec(ref="scan"), _spec(ref="policy", depends_on=("scan",))])
    children = await parts.submitter.submit_batch(specs, parent=Parent(parent, first.fence))
    assert [child.created for child in children] == [True, True]
    await parts.finish(parent, first.fence, Outcome.RELEASED)
    with pytest.raises(OwnershipLost):
        await parts.submitter.submit_batch([_spec(idempotency_key="more")], parent=Parent(parent, first.fence))
    second = await parts.execute(parent)
    again = await parts.submitter.submit_batch(specs, parent=Parent(parent, second.fence))
    assert [(child.id, child.created) for child in again] == [(child.id, False) for child in children]
    assert (await parts.row(children[0].id)).parent_id == parent


def test_a_child_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        keyed_after_parent([_spec(ref="a"), _spec()])
    assert [violation.field for violation in refused.value.violations] == ["jobs[1].ref"]


# -- lanes --


async def test_a_full_cache_of_lanes_forgets_nothing_that_is_asked_for(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "_CACHED", 4)
    known = [_spec(kind=f"a{n}") for n in range(4)]
    before = await parts.lanes.of(known)
    mixed = await parts.lanes.of([known[0], _spec(kind="b"), known[1], _spec(kind="c"), _spec(kind="d")])
    assert [mixed[0], mixed[2]] == before[:2]
    assert len(set(mixed)) == 5
    found = await parts.lanes.by_id([*before, *mixed])
    assert set(found) == {*before, *mixed}


async def test_jobs_move_to_a_deeper_pool_when_it_appears(alone: Parts) -> None:
    inside = [await alone.submit(route=route) for route in ("p/q", "p/q/r")]
    outside = [await alone.submit(route=route) for route in ("p", "p/qq", "p/x/q")]
    [shallow] = {row.lane for row in await alone.sql("SELECT lane FROM tenure.job")}
    assert await alone.lanes.register_pools(["p/q"]) == ["p/q"]
    assert await alone.lanes.refit(["p/q"]) == 2
    rows = {row.id: row.lane for row in await alone.sql("SELECT id, lane FROM tenure.job")}
    assert {rows[id] for id in outside} == {shallow}
    [deep] = {rows[id] for id in inside}
    lane = (await alone.lanes.by_id([deep]))[deep]
    assert (lane.pool, lane.namespace, lane.kind) == ("p/q", "default", "k")
    assert await alone.lanes.register_pools(["p/q"]) == []
    new = await alone.submit(route="p/q/new")
    assert (await alone.sql("SELECT lane FROM tenure.job WHERE id = %s", new))[0].lane == deep


async def test_the_deepest_of_nested_pools_wins(alone: Parts) -> None:
    job = await alone.submit(route="p/q/r/s")
    await alone.lanes.register_pools(["p/q", "p/q/r"])
    await alone.lanes.refit(["p/q", "p/q/r"])
    await alone.lanes.refit(["p/q", "p/q/r"])
    [row] = await alone.sql("SELECT l.pool FROM tenure.job j JOIN tenure.lane l ON l.id = j.lane WHERE j.id = %s", job)
    assert row.pool == "p/q/r"


# -- start --


async def test_a_claim_that_is_not_there_starts_nothing(parts: Parts) -> None:
    id = await parts.submit()
    claim = await parts.claim(id)
    other = ClaimedJob(str(id), 0, claim.lease, claim.claim_revision - 1)
    assert await parts.starter.start("w1", [other]) == []
    assert await parts.starter.start("w1", [ClaimedJob(str(await parts.submit()), 0, 1, 1)]) == []
    await parts.lose_claim(id)
    assert await parts.starter.start("w1", [claim]) == []
    assert await parts.state(id) is JobState.READY


async def test_a_start_repeated_under_the_same_claim_answers_the_same(parts: Parts) -> None:
    ids = [await parts.submit() for _ in range(3)]
    claims = [await parts.claim(id) for id in ids]
    first = await parts.starter.start("w1", claims[:2])
    again = await parts.starter.start("w1", claims)
    assert {row.id: row.fence for row in first}.items() <= {row.id: row.fence for row in again}.items()
    assert {row.id for row in again} == set(map(str, ids))
    assert {row.attempt for row in again} == {1}


async def test_only_one_of_two_successive_claimants_starts(parts: Parts) -> None:
    """The hole H1: the first claim expires before its start, a second worker claims, and both then try to start."""
    id = await parts.submit()
    old = await parts.claim(id, worker="old")
    await parts.lose_claim(id)
    new = await parts.claim(id, worker="new")
    assert await parts.starter.start("old", [old]) == []
    [row] = await parts.starter.start("new", [new])
    assert (await parts.row(id)).worker == "new"
    assert row.attempt == 1


async def test_a_start_with_many_claims_passes_over_what_is_not_ready(parts: Parts) -> None:
    ready, canceled = await parts.submit(), await parts.submit()
    claims = [await parts.claim(ready), await parts.claim(canceled)]
    await parts.canceler.cancel(canceled, "")
    assert [row.id for row in await parts.starter.start("w1", claims)] == [str(ready)]


# -- finish --


async def test_a_finish_writes_history_first_then_deletes_the_claim_and_announces(parts: Parts) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    answer = await parts.finish(id, started.fence, result='{"n":1}')
    assert (answer.verdict, answer.state, answer.claim_deleted) == (Verdict.RECORDED, JobState.COMPLETED, True)
    row = await parts.row(id)
    assert (row.state, row.result, row.error, row.fence) == ("completed", '{"n":1}', None, started.fence)
    assert await parts.claim_of(id) is None
    done = await parts.done(id)
    assert done is not None
    value = DoneValue.from_json(done.value)
    assert (value.state, value.attempt, bool(done.lease)) == ("completed", 1, True)


async def test_a_report_may_be_repeated_until_it_is_answered(parts: Parts) -> None:
    id = await parts.submit()
    fence = (await parts.execute(id)).fence
    answers = [await parts.finish(id, fence) for _ in range(3)]
    assert [answer.verdict for answer in answers] == [Verdict.RECORDED, Verdict.REPEATED, Verdict.REPEATED]
    assert {answer.state for answer in answers} == {JobState.COMPLETED}
    assert await parts.outcomes(id) == ["completed"]


async def test_an_old_fence_is_told_that_ownership_is_lost(parts: Parts) -> None:
    id = await parts.submit()
    old = await parts.execute(id)
    await parts.finish(id, old.fence, Outcome.RELEASED)
    new = await parts.execute(id, worker="w2")
    assert (await parts.finish(id, new.fence - 1 if new.fence - 1 != old.fence else 1)).verdict is Verdict.LOST
    assert (await parts.row(id)).fence == new.fence
    assert await parts.claim_of(id) is not None


async def test_a_result_that_came_after_the_leader_ended_the_attempt_is_lost_not_repeated(parts: Parts) -> None:
    id = await parts.submit(retry={"max_attempts": 1})
    fence = (await parts.execute(id)).fence
    await parts.finish(id, fence, Outcome.TIMED_OUT)  # as the leader does in the worker's stead
    answer = await parts.finish(id, fence, Outcome.COMPLETED, result="42")
    assert answer.verdict is Verdict.LOST
    assert (await parts.row(id)).state == "failed"


async def test_a_bad_member_of_a_batch_fails_alone(parts: Parts) -> None:
    ids = [await parts.submit() for _ in range(4)]
    fences = [(await parts.execute(id)).fence for id in ids]
    reports = [
        Report(str(ids[0]), fences[0], Outcome.COMPLETED, result='"\\u0000"'),
        Report(str(ids[1]), fences[1], Outcome.COMPLETED, result='"\\\\u0000"'),  # a backslash, no NUL
        Report(str(ids[2]), fences[2], Outcome.FAILED, error=AttemptError("E", "nul \x00 in it", "t" * 100_000)),
        Report(str(ids[3]), fences[3], Outcome.LOST),
    ]
    answers = await parts.finisher.finish(reports)
    assert [answer.verdict for answer in answers] == [
        Verdict.INVALID,
        Verdict.RECORDED,
        Verdict.RECORDED,
        Verdict.INVALID,
    ]
    assert answers[0].message.startswith("result:")
    assert [await parts.state(id) for id in ids] == [
        JobState.EXECUTING,
        JobState.COMPLETED,
        JobState.READY,
        JobState.EXECUTING,
    ]


async def test_an_error_is_retried_with_a_backoff_until_its_attempts_are_used(parts: Parts) -> None:
    id = await parts.submit(retry={"max_attempts": 2, "initial_backoff_s": 3600.0, "jitter": 0.0, "max_backoff_s": 9e3})
    error = AttemptError("ValueError", "no")
    answer = await parts.finish(id, (await parts.execute(id)).fence, Outcome.FAILED, error=error)
    assert answer.state is JobState.READY
    [row] = await parts.sql(
        "SELECT due, errors, extract(epoch FROM activate_at - now()) AS left_s FROM tenure.job WHERE id = %s", id
    )
    assert (row.due, row.errors) == (False, 1)
    assert 3500 < row.left_s <= 3600
    answer = await parts.finish(id, (await parts.execute(id)).fence, Outcome.FAILED, error=error)
    assert answer.state is JobState.FAILED
    row = await parts.row(id)
    assert (row.errors, row.attempt, row.reason) == (2, 2, "error 2 of 2")
    assert '"ValueError"' in row.error
    assert await parts.outcomes(id) == ["failed", "failed"]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"retryable": False, "error": AttemptError("E", "")}, "E is not retried"),
        ({"error": AttemptError("Fatal", "")}, "Fatal is not retried"),
    ],
)
async def test_what_is_not_retryable_fails_at_once(parts: Parts, report: dict[str, object], reason: str) -> None:
    id = await parts.submit(retry={"non_retryable": ["Fatal"]})
    answer = await parts.finish(id, (await parts.execute(id)).fence, Outcome.FAILED, **report)
    assert (answer.state, (await parts.row(id)).reason) == (JobState.FAILED, reason)


async def test_a_released_job_is_ready_at_once_and_hinted_at_after_its_claim_is_gone(parts: Parts) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    parts.hinted.clear()
    answer = await parts.finish(id, started.fence, Outcome.RELEASED)
    assert (answer.state, answer.claim_deleted) == (JobState.READY, True)
    [row] = await parts.sql("SELECT lane, due, errors, crashes FROM tenure.job WHERE id = %s", id)
    assert (row.due, row.errors, row.crashes) == (True, 0, 0)
    assert parts.hinted_lanes == {row.lane}
    assert await parts.done(id) is None


async def test_a_rescheduled_job_waits_as_long_as_its_handler_asked(parts: Parts) -> None:
    id = await parts.submit()
    await parts.finish(id, (await parts.execute(id)).fence, Outcome.RESCHEDULED, delay_s=1800.0)
    [row] = await parts.sql(
        "SELECT due, extract(epoch FROM activate_at - now()) AS left_s FROM tenure.job WHERE id = %s", id
    )
    assert (row.due, 1700 < row.left_s <= 1800) == (False, True)


async def test_a_reschedule_that_spends_the_budget_ends_with_it(parts: Parts) -> None:
    id = await parts.submit(retry={"max_attempts": 2})
    for spends, state, errors in ((False, "ready", 0), (True, "ready", 1), (False, "ready", 1), (True, "failed", 2)):
        started = await parts.execute(id)
        await parts.finish(id, started.fence, Outcome.RESCHEDULED, spends_budget=spends)
        row = await parts.row(id)
        assert (row.state, row.errors) == (state, errors)
    assert row.reason == "rescheduled 2 times of 2"


async def test_a_kind_of_an_error_type_that_is_not_retried_is_not_retried_either(parts: Parts) -> None:
    error = AttemptError("ConnectionRefusedError", "no")
    for named, state in (("OSError", JobState.FAILED), ("ValueError", JobState.READY)):
        id = await parts.submit(retry={"non_retryable": [named]})
        started = await parts.execute(id)
        bases = ("ConnectionError", "OSError", "Exception", "BaseException")
        answer = await parts.finish(id, started.fence, Outcome.FAILED, error=error, error_bases=bases)
        assert answer.state is state


async def test_the_end_of_a_parent_wakes_or_cancels_its_descendants(parts: Parts) -> None:
    good, bad = await parts.submit(), await parts.submit(retry={"max_attempts": 1})
    child = await parts.submit(depends_on=(str(good),))
    broken = await parts.submit(depends_on=(str(good), str(bad)))
    grandchild = await parts.submit(depends_on=(str(broken),))
    great = await parts.submit(depends_on=(str(grandchild), str(child)))
    fence = (await parts.execute(bad)).fence
    parts.hinted.clear()
    await parts.finish(good, (await parts.execute(good)).fence)
    [row] = await parts.sql("SELECT lane, state FROM tenure.job WHERE id = %s", child)
    assert (row.state, parts.hinted_lanes) == ("ready", {row.lane})
    await parts.finish(bad, fence, Outcome.FAILED)
    ends = {broken: f"{bad}, which it depends on, failed", grandchild: f"{broken}, which it depends on, was canceled"}
    for id, end in {**ends, great: f"{grandchild}, which it depends on, was canceled"}.items():
        assert await parts.state(id) is JobState.CANCELED
        assert (await parts.row(id)).reason == f"job {end}"
        assert await parts.done(id) is not None
    assert await parts.state(child) is JobState.READY


async def test_the_sweep_makes_good_what_a_crash_left(alone: Parts) -> None:
    parent, bad = await alone.submit(), await alone.submit(retry={"max_attempts": 1})
    child = await alone.submit(depends_on=(str(parent),))
    broken = await alone.submit(depends_on=(str(bad),))
    below = await alone.submit(depends_on=(str(broken),))
    # A coordinator that died between the two steps: history is written, dependants do not know.
    for id, state in ((parent, "completed"), (bad, "failed")):
        fence = (await alone.execute(id)).fence
        columns = {
            "ids": [id], "fences": [fence], "outcomes": [state], "states": [state], "results": [None],
            "errors": [None], "reasons": [""], "error_counts": [0], "crash_counts": [0],
        }  # fmt: skip
        await alone.db.fetch("end_attempts", columns)
    assert await alone.dependants.sweep() == 2
    assert [await alone.state(id) for id in (child, broken, below)] == [
        JobState.READY,
        JobState.CANCELED,
        JobState.CANCELED,
    ]
    assert await alone.dependants.sweep() == 0


# -- announce --


@pytest.mark.parametrize("at_once", [50, KEYS_PER_LEASE + 50])
async def test_done_keys_hang_on_leases_that_rotate(parts: Parts, at_once: int) -> None:
    ended = [Ended(str(new_id()), JobState.COMPLETED, 1) for _ in range(KEYS_PER_LEASE + 50)]
    for start in range(0, len(ended), at_once):
        await parts.announcer.announce(ended[start : start + at_once])
    listing = await parts.etcd.list(parts.keys.done)
    leases = [item.lease for item in listing.items]
    assert len(leases) == len(ended)
    assert 0 not in leases
    assert len(set(leases)) == 2
    assert max(leases.count(lease) for lease in set(leases)) <= KEYS_PER_LEASE


async def test_claims_are_released_though_the_lease_of_announcements_is_gone(parts: Parts) -> None:
    first = Ended(str(new_id()), JobState.COMPLETED, 1)
    await parts.announcer.announce([first])
    done = await parts.done(uuid.UUID(first.job_id))
    assert done is not None
    await parts.etcd.revoke(done.lease)
    jobs = [await parts.submit() for _ in range(3)]
    started = [await parts.execute(job) for job in jobs]
    answers = await parts.finisher.finish([Report(row.id, row.fence, Outcome.COMPLETED) for row in started])
    assert [answer.claim_deleted for answer in answers] == [True] * 3
    for job in jobs:  # announced all the same, on a new lease
        told = await parts.done(job)
        assert told is not None and told.lease != done.lease


async def test_only_the_very_claim_is_deleted(parts: Parts) -> None:
    id = await parts.submit()
    claim = await parts.claim(id)
    deleted = await parts.announcer.announce([Ended(str(id), JobState.READY, 1, claim.claim_revision - 1, claim.lease)])
    assert deleted == set()
    assert await parts.claim_of(id) is not None
    deleted = await parts.announcer.announce([Ended(str(id), JobState.READY, 1, claim.claim_revision, claim.lease)])
    assert deleted == {str(id)}


# -- cancel --


@pytest.mark.parametrize("state", ["waiting", "ready", "restarting"])
async def test_a_job_that_nobody_executes_is_canceled_at_once(parts: Parts, state: str) -> None:
    depends_on = (str(await parts.submit()),) if state == "waiting" else ()
    id = await parts.submit(depends_on=depends_on)
    child = await parts.submit(depends_on=(str(id),))
    if state == "restarting":
        await parts.execute(id)
        await parts.sql(
            "UPDATE tenure.job SET state = 'restarting', fence = NULL, worker = NULL, lease = NULL, started_at = NULL,"
            " claim_revision = NULL WHERE id = %s",
            id,
        )
    await parts.canceler.cancel(id, "not needed")
    row = await parts.row(id)
    assert (row.state, row.reason) == ("canceled", "not needed")
    assert await parts.done(id) is not None
    assert await parts.state(child) is JobState.CANCELED


async def test_an_executing_job_is_asked_to_stop_through_its_workers_inbox(parts: Parts) -> None:
    id = await parts.submit()
    session = await parts.register()
    started = await parts.execute(id)
    await parts.canceler.cancel(id, "enough")
    row = await parts.row(id)
    assert (row.state, row.cancel_requested, row.reason) == ("executing", True, "enough")
    [message] = (await parts.etcd.list(parts.keys.inbox("w1"))).items
    assert parse_inbox(message.value) == CancelRequest(str(id), started.fence, "enough")
    assert message.lease == session
    await parts.canceler.cancel(id, "enough")  # twice is no more than once
    assert len((await parts.etcd.list(parts.keys.inbox("w1"))).items) == 1
    answer = await parts.finish(id, started.fence, Outcome.CANCELED)
    assert answer.state is JobState.CANCELED
    assert (await parts.row(id)).reason == "enough"


async def test_a_job_that_completes_before_it_notices_a_cancel_has_completed(parts: Parts) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    await parts.canceler.cancel(id, "")
    assert (await parts.finish(id, started.fence)).state is JobState.COMPLETED
    await parts.canceler.cancel(id, "too late")
    assert await parts.state(id) is JobState.COMPLETED


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.RESCHEDULED, Outcome.FAILED, Outcome.TIMED_OUT])
async def test_a_canceled_attempt_does_not_come_back(parts: Parts, outcome: Outcome) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    await parts.canceler.cancel(id, "")
    assert (await parts.finish(id, started.fence, outcome)).state is JobState.CANCELED


async def test_a_cancel_between_the_decision_and_the_write_of_a_retry_is_heeded(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    decide = parts.finisher._decide

    async def decide_then_cancel(reports: list[Report]) -> object:
        endings = await decide(reports)
        await parts.canceler.cancel(id, "now")
        return endings

    monkeypatch.setattr(parts.finisher, "_decide", decide_then_cancel)
    answer = await parts.finish(id, started.fence, Outcome.FAILED)
    assert (answer.verdict, answer.state) == (Verdict.RECORDED, JobState.CANCELED)
    assert (await parts.row(id)).reason == "now"


async def test_a_cancel_that_meets_a_job_on_its_way_back_cancels_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executing when idle jobs are canceled, ready again when executing ones are asked: it must not slip through."""
    id = await parts.submit()
    started = await parts.execute(id)
    fetch = Database.fetch
    met: list[str] = []

    async def release_first(self: Database, name: str, params: object = None) -> list[object]:
        if name == "request_cancel" and not met:
            met.append(name)
            await parts.finish(id, started.fence, Outcome.RELEASED)
        return await fetch(self, name, params)  # type: ignore[arg-type]

    monkeypatch.setattr(Database, "fetch", release_first)
    await parts.canceler.cancel(id, "")
    assert met
    assert await parts.state(id) is JobState.CANCELED


async def test_cancels_race_completions_and_one_of_them_wins(parts: Parts) -> None:
    ids = [await parts.submit() for _ in range(20)]
    fences = [(await parts.execute(id)).fence for id in ids]
    await asyncio.gather(
        *(parts.canceler.cancel(id, "") for id in ids),
        *(parts.finish(id, fence, Outcome.RELEASED) for id, fence in zip(ids, fences, strict=True)),
    )
    assert {await parts.state(id) for id in ids} == {JobState.CANCELED}


# -- revoke --


def _revoker(parts: Parts) -> Revoker:
    return Revoker(parts.db, parts.etcd, parts.keys, parts.finisher)


async def test_a_revoked_job_restarts_after_its_ttl_without_a_crash(parts: Parts) -> None:
    id = await parts.submit(ttl_s=1_800.0)
    started = await parts.execute(id)
    assert await _revoker(parts).revoke(id) is True
    assert await parts.claim_of(id) is None
    [row] = await parts.sql(
        "SELECT state, due, crashes, errors, extract(epoch FROM activate_at - now()) AS left_s"
        " FROM tenure.job WHERE id = %s",
        id,
    )
    assert (row.state, row.due, row.crashes, row.errors) == ("ready", False, 0, 0)
    assert 1_700 < row.left_s <= 1_800
    assert await parts.outcomes(id) == ["released"]
    assert (await parts.finish(id, started.fence)).verdict is Verdict.LOST
    assert await _revoker(parts).revoke(id) is False


async def test_a_claim_that_is_not_yet_started_can_be_revoked(parts: Parts) -> None:
    id = await parts.submit()
    claim = await parts.claim(id)
    assert await _revoker(parts).revoke(id) is True
    assert await parts.starter.start("w1", [claim]) == []
    assert await parts.state(id) is JobState.READY


async def test_a_revoked_attempt_that_was_to_be_canceled_is_canceled(parts: Parts) -> None:
    id = await parts.submit()
    await parts.execute(id)
    await parts.canceler.cancel(id, "")
    assert await _revoker(parts).revoke(id) is True
    assert await parts.state(id) is JobState.CANCELED


async def test_a_job_that_ends_while_it_is_revoked_takes_no_other_claim_along(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was told that the claim is deleted, and has the lease carry the next one."""
    id, other = await parts.submit(), await parts.submit()
    started = await parts.execute(id)
    get = parts.etcd.get

    async def get_then_end(key: str) -> KeyValue | None:
        claim = await get(key)
        monkeypatch.undo()
        assert claim is not None and (await parts.finish(id, started.fence)).claim_deleted
        value = ClaimValue("w1", "default", "k", "default", claim.lease, stamp(parts.clock.wall())).to_json()
        [result] = await claim_batch(parts.etcd, parts.keys, [ClaimRequest(str(other), claim.lease, value)])
        assert result.outcome is ClaimOutcome.WON
        return claim

    monkeypatch.setattr(parts.etcd, "get", get_then_end)
    assert await _revoker(parts).revoke(id) is False
    assert await parts.claim_of(other) is not None


async def test_the_lease_of_a_revoked_attempt_goes_too(parts: Parts) -> None:
    """Deleted by the revoke, the claim was nobody else's to have deleted: nothing else can hang on its lease."""
    id = await parts.submit()
    await parts.execute(id)
    claim = await parts.claim_of(id)
    assert claim is not None and await _revoker(parts).revoke(id) is True
    assert await parts.etcd.time_to_live(claim.lease) is None


async def test_a_claim_that_still_stands_is_to_be_revoked_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await parts.submit()
    await parts.execute(id)
    txn = parts.etcd.txn

    async def refuse_writes(transaction: Txn, **options: Any) -> TxnResult:
        if all(isinstance(operation, Get) for operation in transaction.then):
            return await txn(transaction, **options)
        raise BoundExceeded("etcdserver: too many requests")

    with monkeypatch.context() as patch:
        patch.setattr(parts.etcd, "txn", refuse_writes)
        with pytest.raises(Unavailable, match="could not be deleted"):
            await _revoker(parts).revoke(id)
    assert await _revoker(parts).revoke(id) is True
    assert await parts.claim_of(id) is None
    assert await parts.outcomes(id) == ["released"]


# -- waiting --


async def test_a_waiter_is_woken_by_the_announcement(parts: Parts) -> None:
    id = await parts.submit()
    started = await parts.execute(id)
    async with running(parts.waiters.watch()), parts.waiters.waiting(str(id)) as ended:
        await parts.finish(id, started.fence)

        async def woken() -> bool:
            if not ended.is_set():  # the watch may begin after the announcement: a later one must wake, too
                await parts.announcer.announce([Ended(str(id), JobState.COMPLETED, 1)])
            return ended.is_set()

        await until(woken)


async def test_a_waiter_is_woken_by_an_end_that_this_process_writes_though_etcd_is_silent(parts: Parts) -> None:
    announcer = Announcer(parts.etcd, parts.keys, parts.clock, done_ttl_s=30.0, tell_here=parts.waiters.wake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcer, "_announce", lambda ended: asyncio.Event().wait())
        ended, other = str(new_id()), str(new_id())
        async with parts.waiters.waiting(ended) as told, parts.waiters.waiting(other) as untold:
            announcing = asyncio.ensure_future(
                announcer.announce([Ended(ended, JobState.COMPLETED, 1), Ended(other, JobState.READY, 1)])
            )
            async with asyncio.timeout(10):
                await told.wait()
            assert not announcing.done() and not untold.is_set()
            announcing.cancel()


async def test_a_waiter_is_woken_by_postgres_alone(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.coordinator.waiters.REREAD_S", 0.05)
    id = await parts.submit()
    async with running(parts.waiters.reread()), parts.waiters.waiting(str(id)) as ended:
        await parts.sql("DELETE FROM tenure.job WHERE id = %s", id)
        await parts.sql(
            "INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload,"
            " attempt, errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message, cancel_requested,"
            " reason) VALUES (%s, 'd', 'k', 'r', 'completed', 0, now(), now(), 'null', 1, 0, 0, now(), 10, 3, 0, '',"
            " false, '')",
            id,
        )
        async with asyncio.timeout(20):
            await ended.wait()


async def test_nobody_waits_after_the_last_has_left(parts: Parts) -> None:
    async with parts.waiters.waiting("a"), parts.waiters.waiting("a"):
        pass
    assert dict(parts.waiters._waiting) == {}


async def test_a_coordinator_that_stops_sends_its_waiters_elsewhere(parts: Parts) -> None:
    async with parts.waiters.waiting(str(new_id())) as ended:
        parts.waiters.refuse_if_closed()
        parts.waiters.close()
        assert ended.is_set()
        with pytest.raises(Unavailable):
            parts.waiters.refuse_if_closed()
