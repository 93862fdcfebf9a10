"""Cancel: at once where nobody executes the job, by asking its worker where somebody does.

The final state is decided by whoever writes it: an attempt that completes before it notices has completed. One whose
worker does not stop it for longer than the grace is ended by the reaper. Many jobs are canceled in windows, each of
which is a transaction of its own. The children on which a canceled job was parked are its own work and go
with it; a coordinator that dies in between leaves them to run to their ends.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import structlog

from tenure.coordinator import counted
from tenure.coordinator.announce import Announcer, Ended
from tenure.coordinator.dependants import Dependants
from tenure.coordinator.passing import FIRST_IDS, PASS_S, WINDOW_JOBS, Span
from tenure.model.clock import Clock
from tenure.model.errors import Locked, TenureError, Unavailable
from tenure.model.reap import Executing
from tenure.model.states import JobState
from tenure.store.etcd.keyspace import CancelRequest, Keyspace
from tenure.store.etcd.port import Compare, Etcd, Field, KeyValue, Put, Txn
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.locked import write_unlocked
from tenure.store.postgres.stopped import Stopped

log = structlog.get_logger(__name__)

CANCELABLE = frozenset({JobState.WAITING, JobState.READY, JobState.RESTARTING, JobState.EXECUTING})
_TRIES = 10
_WITH_PARENT = "the job that waited for it was canceled"
KEYS_PER_TXN = 64
REMIND_AGAIN_S = 10.0


@dataclass(slots=True)
class Canceled:
    """What one pass did (in a preview: would do): jobs canceled, workers asked, dependants that went along."""

    canceled: int = 0
    asked: int = 0
    dependants: int = 0
    ids: tuple[uuid.UUID, ...] = ()
    rest: Span | None = None
    locked: int = 0
    """Left as they are: a transaction of somebody else has locked them."""

    def require_all(self) -> None:
        """Raise ``Locked`` where jobs were left."""
        if self.locked:
            raise Locked(f"{self.locked} jobs are locked by transactions of others", hint="cancel again")


@dataclass(slots=True)
class _Step:
    """What became of some jobs, and of what was parked on them."""

    canceled: int = 0
    dependants: int = 0
    locked: int = 0
    asked: list[Row] = field(default_factory=list)


class Canceler:
    """Cancels jobs for operators and submitters."""

    def __init__(
        self, database: Database, etcd: Etcd, keys: Keyspace, clock: Clock, announcer: Announcer, dependants: Dependants
    ) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._announcer = announcer
        self._dependants = dependants

    async def cancel(self, job_id: uuid.UUID, reason: str) -> None:
        """Cancel a job, or ask its worker to stop it; a finished job stays as it is.

        Raises:
            Unavailable: try again; nothing is lost by asking twice.
        """
        step = await self._cancel([job_id], reason or "canceled", idle=True, executing=True)
        for problem in await self._ask(step.asked, reason):
            raise problem
        Canceled(locked=step.locked).require_all()

    async def cancel_matching(self, filters: Mapping[str, Any], span: Span, reason: str, *, preview: bool) -> Canceled:
        """Cancel what matches, for some seconds; ``rest`` is what was not looked at.

        Raises:
            Unavailable: what was done is done; ask again.
        """
        done = Canceled()
        until = self._clock.monotonic() + PASS_S
        after = span.after
        while True:
            window = await self._database.fetch(
                "cancelable", {**filters, "after": after, "until": span.until, "limit": WINDOW_JOBS}
            )
            matching = [row for row in window if row.matches]
            if preview:
                executing = sum(row.state == JobState.EXECUTING for row in matching)
                done.canceled += len(matching) - executing
                done.asked += executing
            elif matching:
                await self.cancel_window([row.id for row in matching], filters["states"], reason or "canceled", done)
            done.ids = (*done.ids, *(row.id for row in matching))[:FIRST_IDS]
            if len(window) < WINDOW_JOBS:
                done.require_all()
                return done
            after = window[-1].id
            if self._clock.monotonic() >= until:
                done.require_all()
                done.rest = Span(after, span.until)
                return done

    async def cancel_window(
        self,
        ids: Sequence[uuid.UUID],
        states: Collection[str],
        reason: str,
        done: Canceled,
        *,
        grace_s: float | None = None,
    ) -> None:
        """Cancel some jobs, if they are in one of some states, and add what became of them to ``done``.

        ``grace_s`` is how long workers have to heed; None: as the coordinators are set.

        Raises:
            Unavailable: what was done is done; ask again.
        """
        executing = JobState.EXECUTING in states
        step = await self._cancel(
            ids, reason, idle=not executing or len(states) > 1, executing=executing, grace_s=grace_s
        )
        done.canceled += step.canceled
        done.asked += len(step.asked)
        done.dependants += step.dependants
        done.locked += step.locked
        for problem in await self._ask(step.asked, reason):
            # The request is in the row: the leader's sweep reminds the worker of it.
            log.warning("cancel_not_told", error=problem.message)

    async def _cancel(
        self, ids: Sequence[uuid.UUID], reason: str, *, idle: bool, executing: bool, grace_s: float | None = None
    ) -> _Step:
        """Cancel jobs and mark those that execute."""
        left = sorted(ids)
        done = _Step()
        for _ in range(_TRIES):
            locked: frozenset[uuid.UUID] = frozenset()
            if idle:
                left, locked = await self._end_idle(left, reason, done, grace_s)
            if left and executing:
                asked = await self._database.fetch(
                    "request_cancel", {"ids": left, "reason": reason, "grace_s": grace_s}
                )
                done.asked.extend(asked)
                left = _without(left, asked)
            if left:
                ended_before = await self._database.fetch("states_by_id", {"ids": left})
                # Asked again after a failure half-way: what they were parked on may be left over.
                again = [row.id for row in ended_before if row.state == JobState.CANCELED]
                children = await self._cancel_children(again, grace_s=grace_s)
                done.asked.extend(children.asked)
                done.locked += children.locked
                left = _without(left, ended_before)
            if locked.issuperset(left) or not (idle and executing):
                done.locked += len(locked.intersection(left))
                return done
            # Neither idle, executing nor finished: they moved between the statements.
        raise Unavailable("a job kept moving between its states", hint="cancel again")

    async def _end_idle(
        self, ids: list[uuid.UUID], reason: str, done: _Step, grace_s: float | None
    ) -> tuple[list[uuid.UUID], frozenset[uuid.UUID]]:
        """Cancel those that nobody executes; return the others, and which of those somebody has locked."""
        (canceled, settled), locked = await write_unlocked(
            self._database, ids, lambda unlocked: self._cancel_idle(unlocked, reason)
        )
        if not canceled:
            return ids, locked
        counted.ended(canceled)
        await self._announcer.announce([Ended(str(row.id), JobState.CANCELED, row.attempt) for row in canceled])
        done.dependants += await self._dependants.follow(settled)
        done.canceled += len(canceled)
        children = await self._cancel_children([row.id for row in canceled if row.was_parked], grace_s=grace_s)
        done.asked.extend(children.asked)
        done.dependants += children.canceled + children.dependants
        done.locked += children.locked
        return _without(ids, canceled), locked

    async def _cancel_idle(self, ids: Set[uuid.UUID], reason: str) -> list[list[Row]]:
        columns = {"ids": sorted(ids)}
        return await self._database.transaction(
            [Statement("cancel_idle", columns | {"reason": reason}), Statement("settle_parents", columns)]
        )

    async def tell(self, *stopped: Stopped) -> None:
        """Tell of jobs that a transaction has stopped. What cannot be told is made good: by the sweeps."""
        for one in stopped:
            try:
                await self._tell(one)
            except TenureError as exc:
                log.warning("stopped_not_told", error=exc.message)

    async def _tell(self, stopped: Stopped) -> None:
        canceled = stopped.canceled
        if canceled:
            counted.ended(canceled)
            await self._announcer.announce([Ended(str(row.id), JobState.CANCELED, row.attempt) for row in canceled])
        await self._dependants.follow(stopped.settled)
        children = await self._cancel_children([row.id for row in canceled if row.was_parked])
        for problem in await self._ask([*stopped.asked, *children.asked], stopped.reason):
            raise problem

    async def _cancel_children(self, parked: Sequence[uuid.UUID], *, grace_s: float | None = None) -> _Step:
        """Cancel what canceled jobs were parked on, and what that was parked on."""
        rows = await self._database.fetch("unended_children", {"ids": list(parked)}) if parked else []
        if not rows:
            return _Step()
        ids = [row.id for row in rows]
        return await self._cancel(ids, _WITH_PARENT, idle=True, executing=True, grace_s=grace_s)

    async def _ask(self, rows: Iterable[Row], reason: str) -> list[TenureError]:
        """Put cancel requests into the inboxes of the workers; one that is away is reminded of them by the sweep.

        Returns what hindered some of them.
        """
        by_worker: dict[str, list[CancelRequest]] = defaultdict(list)
        for row in rows:
            by_worker[row.worker].append(CancelRequest(job=str(row.id), fence=row.fence, reason=reason))
        problems: list[TenureError] = []
        for worker, requests in by_worker.items():
            try:
                session = await self._etcd.get(self._keys.worker(worker))
                if session is not None:
                    await put_requests(self._etcd, self._keys, session, worker, requests)
            except TenureError as exc:
                problems.append(exc)
        return problems


def _without(ids: Iterable[uuid.UUID], rows: Iterable[Row]) -> list[uuid.UUID]:
    gone = {row.id for row in rows}
    return [id for id in ids if id not in gone]


class Reminder:
    """Reminds workers of cancels that they have not seen: their session had ended, or the one who asked died.

    For the leader's sweep; each attempt is mentioned once per session of its worker, and again after a while: a worker
    throws away what concerns an attempt whose start it has not heard of yet.
    """

    def __init__(self, etcd: Etcd, keys: Keyspace, clock: Clock) -> None:
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._reminded: dict[int, tuple[int, float]] = {}
        """Fence to the session's lease, and the instant from which on it may be mentioned again."""

    async def remind(self, executing: Iterable[Executing]) -> None:
        """Ask again for the attempts, of all that execute, whose cancel is requested."""
        wanted: dict[str, list[Executing]] = defaultdict(list)
        for row in executing:
            if row.cancel_requested:
                wanted[row.worker].append(row)
        still = {row.fence for rows in wanted.values() for row in rows}
        now = self._clock.monotonic()
        self._reminded = {
            fence: (lease, until) for fence, (lease, until) in self._reminded.items() if fence in still and until > now
        }
        for worker, rows in wanted.items():
            session = await self._etcd.get(self._keys.worker(worker))
            if session is None:
                continue
            new = [row for row in rows if self._reminded.get(row.fence, (0, 0.0))[0] != session.lease]
            requests = [CancelRequest(job=str(row.id), fence=row.fence) for row in new]
            await put_requests(self._etcd, self._keys, session, worker, requests)
            self._reminded.update((row.fence, (session.lease, now + REMIND_AGAIN_S)) for row in new)


async def put_requests(
    etcd: Etcd, keys: Keyspace, session: KeyValue, worker: str, requests: Sequence[CancelRequest]
) -> None:
    """Put cancel requests into a worker's inbox, on its session's lease.

    Raises:
        Unavailable: etcd did not answer, or the session ended meanwhile.
    """
    for start in range(0, len(requests), KEYS_PER_TXN):
        puts = tuple(
            # A fence is never given twice.
            Put(keys.message(worker, request.fence), request.to_json(), session.lease)
            for request in requests[start : start + KEYS_PER_TXN]
        )
        result = await etcd.txn(Txn((Compare(session.key, Field.CREATE, session.create_revision),), puts))
        if not result.succeeded:
            raise Unavailable("the worker's session changed meanwhile", hint="cancel again")
