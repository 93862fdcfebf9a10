"""Reap: a vanished claim becomes a lost attempt and a restarting job.

Two ways of noticing, either of which suffices: the watch tells of deleted claims, and a sweep compares all
executing rows with all claims (rows first, then one linearizable listing, so that whatever is missing is lost).
A judgement may be acted upon late: a claim's revision never comes back, and the write is guarded by the fence.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from tenure.coordinator.cancel import Reminder
from tenure.coordinator.finish import AttemptError, Ending, Finisher
from tenure.coordinator.metrics import BRAKES, REAPED
from tenure.coordinator.passing import FIRST_ID
from tenure.coordinator.tally import TALLY, What
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, TenureError, Unavailable
from tenure.model.ids import is_id
from tenure.model.jobs import RetrySpec
from tenure.model.reap import (
    Executing,
    Verdict,
    brake_s,
    judge,
    next_of_lost,
    next_of_taken,
    next_of_timed_out,
    next_of_unheeded,
)
from tenure.model.states import Outcome
from tenure.model.trust import was_alive
from tenure.store.etcd.claims import Release, release_batch
from tenure.store.etcd.keyspace import Keyspace, SlotValue
from tenure.store.etcd.port import Compare, Etcd
from tenure.store.postgres.database import Database, Row, Statement

log = structlog.get_logger(__name__)

PAGE_JOBS = 2_000
SWEEP_JOBS = 10_000
"""Rows that are compared with one listing of the claims."""
TIMEOUT_GRACE_S = 5.0
"""How long after an attempt's timeout its worker may still report it; then the leader ends it."""
REPORTS_FIRST_S = 20.0
"""After the leader could not reach Postgres, or another led: workers whose reports nobody answered meanwhile repeat
them within this (a call and its pause), and are not to find their attempts ended for a timeout or a cancel."""
LOSSES_TOGETHER_S = 2.0
"""Claims that vanish within this count as lost at once: etcd revokes leases in rounds of half a second."""
ORPHANS_EVERY_S = 10.0
ORPHANED_S = 30.0
"""Longer than a start takes from its claim on, tries included."""
SESSIONS_AT_ONCE = 64
GATHER_S = 0.05

Claim = tuple[str, int, int]
"""Of a job: create revision and lease."""


class Reaper:
    """Reaps during one term of leadership. ``sweep_forever`` and ``watch_forever`` are bodies of tasks."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        finisher: Finisher,
        suspect: Callable[[str], None],
        brake: Callable[[float], bool],
        *,
        guard: Statement,
        term_guard: Compare,
        sweep_s: float,
        cancel_grace_s: float,
        reports_first_s: float = REPORTS_FIRST_S,
    ) -> None:
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._finisher = finisher
        self._suspect = suspect
        self._brake = brake
        self._reminder = Reminder(etcd, keys, clock)
        self._guard = guard
        self._term_guard = term_guard
        self._sweep_s = sweep_s
        self._cancel_grace_s = cancel_grace_s
        self._vanished: dict[str, None] = {}
        self._some = asyncio.Event()
        self._reports_first_s = reports_first_s
        self._timeouts_from = clock.monotonic() + reports_first_s
        self._lost_lately: dict[str, float] = {}
        """Worker to the instant at which it last lost a claim."""
        self._orphans: dict[Claim, float] = {}
        """Claims that no executing row owns, and since when that is known."""

    def claim_gone(self, job_id: str) -> None:
        """Note that a claim was deleted: by a release, most often; the rows will tell.

        Raises:
            ValueError: it was no job's.
        """
        if not is_id(job_id):
            raise ValueError(f"{job_id[:64]!r} is not an id")
        self._vanished[job_id] = None
        self._some.set()

    async def watch_forever(self) -> None:
        """Judge the jobs whose claims were seen to vanish, in batches that form by themselves."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self._clock.sleep(GATHER_S)
            vanished, self._vanished = list(self._vanished), {}
            try:
                for start in range(0, len(vanished), PAGE_JOBS):
                    ids = f"{{{','.join(vanished[start : start + PAGE_JOBS])}}}"
                    rows = await self._database.fetch(
                        "executing_by_id", {"ids": ids, "timeout_grace_s": TIMEOUT_GRACE_S}
                    )
                    if rows:
                        await self._judge(rows)
            except (Unavailable, BoundExceeded) as exc:
                log.warning("reaping_interrupted", error=exc.message)  # the sweep finds them

    async def sweep_forever(self) -> None:
        """Compare every executing row with the claims, every few seconds."""
        while True:
            try:
                await self.sweep()
            except (Unavailable, BoundExceeded) as exc:
                log.warning("sweep_interrupted", error=exc.message)
                self._timeouts_from = self._clock.monotonic() + self._reports_first_s
            await self._clock.sleep(self._sweep_s)

    async def drop_orphans_forever(self) -> None:
        """Give up claims that stand in the way of their jobs: the body of a task."""
        while True:
            await self._clock.sleep(ORPHANS_EVERY_S)
            try:
                await self.drop_orphans()
            except (Unavailable, BoundExceeded) as exc:
                log.warning("orphans_not_dropped", error=exc.message)

    async def drop_orphans(self, *, orphaned_s: float = ORPHANED_S) -> int:
        """Delete claims that no executing row has owned for a while; return how many.

        Their announcement was lost, or a snapshot of etcd brought them back, or nobody came to start them. A claim that
        was never started goes with its lease, on which nothing else hangs; the worker of one that was may still run it,
        and keeps its slots until it stops.
        """
        now = self._clock.monotonic()
        claims = await self._claims()
        owned = await self._owned()
        found = {(job, *claim) for job, claim in claims.items() if owned.get(job) != claim}
        self._orphans = {one: self._orphans.get(one, now) for one in found}
        ripe = [one for one, since in self._orphans.items() if now - since >= orphaned_s]
        if not ripe:
            return 0
        rows = await self._database.fetch("attempts_by_claim", {"ids": [uuid.UUID(job) for job, _, _ in ripe]})
        started = {(str(row.job_id), row.claim_revision, row.lease) for row in rows}
        releases = [Release(*one) for one in ripe]
        dropped = await release_batch(self._etcd, self._keys, releases, guard=self._term_guard)
        for one, is_dropped in zip(ripe, dropped, strict=True):
            if is_dropped and one not in started:
                await self._etcd.revoke(one[2])
        log.warning("orphaned_claims_deleted", claims=sum(dropped))
        return sum(dropped)

    async def _owned(self) -> dict[str, tuple[int, int]]:
        """Return the claim of every executing row."""
        owned: dict[str, tuple[int, int]] = {}
        after = str(FIRST_ID)
        while rows := await self._page(after):
            owned.update((row.id, (row.claim_revision, row.lease)) for row in rows)
            after = rows[-1].id
        return owned

    async def sweep(self) -> int:
        """Do one comparison of everything; return how many attempts were reaped."""
        after, reaped = str(FIRST_ID), 0
        canceled: list[Executing] = []
        while rows := await self._pages(after):
            reaped += await self._judge(rows)
            canceled.extend(executing_from_row(row) for row in rows if row.cancel_requested)
            after = rows[-1].id
            if len(rows) < SWEEP_JOBS:
                break
        try:
            await self._reminder.remind(canceled)
        except TenureError as exc:
            log.info("cancels_not_reminded", error=exc.message)  # the next sweep does
        return reaped

    async def drop_strays(self) -> int:
        """Delete claims that no executing row owns; return how many.

        For the beginning of a term after etcd was lost: a snapshot brings back claims that had been released, on leases
        that idle workers still renew, and nobody could claim those jobs again. Claims first, then rows: a claim that is
        started in between is spared, one that is not yet started is lost, which its worker learns when it starts it.
        """
        claims = await self._claims()
        slots = await self._slots()
        owned = await self._owned()
        strays = [
            Release(job, revision, lease, slots[job, revision, lease])
            for job, (revision, lease) in claims.items()
            if owned.get(job) != (revision, lease)
        ]
        dropped = sum(await release_batch(self._etcd, self._keys, strays, guard=self._term_guard))
        if dropped:
            log.warning("stray_claims_deleted", claims=dropped)
        return dropped

    async def _pages(self, after: str) -> list[Row]:
        """Read ``SWEEP_JOBS`` executing rows, or all that are left: a page at a time, since a page stops the loop."""
        rows = page = await self._page(after)
        while len(page) == PAGE_JOBS and len(rows) < SWEEP_JOBS:
            page = await self._page(page[-1].id)
            rows.extend(page)
        return rows

    async def _page(self, after: str) -> list[Row]:
        return await self._database.fetch(
            "executing_page", {"after": after, "limit": PAGE_JOBS, "timeout_grace_s": TIMEOUT_GRACE_S}
        )

    async def _judge(self, rows: Sequence[Row]) -> int:
        claims = await self._claims()
        # Nearly all rows have their claims, and nothing more is to be known of them.
        doubtful = [
            executing_from_row(row)
            for row in rows
            if row.timed_out or row.cancel_requested or claims.get(row.id) != (row.claim_revision, row.lease)
        ]
        verdict = judge(doubtful, claims, cancel_grace_s=self._cancel_grace_s)
        verdict = await self._still_executing(verdict)
        if self._clock.monotonic() < self._timeouts_from:
            verdict = replace(verdict, timed_out=(), unheeded=())
        self._brake_for(verdict)
        taken = await self._taken(verdict.lost)
        for worker in {row.worker for row in verdict.lost if row not in taken}:
            self._suspect(worker)
        endings = [_taken(row) if row in taken else _lost(row) for row in verdict.lost]
        endings.extend(_timed_out(row) for row in verdict.timed_out)
        endings.extend(_unheeded(row) for row in verdict.unheeded)
        if not endings:
            return 0
        outcomes = {(ending.job_id, ending.fence): ending.outcome for ending in endings}
        reaped = 0
        for start in range(0, len(endings), PAGE_JOBS):
            written = await self._finisher.write(endings[start : start + PAGE_JOBS], guard=self._guard)
            for row in written:
                REAPED.labels(str(outcomes[row.id, row.fence])).inc()
            lost = [row.lane for row in written if outcomes[row.id, row.fence] is Outcome.LOST]
            TALLY.count_in_lanes(What.LOST, lost)
            await self._tell(written)  # before the next page, which may fail: nobody would tell of these later
            reaped += len(written)
        return reaped

    def _brake_for(self, verdict: Verdict) -> None:
        now = self._clock.monotonic()
        self._lost_lately = {
            worker: at for worker, at in self._lost_lately.items() if now - at < LOSSES_TOGETHER_S
        } | dict.fromkeys((row.worker for row in verdict.lost), now)
        seconds = brake_s(verdict, workers=len(self._lost_lately))
        if seconds:
            log.warning("brake", workers=len(self._lost_lately), claims=len(verdict.lost), seconds=seconds)
            if self._brake(seconds):
                BRAKES.inc()

    async def _still_executing(self, verdict: Verdict) -> Verdict:
        """Leave out what ended between the two readings, its claim with it: no worker is to be suspected for that.

        An end is written before its claim is deleted, so that rows read after the claims tell all of them.
        """
        if not verdict.lost:
            return verdict
        rows = await self._database.fetch(
            "executing_by_fence",
            {"ids": [row.id for row in verdict.lost], "fences": [row.fence for row in verdict.lost]},
        )
        executing = {(row.id, row.fence) for row in rows}
        return replace(verdict, lost=tuple(row for row in verdict.lost if (str(row.id), row.fence) in executing))

    async def _taken(self, lost: Sequence[Executing]) -> set[Executing]:
        """Return those whose claim was taken from a worker that lives: its session is older than the claim, and fresh.

        No crash, then; except past the timeout, when the worker itself stops renewing. Two reads per worker, not claim.
        """
        by_worker: dict[str, list[Executing]] = defaultdict(list)
        for row in lost:
            if not row.timed_out:
                by_worker[row.worker].append(row)
        asking = asyncio.Semaphore(SESSIONS_AT_ONCE)

        async def taken_from(worker: str, rows: Sequence[Executing]) -> list[Executing]:
            try:
                async with asking:
                    key = await self._etcd.get(self._keys.worker(worker))
                    session = await self._etcd.time_to_live(key.lease) if key is not None and key.lease else None
            except TenureError as exc:
                log.info("session_not_seen", worker=worker, error=exc.message)  # reaping does not wait for this
                return []
            if key is None or session is None:
                return []
            age_s = session.granted_s - session.remaining_s
            return [
                row
                for row in rows
                if key.create_revision < row.claim_revision and was_alive(session_age_s=age_s, ttl_s=row.ttl_s)
            ]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(taken_from(worker, rows)) for worker, rows in by_worker.items()]
        return {row for task in tasks for row in task.result()}

    async def _claims(self) -> Mapping[str, tuple[int, int]]:
        """List every claim (job to create revision and lease) at one revision, no older than this call."""
        listing = await self._etcd.list(self._keys.claims, keys_only=True)
        begin = len(self._keys.claims)
        claims = {item.key[begin:]: (item.create_revision, item.lease) for item in listing.items}
        for job in [job for job in claims if not is_id(job)]:
            log.error("key_unreadable", key=self._keys.claim(job))  # written by hand: no job's claim
            del claims[job]
        return claims

    async def _slots(self) -> Mapping[Claim, tuple[str, ...]]:
        """List every slot by the claim with which it was put: job, create revision, lease."""
        listing = await self._etcd.list(self._keys.slots)
        slots: dict[Claim, tuple[str, ...]] = defaultdict(tuple)
        for item in listing.items:
            try:
                job = SlotValue.from_json(item.value).job
            except ValueError:
                log.error("key_unreadable", key=item.key)
                continue
            slots[job, item.create_revision, item.lease] += (item.key.removeprefix(self._keys.slots),)
        return slots

    async def _tell(self, rows: Sequence[Row]) -> None:
        for row in rows:
            log.warning(
                "attempt_reaped",
                job=row.id,
                attempt=row.attempt,
                fence=row.fence,
                worker=row.worker,
                state=row.state,
            )
        # The claim of an attempt that its worker did not end in time goes, too: the worker sees that and stops.
        await self._finisher.tell(rows, keep_slots=True)


def executing_from_row(row: Row) -> Executing:
    """Convert a row of ``executing_page`` or ``executing_by_id``."""
    return Executing(
        uuid.UUID(row.id),
        row.fence,
        row.worker,
        row.lease,
        row.claim_revision,
        row.attempt,
        row.crashes,
        row.max_crashes,
        row.cancel_requested,
        row.ttl_s,
        row.timed_out,
        row.errors,
        (RetrySpec.model_validate_json(row.retry) if row.retry else RetrySpec()).policy(),
        row.reason,
        row.canceling_s,
        row.past_deadline,
        row.cancel_grace_s,
    )


def _lost(row: Executing) -> Ending:
    error = AttemptError("WorkerLost", f"the claim of worker {row.worker} vanished (lease {row.lease:016x})").to_json()
    return Ending(str(row.id), row.fence, Outcome.LOST, next_of_lost(row), error=error, is_crash=True)


def _taken(row: Executing) -> Ending:
    error = AttemptError("ClaimTaken", f"the claim was taken from worker {row.worker}, which lives").to_json()
    return Ending(str(row.id), row.fence, Outcome.RELEASED, next_of_taken(row), error=error)


def _timed_out(row: Executing) -> Ending:
    error = AttemptError(
        "TimedOut", "the attempt outlived its timeout, or the deadline of its job, and its worker did not end it"
    ).to_json()
    return Ending(str(row.id), row.fence, Outcome.TIMED_OUT, next_of_timed_out(row), error=error, is_error=True)


def _unheeded(row: Executing) -> Ending:
    error = AttemptError("CancelUnheeded", "the worker was asked to stop the attempt and did not").to_json()
    return Ending(str(row.id), row.fence, Outcome.CANCELED, next_of_unheeded(row), error=error)
