"""Numbers of jobs as users of the client see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from tenure.client.fields import time_of
from tenure.model.states import JobState
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import wire

COUNTED_BY = ("day", "namespace", "kind", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCount:
    """How many jobs have ended; None where the number is not of one day, namespace, kind or state alone."""

    day: date | None
    namespace: str | None
    kind: str | None
    state: JobState | None
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """Numbers by day, namespace, kind and state."""

    counts: tuple[JobCount, ...]
    counted_until: datetime | None
    """What ended since is not counted yet. None: nothing is."""

    @property
    def jobs(self) -> int:
        """Return all together."""
        return sum(one.jobs for one in self.counts)


def counts_from_wire(answer: pb.CountJobsResponse) -> JobCounts:
    """Read numbers of jobs."""
    return JobCounts(
        counts=tuple(
            JobCount(
                day=date.fromisoformat(one.day) if one.day else None,
                namespace=one.namespace or None,
                kind=one.kind or None,
                state=wire.STATE_FROM_PB.get(one.state),
                jobs=one.jobs,
            )
            for one in answer.counts
        ),
        counted_until=time_of(answer, "counted_until"),
    )
