"""How it goes, as the client gives it back: figures for operators, and how they are read from the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.client.fields import time_of
from tenure.v1 import cluster_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What happened to jobs in a span of time."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    canceled: int = 0
    returned: int = 0
    """Attempts that ended with their job to be tried again."""
    lost: int = 0
    """Attempts whose claim vanished with its lease."""

    @property
    def ended(self) -> int:
        """Jobs that have ended, whatever the outcome."""
        return self.completed + self.failed + self.canceled


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOverview:
    """A pool: what waits and executes there, who serves it, what ended of late."""

    pool: str
    ready: int
    executing: int
    oldest_ready_at: datetime | None
    """Since when the job that has waited longest could have started."""
    workers: int
    paused: bool
    last_minute: Figures
    last_hour: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How it goes, as of about a second before it was asked."""

    at: datetime | None
    pools: tuple[PoolOverview, ...]
    last_minute: Figures
    last_hour: Figures
    minutes: tuple[Figures, ...]
    """The last sixty minutes one by one, oldest first; the last one is not over."""
    ready: int
    ready_at_least: bool
    """There are more than were counted; the same goes for the others."""
    executing: int
    executing_at_least: bool
    waiting: int
    waiting_at_least: bool
    delayed: int
    """Ready, with their time ahead."""
    delayed_at_least: bool
    oldest_ready_at: datetime | None
    workers: int
    draining_workers: int
    capacity: int
    claims: int
    leader: str | None
    leader_term: int
    coordinators: int
    silent: tuple[str, ...]
    """Coordinators whose figures are missing."""
    counted_since: datetime | None
    """What came before is not in the figures of all coordinators."""


def overview_from_wire(overview: pb.GetOverviewResponse) -> Overview:
    """Read how it goes."""
    return Overview(
        at=time_of(overview, "at"),
        pools=tuple(map(_pool, overview.pools)),
        last_minute=_figures(overview.last_minute),
        last_hour=_figures(overview.last_hour),
        minutes=tuple(map(_figures, overview.minutes)),
        ready=overview.ready,
        ready_at_least=overview.ready_at_least,
        executing=overview.executing,
        executing_at_least=overview.executing_at_least,
        waiting=overview.waiting,
        waiting_at_least=overview.waiting_at_least,
        delayed=overview.delayed,
        delayed_at_least=overview.delayed_at_least,
        oldest_ready_at=time_of(overview, "oldest_ready_at"),
        workers=overview.workers,
        draining_workers=overview.draining_workers,
        capacity=overview.capacity,
        claims=overview.claims,
        leader=overview.leader or None,
        leader_term=overview.leader_term,
        coordinators=overview.coordinators,
        silent=tuple(overview.silent),
        counted_since=time_of(overview, "counted_since"),
    )


def _pool(pool: pb.PoolOverview) -> PoolOverview:
    return PoolOverview(
        pool=pool.pool,
        ready=pool.ready,
        executing=pool.executing,
        oldest_ready_at=time_of(pool, "oldest_ready_at"),
        workers=pool.workers,
        paused=pool.paused,
        last_minute=_figures(pool.last_minute),
        last_hour=_figures(pool.last_hour),
    )


def _figures(figures: pb.Figures) -> Figures:
    return Figures(
        submitted=figures.submitted,
        completed=figures.completed,
        failed=figures.failed,
        canceled=figures.canceled,
        returned=figures.returned,
        lost=figures.lost,
    )
