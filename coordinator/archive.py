"""Archive: what retention removes, and its policies want archived, goes into files in the object store first.

One file at a time, each in four steps. It is planned: a row of ``tenure.archive_file`` with the ids of its jobs. It is
written, with its manifest, from rows that do not change any more. It is read back, and must be what was written and
hold just these jobs. Then one transaction, under the leader's term, removes the jobs (``retain.removal``) and says
that the file is done: of all of them, or, where one is held or needed by now, of none.

Invariants: a job is in Postgres or in one done file, never in both nor in neither; no two plans are there at a time; a
legal hold that was answered before that transaction keeps its jobs out of every done file. Killed between two steps,
or in one: whoever leads next drops the plan, has what was written deleted (``coordinator.leftovers``), and plans anew,
under another key. A plan is never gone on with: a leader that was deposed may still be sending its file, which must
not overwrite one that counts.

Jobs of a file that take too long to remove go into smaller ones (``model.amount``), before others are looked for.

Files fill up: what has expired since waits up to an hour (``EVERY_S``), unless policies or holds have changed. A span
of history in which nothing expires soon is left alone until then (``coordinator.quiet``).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import structlog

from tenure.coordinator import archive_format
from tenure.coordinator.metrics import ARCHIVED, ARCHIVED_BYTES, CHORES_FAILED
from tenure.coordinator.quiet import Look, Quiet
from tenure.coordinator.retain import SKEW, Turns, bounds_of, policy_of, removal, spans_of_history
from tenure.coordinator.windows import Windows
from tenure.model.amount import Amount
from tenure.model.archive import (
    MAX_FILE_JOBS,
    SCHEMA_VERSION,
    Expired,
    Gathering,
    Plan,
    made_ms,
    manifest_key,
    manifest_of,
    mark_of,
)
from tenure.model.clock import Clock
from tenure.model.errors import Deposed, Locked, TenureError, TookTooLong, Unavailable
from tenure.model.ids import first_id_at, new_id
from tenure.model.retention import Span, shortest_keep_s
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.together import all_or_none

log = structlog.get_logger(__name__)

POLL_S = 20.0
"""How often policies and holds are looked at; and how soon something that went wrong is tried again."""
EVERY_S = 3_600.0
KEPT_AGAIN_MOST_S = 86_400.0
"""When a span is looked through again in which something was kept, at last; ``EVERY_S`` at first."""
WINDOW_JOBS = 1_000
MIN_REST_S = 0.01
OF_SHARE = 0.5
"""Of the share of time that is given: half of the work is this process's, in which jobs are dispatched, too."""
CONTENT_TYPE = "application/vnd.apache.parquet"
POLICY = ("policy_namespace", "policy_kind", "policy_state")
_INSTANT = timedelta(microseconds=1)


class _NotTaken(TenureError):
    """The object store is well, and does not take a file of this storage class."""


class Archiver:
    """Archives during one term of leadership. ``archive_forever`` is the body of a task."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        clock: Clock,
        *,
        guard: Statement,
        leader: str,
        share: float = 1.0,
        turns: Turns | None = None,
    ) -> None:
        """``share``: of the time, at most, that goes into it."""
        self._share = OF_SHARE * share
        self._turns = Turns() if turns is None else turns
        self._database = database
        self._objects = objects
        self._clock = clock
        self._guard = guard
        self._leader = leader
        self._quiet = Quiet(clock, again_s=EVERY_S, most_s=KEPT_AGAIN_MOST_S)
        self._windows = Windows(clock, WINDOW_JOBS, self._rest)
        self._amount = Amount(MAX_FILE_JOBS)
        """Jobs of a file."""
        self._passed_over: set[uuid.UUID] = set()
        """Jobs that took too long even alone, since the last look through all."""
        self._put_off: dict[object, float] = {}
        """Namespaces and policies whose files the object store did not take, until when."""
        self._set: object = None
        self._quiet_for: object = None
        """What was set when the spans that are left alone were looked through."""
        self._next_at = -math.inf

    async def archive_forever(self) -> None:
        """Archive what has expired, now and again and again.

        Raises:
            Deposed: the term is over.
        """
        while True:
            try:
                if await self._is_time():
                    await self.round()
                    self._passed_over.clear()
                    self._next_at = self._clock.monotonic() + EVERY_S
            except Deposed:
                raise
            except TenureError as exc:
                CHORES_FAILED.add(1, "archive")
                log.warning("archiving_interrupted", error=exc.message, next_step=exc.hint)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                CHORES_FAILED.add(1, "archive")
                log.exception("archiving_failed")
            await self._clock.sleep(POLL_S)

    async def round(self) -> int:
        """Archive all that can be now; return how many jobs that were.

        Raises:
            Unavailable: a store does not answer. What is in done files is; the rest is for the next round.
        """
        await self._drop_plans()
        now_set, rows = await self._what_is_set()
        if now_set != self._quiet_for:
            self._quiet.forget()
            self._put_off.clear()
        self._set = self._quiet_for = now_set
        keep_s = shortest_keep_s(policy for row in rows if (policy := policy_of(row)).archive)
        if keep_s is None:
            return 0
        made_before, spans = await spans_of_history(self._database, keep_s)
        archived = 0
        for span in self._quiet.due(spans):
            look = Look()
            async for jobs in self._files_of(span, {"before": first_id_at(made_before + SKEW)}, look):
                if await self._database.fetch("retention_policies") != rows:
                    return archived  # the next round goes by what is set now, from the beginning
                plan = Plan(new_id(), jobs)
                if self._put_off.get(plan.group, -math.inf) > self._clock.monotonic():
                    look.kept = True
                    continue
                gone = await self._try_to_archive(plan, self._turns[span.from_at])
                archived += gone
                look.gone += gone
                look.kept = look.kept or not gone
                if not gone and (await self._what_is_set())[0] != self._set:
                    return archived
            self._quiet.looked(span, made_before, look)
        if archived:
            log.info("history_archived", jobs=archived)
        return archived

    async def _is_time(self) -> bool:
        now_set, _ = await self._what_is_set()
        if now_set != self._set:
            self._set, self._next_at = now_set, -math.inf
        return self._clock.monotonic() >= self._next_at

    async def _what_is_set(self) -> tuple[object, list[Row]]:
        """Return policies and holds, to be compared, and the rows of the policies."""
        rows = await self._database.fetch("retention_policies")
        holds = await self._database.fetch("legal_holds")
        return (tuple(map(tuple, rows)), tuple((hold.key, hold.value) for hold in holds)), rows

    async def _files_of(self, span: Span, where: dict[str, Any], look: Look) -> AsyncIterator[list[Expired]]:
        """Look through a span, and yield the jobs of one file after the other; tell ``look`` what else there is."""
        gathering = Gathering(self._amount.now)
        windows = self._windows.of(self._database, "archivable_page", {**where, **bounds_of(span)}, look)
        async for *rows, page in windows:
            found = [_expired(row) for row in rows]
            wanted = [job for job in found if job.id not in self._passed_over]
            look.add(page.next_s, kept=page.kept > 0 or len(wanted) < len(found))
            gathering.max_jobs = self._amount.now
            for gathered in gathering.add(wanted):
                for jobs in self._amounts(gathered):
                    yield jobs
                gathering.max_jobs = self._amount.now
        for gathered in gathering.rest():
            for jobs in self._amounts(gathered):
                yield jobs

    def _amounts(self, jobs: list[Expired]) -> Iterator[list[Expired]]:
        """Yield the jobs of one file after the other; of one that turns out to be too much, the jobs again."""
        while jobs:
            file = jobs[: self._amount.now]
            yield file
            if len(file) <= self._amount.now:
                jobs = jobs[len(file) :]

    async def _try_to_archive(self, plan: Plan, turn: asyncio.Lock) -> int:
        """As ``_archive``; none, too, where a store that is well does not take this file."""
        began = self._clock.monotonic()
        try:
            return await self._archive(plan, turn)
        except TookTooLong as exc:
            log.warning("archive_file_took_too_long", file=str(plan.file), jobs=len(plan.jobs), error=exc.message)
            await self._rest(began)
        except _NotTaken as exc:
            self._put_off[plan.group] = self._clock.monotonic() + EVERY_S
            told = {"namespace": plan.namespace, "policy": plan.policy, "storage_class": plan.storage_class}
            log.error("archive_file_not_taken", **told, error=exc.message, next_step=exc.hint)
        await self._drop_plans()
        return 0

    async def _archive(self, plan: Plan, turn: asyncio.Lock) -> int:
        """Make one file, and return how many jobs went into it; none where some of them are to stay after all."""
        ids = plan.ids
        await self._database.transaction(
            [
                self._guard,
                Statement(
                    "plan_archive_file",
                    {
                        "id": plan.file,
                        "namespace": plan.namespace,
                        "key": plan.key,
                        "jobs": len(ids),
                        "ids": ids,
                        "first_id": ids[0],
                        "last_id": ids[-1],
                        "made_from": made_ms(ids[0]),
                        "made_until": made_ms(ids[-1]),
                        "finished_from": plan.finished_from,
                        "finished_until": plan.finished_until,
                        **dict(zip(POLICY, plan.policy, strict=True)),
                        "storage_class": plan.storage_class,
                    },
                ),
            ]
        )
        data = await self._written(plan)
        try:
            if data is not None:
                size_bytes, sha256 = await self._read_back(plan, data)
                async with turn:
                    began = self._clock.monotonic()
                    gone = await self._end(plan, size_bytes, sha256)
                self._amount.worked(len(plan.jobs))
                ARCHIVED.add(gone)
                ARCHIVED_BYTES.add(size_bytes)
                await self._rest(began)
                return gone
        except Locked as exc:  # somebody retries one, or it is held or needed: what may go is planned anew
            log.info("archive_file_given_up", file=str(plan.file), reason=exc.message)
        await self._drop_plans()
        return 0

    async def _written(self, plan: Plan) -> bytes | None:
        """Write the file and return it; None where jobs are missing by now."""
        writer = archive_format.Writer()
        where = {"made_at": plan.made_at, **_bounds(plan)}
        for group in plan.groups():
            began = self._clock.monotonic()
            ids = {"ids": [job.id for job in group]}
            jobs = await self._database.fetch("jobs_to_archive", {**where, **ids})
            if len(jobs) < len(group):
                return None
            attempts = await self._database.fetch("attempts_to_archive", {**where, **ids})
            artifacts = await self._database.fetch("artifacts_to_archive", ids)
            logs = await self._database.fetch("logs_to_archive", ids)
            await asyncio.to_thread(writer.add, jobs, attempts, artifacts, logs)
            await self._rest(began)
        data = await asyncio.to_thread(writer.close)
        try:
            await self._objects.put(plan.key, data, content_type=CONTENT_TYPE, storage_class=plan.storage_class)
        except TenureError as exc:
            if plan.storage_class is None:
                raise
            await self._objects.check()  # is it the store?
            raise _NotTaken(exc.message, hint=f"does the bucket know {plan.storage_class}?") from exc
        return data

    async def _read_back(self, plan: Plan, data: bytes) -> tuple[int, bytes]:
        """Return the size and the SHA-256 of the file, which is in the store as it was written, with its manifest.

        Raises:
            Unavailable: it is not; nothing was removed.
        """
        stored = await self._objects.get(plan.key)
        sha256 = hashlib.sha256(data).digest()
        if hashlib.sha256(stored).digest() != sha256:
            raise Unavailable(f"{plan.key} is not in the object store as it was written")
        if await asyncio.to_thread(archive_format.ids_of, stored) != [str(id) for id in plan.ids]:
            raise Unavailable(f"{plan.key} does not hold the jobs that it was planned for")
        manifest = manifest_of(plan, len(data), sha256)
        await self._objects.put(manifest_key(plan.key), manifest, content_type="application/json")
        return len(data), sha256

    async def _end(self, plan: Plan, size_bytes: int, sha256: bytes) -> int:
        """Remove the jobs of a file and say that it is done, or neither; return how many jobs.

        Raises:
            TookTooLong: files are smaller from now on. Unavailable: Postgres does not answer.
        """
        try:
            return await self._try_to_end(plan, size_bytes, sha256)
        except TookTooLong as exc:
            self._amount.took_too_long(len(plan.jobs))
            if len(plan.jobs) == 1:
                log.error("job_not_archived", job=str(plan.jobs[0].id), error=exc.message)
                self._passed_over.add(plan.jobs[0].id)
            raise

    async def _try_to_end(self, plan: Plan, size_bytes: int, sha256: bytes) -> int:
        _, [row], _ = await all_or_none(
            self._database,
            [
                Statement(
                    "end_archive_file",
                    {
                        "id": plan.file,
                        "size_bytes": size_bytes,
                        "sha256": sha256,
                        "schema_version": SCHEMA_VERSION,
                        "marks": [mark_of(id) for id in plan.ids],
                    },
                ),
                removal(
                    plan.ids,
                    Span(plan.finished_from, plan.finished_until + _INSTANT),
                    made_at=plan.made_at,
                    leader=self._leader,
                    archived=True,
                    archive_file=plan.key,
                ),
                self._guard,  # last: a step that outlives the term changes nothing
            ],
        )
        gone: int = row.gone
        return gone

    async def _rest(self, began: float) -> None:
        took_s = self._clock.monotonic() - began
        await self._clock.sleep(max(MIN_REST_S, took_s / self._share - took_s))

    async def _drop_plans(self) -> None:
        _, dropped = await self._database.transaction([self._guard, Statement("drop_archive_plans", {})])
        if dropped:
            log.info("archive_plans_dropped", files=[str(row.id) for row in dropped])


def _expired(row: Row) -> Expired:
    policy = row.policy_namespace, row.policy_kind, row.policy_state
    return Expired(row.id, row.namespace, row.created_at, row.finished_at, row.weight, policy, row.storage_class)


def _bounds(plan: Plan) -> dict[str, Any]:
    return bounds_of(Span(plan.finished_from, plan.finished_until + _INSTANT))
