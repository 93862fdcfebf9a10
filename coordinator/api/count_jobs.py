"""CountJobs: numbers of jobs that have ended, read from counters alone; what those cannot tell is refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from tenure.coordinator.api.filters import filters_from_pb
from tenure.model.errors import BoundExceeded, FieldViolation, InvalidInput
from tenure.model.states import TERMINAL, JobState
from tenure.store.postgres.database import Database, Row
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import wire

MAX_COUNTS = 10_000
_COUNTED = ("namespace", "kind", "states")


async def count_jobs(database: Database, request: pb.CountJobsRequest) -> pb.CountJobsResponse:
    """Answer from the counters.

    Raises:
        InvalidInput: with every field that counters cannot tell. BoundExceeded: too many numbers.
    """
    filters = filters_from_pb(request.filter)
    violations = [
        FieldViolation(f"filter.{field.name}", "is not counted; namespace, kind and states are")
        for field, _ in request.filter.ListFields()
        if field.name not in _COUNTED
    ]
    if strange := [state for state in filters["states"] or () if JobState(state) not in TERMINAL]:
        final = ", ".join(sorted(TERMINAL))
        violations.append(FieldViolation("filter.states", f"{strange[0]} is not counted; {final} are"))
    days = {name: _midnight(request, name, violations) for name in ("finished_after", "finished_before")}
    if violations:
        raise InvalidInput(violations, hint="tenure jobs list finds what is not counted")
    by: dict[str, Any] = {name: getattr(request, name) for name in ("by_day", "by_namespace", "by_kind", "by_state")}
    wanted = {name: filters[name] for name in (*_COUNTED, "namespaces")}
    span = {"from_day": days["finished_after"], "until_day": days["finished_before"]}
    rows = await database.fetch("history_counts", {**wanted, **by, **span, "limit": MAX_COUNTS + 1})
    if len(rows) > MAX_COUNTS:
        raise BoundExceeded(f"these are more than {MAX_COUNTS:,} numbers", hint="ask for fewer days, or for less apart")
    [counted] = await database.fetch("history_counted")
    return pb.CountJobsResponse(counts=map(_to_pb, rows), counted_until=wire.timestamp(counted.until_at))


def _midnight(request: pb.CountJobsRequest, name: str, violations: list[FieldViolation]) -> date | None:
    if not request.HasField(name):
        return None
    try:
        at: datetime = getattr(request, name).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        violations.append(FieldViolation(name, str(exc)))
        return None
    if at.timetz() != datetime.min.replace(tzinfo=UTC).timetz():
        violations.append(FieldViolation(name, "must be a midnight of UTC: whole days are counted"))
    return at.date()


def _to_pb(row: Row) -> pb.JobCount:
    return pb.JobCount(
        day=row.day.isoformat() if row.day else "",
        namespace=row.namespace or "",
        kind=row.kind or "",
        state=wire.STATE_TO_PB[JobState(row.state)] if row.state else None,
        jobs=row.jobs,
    )
