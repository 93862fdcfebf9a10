"""Unique keys: what a submit does where an unfinished job has the key already. Pure.

At most one unfinished job of a namespace and kind has a key; Postgres keeps that (``job_unique``). Who decides what to
do about a key that is held: ``coordinator.submit`` for submits, ``coordinator.schedule`` for ticks.
"""

from __future__ import annotations

from enum import StrEnum


class OnDuplicate(StrEnum):
    """What becomes of a submit whose unique key is held."""

    REFUSE = "refuse"
    """It is refused, and the job named that holds the key."""
    EXISTING = "existing"
    """It is answered with the job that holds the key."""
    REPLACE = "replace"
    """The earlier job is canceled, and the new one starts once that has ended."""
