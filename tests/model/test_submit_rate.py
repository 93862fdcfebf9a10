"""Buckets of submits: whatever is asked for and when, no more goes than the rate and the burst allow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.submit_rate import Bucket, SubmitRate, burst_of

_steps = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 60)), max_size=40)


@given(rate=st.floats(0.001, 1_000), burst=st.integers(1, 50), steps=_steps)
def test_no_more_is_taken_than_rate_and_burst_allow(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, taken = Bucket(SubmitRate(rate, burst), 0.0), 0.0, 0
    for pause_s, jobs in steps:
        now += pause_s
        wait_s = bucket.take(jobs, now)
        if wait_s == 0:
            taken += jobs
        elif jobs > burst:
            assert wait_s == math.inf
        else:  # then it fits
            assert bucket.take(jobs, now + wait_s * (1 + 1e-9) + 1e-6) == 0
            return
        assert taken <= burst + now * rate + 1e-6


def test_what_was_not_written_is_given_back_and_no_more_than_fits() -> None:
    bucket = Bucket(SubmitRate(1.0, 5), 0.0)
    assert bucket.take(5, 0.0) == 0
    assert bucket.is_empty(0.0)
    bucket.give_back(50)
    assert bucket.take(6, 0.0) == math.inf
    assert bucket.take(5, 0.0) == 0


def test_another_rate_starts_from_what_is_there() -> None:
    bucket = Bucket(SubmitRate(1.0, 5), 0.0)
    assert bucket.take(5, 0.0) == 0
    bucket.change(SubmitRate(10.0, 100), 0.0)
    assert bucket.is_empty(0.0)
    assert bucket.take(10, 0.0) == pytest.approx(1.0)
    bucket.change(SubmitRate(10.0, 1), 60.0)
    assert not bucket.is_empty(60.0)
    assert bucket.take(2, 60.0) == math.inf


def test_a_burst_that_is_not_set_is_what_a_second_brings() -> None:
    assert [burst_of(rate, None) for rate in (0.001, 1.0, 2.5)] == [1, 1, 3]
    assert burst_of(2.5, 7) == 7
