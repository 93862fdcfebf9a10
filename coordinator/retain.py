"""Retain: the leader removes history that has expired, by the policies that are set; without any it removes nothing.

History is looked through in the order of ids, a partition's span at a time and a window of rows at a time, so that no
look is longer than another, however little has expired. What has goes in steps, each a transaction of its own: of
jobs whose rows are locked, by the policies, legal holds and unfinished jobs of that instant
(``tenure.remove_history``), with its entries in the audit log; and at its end under the leader's term, so that a step
that outlives the term changes nothing. Killed between two steps, or in one, the next leader goes on from what is there.
A step is bounded by the rows that hang on its jobs, and smaller after one that took too long. Pauses in between leave
Postgres to the jobs. A span in which nothing expires soon is left alone until then.

Safety does not depend on what is remembered here, nor on there being one leader. What is to be archived before it goes
(``Policy.archive``) is passed over: whoever archives puts ``removal`` with ``archived=True`` into the transaction that
records the archive's file.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from tenure.coordinator.metrics import CHORES_FAILED, REMOVED
from tenure.coordinator.quiet import Look, Quiet
from tenure.coordinator.windows import Windows
from tenure.model.amount import Amount
from tenure.model.batch import pieces
from tenure.model.clock import Clock
from tenure.model.errors import Deposed, Locked, TenureError, TookTooLong
from tenure.model.ids import first_id_at
from tenure.model.retention import Policy, Span, shortest_keep_s, spans
from tenure.store.postgres.database import Database, Row, Statement

log = structlog.get_logger(__name__)

EVERY_S = 20.0
WINDOW_JOBS = 500
"""Jobs that a look looks at, and a step removes at most."""
STEP_ROWS = 20_000
"""About so many rows go in a step at most, with all that hangs on its jobs; more, where they are one job's."""
MIN_REST_S = 0.001
KEPT_AGAIN_S = 600.0
"""When a span is looked through again in which something was kept by a hold, or for an unfinished job; at first."""
KEPT_AGAIN_MOST_S = 3_600.0
PARTITIONS_EVERY_S = 3_600.0
SKEW = timedelta(minutes=1)
"""How far ahead of Postgres' clock those of coordinators may be, by which ids are made."""


class Turns(defaultdict[datetime | None, asyncio.Lock]):
    """A lock for each span, by its beginning: nothing of a span is removed while the span is counted."""

    def __init__(self) -> None:
        super().__init__(asyncio.Lock)


class Retainer:
    """Removes during one term of leadership. ``retain_forever`` is the body of a task."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        guard: Statement,
        leader: str,
        share: float = 1.0,
        turns: Turns | None = None,
        has_objects: bool = False,
    ) -> None:
        """``share``: of the time, at most, that goes into it."""
        self._share = share
        self._turns = Turns() if turns is None else turns
        self._database = database
        self._clock = clock
        self._guard = guard
        self._leader = leader
        self._has_objects = has_objects
        self._windows = Windows(clock, WINDOW_JOBS, self._rest)
        self._amount = Amount(WINDOW_JOBS)
        """Jobs of a step."""
        self._set: object = None
        self._quiet = Quiet(clock, again_s=KEPT_AGAIN_S, most_s=KEPT_AGAIN_MOST_S)
        self._partitions_at = -math.inf

    async def retain_forever(self) -> None:
        """Remove what has expired, now and again and again.

        Raises:
            Deposed: the term is over.
        """
        while True:
            try:
                await self.round()
            except Deposed:
                raise
            except TenureError as exc:
                CHORES_FAILED.add(1, "retention")
                log.warning("retention_interrupted", error=exc.message)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                CHORES_FAILED.add(1, "retention")
                log.exception("retention_failed")
            await self._clock.sleep(EVERY_S)

    async def round(self) -> int:
        """Look once through all that can have expired; return how many jobs were removed."""
        policies = await self._policies()
        keep_s = shortest_keep_s(policies)
        gone = 0
        if keep_s is not None:
            made_before, found = await spans_of_history(self._database, keep_s)
            for span in self._quiet.due(found):
                async with self._turns[span.from_at]:
                    gone += await self._look_through(span, made_before)
        if gone:
            log.info("history_removed", jobs=gone)
        await self._drop_partitions()
        return gone

    async def _policies(self) -> list[Policy]:
        """Read what decides; where it has changed, what was found out by it counts no more."""
        rows = await self._database.fetch("retention_policies")
        holds = await self._database.fetch("legal_holds")
        now_set = (tuple(map(tuple, rows)), tuple((hold.key, hold.value) for hold in holds))
        if now_set != self._set:
            self._set = now_set
            self._quiet.forget()
        return [policy for row in rows if not (policy := policy_of(row)).archive]

    async def _look_through(self, span: Span, made_before: datetime) -> int:
        where = {**bounds_of(span), "before": first_id_at(made_before + SKEW), "archive": False}
        look = Look()
        async for [page] in self._windows.of(self._database, "expired_page", where, look):
            removed = await self._remove_all(span, page)
            look.gone += removed
            look.add(page.next_s, kept=page.kept > 0 or removed < len(page.ids))
        self._quiet.looked(span, made_before, look)
        return look.gone

    async def _remove_all(self, span: Span, page: Row) -> int:
        """Remove what a look has found, in as many steps as it takes; return how many jobs went."""
        gone = 0
        weighed = zip(page.ids, page.weights, strict=True)
        for piece in pieces(weighed, lambda job: job[1], max_weight=STEP_ROWS, max_items=WINDOW_JOBS):
            left = [id for id, _ in piece]
            while left:
                began = self._clock.monotonic()
                step = left[: self._amount.now]
                try:
                    gone += await self._remove(step, span, page.made_at)
                    self._amount.worked(len(step))
                    left = left[len(step) :]
                except TookTooLong as exc:
                    self._amount.took_too_long(len(step))
                    if len(step) == 1:
                        log.error("job_not_removed", job=str(step[0]), error=exc.message)
                        left = left[1:]
                    else:
                        log.warning("removal_step_halved", jobs=self._amount.now, error=exc.message)
                await self._rest(began)
        return gone

    async def _rest(self, began: float) -> None:
        took_s = self._clock.monotonic() - began
        await self._clock.sleep(max(MIN_REST_S, took_s / self._share - took_s))

    async def _remove(self, ids: Sequence[uuid.UUID], span: Span, made_at: datetime) -> int:
        step = removal(ids, span, made_at=made_at, leader=self._leader, has_objects=self._has_objects)
        try:
            [row], _ = await self._database.transaction([step, self._guard])
        except Locked:  # somebody retries one of them: another time
            return 0
        gone: int = row.gone
        REMOVED.add(gone)
        return gone

    async def _drop_partitions(self) -> None:
        if self._clock.monotonic() < self._partitions_at:
            return
        self._partitions_at = self._clock.monotonic() + PARTITIONS_EVERY_S
        while True:
            _, [row] = await self._database.transaction([self._guard, Statement("drop_empty_partition", {})])
            if row.dropped is None:
                return
            log.info("partition_dropped", partition=row.dropped)


def removal(
    ids: Sequence[uuid.UUID],
    span: Span,
    *,
    made_at: datetime,
    leader: str,
    has_objects: bool = False,
    archived: bool = False,
    archive_file: str | None = None,
) -> Statement:
    """Return the statement that removes those of these jobs which may go, for a transaction under the leader's term.

    The term is asserted after it: the term may end while it runs.

    ``made_at``: none of them was made before. Its row says how many are ``gone``. ``has_objects``: there is an object
    store, in which attempts may have left what nobody knows of. ``archived``: those that policies want archived, which
    the transaction says to have been, in ``archive_file``; then it is all of these jobs, or none
    (``store.postgres.together``).

    Raises, when it runs:
        Locked: somebody is at work with one of them; nothing was removed.
    """
    told = {"leader": leader, "has_objects": has_objects, "archive": archived, "archive_file": archive_file}
    wanted = len(ids) if archived else None
    where = {"ids": list(ids), **bounds_of(span), "made_at": made_at}
    return Statement("remove_history", {**where, **told, "wanted": wanted})


async def spans_of_history(database: Database, keep_s: int) -> tuple[datetime, list[Span]]:
    """Return the instant so long ago, by Postgres' clock, and the spans in which jobs that ended before it lie.

    What was made after it has ended after it: only ids before it need to be looked at.
    """
    rows = await database.fetch("history_weeks")
    made_before: datetime = rows[0].now - timedelta(seconds=keep_s)
    weeks = [(row.from_at, row.until_at) for row in rows if row.from_at or row.until_at]
    return made_before, spans(weeks, made_before)


def bounds_of(span: Span) -> dict[str, Any]:
    """Return a span as parameters of queries."""
    return {
        "from_at": "-infinity" if span.from_at is None else span.from_at,
        "until_at": "infinity" if span.until_at is None else span.until_at,
    }


def policy_of(row: Row) -> Policy:
    """Return the policy that a row holds."""
    return Policy(row.namespace, row.kind, row.state, row.keep_s, row.archive, row.archive_keep_s, row.storage_class)
