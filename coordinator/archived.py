"""Reading jobs that retention has moved into the archive: for who asks for one that Postgres has not.

The file of a job is found in Postgres, by when the job was made and by the mark that is kept of it, so that a job
which was never there costs the object store nothing. Then the end of the file is read, which says where its row groups
are, and the row group. What the caller may see is decided before the object store is asked. Memory is bounded: ends of
files and small jobs are kept for who asks again, both few.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from tenure.coordinator import access, archive_format
from tenure.coordinator.kept import Kept
from tenure.model.archive import made_ms, mark_of
from tenure.model.errors import ConfigurationError, NotFound, Unavailable, WrongState
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database, Row

KEPT_FOOTERS = 64
KEPT_JOBS = 256
SMALL_BYTES = 32 * 1024
"""Of payload, result and error: a job with more is read anew."""
AT_ONCE = 2
"""Row groups in memory at a time."""
EACH_AT_ONCE = 4
EACH_S = 5.0
"""For all jobs that are looked for together: who asked waits for an answer about others, too."""


class ArchivedJob(NamedTuple):
    """As of ``tenure.jobs``, with ``depends_on``, ``attempts``, ``artifacts``, ``logs``; and the file that it is in."""

    row: Any
    file: Row


class Archived:
    """Finds archived jobs. Without ``objects`` there is no object store, and nothing is found."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.objects: ObjectStore | None = None
        self._footers: Kept[uuid.UUID, bytes] = Kept(KEPT_FOOTERS)
        self._jobs: Kept[uuid.UUID, ArchivedJob] = Kept(KEPT_JOBS)
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def find(self, job: uuid.UUID) -> ArchivedJob | None:
        """Return a job that the caller may see, or None.

        Raises:
            Unavailable: it is archived, and its file cannot be read now.
        """
        kept = self._jobs.get(job)
        asked = {"job": job, "made_ms": made_ms(job), "mark": mark_of(job)}
        # Asked each time, whatever is kept: files expire, and are adopted into others.
        for file in await self._database.fetch("archive_file_of_job", asked):
            if kept is not None and kept.file.id == file.id:
                return kept if access.sees(file.namespace) else None
            if access.sees(file.namespace) and (row := await self._read(file, job)) is not None:
                found = ArchivedJob(row, file)
                if len(row.payload) + len(row.result or "") + len(row.error or "") <= SMALL_BYTES:
                    self._jobs.put(job, found)
                return found
        return None

    async def find_each(self, jobs: Sequence[uuid.UUID]) -> dict[uuid.UUID, ArchivedJob | Exception | None]:
        """Find several jobs as ``find`` does, a few at a time; what goes wrong with one is the answer for it alone.

        Takes no longer than ``EACH_S``: what was not found by then is ``Unavailable``.
        """
        until = asyncio.get_running_loop().time() + EACH_S
        room = asyncio.Semaphore(EACH_AT_ONCE)

        async def found(job: uuid.UUID) -> ArchivedJob | Exception | None:
            try:
                async with asyncio.timeout_at(until), room:
                    return await self.find(job)
            except TimeoutError:
                return Unavailable(f"job {job} was looked for in the archive, and not found in time")
            except Exception as exc:  # a defect in one job fails no other
                return exc

        return dict(zip(jobs, await asyncio.gather(*map(found, jobs)), strict=True))

    def missing(self) -> str | None:
        """Say what is missing for there to be an archive, or None."""
        if self.objects is None:
            return "the coordinators have no object store (TENURE_OBJECT_STORE)"
        return archive_format.missing()

    async def problem_of(self, file: Row) -> str | None:
        """Read a file whole, and say what is wrong with it, or None.

        Raises:
            Unavailable: the object store does not answer. WrongState: there is none, or files cannot be read.
        """
        problem = self.missing()
        if problem is not None or self.objects is None:
            raise WrongState(f"there is no archive: {problem}")
        async with self._turn:
            try:
                data = await self.objects.get(file.key)
            except NotFound:
                return "it is not in the object store"
            if len(data) != file.size_bytes:
                return f"it has {len(data)} bytes and should have {file.size_bytes}"
            if await asyncio.to_thread(_sha256, data) != file.sha256:
                return "it has another SHA-256 than when it was written"
            jobs = len(await asyncio.to_thread(archive_format.ids_of, data))
            return None if jobs == file.jobs else f"it holds {jobs} jobs and should hold {file.jobs}"

    async def _read(self, file: Row, job: uuid.UUID) -> Any:
        if self.objects is None:
            raise Unavailable(
                f"job {job} is in the archive, and the coordinators have no object store",
                hint="set TENURE_OBJECT_STORE for them",
            )
        if problem := archive_format.missing():
            raise Unavailable(f"job {job} is in the archive, which cannot be read: {problem}")
        async with self._turn:
            try:
                return await self._job_in(self.objects, file, job)
            except NotFound as exc:
                raise Unavailable(
                    f"job {job} is in the archive, and its file {file.key} is not in the object store"
                ) from exc
            except ConfigurationError as exc:
                raise Unavailable(f"job {job} is in the archive, which cannot be read: {exc.message}") from exc

    async def _job_in(self, objects: ObjectStore, file: Row, job: uuid.UUID) -> Any:
        tail = self._footers.get(file.id)
        if tail is None:
            tail = await self._tail(objects, file, min(archive_format.TAIL_BYTES, file.size_bytes))
            length = archive_format.footer_bytes(tail)
            if length > len(tail):
                tail = await self._tail(objects, file, min(length, file.size_bytes))
            tail = tail[-length:]
            self._footers.put(file.id, tail)
        footer = await asyncio.to_thread(archive_format.footer_of, tail)
        number = archive_format.group_of(footer, job)
        if number is None:
            return None
        start, length = archive_format.range_of(footer, number)
        group = await objects.get_range(file.key, start, length)
        return await asyncio.to_thread(archive_format.job_in, file.size_bytes, tail, start, group, number, job)

    async def _tail(self, objects: ObjectStore, file: Row, length: int) -> bytes:
        return await objects.get_range(file.key, file.size_bytes - length, length)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
