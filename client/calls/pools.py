"""The calls of PoolService: pools, and pauses of pools, kinds and namespaces."""

from __future__ import annotations

import asyncio
import time

from tenure.client.fields import time_of
from tenure.client.link import Link
from tenure.client.records import CanceledJobs, Pause, Pool
from tenure.model.errors import DeadlineExceeded, FieldViolation, InvalidInput
from tenure.v1 import pool_service_pb2 as pb

REMOVAL_LOOK_S = 0.5
"""Between passes of ``remove_pool`` that wait for executing jobs to stop."""


class PoolCalls:
    """See pools, pause and remove them."""

    _link: Link

    async def pools(self) -> list[Pool]:
        """Return every pool that is or was served, with what waits and executes below it."""
        answer: pb.ListPoolsResponse = await self._link.unary(lambda to: to.pools.ListPools, pb.ListPoolsRequest())
        return [_pool(pool) for pool in answer.pools]

    async def pause(
        self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None, reason: str = ""
    ) -> int:
        """Let nothing of a pool (or route prefix), kind or namespace start; return how many of its jobs go on.

        What was offered before may still start within a second or so.

        Raises:
            InvalidInput: not just one of the three is given, or it is malformed.
            WrongState: somebody resumed it at the same moment.
        """
        subject = _subject(pool, kind, namespace)
        answer: pb.PauseResponse = await self._link.unary(
            lambda to: to.pools.Pause,
            pb.PauseRequest(subject=subject, reason=reason),
        )
        return answer.executing

    async def resume(self, *, pool: str | None = None, kind: str | None = None, namespace: str | None = None) -> bool:
        """Let it start again; False: it was not paused.

        Raises:
            InvalidInput: as ``pause``.
        """
        subject = _subject(pool, kind, namespace)
        answer: pb.ResumeResponse = await self._link.unary(
            lambda to: to.pools.Resume, pb.ResumeRequest(subject=subject)
        )
        return answer.resumed

    async def pauses(self) -> list[Pause]:
        """Return what is paused, with the jobs of each that still execute."""
        answer: pb.ListPausesResponse = await self._link.unary(lambda to: to.pools.ListPauses, pb.ListPausesRequest())
        return [_pause(pause) for pause in answer.pauses]

    async def remove_pool(
        self, pool: str, *, reason: str = "", preview: bool = False, timeout_s: float | None = None
    ) -> CanceledJobs:
        """Cancel every job below a route prefix, wait until executing ones have stopped, and forget its pools.

        ``preview`` only counts. ``timeout_s`` None waits for them without end.

        Raises:
            InvalidInput: it is no route. WrongState: a worker serves it.
            DeadlineExceeded: some still execute after ``timeout_s``; what was done is done, call it again.
        """
        done = CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        request = pb.RemovePoolRequest(pool=pool, reason=reason, preview=preview)
        began = time.monotonic()
        while True:
            answer: pb.RemovePoolResponse
            async for answer in self._link.pages(lambda to: to.pools.RemovePool, request):
                done = CanceledJobs(
                    canceled=done.canceled + answer.canceled,
                    asked=max(done.asked, answer.asked),  # the same ones, asked again
                    dependants=done.dependants + answer.dependants,
                    ids=(),
                )
            if preview or answer.removed:
                return done
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise DeadlineExceeded(
                    f"{answer.left} jobs below {pool} have not ended yet", hint="remove it again: it goes on"
                )
            await asyncio.sleep(REMOVAL_LOOK_S)


def _subject(pool: str | None, kind: str | None, namespace: str | None) -> pb.PauseSubject:
    """Write what a pause is about.

    Raises:
        InvalidInput: not just one is given.
    """
    given = {name: value for name, value in (("pool", pool), ("kind", kind), ("namespace", namespace)) if value}
    if len(given) != 1:
        raise InvalidInput([FieldViolation("subject", "give one of pool, kind and namespace")])
    return pb.PauseSubject(**given)


def _pause(pause: pb.Pause) -> Pause:
    subject = pause.subject.WhichOneof("subject") or ""
    return Pause(
        subject=subject,
        name=getattr(pause.subject, subject) if subject else "",
        reason=pause.reason,
        paused_at=time_of(pause, "paused_at"),
        executing=pause.executing,
    )


def _pool(pool: pb.Pool) -> Pool:
    return Pool(path=pool.path, workers=pool.workers, ready=pool.ready, executing=pool.executing, paused=pool.paused)
