"""Submitting without end: the window of jobs that are under way over one StreamSubmitJobs, and what came of each.

Owns what was sent and not answered, so that another stream can take up where one broke. Invariant: answers come in the
order of the jobs, one for each. Jobs carry idempotency keys, so that those sent twice are written once. The source of
the jobs is asked in a thread, by one caller at a time: it may take its time, and what it gave is sent meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from tenure.client import convert
from tenure.client.errors import refused
from tenure.client.records import NewJob
from tenure.model.batch import pieces
from tenure.model.errors import InvalidInput, TenureError
from tenure.probes import tracing
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as pb

WINDOW_JOBS = 4_000
"""Jobs that are under way at a time."""
WINDOW_BYTES = 16 * 1024 * 1024
"""Of jobs that are under way, about."""
MESSAGE_JOBS = 200
MESSAGE_BYTES = 1024 * 1024
"""Of jobs in a message; one that is larger has its own."""
GATHER_S = 0.05
"""How long jobs of a slow source wait for others to be sent with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedJob:
    """What came of one job of a stream; ``number`` counts them from 0. Either ``id`` or ``error`` is None."""

    number: int
    id: str | None = None
    created: bool = False
    """False, too, when one of its keys answered with an earlier job."""
    error: TenureError | None = None


@dataclass(slots=True)
class _Sent:
    number: int
    spec: job_pb2.JobSpec | None
    has_own_key: bool
    error: InvalidInput | None = None

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return self.spec.ByteSize() if self.spec is not None else 0


class Outbox:
    """Jobs on their way. ``requests`` is one stream's side, ``settle`` takes what it answers."""

    def __init__(self, jobs: Iterable[NewJob], new_key: Callable[[], str]) -> None:
        self._jobs: Iterator[NewJob] = iter(jobs)
        self._new_key = new_key
        self._numbers = itertools.count()
        self._under_way: deque[_Sent] = deque()
        self._settled = asyncio.Event()
        self._under_way_bytes = 0
        self._is_exhausted = False
        self._streams = 0
        self._pulled: deque[_Sent] = deque()
        """What the source gave and nobody has sent; the thread adds to it."""
        self._pull: asyncio.Future[bool] | None = None
        self.problem: Exception | None = None
        """What the jobs' own iterator raised."""

    @property
    def is_done(self) -> bool:
        """Say whether every job has its answer."""
        return self._is_exhausted and not self._under_way

    @property
    def awaits_answers(self) -> bool:
        """Say whether something was sent that has none."""
        return bool(self._under_way)

    async def requests(self) -> AsyncIterator[pb.StreamSubmitJobsRequest]:
        """Yield what had no answer, then what is new; ends early where too many jobs cannot even be sent."""
        self._streams += 1
        stream = self._streams
        for message in _messages(self._under_way):
            yield message
        # One that was given up may be asked once more: what it took would be sent by nobody.
        while not self._is_exhausted and stream == self._streams:
            if len(self._under_way) >= WINDOW_JOBS or self._under_way_bytes >= WINDOW_BYTES:
                if self._under_way[0].spec is None:
                    return
                self._settled.clear()
                await self._settled.wait()
                continue
            await self._gather()
            if stream == self._streams:
                for message in _messages(self._take()):
                    yield message

    async def _gather(self) -> None:
        """Wait until the source gave enough for a message, or for ``GATHER_S``."""
        if self._pull is None:
            self._pull = _in_daemon_thread(self._ask_source)
        await asyncio.wait([self._pull], timeout=GATHER_S)

    def _ask_source(self) -> bool:
        """Take jobs for about a message, in a thread; say whether there may be more."""
        size = 0
        try:
            for count, job in enumerate(self._jobs, start=1):
                sent = self._written(job)
                self._pulled.append(sent)
                size += sent.size
                if count >= MESSAGE_JOBS or size >= MESSAGE_BYTES:
                    return True
        except Exception as exc:  # told to the caller once what was sent is answered
            self.problem = exc
        return False

    def _take(self) -> list[_Sent]:
        """Return what the source gave: from now on it is under way."""
        if self._pull is not None and self._pull.done():
            self._is_exhausted = not self._pull.result()
            self._pull = None
        taken = [self._pulled.popleft() for _ in range(len(self._pulled))]
        self._under_way.extend(taken)
        self._under_way_bytes += sum(sent.size for sent in taken)
        return taken

    def _written(self, job: NewJob) -> _Sent:
        has_own_key = job.idempotency_key is None
        try:
            if tracing.is_on():  # of a span that the source has open
                job = replace(job, labels=tracing.carried(job.labels))
            spec = convert.spec_to_wire(job, idempotency_key=job.idempotency_key or self._new_key(), path="job.")
            return _Sent(next(self._numbers), spec, has_own_key)
        except InvalidInput as exc:
            return _Sent(next(self._numbers), None, has_own_key, exc)

    def settle(self, answers: Iterable[pb.StreamedJob]) -> Iterator[StreamedJob]:
        """Yield what came of the jobs that were answered, and of those that could not be sent before them."""
        for answer in answers:
            yield from self._unsendable()
            if self._under_way and self._under_way[0].number == answer.sequence:
                sent = self._under_way.popleft()
                self._under_way_bytes -= sent.size
                yield _streamed(answer, sent.has_own_key)
        yield from self._unsendable()
        self._settled.set()

    def _unsendable(self) -> Iterator[StreamedJob]:
        while self._under_way and self._under_way[0].spec is None:
            sent = self._under_way.popleft()
            yield StreamedJob(number=sent.number, error=sent.error)


def _in_daemon_thread(ask: Callable[[], bool]) -> asyncio.Future[bool]:
    """Ask in a thread that the end of the process does not wait for: a terminal's next line may never come."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()

    def tell(answer: bool) -> None:
        if not answered.done():
            answered.set_result(answer)

    def run() -> None:
        answer = ask()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, answer)

    threading.Thread(target=run, name="tenure-source", daemon=True).start()
    return answered


def _messages(jobs: Iterable[_Sent]) -> Iterator[pb.StreamSubmitJobsRequest]:
    sendable = [sent for sent in jobs if sent.spec is not None]
    for piece in pieces(sendable, lambda sent: sent.size, max_weight=MESSAGE_BYTES, max_items=MESSAGE_JOBS):
        yield pb.StreamSubmitJobsRequest(
            jobs=[sent.spec for sent in piece if sent.spec is not None], sequences=[sent.number for sent in piece]
        )


def _streamed(answer: pb.StreamedJob, has_own_key: bool) -> StreamedJob:
    if not answer.HasField("refusal"):
        created = answer.created or (has_own_key and not answer.duplicate)
        return StreamedJob(number=answer.sequence, id=answer.id, created=created)
    return StreamedJob(number=answer.sequence, error=refused(answer.refusal))
