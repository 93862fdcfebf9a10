"""Appending to the logs of attempts, for workers: each batch under the fence of its attempt, and answered for itself.

Invariants: an attempt that is not its worker's any more adds nothing; a batch that is repeated changes nothing; what is
kept is bounded, whoever sends it. No row of a job is locked or changed, and an attempt that writes nothing has no row.
Reading is ``read_logs``, moving into the object store ``move_logs``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from tenure.coordinator.finish import Verdict
from tenure.coordinator.metrics import LOG_BYTES, LOG_LINES, STALE_WRITES
from tenure.model import logs
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock, SystemClock
from tenure.model.logs import Level, LogLine
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

FULL = f"the log is full: {DEFAULT_BOUNDS.log_bytes // (1 << 20)} MiB were written; what follows is not kept"


class LogBatch(NamedTuple):
    """Lines of one attempt, numbered from ``first_seq``; one at least."""

    job_id: uuid.UUID
    fence: int
    first_seq: int
    lines: Sequence[LogLine]

    @property
    def last_seq(self) -> int:
        """The number of its last line."""
        return self.first_seq + len(self.lines) - 1


class Appended(NamedTuple):
    """What became of a batch."""

    verdict: Verdict
    message: str = ""
    last_seq: int = 0
    """The last line that was written before."""
    is_full: bool = False


class LogWriter:
    """Writes batches of lines."""

    def __init__(self, database: Database, clock: Clock | None = None, *, most_bytes: int | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._most = DEFAULT_BOUNDS.log_bytes if most_bytes is None else most_bytes

    async def append(self, batches: Sequence[LogBatch]) -> list[Appended]:
        """Write batches, at most one of an attempt; the answers are in their order.

        Raises:
            Unavailable: the outcome is unknown; send them again, those that were written are answered so.
        """
        if not batches:
            return []
        texts = []
        for batch in batches:
            texts.append(logs.stored(batch.lines, batch.first_seq))
            await asyncio.sleep(0)  # this process may lead: others have their turn between two batches
        sizes = [logs.size_of(text) for text in texts]
        now = self._clock.wall()
        rows = await self._database.fetch(
            "append_logs",
            {
                "ids": [batch.job_id for batch in batches],
                "fences": [batch.fence for batch in batches],
                "firsts": [batch.first_seq for batch in batches],
                "lasts": [batch.last_seq for batch in batches],
                "counts": [len(batch.lines) for batch in batches],
                "sizes": sizes,
                "lines": texts,
                "notes": [logs.stored([LogLine(now, Level.WARNING, FULL)], batch.first_seq) for batch in batches],
                "most": self._most,
            },
        )
        found = {(row.id, row.fence): row for row in rows}
        for batch, size in zip(batches, sizes, strict=True):
            if found[batch.job_id, batch.fence].is_written:
                LOG_LINES.add(len(batch.lines))
                LOG_BYTES.add(size)
        return [_answer(batch, found[batch.job_id, batch.fence]) for batch in batches]


def _answer(batch: LogBatch, row: Row) -> Appended:
    if row.is_written:
        return Appended(Verdict.RECORDED, "", row.last_seq, row.is_full)
    if row.last_seq >= batch.last_seq or (row.is_executing and row.is_full):
        return Appended(Verdict.REPEATED, "", row.last_seq, row.is_full)
    if not row.is_executing:
        STALE_WRITES.labels("logs").inc()
        log.warning("stale_logs_refused", job=str(batch.job_id), fence=batch.fence, lines=len(batch.lines))
        return Appended(Verdict.LOST, "the attempt is not yours any more; its lines were dropped")
    if row.last_seq >= batch.first_seq:
        message = f"lines up to {row.last_seq} were written: begin with {row.last_seq + 1}"
        return Appended(Verdict.INVALID, message, row.last_seq)
    return Appended(Verdict.LOCKED, "another call writes to this log: send the batch again", row.last_seq)
