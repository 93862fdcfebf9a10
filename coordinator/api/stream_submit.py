"""StreamSubmitJobs: jobs without end, written in transactions of what has gathered while the last one was under way.

One stream holds two groups and no more, in jobs and in bytes: who sends faster than Postgres writes is held up by flow
control. Answers are in order and come after the commit. What is refused is refused alone; when stores do not answer,
the stream ends, and the caller sends again what had no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tenure.coordinator import access
from tenure.coordinator.api.refusals import is_of_all, refusal_to_pb
from tenure.coordinator.group_commit import GROUP_BYTES
from tenure.coordinator.submit import Submitter
from tenure.coordinator.waiters import Waiters
from tenure.model.access import Right
from tenure.model.batch import pieces
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.model.jobs import JobSpec
from tenure.model.submit import Submitted
from tenure.v1 import job_pb2, wire
from tenure.v1 import job_service_pb2 as pb

MESSAGE_JOBS = 1_000
QUEUED_PIECES = 256
GROUP_JOBS = 1_000
"""Jobs that have gathered are read, and written in one transaction, up to about so many, or ``GROUP_BYTES``."""
PIECE_BYTES = 1024 * 1024
"""A message is read in pieces of so much, and others have their turn in between."""
LOOK_S = 0.5
"""How often a stream on which nothing comes asks whether this coordinator stops."""

Asked = tuple[int, JobSpec | TenureError]
Write = Callable[[pb.StreamSubmitJobsResponse], Awaitable[None]]


@dataclass(slots=True)
class Piece:
    """Jobs that came together, and how many bytes they are."""

    asked: list[Asked]
    size: int

    def add(self, other: Piece) -> None:
        """Take in the jobs of another one."""
        self.asked += other.asked
        self.size += other.size


class Room:
    """What one stream may hold: the group that is written, and the next one."""

    def __init__(self) -> None:
        self._jobs = 0
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def take(self, jobs: int, size: int) -> None:
        """Wait until there is room for so much, or nothing else is held."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    not self._jobs or (self._jobs + jobs <= 2 * GROUP_JOBS and self._bytes + size <= 2 * GROUP_BYTES)
                )
            )
            self._jobs += jobs
            self._bytes += size

    async def give_back(self, jobs: int, size: int) -> None:
        """Let others have it."""
        async with self._changed:
            self._jobs -= jobs
            self._bytes -= size
            self._changed.notify_all()


class StreamedSubmit:
    """One stream."""

    def __init__(self, submitter: Submitter, waiters: Waiters) -> None:
        self._submitter = submitter
        self._waiters = waiters
        self._asked: asyncio.Queue[Piece | None] = asyncio.Queue(QUEUED_PIECES)
        self._room = Room()

    async def serve(self, requests: AsyncIterator[pb.StreamSubmitJobsRequest], write: Write) -> None:
        """Answer until the caller has sent all.

        Raises:
            InvalidInput: a message is none that this call knows.
            Unavailable, BoundExceeded: not written; send again what had no answer.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(requests))
                while (gathered := await self._gathered()) is not None:
                    answer = await self._written(gathered.asked)
                    await self._room.give_back(len(gathered.asked), gathered.size)
                    await write(answer)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _read(self, requests: AsyncIterator[pb.StreamSubmitJobsRequest]) -> None:
        async for request in requests:
            if not 1 <= len(request.jobs) <= MESSAGE_JOBS:
                raise InvalidInput([FieldViolation("jobs", f"must be 1 to {MESSAGE_JOBS} in a message")])
            if len(request.sequences) != len(request.jobs):
                raise InvalidInput([FieldViolation("sequences", "must be as many as jobs")])
            numbered = zip(request.sequences, request.jobs, strict=True)
            for piece in pieces(numbered, _bytes, max_weight=PIECE_BYTES, max_items=MESSAGE_JOBS):
                size = sum(map(_bytes, piece))
                await self._room.take(len(piece), size)
                await self._asked.put(Piece([(number, _spec(job)) for number, job in piece], size))
                await asyncio.sleep(0)
        await self._asked.put(None)

    async def _gathered(self) -> Piece | None:
        """Return what has gathered, at least one job; None at the end."""
        while True:
            self._waiters.refuse_if_closed()
            try:
                async with asyncio.timeout(LOOK_S):
                    first = await self._asked.get()
                break
            except TimeoutError:
                continue
        if first is None:
            return None
        found = first
        while len(found.asked) < GROUP_JOBS and found.size < GROUP_BYTES and not self._asked.empty():
            more = self._asked.get_nowait()
            if more is None:
                self._asked.put_nowait(None)
                break
            found.add(more)
        return found

    async def _written(self, asked: list[Asked]) -> pb.StreamSubmitJobsResponse:
        specs = [spec for _, spec in asked if isinstance(spec, JobSpec)]
        answers = iter(await self._submitter.submit_each(specs))
        return pb.StreamSubmitJobsResponse(
            jobs=[_answer(sequence, next(answers) if isinstance(spec, JobSpec) else spec) for sequence, spec in asked]
        )


def _bytes(numbered: tuple[int, job_pb2.JobSpec]) -> int:
    return numbered[1].ByteSize()


def refuse_foreign(spec: JobSpec) -> JobSpec:
    """Return what the caller may submit where it is to go.

    Raises:
        PermissionDenied: it is not for a namespace of the caller's.
    """
    if not access.sees(spec.namespace):
        raise access.denied(Right.SUBMIT, f" in namespace {spec.namespace}", field="job.namespace")
    return spec


def _spec(message: job_pb2.JobSpec) -> JobSpec | TenureError:
    try:
        spec = refuse_foreign(wire.spec_from_pb(message))
    except TenureError as exc:
        return exc
    if spec.ref is not None:
        return InvalidInput([FieldViolation("job.ref", "names a member of a batch; jobs of a stream are none")])
    return spec


def _answer(sequence: int, answer: Submitted | Exception) -> pb.StreamedJob:
    if isinstance(answer, Submitted):
        return pb.StreamedJob(sequence=sequence, id=str(answer.id), created=answer.created, duplicate=answer.duplicate)
    if not isinstance(answer, TenureError) or is_of_all(answer):
        raise answer
    return pb.StreamedJob(sequence=sequence, refusal=refusal_to_pb(answer))
