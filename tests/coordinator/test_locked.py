"""Jobs, keys and lanes that an open transaction of a user has locked: the others of the same batch do not suffer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from tests.coordinator.conftest import Parts, running
from tests.coordinator.test_cancel_many import ACTIVE

from tenure.coordinator import group_commit
from tenure.coordinator.finish import Report, Verdict
from tenure.coordinator.metrics import STALE_WRITES
from tenure.coordinator.passing import Span
from tenure.model.errors import Locked
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.submit import Submitted
from tenure.model.unique import OnDuplicate

AFTER = "SELECT tenure.submit_job('k', depends_on => ARRAY[%s]::uuid[])"


@asynccontextmanager
async def open_transaction(parts: Parts, statement: str, *params: object) -> AsyncIterator[uuid.UUID]:
    """Run a statement that returns an id, in a transaction that commits at the end of the block."""
    async with await psycopg.AsyncConnection.connect(parts.dsn) as connection:
        cursor = await connection.execute(statement.encode(), params)
        row = await cursor.fetchone()
        assert row is not None
        yield row[0]


def _refused_starts() -> float:
    return float(STALE_WRITES.labels("start")._value.get())


async def test_a_job_starts_while_somebody_submits_another_that_waits_for_it(parts: Parts) -> None:
    jobs = [await parts.submit() for _ in range(3)]
    claims = [await parts.claim(id) for id in jobs]
    async with open_transaction(parts, AFTER, jobs[1]):
        started = await parts.starter.start("w1", claims)
    assert {row.id for row in started} == set(map(str, jobs))


async def test_a_job_that_is_locked_does_not_start_and_its_neighbours_do(parts: Parts) -> None:
    jobs = [await parts.submit() for _ in range(3)]
    claims = [await parts.claim(id) for id in jobs]
    refused = _refused_starts()
    async with open_transaction(parts, "SELECT id FROM tenure.job WHERE id = %s FOR UPDATE", jobs[1]):
        started = await parts.starter.start("w1", claims)
    assert {row.id for row in started} == {str(jobs[0]), str(jobs[2])}
    assert _refused_starts() == refused, "it was counted as a start by somebody else"
    assert await parts.starter.start("w1", claims)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.RESCHEDULED])
async def test_a_report_about_a_locked_job_is_written_later_and_its_neighbours_now(
    parts: Parts, outcome: Outcome
) -> None:
    jobs = [await parts.submit() for _ in range(3)]
    reports = [Report(str(id), (await parts.execute(id)).fence, outcome, delay_s=0.0) for id in jobs]
    async with open_transaction(parts, f"{AFTER} FROM tenure.job WHERE id = %s FOR UPDATE", jobs[1], jobs[1]) as child:
        answers = await parts.finisher.finish(reports)
        assert [answer.verdict for answer in answers] == [Verdict.RECORDED, Verdict.LOCKED, Verdict.RECORDED]
        assert await parts.state(jobs[1]) is JobState.EXECUTING
    answers = await parts.finisher.finish(reports[1:2])
    assert [answer.verdict for answer in answers] == [Verdict.RECORDED]
    assert await parts.state(child) is (JobState.READY if outcome is Outcome.COMPLETED else JobState.WAITING)


@pytest.mark.parametrize("what", ["lane", "key"])
async def test_a_submit_that_needs_what_is_locked_is_refused_alone(
    parts: Parts, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LOCKED_S", 60.0)  # however slow the machine
    kind, key = f"k-{uuid.uuid4()}", str(uuid.uuid4())
    wants = JobSpec(kind=kind) if what == "lane" else JobSpec(kind="k", idempotency_key=key)
    statement = "SELECT tenure.submit_job(%s, idempotency_key => %s)"
    specs = [*(JobSpec(kind="k", idempotency_key=str(uuid.uuid4())) for _ in range(99)), wants]
    async with (
        running(parts.submitter.run()),
        open_transaction(parts, statement, kind if what == "lane" else "other", key),
    ):
        answers = await asyncio.gather(*(parts.submitter.submit(spec) for spec in specs), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Submitted] * 99 + [Locked]
    assert all(isinstance(answer, Submitted) and answer.created for answer in answers[:99])


async def test_a_locked_key_of_one_whose_unique_key_is_held_refuses_that_one_alone(parts: Parts) -> None:
    kind, key = f"k-{uuid.uuid4()}", str(uuid.uuid4())
    met = JobSpec(kind=kind, unique_key="u", on_duplicate=OnDuplicate.EXISTING, idempotency_key=key)
    async with running(parts.submitter.run()):
        await parts.submitter.submit(JobSpec(kind=kind, unique_key="u"))
        async with open_transaction(parts, "SELECT tenure.submit_job('other', idempotency_key => %s)", key):
            specs = [*(JobSpec(kind="k") for _ in range(20)), met]
            answers = await asyncio.gather(*(parts.submitter.submit(spec) for spec in specs), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Submitted] * 20 + [Locked]


async def test_a_mass_cancel_leaves_out_what_is_locked_and_says_so(alone: Parts) -> None:
    jobs = [await alone.submit() for _ in range(5)]
    async with open_transaction(alone, AFTER, jobs[2]):
        with pytest.raises(Locked, match="1 job"):
            await alone.canceler.cancel_matching(ACTIVE, Span.up_to_now(), "gone", preview=False)
        states = [await alone.state(id) for id in jobs]
    assert states == [JobState.CANCELED] * 2 + [JobState.READY] + [JobState.CANCELED] * 2
    await alone.canceler.cancel_matching(ACTIVE, Span.up_to_now(), "gone", preview=False)
    assert await alone.state(jobs[2]) is JobState.CANCELED


async def test_a_dependant_that_is_locked_is_ended_by_the_sweep_and_its_siblings_at_once(alone: Parts) -> None:
    parent = await alone.submit()
    children = [await alone.submit(depends_on=(str(parent),)) for _ in range(3)]
    fence = (await alone.execute(parent)).fence
    async with open_transaction(alone, AFTER, children[1]):
        assert (await alone.finish(parent, fence, Outcome.CANCELED)).verdict is Verdict.RECORDED
        states = [await alone.state(id) for id in children]
    assert states == [JobState.CANCELED, JobState.WAITING, JobState.CANCELED]
    await alone.dependants.sweep()
    assert await alone.state(children[1]) is JobState.CANCELED
