"""Results that are too large to be kept with their jobs: uploaded before the end of the attempt is reported.

Invariant: a result that cannot be uploaded costs the result and never the completion; the report then says so. Without
an object store such a result fails the attempt for good, since no later one would do better; where all coordinators are
of a release that has none, and so would drop what the report says, the attempt fails and may be tried again.

An upload has as long as it takes, while it gets on, but not beyond the attempt's timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.errors import TenureError, WrongState
from tenure.model.objects import RESULT, RESULT_CONTENT_TYPE
from tenure.worker.artifact import Artifact
from tenure.worker.execute.call import Ended, LostResult, SavedResult
from tenure.worker.execute.outcome import failed
from tenure.worker.link import Link, Report, Started, UnknownCall
from tenure.worker.upload import Watch

log = structlog.get_logger(__name__)

AT_ONCE = 4
PATIENCE_S = 60.0
"""How long an upload is tried that does not get on: no further byte is taken. The time in the queue does not count."""
LEAST_S = 1.0
"""That an upload has, however late it begins."""
_LEAST_CHARS = DEFAULT_BOUNDS.result_bytes // 4
"""A shorter text is small, whatever its characters."""


def is_large(ended: Ended) -> bool:
    """Say whether a result is too large to be kept with its job."""
    text = ended.result
    return text is not None and len(text) > _LEAST_CHARS and len(text.encode()) > DEFAULT_BOUNDS.result_bytes


class LargeResults:
    """Uploads results, and hands the reports on. ``run`` is the body of a task."""

    def __init__(self, link: Link, clock: Clock, deliver: Callable[[Report], None]) -> None:
        self._link = link
        self._clock = clock
        self._deliver = deliver
        # Not bounded here: each is an attempt, of which there are as many as the worker's capacity.
        self._waiting: asyncio.Queue[tuple[Report, float]] = asyncio.Queue()

    def add(self, report: Report, *, until: float) -> None:
        """Upload the result of a report; not beyond ``until``, when the leader would end the attempt."""
        self._waiting.put_nowait((report, until))

    async def run(self) -> None:
        """Upload until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._upload_forever())

    async def _upload_forever(self) -> None:
        while True:
            report, until = await self._waiting.get()
            self._deliver(report._replace(ended=await self._saved(report, until)))

    async def _saved(self, report: Report, until: float) -> Ended:
        started, ended = report.started, report.ended
        data = (ended.result or "").encode()
        without = ended._replace(result=None)
        try:
            saved = await self._uploaded(started, data, until)
        except UnknownCall as exc:
            return failed("ResultTooLarge", f"the result is {len(data)} bytes: {exc.message}", retryable=True)
        except WrongState:
            return failed(
                "ResultTooLarge",
                f"the result is {len(data)} bytes; without object store at most {DEFAULT_BOUNDS.result_bytes} are kept",
                retryable=False,
            )
        except TimeoutError:
            return self._lost(report, without, len(data), "its upload did not get on, or not in time")
        except TenureError as exc:
            return self._lost(report, without, len(data), exc.message)
        except Exception as exc:  # the top of an upload: whatever goes wrong here, the end is to be reported
            log.exception("result_not_uploaded", job=started.assignment.job_id)
            return self._lost(report, without, len(data), f"{type(exc).__name__}: {exc}")
        return without._replace(large=SavedResult(saved.size_bytes, saved.sha256))

    async def _uploaded(self, started: Started, data: bytes, until: float) -> Artifact:
        """Upload. Raises ``TimeoutError``: it does not get on."""
        watch = Watch(self._clock, PATIENCE_S, max(until, self._clock.monotonic() + LEAST_S))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._try(started, data, watch))
            while (left_s := watch.until - self._clock.monotonic()) > 0 and not task.done():
                await asyncio.wait((task,), timeout=left_s)
            task.cancel()
        if task.cancelled():
            raise TimeoutError
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _try(self, started: Started, data: bytes, watch: Watch) -> Artifact | Exception:
        try:
            return await self._link.upload(started, RESULT, data, RESULT_CONTENT_TYPE, watch=watch)
        except Exception as exc:  # for who waits for it
            return exc

    @staticmethod
    def _lost(report: Report, without: Ended, size_bytes: int, reason: str) -> Ended:
        log.error("result_lost", job=report.started.assignment.job_id, bytes=size_bytes, error=reason)
        return without._replace(large=LostResult(size_bytes, reason[:1_000].replace("\0", "\ufffd")))
