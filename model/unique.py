"""Unique keys: what a submit does where an unfinished job has the key already. Pure.

At most one unfinished job of a namespace and kind has a key, its holder; Postgres keeps that (``job_unique``). Who
decides what to do about a key that is held: ``coordinator.submit`` and ``coordinator.group_commit`` for submits,
``coordinator.schedule`` for ticks.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tenure.model.errors import Conflict
from tenure.model.states import JobState

if TYPE_CHECKING:
    from tenure.model.jobs import JobSpec

UniqueKey = tuple[str, str, str]
"""Namespace, kind, key."""


class OnDuplicate(StrEnum):
    """What becomes of a submit whose unique key is held."""

    REFUSE = "refuse"
    """It is refused, and the job named that holds the key."""
    EXISTING = "existing"
    """It is answered with the job that holds the key."""
    REPLACE = "replace"
    """The earlier job is canceled, and the new one starts once that has ended."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An unfinished job that has a unique key."""

    id: uuid.UUID
    state: JobState


def unique_key_of(spec: JobSpec) -> UniqueKey:
    """Return the key with its scope; only for a job that has one."""
    return (spec.namespace, spec.kind, spec.unique_key or "")


def held_conflict(path: str, spec: JobSpec, holder: Holder) -> Conflict:
    """Return the refusal of a job whose unique key is held."""
    return Conflict(
        f"{path}.unique_key {spec.unique_key!r} is that of job {holder.id}, which is {holder.state}",
        hint=f"wait for its end or cancel it: tenure jobs cancel {holder.id}",
    )
