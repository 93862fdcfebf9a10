"""The rules of limits: definitions and families, slots' numbers, buckets, pauses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.dispatch import Lane
from tenure.model.errors import InvalidInput
from tenure.model.limits import Limit, covering, free_numbers, validate_limit
from tenure.model.rules import Pause, Rules, Subject


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        (Limit("", concurrent=1), "limit.name"),
        (Limit("A b", concurrent=1), "limit.name"),
        (Limit("a/b", concurrent=1), "limit.name"),
        (Limit("a*b", concurrent=1), "limit.name"),
        (Limit("a"), "limit.concurrent"),
        (Limit("a", concurrent=-1), "limit.concurrent"),
        (Limit("a", concurrent=100_001), "limit.concurrent"),
        (Limit("a", rate=-1), "limit.rate"),
        (Limit("a", rate=1, interval_s=0), "limit.interval"),
        (Limit("a", rate=1, interval_s=86_401), "limit.interval"),
        (Limit("a", rate=1, burst=0), "limit.burst"),
        (Limit("a", concurrent=1, burst=2), "limit.burst"),
        (Limit("a", rate=1, interval_s=86_400, burst=8), "limit.burst"),
    ],
)
def test_a_bad_limit_names_its_field(limit: Limit, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_limit(limit)
    assert field in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("name", ["a", "scan:acme", "scan:*", "*", "db.main-1", "a" * 128])
def test_a_good_name(name: str) -> None:
    assert validate_limit(Limit(name, concurrent=0)).name == name


def test_the_narrowest_definition_covers() -> None:
    given_names = ("scan:*", "scan:acme", "scan:a*", "db")
    definitions = {name: Limit(name, concurrent=n) for n, name in enumerate(given_names)}
    found = {
        name: covering(name, definitions) for name in ("scan:acme", "scan:abc", "scan:x", "scan:", "db", "dbx", "s")
    }
    assert {name: limit and limit.name for name, limit in found.items()} == {
        "scan:acme": "scan:acme",
        "scan:abc": "scan:a*",
        "scan:x": "scan:*",
        "scan:": "scan:*",
        "db": "db",
        "dbx": None,
        "s": None,
    }
    assert covering("anything", {"*": Limit("*", concurrent=1)}) is not None


@given(most=st.integers(0, 20), taken=st.sets(st.integers(0, 40), max_size=20))
def test_free_numbers_never_make_more_than_the_limit(most: int, taken: set[int]) -> None:
    """Whatever numbers are taken, also ones above a limit that was lowered."""
    free = list(free_numbers(Limit("a", concurrent=most), taken))
    assert len(free) == len(set(free)) == max(0, most - len(taken))
    assert not taken & set(free)
    assert all(0 <= number < most for number in free)


@given(
    rate=st.integers(1, 100),
    interval_s=st.floats(0.1, 100),
    burst=st.none() | st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 50), st.integers(0, 20)), max_size=30),
)
def test_a_bucket_never_gives_more_than_burst_and_rate(
    rate: int, interval_s: float, burst: int | None, steps: list[tuple[float, int]]
) -> None:
    limit = Limit("a", rate=rate, interval_s=interval_s, burst=burst)
    tokens, taken, elapsed_s = float(limit.bucket), 0, 0.0
    for pause_s, wanted in steps:
        elapsed_s += pause_s
        tokens = limit.level(tokens, pause_s)
        granted = min(wanted, math.floor(tokens))
        tokens -= granted
        taken += granted
        assert taken <= limit.bucket + elapsed_s * rate / interval_s + 1e-6
    wait_s = limit.wait_s(tokens)
    assert limit.level(tokens, wait_s) >= 1 - 1e-6
    assert wait_s == 0 or limit.level(tokens, wait_s * 0.9) < 1


def test_a_rate_of_nothing_waits_for_ever() -> None:
    assert Limit("a", rate=0).wait_s(0.0) == math.inf
    assert Limit("a", rate=0).bucket == 0


def test_pauses_are_by_whole_segments_kind_and_namespace() -> None:
    lane = Lane(1, "pool-a/scans", "acme", "scan")

    def paused(subject: Subject, name: str) -> bool:
        return Rules(pauses={(subject, name): Pause(subject, name)}).pause_of(lane) is not None

    assert paused(Subject.POOL, "pool-a")
    assert paused(Subject.POOL, "pool-a/scans")
    assert not paused(Subject.POOL, "pool-a/sca")
    assert not paused(Subject.POOL, "pool-a/scans/deep")
    assert paused(Subject.KIND, "scan")
    assert not paused(Subject.KIND, "acme")
    assert paused(Subject.NAMESPACE, "acme")
    assert not paused(Subject.NAMESPACE, "scan")
    assert Rules().pause_of(lane) is None
