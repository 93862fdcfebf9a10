"""Listing: pages of jobs, each of bounded work, whatever the filter and the size of history.

A page looks at ``WINDOW_JOBS`` rows at most, in the order of ids. What bounds the ids narrows that: the time of
creation, since ids are UUIDv7. What bounds the end leaves out whole partitions, states leave out the table of jobs or
history, or of history all that completed. A page that is not full says how far it has looked; whoever reads goes on
from there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tenure.coordinator.passing import FIRST_ID
from tenure.model.ids import first_id_at
from tenure.model.states import TERMINAL, JobState
from tenure.store.postgres.database import Database, Row, Statement

WINDOW_JOBS = 10_000
UNSUCCESSFUL = frozenset((JobState.FAILED, JobState.CANCELED))
_LEAVES_OUT = ("any_of", "from_week", "until_week", "parent_id", "workflow_id")
SKEW = timedelta(minutes=10)
"""By so much the clocks of coordinators, which make ids, may differ from Postgres', which says when a job was made."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, and the id after which the next page begins; None: there is none."""

    rows: Sequence[Row]
    rest: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Ended:
    """When a job has ended; None: no bound."""

    after: datetime | None = None
    before: datetime | None = None


async def page_of_jobs(
    database: Database, filters: Mapping[str, Any], ended: Ended, *, before: uuid.UUID, size: int, deleted: bool
) -> Page:
    """Read a page of jobs that match, newest first, before an id; it may be short of what is there."""
    params = {
        **filters,
        **_bounds(filters, ended, before),
        "finished_after": ended.after,
        "finished_before": ended.before,
        "deleted": deleted,
        "window": max(WINDOW_JOBS, size),
        "limit": size,
    }
    # Planning for the values costs more than a page that finds its jobs at once: only where it leaves tables out.
    if any(params[name] is not None for name in _LEAVES_OUT):
        _, rows = await database.transaction([Statement("plan_anew", {}), Statement("list_jobs", params)])
    else:
        rows = await database.fetch("list_jobs", params)
    found = [row for row in rows if row.id is not None]
    return Page(found, found[-1].id if len(found) == size else rows[0].reached)


def _bounds(filters: Mapping[str, Any], ended: Ended, before: uuid.UUID) -> dict[str, Any]:
    """Return what leaves rows out without looking at them."""
    uppers = [at for at in (filters["created_before"], ended.before) if at is not None]
    created_after = filters["created_after"]
    return {
        "before": min([before, *(first_id_at(_shifted(at, SKEW)) for at in uppers)]),
        "first": FIRST_ID if created_after is None else first_id_at(_shifted(created_after, -SKEW)),
        "any_of": _any_of(filters["states"]),
        "from_week": None if ended.after is None else _monday(ended.after),
        "until_week": None if ended.before is None else _monday(_shifted(ended.before, timedelta(weeks=1))),
    }


def _any_of(states: Sequence[str] | None) -> list[str] | None:
    """Return what states the window is of: a table's, whole, or those that have an index in history."""
    for all_of in (UNSUCCESSFUL, TERMINAL, frozenset(JobState) - TERMINAL):
        if states and all_of.issuperset(JobState(state) for state in states):
            return sorted(str(state) for state in all_of)
    return None


def _monday(at: datetime) -> datetime:
    """Return when the week began: partitions do."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return _shifted(midnight, -timedelta(days=midnight.weekday()))


def _shifted(at: datetime, by: timedelta) -> datetime:
    """Return another time, within what ids and the calendar can say."""
    return min(max(at, EPOCH + abs(by)), LATEST) + by
