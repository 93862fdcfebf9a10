"""Writes what was decided about schedules: their move and their jobs in one transaction, all of them or nothing.

Exactly once is kept here. A schedule moves only from the turn that the decision was made from, and its jobs are
inserted in the same transaction; who decided upon the same tick meanwhile finds the turn gone. The idempotency key of
the tick, within the scope of the schedule, is the second belt.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.errors import DatabaseError

from tenure.model.jobs import PlannedJob
from tenure.store.postgres.database import Database, Statement
from tenure.store.postgres.stopped import Stopped
from tenure.store.postgres.submit import insertion
from tenure.store.postgres.unique import STATEMENTS, replaced, replacing

MAX_RECENT_JOBS = 20
_NOT_AS_SEEN = "TN003"


class ScheduleMoved(Exception):
    """Some schedule is not as it was seen: read it again and decide afresh. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One schedule's move, from the turn that was seen."""

    id: uuid.UUID
    turn: int
    next_at: datetime | None
    queued: datetime | None
    jobs: tuple[PlannedJob, ...] = ()
    unfinished: tuple[uuid.UUID, ...] = ()
    """Earlier jobs that overlap rules still have to ask about."""
    watched: bool = True
    """Whether they shall ask about the new ones, too."""
    cancels: tuple[uuid.UUID, ...] = ()
    replaces: tuple[tuple[uuid.UUID, uuid.UUID], ...] = ()
    """Holders of unique keys, and the jobs that take them."""
    is_asked: bool = False
    """Somebody waits for the job, and is told what has its unique key; ticks just skip."""
    answered: tuple[PlannedJob, ...] = ()
    """What was asked and answered with an earlier job, by whose id it goes: its idempotency key is taken for that."""
    skipped: int = 0
    reason: str = ""

    @property
    def is_tick(self) -> bool:
        """Whether it is the rule that makes the jobs, and neither a trigger nor a backfill."""
        return self.watched and not self.is_asked

    @property
    def recent(self) -> tuple[uuid.UUID, ...]:
        """The jobs that overlap rules ask about from now on."""
        new = tuple(job.id for job in self.jobs) if self.watched else ()
        return (*self.unfinished, *new)[-MAX_RECENT_JOBS:]


CANCEL_REASON = "the next tick of its schedule came"


async def write_firings(
    database: Database, firings: Sequence[Firing], lanes: Sequence[int], *, guard: Statement | None = None
) -> tuple[Stopped, Stopped]:
    """Write firings; ``lanes`` are those of all their jobs, in order. ``guard`` is run first.

    Returns what became of the earlier jobs that they cancel, and of those that they replace.

    Raises:
        ScheduleMoved: one of them is not at its turn any more.
        KeyTaken: a tick has its job already. UniqueTaken: a unique key is held.
        Deposed: the guard says so. Unavailable: the outcome is unknown, and a repetition harmless.
    """
    jobs = [job for firing in firings for job in firing.jobs]
    cancels = sorted({id for firing in firings for id in firing.cancels})
    statements = [guard] if guard is not None else []
    statements.append(Statement("move_schedules", _columns(firings)))
    first = len(statements)
    replacement = replacing(dict(pair for firing in firings for pair in firing.replaces))
    statements.extend(replacement)
    statements.extend(insertion(jobs, lanes, [job for firing in firings for job in firing.answered]))
    if cancels:
        statements.append(Statement("cancel_idle", {"ids": cancels, "reason": CANCEL_REASON}))
        statements.append(Statement("settle_parents", {"ids": cancels}))
        statements.append(Statement("request_cancel", {"ids": cancels, "reason": CANCEL_REASON, "grace_s": None}))
    try:
        results = await database.transaction(statements)
    except DatabaseError as exc:
        if exc.sqlstate == _NOT_AS_SEEN:
            raise ScheduleMoved(str(exc)) from exc
        raise
    canceled, settled, asked = results[-3:] if cancels else ((), (), ())
    return (
        Stopped(CANCEL_REASON, canceled, settled, asked),
        replaced(results[first : first + STATEMENTS] if replacement else ()),
    )


def _columns(firings: Sequence[Firing]) -> dict[str, object]:
    ordered = sorted(firings, key=lambda firing: firing.id)
    last = [firing.jobs[-1] if firing.jobs else None for firing in ordered]
    return {
        "ids": [firing.id for firing in ordered],
        "turns": [firing.turn for firing in ordered],
        "nexts": [firing.next_at for firing in ordered],
        "queued": [firing.queued for firing in ordered],
        "last_ticks": [job.scheduled_at if job else None for job in last],
        "last_jobs": [job.id if job else None for job in last],
        "recents": ["{" + ",".join(map(str, firing.recent)) + "}" for firing in ordered],
        "fired": [len(firing.jobs) for firing in ordered],
        "skipped": [firing.skipped for firing in ordered],
        "reasons": [firing.reason for firing in ordered],
    }
