"""The control loop against a clock that the test moves: when an attempt is run, stopped and killed.

The link and the engine are scripted here, since no real ones keep to the microsecond; what they are for is tested
with real stores and processes in tests/coordinator/test_direct_link.py and tests/worker_execute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from tenure.model.states import Outcome
from tenure.model.trust import Trust
from tenure.worker.attempt import LOST_GRACE_S, OVERDUE_S, STOP_GRACE_S, Attempt
from tenure.worker.control import Control
from tenure.worker.execute.call import Assignment, Call, Ended, StopCause
from tenure.worker.execute.engines import Engines
from tenure.worker.handler import Handler, Mode, Registry
from tenure.worker.link import Answer, Link, LogAnswer, LogBatch, Report, Started
from tenure.worker.metrics import REGISTRY

TTL_S = 10.0
STARTED = Started(Assignment("job", 1, 7, "default", "k", "default", "null"), 1, 1)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@dataclass
class Script:
    """A link that hands out one attempt and keeps the reports."""

    trust: Trust
    reports: list[Report] = field(default_factory=list)
    appended: list[LogBatch] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    forsaken: int = 0
    asked: int = 0

    def trusted_until(self, started: Started) -> float:
        self.asked += 1
        return self.trust.until

    def forsake(self, started: Started) -> None:
        self.forsaken += 1

    async def attempts(self) -> AsyncIterator[Sequence[Started]]:
        yield [STARTED]
        await asyncio.Event().wait()

    async def append_logs(self, batches: Sequence[LogBatch]) -> list[LogAnswer]:
        self.appended.extend(batches)
        return [LogAnswer() for _ in batches]

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        self.reports.extend(reports)
        self.reported.set()
        return [Answer(recorded=True) for _ in reports]


@dataclass
class Stubborn:
    """A handler that stops for nothing but a kill; also the engine that runs it."""

    calls: list[Call] = field(default_factory=list)
    causes: list[StopCause] = field(default_factory=list)
    kills: int = 0

    def begin(self, call: Call) -> Stubborn:
        self.calls.append(call)
        return self

    def stop(self, cause: StopCause) -> None:
        self.causes.append(cause)

    def kill(self) -> None:
        self.kills += 1


def _attempt(script: Script, clock: Clock) -> tuple[Attempt, Stubborn, list[Ended]]:
    ended: list[Ended] = []
    attempt = Attempt(STARTED, cast(Link, script), clock, lambda _attempt, end: ended.append(end))
    handler = Stubborn()
    attempt.execution = handler
    return attempt, handler, ended


def test_an_attempt_is_stopped_when_its_trust_ends_and_killed_in_the_margin() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    attempt, handler, _ = _attempt(script, clock)
    for clock.now in (script.trust.until - 0.001, script.trust.until, script.trust.until + LOST_GRACE_S):
        attempt.check(clock.now)
        if clock.now < script.trust.until:
            assert handler.causes == [], "the trust still held"
    assert handler.causes == [StopCause.LOST]
    assert handler.kills == 1
    assert clock.now < script.trust.expires_at


def test_trust_that_is_renewed_moves_the_end_on() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    attempt, handler, _ = _attempt(script, clock)
    for _ in range(5):
        clock.now = script.trust.until - 0.001
        attempt.check(clock.now)
        script.trust = Trust(clock.now, TTL_S)
    assert (handler.causes, handler.kills) == ([], 0)


def test_a_worker_that_was_held_up_kills_at_once() -> None:
    """It wakes when the lease can have expired already: the time to stop was over while it slept."""
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    attempt, handler, _ = _attempt(script, clock)
    attempt.check(clock.now)
    clock.now = script.trust.expires_at
    attempt.check(clock.now)
    attempt.check(clock.now)
    assert handler.causes == [StopCause.LOST]
    assert handler.kills == 1


def test_a_cancel_does_not_hide_the_end_of_trust() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    attempt, handler, _ = _attempt(script, clock)
    clock.now = script.trust.until - 0.01
    attempt.stop(StopCause.CANCELED)
    clock.now = script.trust.until
    attempt.check(clock.now)
    clock.now += LOST_GRACE_S
    attempt.check(clock.now)
    assert handler.causes == [StopCause.CANCELED, StopCause.LOST]
    assert handler.kills == 1


async def _run(script: Script, clock: Clock, *, timeout_s: float | None = None) -> Stubborn:
    """Run a control loop until its link has heard of the attempt, or the engine has."""
    engine = Stubborn()
    registry = Registry([Handler(kind="k", mode=Mode.ASYNC, target=lambda: None, timeout_s=timeout_s)])
    control = Control(clock, registry, cast(Engines, engine), 1)
    control.attach(cast(Link, script))
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Any]] = [
            group.create_task(control.execute()),
            group.create_task(control.reports.run()),
        ]
        async with asyncio.timeout(10):
            while not (script.reports or engine.calls):  # noqa: ASYNC110 - either of two
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    return engine


async def test_what_starts_after_its_trust_has_ended_is_handed_back_unrun() -> None:
    clock = Clock()
    script = Script(Trust(clock.now - TTL_S, TTL_S))
    engine = await _run(script, clock)
    assert engine.calls == []
    assert [(report.started, report.ended.outcome) for report in script.reports] == [(STARTED, Outcome.RELEASED)]


async def test_what_starts_in_time_is_run() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    engine = await _run(script, clock)
    assert [call.assignment for call in engine.calls] == [STARTED.assignment]
    assert script.reports == []


async def test_how_long_it_ran_is_told_with_its_kind_and_outcome() -> None:
    clock = Clock()
    _, engine = _control(Script(Trust(clock.now, TTL_S)), clock)
    labels = {"kind": STARTED.assignment.kind, "outcome": "completed"}

    def ran_s() -> float:
        return REGISTRY.get_sample_value("tenure_worker_attempt_seconds_sum", labels) or 0.0

    before = ran_s()
    clock.now += 7.0
    cast(Attempt, engine.calls[0].reporter).finished(Ended(Outcome.COMPLETED, "null"))
    assert ran_s() == pytest.approx(before + 7.0)


async def test_a_claim_is_forsaken_when_its_handler_outlives_its_own_timeout() -> None:
    """The job has none, but the handler has: what runs on in a thread must not keep its job for ever."""
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    engine = await _run(script, clock, timeout_s=3.0)
    attempt = cast(Attempt, engine.calls[0].reporter)
    attempt.check(clock.now + 3.0 + OVERDUE_S - 0.01)
    assert script.forsaken == 0
    attempt.check(clock.now + 3.0 + OVERDUE_S)
    assert script.forsaken == 1


def _control(script: Script, clock: Clock) -> tuple[Control, Stubborn]:
    """Return a control loop in which one attempt runs."""
    engine = Stubborn()
    registry = Registry([Handler(kind="k", mode=Mode.ASYNC, target=lambda: None)])
    control = Control(clock, registry, cast(Engines, engine), 1)
    control.attach(cast(Link, script))
    control._begin(STARTED, clock.now)
    return control, engine


def test_the_loop_looks_when_trust_could_have_ended_and_not_before() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, TTL_S))
    control, engine = _control(script, clock)
    asked = script.asked
    seen = script.trust.until
    script.trust = Trust(clock.now + 3.0, TTL_S)
    for clock.now in (101.0, 105.0, seen - 0.01):
        control.tick()
    assert script.asked == asked, "nothing was due"
    clock.now = seen
    control.tick()
    assert (script.asked, engine.causes) == (asked + 1, [])
    clock.now = script.trust.until
    control.tick()
    assert engine.causes == [StopCause.LOST]
    clock.now += LOST_GRACE_S
    control.tick()
    assert engine.kills == 1


def test_the_loop_kills_a_canceled_handler_that_does_not_stop_though_its_trust_lasts() -> None:
    clock = Clock()
    script = Script(Trust(clock.now, 60.0))
    control, engine = _control(script, clock)
    control.tick()
    control.stop("job", 7, StopCause.CANCELED)
    clock.now += STOP_GRACE_S - 0.01
    control.tick()
    assert (engine.causes, engine.kills) == ([StopCause.CANCELED], 0)
    clock.now += 0.01
    control.tick()
    assert engine.kills == 1
