"""Moving the logs of ended attempts from Postgres into the object store: a chore of the leader.

Each is one object of compressed JSON lines, whose key is told from the attempt. Invariants: the object is written
before the transaction that says so and deletes the rows, so that wherever this stops, the log is whole in one place,
which its head names; done again, it writes the same object. A log that grows meanwhile is not moved: it is read again
later.
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import AsyncIterator

import structlog

from tenure.coordinator.metrics import LOGS_MOVED
from tenure.model.clock import Clock
from tenure.model.errors import TenureError, Unavailable
from tenure.model.objects import LOG, attempt_key
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

MOVE_EVERY_S = 5.0
MOVE_AFTER_S = 30.0
"""After the last line: what is looked at most, soon after its end, is read from Postgres."""
PAGE_LOGS = 200
LARGE_BYTES = 1024 * 1024
"""Logs that are larger are moved one at a time, since they are held in memory, compressed."""
PUTS_AT_ONCE = 8
READ_BYTES = 512 * 1024
READ_BATCHES = 2_000
CONTENT_TYPE = "application/gzip"
_GZIP = 16 + zlib.MAX_WBITS


class LogMover:
    """Moves logs. ``step`` goes through all that lie in Postgres, once."""

    def __init__(
        self, database: Database, objects: ObjectStore, clock: Clock, *, after_s: float = MOVE_AFTER_S
    ) -> None:
        self._database = database
        self._objects = objects
        self._clock = clock
        self._after_s = after_s

    async def step(self) -> int:
        """Move what is due, and return how many logs that were.

        Raises:
            Unavailable: a store does not answer. What was moved is; the rest is for the next step.
        """
        moved = 0
        job_id, attempt = uuid.UUID(int=0), 0
        while True:
            place = {"job_id": job_id, "attempt": attempt, "after_s": self._after_s, "limit": PAGE_LOGS}
            heads = await self._database.fetch("logs_to_move", place)
            due = [head for head in heads if head.is_due]
            page = await self._move_all(due)
            LOGS_MOVED.add(page)
            moved += page
            if len(heads) < PAGE_LOGS:
                return moved
            job_id, attempt = heads[-1].job_id, heads[-1].attempt

    async def _move_all(self, heads: list[Row]) -> int:
        small = [head for head in heads if head.bytes < LARGE_BYTES]
        moved = 0
        for start in range(0, len(small), PUTS_AT_ONCE):
            part = small[start : start + PUTS_AT_ONCE]
            for answer in await asyncio.gather(*map(self._move, part), return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer
                moved += answer
        for head in heads:
            if head.bytes >= LARGE_BYTES:
                moved += await self._move(head)
        return moved

    async def _move(self, head: Row) -> bool:
        try:
            return await self._moved(head)
        except Unavailable:
            raise
        except TenureError as exc:  # this one is for somebody to look at; the others are moved
            log.error("log_not_moved", job=str(head.job_id), attempt=head.attempt, error=exc.message)
            return False

    async def _moved(self, head: Row) -> bool:
        packer = zlib.compressobj(wbits=_GZIP)
        data = bytearray()
        last_seq = 0
        async for row in self._rows(head):
            data += await asyncio.to_thread(packer.compress, row.lines.encode())
            last_seq = row.last_seq
        if last_seq != head.last_seq:
            log.info("log_grows", job=str(head.job_id), attempt=head.attempt)
            return False
        data += packer.flush()
        key = attempt_key(head.namespace, head.job_id, head.attempt, LOG)
        await self._objects.put(key, bytes(data), content_type=CONTENT_TYPE)
        recorded = await self._database.fetch(
            "record_moved_log",
            {
                "job_id": head.job_id,
                "attempt": head.attempt,
                "last_seq": head.last_seq,
                "object_bytes": len(data),
            },
        )
        if not recorded and not await self._is_there(head):
            await self._objects.delete([key])  # its job was removed meanwhile, with all that hung on it
        return bool(recorded)

    async def _is_there(self, head: Row) -> bool:
        found = await self._database.fetch("log_heads", {"id": head.job_id, "attempt": head.attempt, "limit": 1})
        return bool(found) and found[0].attempt == head.attempt

    async def _rows(self, head: Row) -> AsyncIterator[Row]:
        """Yield the batches of a log, in order."""
        after = 0
        while True:
            rows = await self._database.fetch(
                "log_pages",
                {
                    "ids": [head.job_id],
                    "attempts": [head.attempt],
                    "afters": [after],
                    "limit": READ_BATCHES,
                    "bytes": READ_BYTES,
                },
            )
            for row in rows:
                yield row
            if not rows:
                return
            after = rows[-1].last_seq
