"""One attempt and its instants, on a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tenure.model.trust import Trust
from tenure.worker.attempt import LOST_GRACE_S, OVERDUE_S, STOP_GRACE_S, Attempt
from tenure.worker.execute.call import Assignment, StopCause
from tenure.worker.link import Started


class HandClock:
    """A clock that stands still unless it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("an attempt does not sleep")


class Claim:
    """The one thing that an attempt asks its link: how long the claim is trusted."""

    def __init__(self) -> None:
        self.trust = Trust(100.0, 10.0)
        self.forsaken = 0

    def trusted_until(self, started: Started) -> float:
        return self.trust.until if not self.forsaken else float("-inf")

    def forsake(self, started: Started) -> None:
        self.forsaken += 1


class Execution:
    """What an engine was told."""

    def __init__(self) -> None:
        self.stopped: list[StopCause] = []
        self.killed = 0

    def stop(self, cause: StopCause) -> None:
        self.stopped.append(cause)

    def kill(self) -> None:
        self.killed += 1


def _attempt(timeout_s: float | None = None) -> tuple[Attempt, HandClock, Claim, Execution]:
    clock, claim, execution = HandClock(), Claim(), Execution()
    assignment = Assignment(job_id="j", attempt=1, fence=1, namespace="n", kind="k", route="r", payload="null")
    link: Any = claim
    attempt = Attempt(Started(assignment, 7, 8), link, clock, lambda _attempt, _ended: None, timeout_s)
    attempt.execution = execution
    return attempt, clock, claim, execution


def _check(attempt: Attempt, clock: HandClock, at: float) -> None:
    clock.now = at
    attempt.check(at)


def test_a_handler_is_told_at_the_end_of_trust_and_killed_before_the_lease_can_expire() -> None:
    attempt, clock, claim, execution = _attempt()
    _check(attempt, clock, claim.trust.until - 0.01)
    assert execution.stopped == []
    _check(attempt, clock, claim.trust.until)
    assert execution.stopped == [StopCause.LOST]
    _check(attempt, clock, claim.trust.until + LOST_GRACE_S)
    assert execution.killed == 1
    assert clock.now < claim.trust.expires_at


def test_a_worker_that_was_held_up_kills_at_once() -> None:
    """The margin counts from the end of trust, not from when that was noticed."""
    attempt, clock, claim, execution = _attempt()
    _check(attempt, clock, claim.trust.expires_at + 5)
    _check(attempt, clock, claim.trust.expires_at + 5.01)
    assert (execution.stopped, execution.killed) == ([StopCause.LOST], 1)


def test_renewed_trust_is_followed() -> None:
    attempt, clock, claim, execution = _attempt()
    claim.trust = Trust(105.0, 10.0)
    _check(attempt, clock, 110.0)
    assert execution.stopped == []


def test_being_lost_outdoes_a_cancel_and_kills_sooner() -> None:
    attempt, clock, claim, execution = _attempt()
    attempt.stop(StopCause.CANCELED)
    claim.trust = Trust(90.0, 10.0)
    _check(attempt, clock, 100.05)
    _check(attempt, clock, 100.3)
    assert (execution.stopped, execution.killed) == ([StopCause.CANCELED, StopCause.LOST], 1)
    assert clock.now < 100.0 + STOP_GRACE_S


def test_a_claim_is_forsaken_when_its_handler_outlives_the_timeout() -> None:
    """An engine that can stop it has done so long before; a function in a thread may run for ever."""
    attempt, clock, claim, execution = _attempt(timeout_s=3.0)
    for at in (103.0, 103.0 + OVERDUE_S - 0.01):
        claim.trust = Trust(at, 10.0)
        _check(attempt, clock, at)
    assert (claim.forsaken, execution.stopped) == (0, [])
    claim.trust = Trust(103.0 + OVERDUE_S, 10.0)
    _check(attempt, clock, 103.0 + OVERDUE_S)
    _check(attempt, clock, 103.1 + OVERDUE_S)
    assert (claim.forsaken, execution.stopped) == (1, [StopCause.LOST])
