"""The rules of retention: which policy decides, what a policy may say, and how history is cut into spans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.errors import InvalidInput
from tenure.model.retention import Policy, Span, policy_for, shortest_keep_s, spans, validate_hold, validate_policy

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = st.sampled_from(["", "a", "b"])
STATES = ["completed", "failed", "canceled"]
POLICIES = st.lists(
    st.builds(
        Policy,
        namespace=NAMES,
        kind=NAMES,
        state=st.sampled_from(["", *STATES]),
        keep_s=st.none() | st.integers(60, 10_000),
    ),
    unique_by=lambda one: one.name,
)
SORTS = st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from(STATES))


@given(POLICIES, SORTS)
def test_the_most_specific_policy_decides(policies: list[Policy], sort: tuple[str, str, str]) -> None:
    found = policy_for(policies, *sort)
    covering = [one for one in policies if one.covers(*sort)]
    if found is None:
        assert covering == []
        return
    assert found in covering

    def specific(policy: Policy) -> tuple[bool, bool, bool]:
        return policy.namespace != "", policy.kind != "", policy.state != ""

    assert all(specific(one) < specific(found) for one in covering if one != found), "there is never a tie"


@given(POLICIES, SORTS, st.randoms())
def test_the_order_in_which_policies_were_set_does_not_matter(policies, sort, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(policies, len(policies))
    assert policy_for(policies, *sort) == policy_for(shuffled, *sort)


@given(POLICIES, SORTS)
def test_nothing_goes_sooner_than_the_shortest_time(policies: list[Policy], sort: tuple[str, str, str]) -> None:
    found, shortest = policy_for(policies, *sort), shortest_keep_s(policies)
    if found is not None and found.keep_s is not None:
        assert shortest is not None and shortest <= found.keep_s


def test_without_a_policy_nothing_is_removed() -> None:
    assert policy_for([], "a", "k", "failed") is None
    assert shortest_keep_s([]) is None
    assert shortest_keep_s([Policy("a")]) is None


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (Policy("A b", keep_s=60), "policy.namespace"),
        (Policy(kind="a b", keep_s=60), "policy.kind"),
        (Policy(kind="a\x00", keep_s=60), "policy.kind"),
        (Policy(state="ready", keep_s=60), "policy.state"),
        (Policy(keep_s=59), "policy.keep"),
        (Policy(keep_s=-1), "policy.keep"),
        (Policy(keep_s=4_000_000_000), "policy.keep"),
    ],
)
def test_a_bad_policy_names_its_field(policy: Policy, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_policy(policy)
    assert field in [violation.field for violation in caught.value.violations]


def test_an_archive_may_be_asked_for_where_there_is_one() -> None:
    policy = Policy("acme", keep_s=60, archive=True)
    assert validate_policy(policy, no_archive=None) == policy
    with pytest.raises(InvalidInput, match="no object store") as caught:
        validate_policy(policy)
    assert [violation.field for violation in caught.value.violations] == ["policy.archive"]


@pytest.mark.parametrize(("key", "value"), [("", "a"), ("A b", "a"), ("a", "x" * 64), ("a", "\x00")])
def test_a_hold_is_on_a_label_that_a_job_can_have(key: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        validate_hold(key, value)
    assert validate_hold("case", "7") == ("case", "7")
    with pytest.raises(InvalidInput):
        validate_hold("case", "7", "x" * 513)


@given(st.sets(st.integers(-60, 10)), st.integers(0, 400))
def test_spans_cover_all_time_up_to_the_last_and_lie_in_one_partition_each(numbers: set[int], days: int) -> None:
    weeks = [(NOW + timedelta(weeks=n), NOW + timedelta(weeks=n + 1)) for n in numbers]
    until = NOW - timedelta(days=days)
    found = spans(weeks, until)
    assert found[0].from_at is None
    assert all(before.until_at == after.from_at for before, after in pairwise(found))
    last = found[-1].until_at
    assert last is None or last >= until
    assert all(span.from_at is None or span.from_at < until for span in found)
    for from_at, until_at in weeks:
        inside = [span for span in found if span == Span(from_at, until_at)]
        crossing = [
            span
            for span in found
            if span not in inside
            and (span.from_at is None or span.from_at < until_at)
            and (span.until_at is None or span.until_at > from_at)
        ]
        assert crossing == [] and (inside or from_at >= until)


def test_without_partitions_all_time_is_one_span() -> None:
    assert spans([], NOW) == [Span(None, None)]
