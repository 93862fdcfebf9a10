"""Upkeep: the leader's small chores, each in bounded steps. None of them matters to the safety of a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from tenure.coordinator.dependants import Dependants
from tenure.coordinator.hint import Hints
from tenure.coordinator.metrics import CHORES_FAILED
from tenure.coordinator.move_logs import MOVE_EVERY_S, LogMover
from tenure.coordinator.overdue import Overdue
from tenure.model.bounds import MAX_PRIORITY
from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError, TenureError
from tenure.store.etcd.compact import Compactor
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

ACTIVATE_JOBS = 2_000
MAX_ACTIVATION_WAIT_S = 0.5
COUNT_EVERY_S = 2.0
COUNT_SHARE = 0.05
"""Of the time, at most, that goes into counting backlogs."""
AGE_EVERY_S = 0.5
AGED_JOBS = 2_000
AGED_PER_LANE = 1_000
"""Jobs of one lane that stand raised at a time: as many as start in a round or two, whatever the backlog."""
DEPENDANTS_EVERY_S = 5.0
OVERDUE_EVERY_S = 0.5
KEYS_EVERY_S = 30.0
KEYS_PER_STEP = 5_000
COMPACT_EVERY_S = 5.0
PARTITIONS_EVERY_S = 3_600.0
WEEKS_AHEAD = 4
BUCKETS_EVERY_S = 3_600.0
LANES_EVERY_S = 3_600.0
LANES_PER_STEP = 5_000
AUDIT_EVERY_S = 3_600.0
AUDIT_PER_STEP = 5_000


class Upkeep:
    """The chores. Each ``…_forever`` is the body of a task."""

    def __init__(self, database: Database, clock: Clock, dependants: Dependants, hints: Hints) -> None:
        self._database = database
        self._clock = clock
        self._dependants = dependants
        self._hints = hints

    async def activate_forever(self) -> None:
        """Let jobs become ready whose activation time has come, by Postgres' clock."""
        while True:
            wait_s = MAX_ACTIVATION_WAIT_S
            try:
                rows = await self._database.fetch("activate_due", {"limit": ACTIVATE_JOBS})
                self._hints.ready({row.lane for row in rows})
                if len(rows) == ACTIVATE_JOBS:
                    continue
                next_s = (await self._database.fetch("next_activation"))[0][0]
                if next_s is not None and (rows or next_s > 0):  # else it is due, and somebody has locked it
                    wait_s = min(wait_s, max(0.005, next_s))
            except TenureError as exc:
                log.warning("activation_interrupted", error=exc.message)
            await self._clock.sleep(wait_s)

    async def raise_aged_forever(self) -> None:
        """Let jobs go first that have been ready for too long, where their namespace has an ageing."""

        async def step() -> None:
            params = {"limit": AGED_JOBS, "per_lane": AGED_PER_LANE, "highest": MAX_PRIORITY}
            rows = await self._database.fetch("raise_aged", params)
            self._hints.ready({row.lane for row in rows})

        await self._every(AGE_EVERY_S, step)

    async def count_backlogs_forever(self) -> None:
        """Count the unfinished jobs of namespaces that have a bound."""
        while True:
            began = self._clock.monotonic()
            try:
                await self._database.fetch("count_backlogs")
            except TenureError as exc:
                log.warning("backlogs_not_counted", error=exc.message)
            took_s = self._clock.monotonic() - began
            await self._clock.sleep(max(COUNT_EVERY_S, took_s / COUNT_SHARE))

    async def sweep_dependants_forever(self) -> None:
        """Catch dependants that slipped."""
        await self._every(DEPENDANTS_EVERY_S, self._dependants.sweep)

    async def fail_overdue_forever(self, overdue: Overdue) -> None:
        """Fail jobs whose time is up."""
        await self._every(OVERDUE_EVERY_S, overdue.sweep)

    async def drop_keys_forever(self) -> None:
        """Forget expired idempotency keys."""

        await self._every(KEYS_EVERY_S, partial(self._drop_all, "drop_expired_keys", KEYS_PER_STEP))

    async def drop_buckets_forever(self) -> None:
        """Forget buckets of limits that nobody uses any more."""

        async def step() -> None:
            await self._database.fetch("drop_old_buckets")

        await self._every(BUCKETS_EVERY_S, step)

    async def drop_lanes_forever(self) -> None:
        """Forget lanes that nobody uses any more."""

        await self._every(LANES_EVERY_S, partial(self._drop_all, "drop_unused_lanes", LANES_PER_STEP))

    async def drop_audit_forever(self, keep_days: int) -> None:
        """Forget entries of the audit log that are older than this."""

        await self._every(AUDIT_EVERY_S, partial(self._drop_all, "drop_old_audit", AUDIT_PER_STEP, keep_days=keep_days))

    async def move_logs_forever(self, mover: LogMover) -> None:
        """Move logs of ended attempts into the object store."""
        await self._every(MOVE_EVERY_S, mover.step)

    async def compact_forever(self, compactor: Compactor) -> None:
        """Keep etcd's history short. Patched etcds let only root do so: told once in a term, and left to etcd."""
        told = False

        async def step() -> None:
            nonlocal told
            try:
                await compactor.step()
            except ConfigurationError as exc:
                if not told:
                    log.warning("compaction_refused", error=exc.message, hint="docs/LEAST_PRIVILEGE.md: compaction")
                told = True

        await self._every(COMPACT_EVERY_S, step)

    async def make_partitions_forever(self) -> None:
        """Make partitions of history some weeks ahead."""

        async def step() -> None:
            await self._database.fetch("make_partitions", {"weeks": WEEKS_AHEAD})

        await self._every(PARTITIONS_EVERY_S, step)

    async def _drop_all(self, query: str, limit: int, **params: int) -> None:
        """Drop, so many at a time, until a page is not full."""
        gone = limit
        while gone == limit:
            gone = (await self._database.fetch(query, {"limit": limit, **params}))[0].gone

    async def _every(self, seconds: float, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await step()
            except TenureError as exc:
                CHORES_FAILED.add(1, _chore(step))
                log.warning("chore_interrupted", chore=_name(step), error=exc.message)
            except Exception:  # one chore that fails must not end the term: jobs run without it
                CHORES_FAILED.add(1, _chore(step))
                log.exception("chore_failed", chore=_name(step))
            await self._clock.sleep(seconds)


def _name(step: Callable[[], Awaitable[object]]) -> str:
    return str(step.args[0]) if isinstance(step, partial) else step.__qualname__


def _chore(step: Callable[[], Awaitable[object]]) -> str:
    """Return what a chore is counted as: the table's query, the loop's name, or whose step it is."""
    before, is_loop, _ = _name(step).partition("_forever")
    return before.rpartition(".")[2] if is_loop else before.partition(".")[0].lower()
