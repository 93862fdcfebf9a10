"""What becomes of a job when an attempt ends: every rule of ``model.retry``, for any policy and any count."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.retry import (
    Backoff,
    Next,
    RetryPolicy,
    after_error,
    after_loss,
    after_outcome,
    within_deadline,
)
from tenure.model.states import TERMINAL, JobState, Outcome, may_move

TYPES = st.sampled_from(["OSError", "ConnectionError", "ValueError", "TimedOut", "Exception"])
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    backoff=st.sampled_from(Backoff),
    initial_backoff_s=st.floats(0, 86_400),
    multiplier=st.floats(1, 100),
    max_backoff_s=st.floats(0, 604_800),
    jitter=st.floats(0, 1),
    non_retryable=st.lists(TYPES, max_size=3).map(tuple),
)
ROLLS = st.floats(0, 1)
ERRORS = st.integers(1, 10_000)


@given(policy=POLICIES, errors=ERRORS, roll=ROLLS)
def test_a_backoff_keeps_its_bounds(policy: RetryPolicy, errors: int, roll: float) -> None:
    """Never negative, never above the cap plus its jitter, whatever the count."""
    most = policy.max_backoff_s * (1 + policy.jitter)
    assert 0 <= policy.backoff_s(errors, lambda: roll) <= most + 1e-6


@given(policy=POLICIES, errors=ERRORS, roll=ROLLS)
def test_a_backoff_varies_by_its_jitter_alone(policy: RetryPolicy, errors: int, roll: float) -> None:
    middle = policy.backoff_s(errors, lambda: 0.5)
    low, some, high = (policy.backoff_s(errors, partial(float, at)) for at in (0.0, roll, 1.0))
    assert low <= some <= high
    assert low == pytest.approx(middle * (1 - policy.jitter))
    assert high == pytest.approx(middle * (1 + policy.jitter))


@given(policy=POLICIES, errors=ERRORS)
def test_a_backoff_never_shrinks(policy: RetryPolicy, errors: int) -> None:
    """Up to the cap, and from the first on as its growth says."""
    first, now, after = (policy.backoff_s(n, lambda: 0.5) for n in (1, errors, errors + 1))
    assert first <= now <= after
    assert first == pytest.approx(min(policy.initial_backoff_s, policy.max_backoff_s))
    match policy.backoff:
        case Backoff.FIXED:
            assert first == now == after
        case Backoff.LINEAR:
            assert now == pytest.approx(min(policy.initial_backoff_s * errors, policy.max_backoff_s))
        case Backoff.EXPONENTIAL:
            assert after == pytest.approx(min(now * policy.multiplier, policy.max_backoff_s)) or errors > 64


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff.EXPONENTIAL, [2, 6, 18, 20, 20]),
        (Backoff.LINEAR, [2, 4, 6, 8, 10]),
        (Backoff.FIXED, [2, 2, 2, 2, 2]),
    ],
)
def test_the_delays_in_numbers(backoff: Backoff, delays: list[float]) -> None:
    """Without jitter, with a first delay of 2 s, a multiplier of 3 and a cap of 20 s."""
    policy = RetryPolicy(backoff=backoff, initial_backoff_s=2, multiplier=3, max_backoff_s=20, jitter=0)
    assert [policy.backoff_s(n) for n in range(1, 6)] == delays


@given(
    policy=POLICIES,
    outcome=st.sampled_from([Outcome.FAILED, Outcome.TIMED_OUT]),
    errors=st.integers(1, 120),
    type_=TYPES,
    bases=st.lists(TYPES, max_size=3),
    retryable=st.booleans(),
    cancel=st.booleans(),
    roll=ROLLS,
)
def test_an_error_is_judged_in_order(
    policy: RetryPolicy,
    outcome: Outcome,
    errors: int,
    type_: str,
    bases: list[str],
    retryable: bool,
    cancel: bool,
    roll: float,
) -> None:
    """A cancel request goes first, then what is not to be retried, then the budget."""
    then = after_outcome(
        outcome,
        policy,
        errors=errors,
        error_type=type_,
        error_bases=bases,
        retryable=retryable,
        cancel_requested=cancel,
        roll=lambda: roll,
    )
    final = not retryable or bool({type_, *bases} & set(policy.non_retryable))
    if cancel:
        assert then.state is JobState.CANCELED
    elif final or errors >= policy.max_attempts:
        assert then.state is JobState.FAILED
        assert (type_ if final else f"of {policy.max_attempts}") in then.reason
    else:
        assert then == Next(JobState.READY, delay_s=policy.backoff_s(errors, lambda: roll))
    assert then == after_error(
        policy,
        errors=errors,
        error_type=type_,
        error_bases=bases,
        cancel_requested=cancel,
        retryable=retryable,
        roll=lambda: roll,
    )


@given(
    policy=POLICIES, delay_s=st.floats(0, 1e7), errors=st.integers(0, 120), cancel=st.booleans(), spends=st.booleans()
)
def test_what_is_no_error_costs_nothing_unless_it_says_so(
    policy: RetryPolicy, delay_s: float, errors: int, cancel: bool, spends: bool
) -> None:
    """Released and rescheduled jobs come back after the very delay that was asked for."""
    for outcome in (Outcome.RELEASED, Outcome.RESCHEDULED):
        then = after_outcome(
            outcome, policy, errors=errors, delay_s=delay_s, cancel_requested=cancel, spends_budget=spends
        )
        if cancel:
            assert then.state is JobState.CANCELED
        elif spends and errors >= policy.max_attempts:
            assert then.state is JobState.FAILED
        else:
            assert then == Next(JobState.READY, delay_s=delay_s)


@given(policy=POLICIES)
def test_a_budget_is_spent_in_exactly_its_attempts(policy: RetryPolicy) -> None:
    """Counting errors one by one, a job fails at the last attempt and not before."""
    ends = [
        after_outcome(Outcome.RESCHEDULED, policy, errors=n, spends_budget=True).state is JobState.FAILED
        for n in range(1, policy.max_attempts + 1)
    ]
    assert ends == [False] * (policy.max_attempts - 1) + [True]


@given(policy=POLICIES, errors=st.integers(0, 120), cancel=st.booleans())
def test_what_the_handler_settled_is_settled(policy: RetryPolicy, errors: int, cancel: bool) -> None:
    """A completion counts though a cancel was requested; a canceled attempt ends its job."""
    completed = after_outcome(Outcome.COMPLETED, policy, errors=errors, cancel_requested=cancel)
    canceled = after_outcome(Outcome.CANCELED, policy, errors=errors, cancel_requested=cancel)
    assert (completed.state, canceled.state) == (JobState.COMPLETED, JobState.CANCELED)


def test_what_others_decide_is_refused() -> None:
    with pytest.raises(ValueError, match=Outcome.LOST):
        after_outcome(Outcome.LOST, RetryPolicy(), errors=0)


@given(policy=POLICIES, errors=st.integers(0, 120), cancel=st.booleans())
def test_a_parked_job_waits_unless_it_was_canceled(policy: RetryPolicy, errors: int, cancel: bool) -> None:
    then = after_outcome(Outcome.PARKED, policy, errors=errors, cancel_requested=cancel)
    assert then.state is (JobState.CANCELED if cancel else JobState.WAITING)


@given(crashes=st.integers(1, 120), most=st.integers(1, 100), cancel=st.booleans())
def test_crashes_are_counted_apart(crashes: int, most: int, cancel: bool) -> None:
    then = after_loss(crashes=crashes, max_crashes=most, cancel_requested=cancel)
    if cancel:
        assert then.state is JobState.CANCELED
    else:
        assert then.state is (JobState.FAILED if crashes >= most else JobState.RESTARTING)
    assert then.delay_s == 0.0


@pytest.mark.parametrize(("state", "past"), list(itertools.product(JobState, [True, False])))
def test_after_its_deadline_a_job_ends_as_it_did_or_has_failed(state: JobState, past: bool) -> None:
    given_ = Next(state, delay_s=3.0, reason="because")
    then = within_deadline(given_, past_deadline=past)
    if past and state not in TERMINAL:
        assert then == Next(JobState.FAILED, reason="did not end in time")
    else:
        assert then == given_


@given(
    policy=POLICIES,
    outcome=st.sampled_from(sorted(set(Outcome) - {Outcome.LOST, Outcome.PARKED})),
    errors=st.integers(0, 120),
    cancel=st.booleans(),
    past=st.booleans(),
)
def test_every_verdict_is_a_move(policy: RetryPolicy, outcome: Outcome, errors: int, cancel: bool, past: bool) -> None:
    then = after_outcome(outcome, policy, errors=errors, cancel_requested=cancel)
    assert may_move(JobState.EXECUTING, within_deadline(then, past_deadline=past).state)
