"""What becomes of a job when an attempt ends without completing it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum

from tenure.model.states import TERMINAL, JobState, Outcome


class Backoff(StrEnum):
    """How the delay grows with the errors of a job."""

    EXPONENTIAL = "exponential"
    """Each is ``multiplier`` times the one before."""
    LINEAR = "linear"
    """Each is longer than the one before by the first."""
    FIXED = "fixed"
    """All are as the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed job is tried again. Durations in seconds."""

    max_attempts: int = 3
    """Attempts that may end in an error; 1 means no retry. Lost and released attempts do not count."""
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_backoff_s: float = 1.0
    multiplier: float = 2.0
    max_backoff_s: float = 300.0
    jitter: float = 0.2
    """Share of the backoff by which it may vary, up and down."""
    non_retryable: tuple[str, ...] = field(default=())
    """Error types (names of classes, or of their bases, as reported by the handler) that fail the job at once."""

    def backoff_s(self, errors: int, roll: Callable[[], float] = random.random) -> float:
        """Return the delay before the next attempt after the ``errors``-th error (counted from 1)."""
        base = min(self.initial_backoff_s * self._growth(errors), self.max_backoff_s)
        return max(0.0, base * (1 + self.jitter * (2 * roll() - 1)))

    def _growth(self, errors: int) -> float:
        match self.backoff:
            case Backoff.EXPONENTIAL:
                # The exponent is capped before it is raised, so that attempt 10,000 is no overflow.
                return self.multiplier ** min(errors - 1, 64)
            case Backoff.LINEAR:
                return errors
            case Backoff.FIXED:
                return 1.0


@dataclass(frozen=True, slots=True)
class Next:
    """The verdict: the state to move to and, for ``ready``, the delay until it may start again."""

    state: JobState
    delay_s: float = 0.0
    reason: str = ""


def after_error(
    policy: RetryPolicy,
    *,
    errors: int,
    error_type: str,
    cancel_requested: bool,
    error_bases: Collection[str] = (),
    retryable: bool = True,
    roll: Callable[[], float] = random.random,
) -> Next:
    """Decide after an attempt that failed or timed out; ``errors`` counts this one too."""
    if cancel_requested:
        return Next(JobState.CANCELED, reason="canceled while executing")
    if not retryable or not {error_type, *error_bases}.isdisjoint(policy.non_retryable):
        return Next(JobState.FAILED, reason=f"{error_type} is not retried")
    if errors >= policy.max_attempts:
        return Next(JobState.FAILED, reason=f"error {errors} of {policy.max_attempts}")
    return Next(JobState.READY, delay_s=policy.backoff_s(errors, roll))


def after_loss(*, crashes: int, max_crashes: int, cancel_requested: bool) -> Next:
    """Decide after a lost attempt (its claim vanished); ``crashes`` counts this one too."""
    if cancel_requested:
        return Next(JobState.CANCELED, reason="canceled; its worker was lost")
    if crashes >= max_crashes:
        return Next(JobState.FAILED, reason=f"lost its worker {crashes} times")
    return Next(JobState.RESTARTING)


NOT_STARTED = "did not start in time"
NOT_ENDED = "did not end in time"


def within_deadline(then: Next, *, past_deadline: bool) -> Next:
    """Return the verdict, but for a job that would come back after its deadline: that one has failed."""
    if past_deadline and then.state not in TERMINAL:
        return Next(JobState.FAILED, reason=NOT_ENDED)
    return then


def after_outcome(
    outcome: Outcome,
    policy: RetryPolicy,
    *,
    errors: int,
    error_type: str = "",
    error_bases: Collection[str] = (),
    retryable: bool = True,
    cancel_requested: bool = False,
    delay_s: float = 0.0,
    spends_budget: bool = False,
    roll: Callable[[], float] = random.random,
) -> Next:
    """Decide after an attempt that its own worker reported.

    ``errors`` counts this attempt where it is an error. ``delay_s`` is the delay that a rescheduling handler asked for,
    and ``spends_budget`` says that it wants to be counted as an error.
    """
    match outcome:
        case Outcome.COMPLETED:
            return Next(JobState.COMPLETED)
        case Outcome.CANCELED:
            return Next(JobState.CANCELED, reason="canceled while executing")
        case Outcome.FAILED | Outcome.TIMED_OUT:
            return after_error(
                policy,
                errors=errors,
                error_type=error_type,
                error_bases=error_bases,
                cancel_requested=cancel_requested,
                retryable=retryable,
                roll=roll,
            )
        case Outcome.RELEASED | Outcome.RESCHEDULED:
            if cancel_requested:
                return Next(JobState.CANCELED, reason="canceled while executing")
            if spends_budget and errors >= policy.max_attempts:
                return Next(JobState.FAILED, reason=f"rescheduled {errors} times of {policy.max_attempts}")
            return Next(JobState.READY, delay_s=delay_s)
        case Outcome.PARKED:
            if cancel_requested:
                return Next(JobState.CANCELED, reason="canceled while executing")
            return Next(JobState.WAITING)
        case Outcome.LOST:
            raise ValueError(f"{outcome} is not decided here")
