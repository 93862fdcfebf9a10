"""The hash of a request: the same for the same request, however it is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tenure.model.errors import InvalidInput
from tenure.model.jobs import JobSpec, validate_spec
from tenure.model.request import request_hash

AT = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "same",
    [
        {"idempotency_key": "another"},
        {"namespace": "default"},
        {"retry": {}},
        {"retry": {"max_attempts": 3}},
        {"labels": {"b": "2", "a": "1"}},
        {"limits": ("y", "x")},
        {"activate_at": AT.astimezone(timezone(timedelta(hours=5)))},
        {"depends_on": ("0190A5F3-0000-7000-8000-000000000000",)},
        {"trigger": "all_completed", "upstream_failure": "cancel"},
    ],
)
def test_what_makes_no_difference_leaves_it_as_it_is(same: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        "kind": "k",
        "labels": {"a": "1", "b": "2"},
        "limits": ("x", "y"),
        "activate_at": AT,
        "depends_on": ("0190a5f3-0000-7000-8000-000000000000",),
    }
    assert request_hash(JobSpec(**{**base, **same})) == request_hash(JobSpec(**base))


def test_what_makes_a_difference_changes_it() -> None:
    given: list[dict[str, Any]] = [
        {},
        {"kind": "l"},
        {"payload": "1"},
        {"payload": " 1"},
        {"priority": 1},
        {"delay_s": 1.0},
        {"delay_s": 1.000001},
        {"labels": {"a": "1"}},
        {"labels": {"a": "12", "b": ""}},
        {"labels": {"a": "1", "b": "2"}},
        {"requires": {"a": "1"}},
        {"retry": {"jitter": 0.0}},
        {"retry": {"non_retryable": ("A", "B")}},
        {"retry": {"non_retryable": ("AB",)}},
        {"unique_key": "u"},
        {"unique_key": "u", "on_duplicate": "existing"},
        {"activate_at": AT},
        {"start_by": AT},
        {"trigger": "any_completed"},
        {"trigger": "all_finished"},
        {"upstream_failure": "fail"},
    ]
    assert len({request_hash(JobSpec(**{"kind": "k", **values})) for values in given}) == len(given)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"unique_key": ""}, "unique_key"),
        ({"unique_key": "a\nb"}, "unique_key"),
        ({"unique_key": "x" * 256}, "unique_key"),
        ({"on_duplicate": "existing"}, "on_duplicate"),
        ({"unique_key": "x", "on_duplicate": "other"}, "on_duplicate"),
        ({"idempotency_ttl_s": 600.0}, "idempotency_ttl_s"),
        ({"idempotency_key": "x", "idempotency_ttl_s": 599.0}, "idempotency_ttl_s"),
        ({"idempotency_key": "x", "idempotency_ttl_s": 32 * 86_400.0}, "idempotency_ttl_s"),
        ({"labels": {"a": "right\u202eleft"}}, "labels"),
    ],
)
def test_bad_keys_are_refused_with_the_field_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate_spec({"kind": "k", **values}, path="job.")
    assert [violation.field for violation in refused.value.violations] == [f"job.{field}"]
