"""Leftovers: the leader deletes from the object store what nothing refers to any more.

Two things are that: the objects of jobs that retention has removed, or whose file of the archive has expired; and
files of the archive that have expired, were adopted into others, or never came to be. Each has a row in
``tenure.object_to_delete``, written in the transaction that removed the job or the file, or dropped the plan. The row
goes after the objects have; so, killed anywhere, nothing is forgotten, and deleting again is no matter. A store that is
away is asked again later.

A job's objects are all that lie under its prefix: also those of attempts that were lost in the middle of an upload.
What was on its way then may arrive late: a URL that was given out is good for a while, and a leader that was deposed
may have sent a file. So the row stays for an hour. Objects of a job are deleted at once, and again when it is over; a
file, of which there are few, over and over.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog

from tenure.coordinator.metrics import CHORES_FAILED
from tenure.coordinator.passing import FIRST_ID
from tenure.model.archive import manifest_key
from tenure.model.clock import Clock
from tenure.model.errors import ConfigurationError, TenureError, Unavailable
from tenure.model.objects import job_prefix
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

EVERY_S = 20.0
PAGE = 200
AT_ONCE = 8
"""Jobs whose objects are listed and deleted side by side."""


_QUERIES = {"done": "forget_deleted_objects", "later": "postpone_deleted_objects"}
Settled = Literal["done", "later", "open"]
"""What becomes of a row: it goes, is looked at when its hour is over, or in the next round."""


class Leftovers:
    """Deletes during one term of leadership. ``delete_forever`` is the body of a task."""

    def __init__(self, database: Database, objects: ObjectStore, clock: Clock) -> None:
        self._database = database
        self._objects = objects
        self._clock = clock
        self._is_told = False

    async def delete_forever(self) -> None:
        """Delete what is to be, now and again and again. It is nobody's any more: no term is needed for it."""
        while True:
            try:
                await self.round()
            except TenureError as exc:
                CHORES_FAILED.add(1, "leftovers")
                log.warning("objects_not_deleted", error=exc.message, next_step=exc.hint)
            except Exception:  # what goes wrong here must not end the term: jobs run without it
                CHORES_FAILED.add(1, "leftovers")
                log.exception("objects_not_deleted")
            await self._clock.sleep(EVERY_S)

    async def round(self) -> int:
        """Go once through what is to be deleted; return how many rows are done with.

        Raises:
            Unavailable: a store does not answer. What was deleted is; the rest is for the next round.
        """
        after, done = FIRST_ID, 0
        while True:
            rows = await self._database.fetch("objects_to_delete", {"after": after, "limit": PAGE})
            for start in range(0, len(rows), AT_ONCE):
                part = rows[start : start + AT_ONCE]
                answers = await asyncio.gather(*map(self._delete, part), return_exceptions=True)
                settled = {to: [row.id for row, one in zip(part, answers, strict=True) if one == to] for to in _QUERIES}
                for to, ids in settled.items():
                    if ids:
                        await self._database.fetch(_QUERIES[to], {"ids": ids})
                done += len(settled["done"])
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
            if len(rows) < PAGE:
                return done
            after = rows[-1].id

    async def _delete(self, row: Row) -> Settled:
        """Delete the objects of a row; say what becomes of it."""
        try:
            if row.archive_key is not None:
                await self._objects.delete([row.archive_key, manifest_key(row.archive_key)])
                return "done" if row.is_old else "open"
            async for page in self._objects.list(job_prefix(row.namespace, row.id)):
                await self._objects.delete([found.key for found in page])
        except (Unavailable, ConfigurationError):
            raise
        except TenureError as exc:  # this one is for somebody to look at; the others go
            log.error("objects_not_deleted", id=str(row.id), error=exc.message)
            return "open"
        await self._drop_unfinished(row)
        return "done" if row.is_old else "later"

    async def _drop_unfinished(self, row: Row) -> None:
        """Drop what was begun in parts. Where that fails it is left to the store's rules, and told of once."""
        try:
            await self._objects.drop_unfinished(job_prefix(row.namespace, row.id))
        except TenureError as exc:
            if not self._is_told:
                log.warning("unfinished_uploads_not_dropped", error=exc.message, next_step=exc.hint)
            self._is_told = True
