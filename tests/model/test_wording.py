"""What pydantic finds reads as a sentence after the name of the field, from whatever rule it comes."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.model.errors import InvalidInput
from tenure.model.jobs import validate_spec

RAW = ("Input", "Value error", "should", "String", "Field required", "permitted", "parse", "pattern", "valid ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"priority": 5000}, "job.priority: must be at most 1000"),
        ({"ttl_s": 0.5}, "job.ttl_s: must be at least 2 s"),
        ({"timeout_s": 0}, "job.timeout_s: must be more than 0 s"),
        ({"retry": {"max_attempts": "many"}}, "job.retry.max_attempts: must be a whole number"),
        ({"retry": {"attempts": 3}}, "job.retry.attempts: is not known here"),
        ({"retry": 3}, "job.retry: must be an object"),
        ({"kind": None}, "job.kind: must be a text"),
        ({"unique_key": "a\nb"}, "job.unique_key: must not contain control characters"),
        ({"unique_key": ""}, "job.unique_key: must have at least 1 character"),
        ({"limits": [f"l{n}" for n in range(9)]}, "job.limits: must have at most 8 items, not 9"),
        ({"on_duplicate": "replace"}, "job.on_duplicate: needs a unique_key"),
        ({"labels": {"a b": "c"}}, "job.labels: key 'a b' must be 1 to 63 of"),
        ({"labels": {"a": "\n"}}, "job.labels: value of 'a' must be printable"),
        ({"trigger": "odd"}, "job.trigger: must be 'all_completed', 'all_finished'"),
    ],
)
def test_a_refusal_is_a_sentence(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate_spec({"kind": "k", **values}, path="job.")
    assert told in refused.value.message
    assert not [word for word in RAW if word in refused.value.message]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^kind: is missing$"):
        validate_spec({})
