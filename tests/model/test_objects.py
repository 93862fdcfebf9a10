"""Names in the object store: which of them are whose."""

from __future__ import annotations

import uuid

import pytest

from tenure.model.objects import HASH_CHARS, LOG, RESULT, attempt_key, file_key, is_result_key

JOB = uuid.UUID("01980c2e-0000-7000-8000-000000000001")


def test_a_result_is_known_by_its_key() -> None:
    assert is_result_key(file_key("default", JOB, 1, RESULT, bytes(32)))


@pytest.mark.parametrize(
    "name", ["report.txt", "result.json", f"x-{RESULT}", f"x{RESULT}", f"{'0' * HASH_CHARS}-{RESULT}"]
)
def test_no_artifact_is_taken_for_a_result(name: str) -> None:
    assert not is_result_key(file_key("default", JOB, 1, name, bytes(32)))


def test_a_log_is_no_result() -> None:
    assert not is_result_key(attempt_key("default", JOB, 1, LOG))
