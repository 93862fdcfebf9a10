"""The state of a workflow follows from the states of its members."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.errors import InvalidInput
from tenure.model.states import TERMINAL, JobState
from tenure.model.workflows import WorkflowState, progress_of, state_of, workflow_name


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([], None),
        (["completed"], "completed"),
        (["completed", "waiting"], "running"),
        (["failed", "canceled", "completed"], "failed"),
        (["failed", "restarting"], "running"),
        (["canceled", "completed"], "canceled"),
    ],
)
def test_the_state_of_the_whole(states: list[str], whole: str | None) -> None:
    assert state_of(Counter(map(JobState, states))) == whole


@given(st.lists(st.sampled_from(list(JobState)), min_size=1))
def test_it_runs_until_all_have_ended_and_is_done_then(states: list[JobState]) -> None:
    counts = Counter(states)
    over = set(states) <= TERMINAL
    assert (state_of(counts) is not WorkflowState.RUNNING) == over
    assert (progress_of(counts, 0.0) == 1.0) == over
    assert 0.0 <= progress_of(counts, counts[JobState.EXECUTING] * 0.5) <= 1.0


def test_no_members_no_progress() -> None:
    assert progress_of({}, 0.0) == 0.0


@pytest.mark.parametrize("name", ["x" * 256, "a\nb", "\x00", "\x7f"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        workflow_name(name, "workflow_name")
    assert [violation.field for violation in refused.value.violations] == ["workflow_name"]


def test_a_name_is_kept_as_it_is() -> None:
    assert workflow_name('nightly "ü"', "workflow_name") == 'nightly "ü"'
    assert workflow_name("", "workflow_name") is None
