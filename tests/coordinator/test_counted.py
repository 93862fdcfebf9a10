"""The figures of an overview and the counters of ``/metrics`` are of the same jobs, whoever made or ended them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.coordinator.conftest import Parts, until
from tests.coordinator.test_retry import failed
from tests.coordinator.test_schedules import Book

from tenure.coordinator import counted
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.overdue import Overdue
from tenure.coordinator.tally import NO_LANE, Tally, What
from tenure.model.clock import SystemClock
from tenure.model.jobs import JobSpec
from tenure.model.states import TERMINAL, JobState, Outcome
from tenure.model.unique import OnDuplicate

WAYS = ("submit", "child", "schedule", "retry")
Grown = Callable[[], Counter[str]]


def _counters() -> Counter[str]:
    told = {by: REGISTRY.get_sample_value("tenure_jobs_submitted_total", {"by": by}) for by in WAYS}
    told |= {str(state): REGISTRY.get_sample_value("tenure_jobs_ended_total", {"state": state}) for state in TERMINAL}
    return Counter({name: int(value or 0) for name, value in told.items()})


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Tally:
    """What an overview reads, empty."""
    own = Tally(SystemClock())
    monkeypatch.setattr(counted, "TALLY", own)
    return own


@pytest.fixture
def grown(tally: Tally) -> Grown:
    """By how much the counters have grown; the figures of an overview must say the same, each with its lane."""
    before = _counters()

    def agreed() -> Counter[str]:
        now = _counters() - before
        figures = tally.last_hour()
        assert all(lane != NO_LANE for lane, _ in figures)
        by_what = Counter[What]()
        for (_, what), jobs in figures.items():
            by_what[what] += jobs
        assert by_what[What.SUBMITTED] == sum(now[by] for by in WAYS)
        for state, what in zip(
            (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED),
            (What.COMPLETED, What.FAILED, What.CANCELED),
            strict=True,
        ):
            assert by_what[what] == now[state], what
        return now

    return agreed


async def test_a_job_that_nobody_executed_is_counted_when_it_is_canceled(alone: Parts, grown: Grown) -> None:
    job = await alone.submit()
    await alone.canceler.cancel(job, "r")
    await alone.canceler.cancel(job, "again")
    assert grown() == {"submit": 1, "canceled": 1}


async def test_what_waited_for_a_job_is_counted_when_it_goes_with_it(alone: Parts, grown: Grown) -> None:
    parent = await alone.submit()
    child = await alone.submit(depends_on=(str(parent),), upstream_failure="fail")
    await alone.submit(depends_on=(str(child),))
    await alone.canceler.cancel(parent, "r")
    assert grown() == {"submit": 3, "canceled": 2, "failed": 1}


async def test_a_job_whose_time_is_up_is_counted(alone: Parts, grown: Grown) -> None:
    job = await alone.submit(start_within_s=60.0)
    await alone.sql("UPDATE tenure.job SET start_by = now() - interval '1 s' WHERE id = %s", job)
    assert await Overdue(alone.db, alone.finisher, alone.dependants).sweep() == 1
    assert grown() == {"submit": 1, "failed": 1}


async def test_a_retry_by_hand_is_counted(alone: Parts, grown: Grown) -> None:
    job = await failed(alone)
    _, is_new = await alone.retryer.retry(job)
    _, is_newer = await alone.retryer.retry(job)
    assert (is_new, is_newer) == (True, False)
    assert grown() == {"submit": 1, "failed": 1, "retry": 1}


async def test_a_tick_is_counted_and_so_is_the_job_that_it_stops(alone: Parts, grown: Grown) -> None:
    book = Book(alone)
    id = await book.add(since=timedelta(seconds=1), interval_s=1, overlap="cancel_previous")

    async def another() -> bool:
        await book.scheduler().round()
        return len(await book.jobs(id)) > 1

    await until(another)
    jobs = len(await book.jobs(id))
    assert grown() == {"schedule": jobs, "canceled": jobs - 1}


async def test_a_batch_of_ends_is_counted_by_what_became_of_each(alone: Parts, tally: Tally, grown: Grown) -> None:
    done, again = await alone.submit(), await alone.submit()
    await alone.finish(done, (await alone.execute(done)).fence)
    await alone.finish(again, (await alone.execute(again)).fence, Outcome.RELEASED)
    [replaced] = await alone.submitter.submit_batch(
        [JobSpec(kind="k", unique_key="u", on_duplicate=OnDuplicate.REPLACE)]
    )
    await alone.submitter.submit_batch([JobSpec(kind="k", unique_key="u", on_duplicate=OnDuplicate.REPLACE)])
    assert await alone.state(uuid.UUID(str(replaced.id))) is JobState.CANCELED
    assert grown() == {"submit": 4, "completed": 1, "canceled": 1}
    assert sum(jobs for (_, what), jobs in tally.last_hour().items() if what is What.RETURNED) == 1
