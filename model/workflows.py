"""What a workflow as a whole is, by the states of its members: pure rules.

A member that was retried is stood for by its retry and not counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.states import TERMINAL, JobState


class WorkflowState(StrEnum):
    """Where a workflow is in its life."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


def state_of(counts: Mapping[JobState, int]) -> WorkflowState | None:
    """Return the state of the whole; None where no member is known any more.

    Running while some member has not ended; then failed if any has failed, canceled if any was canceled, else
    completed. A failure comes first: what depends on a failed job is canceled for its sake.
    """
    present = {state for state, jobs in counts.items() if jobs}
    if not present:
        return None
    if present - TERMINAL:
        return WorkflowState.RUNNING
    if JobState.FAILED in present:
        return WorkflowState.FAILED
    return WorkflowState.CANCELED if JobState.CANCELED in present else WorkflowState.COMPLETED


def progress_of(counts: Mapping[JobState, int], reported: float) -> float:
    """Return the share that is done, 0 to 1. ``reported`` is the sum of the progress of executing members."""
    jobs = sum(counts.values())
    ended = sum(number for state, number in counts.items() if state in TERMINAL)
    return min(1.0, (ended + reported) / jobs) if jobs else 0.0


def workflow_name(name: str, field: str) -> str | None:
    """Return the name of a workflow as asked for, None for none.

    Raises:
        InvalidInput: it is too long or holds control characters; ``field`` is named.
    """
    if len(name) > DEFAULT_BOUNDS.workflow_name_chars or any(c < " " or c == "\x7f" for c in name):
        limit = DEFAULT_BOUNDS.workflow_name_chars
        raise InvalidInput([FieldViolation(field, f"must be at most {limit} characters, without control characters")])
    return name or None
