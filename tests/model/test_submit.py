"""What is refused of a submit whatever the stores hold."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.model.errors import InvalidInput
from tenure.model.jobs import JobSpec
from tenure.model.submit import keyed_after_parent, refuse_foreign_children, refuse_repeated_keys
from tenure.model.unique import OnDuplicate


def _spec(**asked: Any) -> JobSpec:
    return JobSpec(**{"kind": "k", **asked})


def _refused(specs: list[JobSpec]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        refuse_repeated_keys(specs, "jobs")
    return [violation.field for violation in refused.value.violations]


def test_a_key_that_two_members_give_is_refused_for_the_later_one() -> None:
    assert _refused([_spec(idempotency_key="a"), _spec(), _spec(idempotency_key="a")]) == ["jobs[2].idempotency_key"]
    assert _refused([_spec(unique_key="a"), _spec(unique_key="a")]) == ["jobs[1].unique_key"]


def test_keys_of_other_namespaces_and_kinds_are_other_keys() -> None:
    refuse_repeated_keys([_spec(idempotency_key="a"), _spec(idempotency_key="a", namespace="other")], "jobs")
    refuse_repeated_keys([_spec(unique_key="a"), _spec(unique_key="a", kind="other")], "jobs")
    refuse_repeated_keys([_spec(idempotency_key="a"), _spec(unique_key="a")], "jobs")


def test_a_child_is_nobody_elses_job_and_does_not_replace_its_parent() -> None:
    replaces = _spec(unique_key="a", on_duplicate=OnDuplicate.REPLACE)
    refuse_foreign_children([_spec(unique_key="a"), replaces], None)
    refuse_foreign_children([replaces], ("default", "k", "other"))
    for child in (_spec(unique_key="b", on_duplicate=OnDuplicate.EXISTING), replaces):
        with pytest.raises(InvalidInput, match=r"jobs\[0\]"):
            refuse_foreign_children([child], ("default", "k", "a"))


def test_a_child_is_found_again_by_its_key_or_its_ref() -> None:
    keyed = keyed_after_parent([_spec(ref="a"), _spec(ref="b", idempotency_key="own")])
    assert [spec.idempotency_key for spec in keyed] == ["a", "own"]
    with pytest.raises(InvalidInput, match=r"jobs\[0\].ref"):
        keyed_after_parent([_spec()])
