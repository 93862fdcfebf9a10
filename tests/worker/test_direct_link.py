"""The direct link: what is on its way in, what is reported, what is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from tests.worker.conftest import Scripted, Station, until

from tenure.model.clock import SystemClock
from tenure.model.states import Outcome
from tenure.store.etcd.port import Delete, Txn
from tenure.v1 import job_pb2
from tenure.v1 import worker_service_pb2 as pb
from tenure.worker.execute.call import Ended, LostResult, SavedResult, StopCause
from tenure.worker.link import Report, Started
from tenure.worker.report import Reports


async def _first(station: Station) -> Sequence[Started]:
    async with asyncio.timeout(30):
        async for batch in station.link.attempts():
            return batch
    raise AssertionError("unreachable")


async def test_a_drain_waits_for_what_is_on_its_way_in(station: Station, coordinator: Scripted) -> None:
    """A start under way may have begun an attempt already: it is taken over, not forgotten."""
    coordinator.passing.clear()
    [job] = await station.offer()

    async def starting() -> bool:
        return coordinator.starts == 1

    await until(starting)
    draining = asyncio.ensure_future(station.link.drain())
    await asyncio.sleep(0.1)
    assert not draining.done()
    coordinator.passing.set()
    [started] = await _first(station)
    await asyncio.wait_for(draining, 10)
    assert started.assignment.job_id == job
    assert await station.claimed() == {job}


async def test_a_report_that_cannot_be_stored_becomes_a_failure_then_lets_go(
    station: Station, coordinator: Scripted
) -> None:
    [job] = await station.offer()
    [started] = await _first(station)
    answered: list[Report] = []
    reports = Reports(station.link, SystemClock(), answered.append)
    running = asyncio.ensure_future(reports.run())
    coordinator.verdict, coordinator.problem = pb.VERDICT_INVALID, "result: too odd"
    reports.add(Report(started, Ended(Outcome.COMPLETED, '"x"')))

    async def given_up() -> bool:
        return bool(answered)

    await until(given_up)
    assert await station.claimed() == set()
    first, second = coordinator.reports
    assert (first.outcome, first.result) == (job_pb2.OUTCOME_COMPLETED, '"x"')
    assert (second.outcome, second.permanent, second.result) == (job_pb2.OUTCOME_FAILED, True, "")
    assert "too odd" in second.error.message
    assert [report.started.assignment.job_id for report in answered] == [job]
    running.cancel()


@pytest.mark.parametrize("large", [SavedResult(70_000, "00" * 32), LostResult(70_000, "as the test wishes")])
async def test_where_no_coordinator_knows_of_large_results_the_attempt_fails(
    station: Station, coordinator: Scripted, monkeypatch: pytest.MonkeyPatch, large: SavedResult | LostResult
) -> None:
    """An upgrade that was taken back while such a result was uploaded."""
    monkeypatch.setattr("tenure.worker.direct.UPGRADE_S", 1.0)
    await station.offer()
    [started] = await _first(station)
    answered: list[Report] = []
    reports = Reports(station.link, SystemClock(), answered.append)
    running = asyncio.ensure_future(reports.run())
    coordinator.verdict, coordinator.problem = pb.VERDICT_INVALID, "result: is no JSON"
    reports.add(Report(started, Ended(Outcome.COMPLETED, large=large)))

    async def given_up() -> bool:
        return bool(answered)

    await until(given_up)
    last = coordinator.reports[-1]
    assert len(coordinator.reports) > 2, "others may know of it"
    assert (last.outcome, last.permanent, last.error.type) == (job_pb2.OUTCOME_FAILED, False, "ResultTooLarge")
    assert station.link._unknown == {}
    running.cancel()


async def test_reports_go_again_until_they_are_answered(station: Station, coordinator: Scripted) -> None:
    [job] = await station.offer()
    [started] = await _first(station)
    answered: list[Report] = []
    reports = Reports(station.link, SystemClock(), answered.append)
    running = asyncio.ensure_future(reports.run())
    coordinator.refuse_finishes = grpc.StatusCode.INTERNAL
    reports.add(Report(started, Ended(Outcome.COMPLETED, '"x"')))
    await asyncio.sleep(0.5)
    assert answered == []
    coordinator.refuse_finishes = None

    async def done() -> bool:
        return len(answered) == 1

    await until(done)
    assert [report.job_id for report in coordinator.reports] == [job]
    running.cancel()


async def test_a_report_about_a_locked_job_goes_again_and_nobody_with_it(
    station: Station, coordinator: Scripted
) -> None:
    first, second, third = await station.offer(3)
    started = {one.assignment.job_id: one for one in await _first(station)}
    answered: list[str] = []
    reports = Reports(station.link, SystemClock(), lambda report: answered.append(report.started.assignment.job_id))
    coordinator.locked = {first}
    running = asyncio.ensure_future(reports.run())
    for job in (first, second):
        reports.add(Report(started[job], Ended(Outcome.COMPLETED)))

    async def told_again() -> bool:
        return coordinator.report_calls.count([first]) >= 2

    await until(told_again)
    assert answered == [second]
    reports.add(Report(started[third], Ended(Outcome.COMPLETED)))
    coordinator.locked = set()

    async def all_answered() -> bool:
        return len(answered) == 3

    await until(all_answered)
    assert set(answered) == {first, second, third}
    assert all(call == [first] for call in coordinator.report_calls[1:] if first in call)
    running.cancel()


async def test_a_claim_that_is_taken_away_stops_its_attempt(station: Station) -> None:
    jobs = await station.offer(2)
    await _first(station)
    await station.etcd.txn(Txn((), (Delete(station.keys.claim(jobs[0])),)))

    async def stopped() -> bool:
        return (jobs[0], StopCause.LOST) in station.stopped

    await until(stopped)
    assert {job for job, _ in station.stopped} == {jobs[0]}


async def test_a_claim_that_goes_with_its_report_is_not_called_taken_away(
    station: Station, coordinator: Scripted
) -> None:
    """The coordinator deletes the claim before its answer arrives."""
    [job] = await station.offer()
    [started] = await _first(station)
    coordinator.passing_reports.clear()
    finishing = asyncio.ensure_future(station.link.finish([Report(started, Ended(Outcome.COMPLETED))]))
    await station.etcd.txn(Txn((), (Delete(station.keys.claim(job)),)))
    await asyncio.sleep(0.5)  # several looks at the claims
    coordinator.passing_reports.set()
    [answer] = await finishing
    assert answer.recorded
    assert station.stopped == []


async def test_a_forsaken_claim_is_trusted_no_more_and_expires(station: Station) -> None:
    [job] = await station.offer(ttl_s=2.0)
    [started] = await _first(station)
    station.link.forsake(started)
    assert station.link.trusted_until(started) == float("-inf")

    async def gone() -> bool:
        return job not in await station.claimed()

    await until(gone)
