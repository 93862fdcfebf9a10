"""Submits that the callers of one client make at the same moment, sent in one call.

What is asked for in one turn of the event loop travels together; nobody waits for others to come. A gRPC call costs
client and coordinator several times what a small job does. Invariant: each caller gets its own answer or refusal, as if
it had called alone. Called by ``client.calls.submit``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tenure.client.errors import RETRYABLE, UnknownCall, refused
from tenure.client.link import Link
from tenure.model.errors import BoundExceeded, TenureError
from tenure.v1 import job_pb2
from tenure.v1 import job_service_pb2 as pb

CALL_JOBS = 500
CALL_BYTES = 1024 * 1024
"""A larger job travels alone."""
ALONE_S = 60.0
"""For how long no call is shared after a coordinator did not know how: releases up to 0.1 do not."""

Answer = pb.SubmitJobResponse | pb.SubmittedEach


@dataclass(slots=True)
class _Turn:
    """What is asked for in one turn of the loop: the first of it is its sender's own."""

    specs: list[job_pb2.JobSpec]
    size: int
    others: list[asyncio.Future[Answer | None]] = field(default_factory=list)

    def add(self, spec: job_pb2.JobSpec, size: int) -> asyncio.Future[Answer | None]:
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.specs.append(spec)
        self.size += size
        self.others.append(answer)
        return answer

    def settle(self, answers: Sequence[Answer | TenureError | None]) -> None:
        """Give those who have none yet what came of it; None: each is to send its own."""
        for waiting, answer in zip(self.others, answers, strict=True):
            if waiting.done():
                continue  # its caller has gone
            if isinstance(answer, TenureError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


class Gathering:
    """Sends the submits of one client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._turn: _Turn | None = None
        self._alone_until = 0.0

    async def submit(self, spec: job_pb2.JobSpec) -> Answer:
        """Send a job with the others of this turn, and return what became of it.

        Raises:
            TenureError: it was refused, or nobody answered.
        """
        size = spec.ByteSize()
        turn = self._turn
        if turn is not None and len(turn.specs) < CALL_JOBS and turn.size + size <= CALL_BYTES:
            answer = await turn.add(spec, size)
            return await self._own(spec, answer)
        if time.monotonic() < self._alone_until:
            return await self._alone(spec)
        turn = self._turn = _Turn([spec], size)
        try:
            await asyncio.sleep(0)
            self._close(turn)
            own = await self._together(turn) if turn.others else None
        finally:
            self._close(turn)
            turn.settle([None] * len(turn.others))  # this caller may have given up: the others have not
        return await self._own(spec, own)

    def _close(self, turn: _Turn) -> None:
        if self._turn is turn:
            self._turn = None

    async def _own(self, spec: job_pb2.JobSpec, answer: Answer | None) -> Answer:
        """Return the answer to this job if it has one, and else ask for it alone, as long as that may take."""
        if answer is None:
            return await self._alone(spec)
        if isinstance(answer, pb.SubmittedEach) and answer.HasField("refusal"):
            error = refused(answer.refusal)
            if not isinstance(error, RETRYABLE):
                raise error
            return await self._alone(spec)
        return answer

    async def _alone(self, spec: job_pb2.JobSpec) -> Answer:
        answer: pb.SubmitJobResponse = await self._link.unary(
            lambda to: to.jobs.SubmitJob, pb.SubmitJobRequest(job=spec)
        )
        return answer

    async def _together(self, turn: _Turn) -> Answer | None:
        """Send what the turn has, tell the others their answers and return the first; None: each is to send its own."""
        try:
            answer: pb.SubmitEachResponse = await self._link.unary(
                lambda to: to.jobs.SubmitEach, pb.SubmitEachRequest(jobs=turn.specs)
            )
        except UnknownCall:
            self._alone_until = time.monotonic() + ALONE_S
            return None
        except BoundExceeded:
            return None  # of all together, perhaps: each of the answers fits into a message, and not all of them
        except TenureError as exc:
            turn.settle([exc] * len(turn.others))
            raise
        first, *others = answer.jobs
        turn.settle(others)
        return first
