"""When a job that waits for others may run, and what becomes of it when it never can.

Pure. The SQL function ``tenure.verdict`` says the same, and a test compares the two for every count. Invariant: a
verdict other than ``WAIT`` is final: the end of further parents does not change it.
"""

from __future__ import annotations

from enum import StrEnum


class Trigger(StrEnum):
    """What must have become of the jobs that a job depends on."""

    ALL_COMPLETED = "all_completed"
    """Each of them has completed."""
    ALL_FINISHED = "all_finished"
    """Each of them has ended, however it did."""
    ANY_COMPLETED = "any_completed"
    """One of them has completed."""
    ANY_FINISHED = "any_finished"
    """One of them has ended, however it did."""


class UpstreamFailure(StrEnum):
    """How a job ends whose trigger can no longer be met."""

    CANCEL = "cancel"
    FAIL = "fail"


class Verdict(StrEnum):
    """What the ends of its parents mean for a job."""

    WAIT = "wait"
    RUN = "run"
    BROKEN = "broken"
    """Its trigger can no longer be met."""


def verdict(trigger: Trigger, *, left: int, completed: int, otherwise: int) -> Verdict:
    """Judge by how many parents have not ended, have completed, and have failed or been canceled.

    A job without parents runs.
    """
    match trigger:
        case Trigger.ALL_COMPLETED:
            if otherwise:
                return Verdict.BROKEN
            return Verdict.WAIT if left else Verdict.RUN
        case Trigger.ALL_FINISHED:
            return Verdict.WAIT if left else Verdict.RUN
        case Trigger.ANY_COMPLETED:
            if completed or not left + otherwise:
                return Verdict.RUN
            return Verdict.WAIT if left else Verdict.BROKEN
        case Trigger.ANY_FINISHED:
            return Verdict.RUN if completed + otherwise or not left else Verdict.WAIT
