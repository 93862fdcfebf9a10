"""Expire archive: the leader removes files of the archive that have been kept for as long as their policies say.

A file goes whole: its row and its object, and the results, artifacts and logs of its jobs. Which labels these have is
read from the file, where there are legal holds; one that holds a job with a held label stays whole. Then one
transaction, one file at a time, under the leader's term: if meanwhile a hold was set that was not looked for, it
removes nothing. What is set is locked in it, so that whoever was answered that a hold is set knows that it is heeded.
Objects go later (``coordinator.leftovers``). A file that is not in the store stays while there are holds, and as
long as the store has no other one: it may be the wrong store.
Files that cannot be read, as in a class of cold storage, hold up no others, however many there are: each is tried again
after a time that doubles. Where a store does not answer, that says nothing of the files, and the round ends.
"""

from __future__ import annotations

import asyncio
import math
import uuid

import structlog

from tenure.coordinator import archive_format
from tenure.coordinator.metrics import CHORES_FAILED
from tenure.coordinator.passing import FIRST_ID, LAST_ID
from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError, Deposed, NotFound, TenureError, TookTooLong, Unavailable
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row, Statement

log = structlog.get_logger(__name__)

EVERY_S = 60.0
PAGE = 100
MIN_REST_S = 0.1
PROOFS = 20
"""Files of which one must be there for a store to be believed that another one is not."""
MOST_UNAVAILABLE = 5
"""In a row: with so many a store is away; the round ends."""
FAILED_AGAIN_S = 3_600.0
"""When a file is tried again that could not be read, at first."""
FAILED_AGAIN_MOST_S = 86_400.0


class ArchiveExpiry:
    """Removes during one term of leadership. ``expire_forever`` is the body of a task."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        clock: Clock,
        *,
        guard: Statement,
        leader: str,
        share: float = 1.0,
    ) -> None:
        """``share``: of the time, at most, that goes into it."""
        self._share = share
        self._database = database
        self._objects = objects
        self._clock = clock
        self._guard = guard
        self._leader = leader
        self._held: set[uuid.UUID] = set()
        """Files that hold a job with one of the labels that were held when they were read."""
        self._failed_until: dict[uuid.UUID, float] = {}
        """Files that are tried again then."""
        self._waits_s: dict[uuid.UUID, float] = {}
        """For how long the same files wait the next time."""
        self._holds: frozenset[tuple[str, str]] = frozenset()

    async def expire_forever(self) -> None:
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
                CHORES_FAILED.add(1, "archive_expiry")
                log.warning("archive_not_expired", error=exc.message, next_step=exc.hint)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                CHORES_FAILED.add(1, "archive_expiry")
                log.exception("archive_not_expired")
            await self._clock.sleep(EVERY_S)

    async def round(self) -> int:
        """Go once through the files that have expired; return how many were removed.

        Raises:
            TenureError: some files could not be read, or a store does not answer; the rest is for the next round.
        """
        holds = frozenset((row.key, row.value) for row in await self._database.fetch("legal_holds"))
        if holds != self._holds:
            self._holds = holds
            self._held.clear()
        gone, after = 0, {"after_at": "-infinity", "after": FIRST_ID}
        failures: list[TenureError] = []
        unavailable, seen = 0, set[uuid.UUID]()
        while True:
            files = await self._database.fetch("expired_archive_files", {**after, "limit": PAGE})
            for file in files:
                began = self._clock.monotonic()
                seen.add(file.id)
                if file.id in self._held or self._failed_until.get(file.id, -math.inf) > began:
                    continue
                try:
                    gone += await self._remove(file)
                except Deposed:
                    raise
                except TenureError as exc:
                    failures.append(exc)
                    unavailable = 0 if await self._is_put_off(file, exc) else unavailable + 1
                    if unavailable == MOST_UNAVAILABLE:
                        raise
                else:
                    unavailable = 0
                took_s = self._clock.monotonic() - began
                await self._clock.sleep(max(MIN_REST_S, took_s / self._share - took_s))
            if len(files) < PAGE:
                break
            after = {"after_at": files[-1].archived_at, "after": files[-1].id}
        for id in self._waits_s.keys() - seen:
            del self._waits_s[id], self._failed_until[id]
        if failures:
            raise failures[0]
        return gone

    async def _is_put_off(self, file: Row, exc: TenureError) -> bool:
        """Leave a file alone for a while, an hour and longer each time, unless its failure says nothing of it.

        Raises:
            TenureError: the object store refuses everything.
        """
        if isinstance(exc, Unavailable) and not isinstance(exc, TookTooLong):
            return False
        if isinstance(exc, ConfigurationError):
            await self._objects.check()
        if file.id not in self._waits_s:
            log.warning("archive_file_not_expired", key=file.key, error=exc.message, next_step=exc.hint)
        wait_s = self._waits_s.get(file.id, FAILED_AGAIN_S)
        self._waits_s[file.id] = min(2 * wait_s, FAILED_AGAIN_MOST_S)
        self._failed_until[file.id] = self._clock.monotonic() + wait_s
        return True

    async def _remove(self, file: Row) -> int:
        """Remove a file, unless a job in it is held; return how many went."""
        with_objects: list[uuid.UUID] = []
        try:
            data = await self._objects.get(file.key)
        except NotFound:  # so it is unknown which jobs are in it
            if self._holds:
                log.error("archive_file_is_gone", key=file.key, next_step="tenure archive verify")
                self._held.add(file.id)
                return 0
            await self._require_right_store()
            log.warning("archive_file_was_gone", key=file.key)
        else:
            told = await asyncio.to_thread(archive_format.labels_and_objects, data)
            if any(label in self._holds for label in told.labels):
                self._held.add(file.id)
                return 0
            with_objects = told.with_objects
        holds = sorted(self._holds)
        where = {"id": file.id, "leader": self._leader, "with_objects": with_objects}
        held = {"held_keys": [key for key, _ in holds], "held_values": [value for _, value in holds]}
        _, [row], _ = await self._database.transaction(
            [Statement("lock_retention", {}), Statement("remove_archive_file", {**where, **held}), self._guard]
        )
        if row.gone:
            log.info("archive_file_removed", key=file.key, jobs=file.jobs)
        gone: int = row.gone
        return gone

    async def _require_right_store(self) -> None:
        """Raise ``Unavailable`` if no file is in the store: it is another one, or a folder that is not mounted."""
        newest = {"namespaces": None, "namespace": None, "before": LAST_ID, "limit": PROOFS}
        for file in await self._database.fetch("list_archive_files", newest):
            if await self._objects.head(file.key) is not None:
                return
        raise Unavailable(
            "the object store has no file of the archive that the database knows",
            hint="does TENURE_OBJECT_STORE name the right one, and is it mounted?",
        )
