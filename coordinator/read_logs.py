"""Reading the logs of a job's attempts, wherever they lie, from any line on, and following them as they are written.

A reader is given pages, attempt by attempt, each from Postgres or from the object store; one is in memory at a time,
and the next is read when the reader has taken it. Readers of Postgres share statements, and those that follow share
one look per ``LOOK_EVERY_S``, however many jobs are followed. Invariant: a follower that ends has been given every
line that was written before the job's end was seen. ``run`` is the body of a task.
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import structlog

from tenure.coordinator.waiters import Waiters
from tenure.model import logs
from tenure.model.batch import Batcher
from tenure.model.clock import Clock
from tenure.model.errors import NotFound, TenureError, WrongState
from tenure.model.logs import Level, StoredLine
from tenure.model.objects import LOG, attempt_key
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5
PAGE_BYTES = 128 * 1024
"""Of lines in a page, as they are kept; the last batch in it may go beyond."""
PAGE_BATCHES = 500
PAGES_TOGETHER = 16
HEADS = 200
INFLATED_BYTES = 256 * 1024
FOLLOWED_JOBS = 2_000
"""In one look."""
_GZIP = 16 + zlib.MAX_WBITS

Place = tuple[int, int]
"""An attempt, and the number of a line in it."""


class Head(NamedTuple):
    """What is known of an attempt's log: a row of ``log_heads``."""

    attempt: int
    last_seq: int
    is_moved: bool
    namespace: str


class Wanted(NamedTuple):
    """What a reader asks for."""

    job_id: uuid.UUID
    attempt: int | None = None
    """None: all."""
    after: Place = (0, 0)
    level: Level = Level.DEBUG
    follow: bool = False
    tail: int | None = None
    """Begin so many lines before the end."""
    limit: int | None = None
    heads: Sequence[Head] | None = None
    """Of a job that is not in Postgres any more: all that its attempts have, in their order."""


class Page(NamedTuple):
    """Lines of an attempt, and the last one that was looked at; there may be none that are grave enough."""

    attempt: int
    last_seq: int
    lines: Sequence[StoredLine]


class LogReader:
    """Reads logs. ``run`` must be running."""

    def __init__(self, database: Database, clock: Clock, waiters: Waiters, objects: ObjectStore | None = None) -> None:
        self._database = database
        self._clock = clock
        self._waiters = waiters
        self._objects = objects
        self._pages: Batcher[tuple[uuid.UUID, int, int], list[Row]] = Batcher(
            self._read_pages, max_items=PAGES_TOGETHER, in_flight=2, name="logs"
        )
        self._pictures: Batcher[uuid.UUID, Row] = Batcher(self._look, max_items=FOLLOWED_JOBS, name="followed logs")
        self._followers: dict[uuid.UUID, set[asyncio.Event]] = {}
        self._seen: dict[uuid.UUID, tuple[object, ...]] = {}
        self._followed = asyncio.Event()

    def look_in(self, objects: ObjectStore | None) -> None:
        """Say where logs are that were moved."""
        self._objects = objects

    async def run(self) -> None:
        """Carry out what readers share, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for body in (self._pages.run(), self._pictures.run(), self._look_forever()):
                group.create_task(body)

    async def read(self, wanted: Wanted) -> AsyncIterator[Page]:
        """Yield pages, in the order of attempts and lines; the job must be there.

        Raises:
            Unavailable: a store does not answer, or this coordinator stops.
            NotFound, WrongState: a log that was moved is not in the object store, or there is none.
        """
        place = await self._tail(wanted, wanted.tail) if wanted.tail else wanted.after
        left = wanted.limit
        if wanted.follow:
            yield Page(*place, ())  # it may be long until there is more to say: that somebody listens is said at once
        async with self._waiters.waiting(str(wanted.job_id)) as changed:
            with self._following(wanted.job_id, changed) if wanted.follow else _nobody():
                while True:
                    changed.clear()
                    is_over = not wanted.follow or _is_over(await self._pictures.ask(wanted.job_id), wanted.attempt)
                    async for page in self._from(wanted, place):
                        if left is not None and len(page.lines) >= left:
                            kept = page.lines[:left]
                            yield Page(page.attempt, kept[-1].seq, kept)
                            return
                        place = (page.attempt, page.last_seq)
                        left = None if left is None else left - len(page.lines)
                        yield page
                    if is_over:
                        return
                    self._waiters.refuse_if_closed()
                    await changed.wait()

    # -- one reader --

    async def _from(self, wanted: Wanted, after: Place) -> AsyncIterator[Page]:
        """Yield what is there now."""
        attempt, seq = after
        while True:
            heads = await self._heads("log_heads", wanted, max(attempt, wanted.attempt or 0))
            for head in heads:
                if wanted.attempt not in (None, head.attempt):
                    return
                async for page in self._of(wanted, head, seq if head.attempt == attempt else 0):
                    yield page
            if len(heads) < HEADS:
                return
            attempt, seq = heads[-1].attempt + 1, 0

    async def _of(self, wanted: Wanted, head: Row, after: int) -> AsyncIterator[Page]:
        """Yield what an attempt has written."""
        while head.last_seq > after:
            if head.is_moved:
                async for page in self._moved(wanted, head, after):
                    yield page
                return
            rows = await self._pages.ask((wanted.job_id, head.attempt, after))
            if rows:
                lines: list[StoredLine] = []
                for row in rows:
                    lines += _chosen(logs.read(row.lines), after, wanted.level)
                    await asyncio.sleep(0)
                after = rows[-1].last_seq
                yield Page(head.attempt, after, lines)
                continue
            heads = await self._heads("log_heads", wanted, head.attempt, limit=1)
            if not heads or heads[0].attempt != head.attempt or not heads[0].is_moved:
                return  # it was removed
            head = heads[0]  # it was moved in between

    async def _moved(self, wanted: Wanted, head: Row, after: int) -> AsyncIterator[Page]:
        async for data in self._inflated(wanted.job_id, head):
            last = after
            lines = []
            for line in logs.read(data):
                last = line.seq
                if line.seq > after and logs.is_at_least(line, wanted.level):
                    lines.append(line)
            if last > after:
                yield Page(head.attempt, last, lines)
            await asyncio.sleep(0)

    async def _inflated(self, job_id: uuid.UUID, head: Row) -> AsyncIterator[bytes]:
        """Yield whole lines of a log that was moved."""
        if self._objects is None:
            raise WrongState(
                f"the log of attempt {head.attempt} lies in an object store, and this coordinator knows of none",
                hint="set TENURE_OBJECT_STORE",
            )
        inflater = zlib.decompressobj(_GZIP)
        rest = b""
        try:
            async for data in self._objects.stream(attempt_key(head.namespace, job_id, head.attempt, LOG)):
                while data:
                    rest += inflater.decompress(data, INFLATED_BYTES)
                    data = inflater.unconsumed_tail
                    whole, end, rest = rest.rpartition(b"\n")
                    yield whole + end
        except NotFound as exc:
            raise NotFound(f"the log of attempt {head.attempt} is not in the object store any more") from exc

    async def _tail(self, wanted: Wanted, lines: int) -> Place:
        """Return after which line the last ones begin, of those that are grave enough."""
        before = (wanted.attempt or (1 << 31) - 2) + 1
        while heads := await self._heads("log_heads_before", wanted, before):
            for head in heads:
                if wanted.attempt not in (None, head.attempt):
                    return (0, 0)
                last = await self._last_lines(wanted, head, lines)
                if len(last) == lines:
                    return (head.attempt, last[0] - 1)
                lines -= len(last)
            before = heads[-1].attempt
        return (0, 0)

    async def _last_lines(self, wanted: Wanted, head: Row, most: int) -> deque[int]:
        """Return the numbers of an attempt's last lines that are grave enough."""
        last: deque[int] = deque(maxlen=most)
        if not head.is_moved:
            before = head.last_seq + 1
            while rows := await self._database.fetch(
                "log_page_before",
                {
                    "id": wanted.job_id,
                    "attempt": head.attempt,
                    "before": before,
                    "limit": PAGE_BATCHES,
                    "bytes": PAGE_BYTES,
                },
            ):
                for row in rows:
                    for seq in reversed([line.seq for line in _chosen(logs.read(row.lines), 0, wanted.level)]):
                        if len(last) == most:
                            return last
                        last.appendleft(seq)
                    await asyncio.sleep(0)
                before = rows[-1].first_seq
            if last:
                return last
            heads = await self._heads("log_heads", wanted, head.attempt, limit=1)
            if not heads or heads[0].attempt != head.attempt or not heads[0].is_moved:
                return last
        async for page in self._moved(wanted, head._replace(is_moved=True), 0):
            last.extend(line.seq for line in page.lines)
        return last

    async def _heads(self, query: str, wanted: Wanted, attempt: int, *, limit: int = HEADS) -> list[Row]:
        if wanted.heads is not None:
            if query == "log_heads":
                return [head for head in wanted.heads if head.attempt >= attempt][:limit]
            return [head for head in reversed(wanted.heads) if head.attempt < attempt][:limit]
        return await self._database.fetch(query, {"id": wanted.job_id, "attempt": attempt, "limit": limit})

    # -- what readers share --

    async def _read_pages(self, places: list[tuple[uuid.UUID, int, int]]) -> Sequence[list[Row] | Exception]:
        asked = list(set(places))
        rows = await self._database.fetch(
            "log_pages",
            {
                "ids": [job_id for job_id, _, _ in asked],
                "attempts": [attempt for _, attempt, _ in asked],
                "afters": [after for _, _, after in asked],
                "limit": PAGE_BATCHES,
                "bytes": PAGE_BYTES,
            },
        )
        found: dict[tuple[uuid.UUID, int, int], list[Row]] = {place: [] for place in asked}
        for row in rows:
            found[row.id, row.attempt, row.after_seq].append(row)
        return [found[place] for place in places]

    async def _look(self, ids: Iterable[uuid.UUID]) -> Sequence[Row | Exception]:
        asked = list(ids)
        rows = await self._database.fetch("follow_logs", {"ids": list(set(asked))})
        by_id = {row.id: row for row in rows}
        return [by_id[id] for id in asked]

    @contextmanager
    def _following(self, job_id: uuid.UUID, changed: asyncio.Event) -> Iterator[None]:
        """Have an event set whenever there is something new of a job."""
        self._followers.setdefault(job_id, set()).add(changed)
        self._seen.pop(job_id, None)  # the next look tells this one, whatever it finds
        self._followed.set()
        try:
            yield
        finally:
            self._followers[job_id].discard(changed)
            if not self._followers[job_id]:
                del self._followers[job_id]
                self._seen.pop(job_id, None)

    async def _look_forever(self) -> None:
        while True:
            if not self._followers:
                self._followed.clear()
                await self._followed.wait()
            await self._clock.sleep(LOOK_EVERY_S)
            ids = list(self._followers)
            try:
                for start in range(0, len(ids), FOLLOWED_JOBS):
                    for row in await self._look(ids[start : start + FOLLOWED_JOBS]):
                        self._tell(row)
            except TenureError as exc:
                log.warning("logs_not_followed", jobs=len(ids), error=exc.message)

    def _tell(self, row: Row) -> None:
        mark = tuple(row)
        if row.id in self._followers and self._seen.get(row.id) != mark:
            self._seen[row.id] = mark
            for changed in self._followers[row.id]:
                changed.set()


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _is_over(row: Row, attempt: int | None) -> bool:
    """Say whether no more is written: the job has ended, or the one attempt that is asked for."""
    if row.job_attempt is None:
        return True
    return attempt is not None and (row.job_attempt > attempt or (row.job_attempt == attempt and not row.is_executing))


def _chosen(lines: Iterable[StoredLine], after: int, level: Level) -> list[StoredLine]:
    return [line for line in lines if line.seq > after and logs.is_at_least(line, level)]
