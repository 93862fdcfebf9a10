"""The states of a job and the moves between them (DESIGN.md, section 1).

Invariant: every SQL statement that changes ``job.state`` performs one of ``MOVES``; a test compares them.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life. ``pending`` is not here: it is a claim in etcd over a ready row."""

    WAITING = "waiting"
    READY = "ready"
    EXECUTING = "executing"
    RESTARTING = "restarting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class Outcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    RESCHEDULED = "rescheduled"
    PARKED = "parked"
    LOST = "lost"
    RELEASED = "released"


TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELED})
CLAIMABLE = frozenset({JobState.READY, JobState.RESTARTING})
"""States from which an attempt may start."""

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.READY, JobState.FAILED, JobState.CANCELED}),
    JobState.READY: frozenset({JobState.EXECUTING, JobState.FAILED, JobState.CANCELED}),
    JobState.RESTARTING: frozenset({JobState.EXECUTING, JobState.FAILED, JobState.CANCELED}),
    JobState.EXECUTING: frozenset(
        {
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.CANCELED,
            JobState.READY,
            JobState.WAITING,
            JobState.RESTARTING,
        }
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}


def may_move(before: JobState, after: JobState) -> bool:
    """Say whether a job may go from one state to another."""
    return after in MOVES[before]
