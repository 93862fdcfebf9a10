"""Settings of kinds: what is refused, whose word comes first, and what limits are added."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model import bounds
from tenure.model.errors import InvalidInput
from tenure.model.jobs import JobSpec, RetrySpec, validate_spec
from tenure.model.kinds import KindBook, KindSettings, applied, limits_of, validate_kind
from tenure.model.routes import limit_error
from tenure.v1 import job_pb2, wire
from tenure.v1.kind_wire import kind_from_pb, kind_to_pb

FULL: dict[str, Any] = {
    "priority": 7,
    "ttl_s": 20.0,
    "timeout_s": 60.0,
    "start_within_s": 30.0,
    "job_timeout_s": 600.0,
    "max_crashes": 5,
    "retry": {"max_attempts": 9, "initial_backoff_s": 4.0},
    "limits": ("scan:{namespace}", "{kind}"),
}


@pytest.mark.parametrize(
    ("where", "values", "field"),
    [
        (("", "has space"), {}, "settings.kind"),
        (("", ""), {}, "settings.kind"),
        (("", "k\x00"), {}, "settings.kind"),
        (("Upper", "k"), {}, "settings.namespace"),
        (("", "k"), {"priority": 1001}, "settings.priority"),
        (("", "k"), {"ttl_s": 1.9}, "settings.ttl_s"),
        (("", "k"), {"timeout_s": 0}, "settings.timeout_s"),
        (("", "k"), {"start_within_s": float("nan")}, "settings.start_within_s"),
        (("", "k"), {"job_timeout_s": -1}, "settings.job_timeout_s"),
        (("", "k"), {"max_crashes": 0}, "settings.max_crashes"),
        (("", "k"), {"retry": {"max_attempts": 0}}, "settings.retry.max_attempts"),
        (("", "k"), {"limits": ("a",) * 5}, "settings.limits"),
        (("", "k"), {"limits": ("a", "a")}, "settings.limits"),
        (("", "k"), {"limits": ("k", "{kind}")}, "settings.limits"),
        (("", "k"), {"limits": ("a", "{route}")}, "settings.limits.1"),
        (("", "k"), {"limits": ("a{}",)}, "settings.limits.0"),
        (("", "k"), {"limits": ("a:{namespace",)}, "settings.limits.0"),
        (("", "Upper"), {"limits": ("{kind}",)}, "settings.limits.0"),
        (("", "k"), {"limits": ("a" * 100 + "{namespace}",)}, "settings.limits.0"),
        (("", "k"), {"delay_s": 1}, "settings.delay_s"),
    ],
)
def test_bad_settings_name_their_field(where: tuple[str, str], values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_kind(*where, values)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_template_for_one_namespace_is_judged_by_its_own_name() -> None:
    """What is too long in the longest namespace may fit in this one."""
    template = "a" * 100 + "{namespace}"
    assert limits_of(validate_kind("acme", "k", {"limits": (template,)}), "acme", "k") == ("a" * 100 + "acme",)


def test_what_is_unset_is_as_set_for_the_kind() -> None:
    settings = validate_kind("", "k", FULL)
    job = applied(settings, JobSpec(kind="k", namespace="acme", limits=("own",)))
    assert (job.priority, job.ttl_s, job.timeout_s, job.start_within_s) == (7, 20.0, 60.0, 30.0)
    assert (job.job_timeout_s, job.max_crashes) == (600.0, 5)
    assert (job.retry.max_attempts, job.retry.initial_backoff_s, job.retry.multiplier) == (9, 4.0, 2.0)
    assert job.limits == ("own", "scan:acme", "k")


def test_two_templates_that_come_to_the_same_are_one_limit() -> None:
    settings = validate_kind("", "k", {"limits": ("scan", "{namespace}")})
    assert applied(settings, JobSpec(kind="k", namespace="scan")).limits == ("scan",)


def test_the_submitters_word_comes_first_even_where_it_is_the_default() -> None:
    asked = validate_spec(
        {
            "kind": "k",
            "priority": 0,
            "ttl_s": bounds.DEFAULT_TTL_S,
            "timeout_s": 5.0,
            "start_within_s": 6.0,
            "job_timeout_s": 7.0,
            "max_crashes": bounds.DEFAULT_MAX_CRASHES,
            "retry": {"max_attempts": bounds.DEFAULT_MAX_ATTEMPTS},
            "limits": ("k",),
        }
    )
    job = applied(validate_kind("", "k", FULL), asked)
    unchanged = {"priority", "ttl_s", "timeout_s", "start_within_s", "job_timeout_s", "max_crashes"}
    assert {name: getattr(job, name) for name in unchanged} == {name: getattr(asked, name) for name in unchanged}
    assert (job.retry.max_attempts, job.retry.initial_backoff_s) == (3, 4.0)
    assert job.limits == ("k", "scan:default")


def test_an_instant_to_start_by_leaves_no_room_for_a_span() -> None:
    asked = validate_spec({"kind": "k", "start_by": "2030-01-01T00:00:00Z"})
    assert applied(validate_kind("", "k", {"start_within_s": 30.0}), asked).start_within_s is None


def test_a_namespaces_own_settings_come_before_those_of_all() -> None:
    book = KindBook(
        {
            ("", "k"): validate_kind("", "k", FULL),
            ("acme", "k"): validate_kind("acme", "k", {"priority": -1, "retry": {"max_attempts": 2}, "limits": ("a",)}),
        }
    )
    own = book.apply(JobSpec(kind="k", namespace="acme"))
    assert (own.priority, own.ttl_s, own.limits) == (-1, 20.0, ("a",))
    assert (own.retry.max_attempts, own.retry.initial_backoff_s) == (2, 4.0)
    assert book.apply(JobSpec(kind="k")).priority == 7
    other = JobSpec(kind="other", namespace="acme")
    assert book.apply(other) is other
    assert book.settings_of("acme", "other") is None


def test_too_many_limits_with_those_of_the_kind_are_refused() -> None:
    asked = JobSpec(kind="k", limits=tuple(f"l{n}" for n in range(7)))
    with pytest.raises(InvalidInput) as caught:
        applied(validate_kind("", "k", FULL), asked, path="jobs[2].")
    assert [violation.field for violation in caught.value.violations] == ["jobs[2].limits"]


OPTIONAL = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.integers(bounds.MIN_PRIORITY, bounds.MAX_PRIORITY),
        "ttl_s": st.integers(2, 3600).map(float),
        "timeout_s": st.integers(1, 1000).map(float),
        "start_within_s": st.integers(1, 1000).map(float),
        "job_timeout_s": st.integers(1, 1000).map(float),
        "max_crashes": st.integers(1, 100),
        "retry": st.fixed_dictionaries(
            {},
            optional={"max_attempts": st.integers(1, 100), "backoff": st.sampled_from(["linear", "exponential"])},
        ),
        "limits": st.sets(st.sampled_from(["a", "b:{namespace}", "{kind}:c"])).map(tuple),
    },
)
OWN_LIMITS = st.sets(st.sampled_from(["a", "x", "y"])).map(tuple)


@given(asked=OPTIONAL, own=OPTIONAL, wide=OPTIONAL, limits=OWN_LIMITS)
def test_each_field_comes_from_the_first_that_sets_it(
    asked: dict[str, Any], own: dict[str, Any], wide: dict[str, Any], limits: tuple[str, ...]
) -> None:
    asked = {**asked, "limits": limits}
    book = KindBook({("", "k"): validate_kind("", "k", wide), ("n", "k"): validate_kind("n", "k", own)})
    spec = validate_spec({"kind": "k", "namespace": "n", **asked})
    job = book.apply(spec)
    plain = JobSpec(kind="k")
    for name in ("priority", "ttl_s", "timeout_s", "start_within_s", "job_timeout_s", "max_crashes"):
        first = next((source[name] for source in (asked, own, wide) if name in source), getattr(plain, name))
        assert getattr(job, name) == first
    for name in ("max_attempts", "backoff"):
        policies = [source.get("retry", {}) for source in (asked, own, wide)]
        first = next((policy[name] for policy in policies if name in policy), getattr(plain.retry, name))
        assert getattr(job.retry, name) == first
    added = limits_of(KindSettings(limits=own.get("limits") or wide.get("limits") or ()), "n", "k")
    assert set(job.limits) == {*limits, *added}
    assert len(set(job.limits)) == len(job.limits)
    assert not [name for name in job.limits if limit_error(name)]
    JobSpec.model_validate(job.model_dump())  # and it is a job that might have been asked for


@given(values=OPTIONAL)
def test_settings_come_back_from_the_wire_and_from_storage(values: dict[str, Any]) -> None:
    settings = validate_kind("n", "k", values)
    assert kind_from_pb(kind_to_pb("n", "k", settings)) == settings
    stored = KindSettings.model_validate_json(settings.stored())
    assert stored == settings
    assert (stored.retry or RetrySpec()).model_fields_set == (settings.retry or RetrySpec()).model_fields_set


@given(asked=OPTIONAL)
def test_what_a_job_leaves_unset_stays_so_on_the_wire(asked: dict[str, Any]) -> None:
    """Children and schedules' jobs travel as messages before settings are applied."""
    spec = validate_spec({"kind": "k", **{name: value for name, value in asked.items() if name != "limits"}})
    message = wire.spec_to_pb(spec)
    again = wire.spec_from_pb(job_pb2.JobSpec.FromString(message.SerializeToString()))
    assert again == spec
    judged = {"priority", "ttl_s", "timeout_s", "start_within_s", "job_timeout_s", "max_crashes", "retry"}
    assert again.model_fields_set & judged == spec.model_fields_set & judged
    assert again.retry.model_fields_set == spec.retry.model_fields_set
