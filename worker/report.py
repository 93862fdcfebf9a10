"""Report: ends of attempts travel to a coordinator in batches, again and again until each is answered.

The claim stays alive until then. A report may be repeated: the coordinator answers from what it recorded. Ownership
lost is an answer, too: the result is dropped.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from tenure.model.clock import Clock, elapsed_s
from tenure.model.errors import BoundExceeded, InvalidInput, TenureError, Unavailable
from tenure.model.states import Outcome
from tenure.worker.execute.call import Ended, ErrorReport, LostResult, SavedResult
from tenure.worker.execute.outcome import failed
from tenure.worker.link import Answer, Link, Report
from tenure.worker.metrics import ENDED, OWNERSHIP_LOST, REPORT_S

log = structlog.get_logger(__name__)

MAX_BATCH = 500
CALLS_IN_FLIGHT = 2
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
LOCKED_PAUSE_S = 0.5
"""Until a report is sent again whose job a transaction has locked; the coordinator waits a little for it, too."""


@dataclass(slots=True)
class _Line:
    """Reports that wait to be sent."""

    reports: deque[Report] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, report: Report) -> None:
        self.reports.append(report)
        self.more.set()

    async def take(self) -> list[Report]:
        while not self.reports:
            self.more.clear()
            await self.more.wait()
        return [self.reports.popleft() for _ in range(min(len(self.reports), MAX_BATCH))]


class Reports:
    """The reports that are not answered yet. ``run`` is the body of a task."""

    def __init__(self, link: Link, clock: Clock, on_answered: Callable[[Report], None]) -> None:
        self._link = link
        self._clock = clock
        self._on_answered = on_answered
        self._waiting = _Line()
        self._locked = _Line()
        """Those whose jobs were locked travel with each other, so that nobody else waits for the lock."""
        self._lost = 0

    def add(self, report: Report) -> None:
        """Send this with the next batch."""
        self._waiting.add(report)

    async def run(self) -> None:
        """Send reports until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLS_IN_FLIGHT):
                group.create_task(self._send_forever(self._waiting))
            group.create_task(self._send_forever(self._locked, wait_s=LOCKED_PAUSE_S))

    async def _send_forever(self, line: _Line, *, wait_s: float = 0.0) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            batch = await line.take()
            if wait_s:
                await self._clock.sleep(wait_s)
            began = elapsed_s()
            try:
                answers = await self._link.finish(batch)
                REPORT_S.observe(elapsed_s() - began)
            except (Unavailable, BoundExceeded) as exc:
                # Not answered, or Postgres has no room: the jobs stay ours while their leases last, so they go again.
                log.warning("reports_not_answered", reports=len(batch), error=exc.message, pause_s=round(pause_s, 2))
                line.reports.extendleft(reversed(batch))
                await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
                continue
            except Exception as exc:
                # The batch as a whole was refused, or cannot be written: each for itself; only the one at fault is.
                log.error("reports_refused", reports=len(batch), error=str(exc))
                for report in batch:
                    await self._send_alone(report)
                continue
            pause_s = FIRST_PAUSE_S
            await self._settle(batch, answers)

    async def _send_alone(self, report: Report) -> None:
        try:
            await self._settle([report], await self._link.finish([report]))
        except InvalidInput as exc:
            await self._refused(report, exc.message)
        except TenureError as exc:
            # Not the report's fault, as far as anybody knows: again, while its claim lasts.
            log.warning("report_not_answered", **report.started.assignment.named, error=exc.message)
            await self._clock.sleep(FIRST_PAUSE_S)
            self.add(report)
        except Exception as exc:  # it cannot even be written for the wire
            await self._refused(report, f"{type(exc).__name__}: {exc}")

    async def _settle(self, batch: Sequence[Report], answers: Sequence[Answer]) -> None:
        pairs = zip(batch, answers, strict=True)
        for outcome, ended in Counter([report.ended.outcome for report, answer in pairs if answer.recorded]).items():
            ENDED.add(ended, outcome.value)
        for report, answer in zip(batch, answers, strict=True):
            if answer.locked:
                log.info("report_waits_for_a_lock", **report.started.assignment.named)
                self._locked.add(report)
                continue
            if answer.unknown:
                log.error("report_not_known", **report.started.assignment.named)
                told = "the result is large, and coordinators are of a release that does not know of such"
                self.add(Report(report.started, failed("ResultTooLarge", told, retryable=True), is_substitute=True))
                continue
            if answer.problem is not None:
                await self._refused(report, answer.problem)
                continue
            if not answer.recorded:
                self._lost += 1
                OWNERSHIP_LOST.add(1)
                log.warning(
                    "ownership_lost",
                    so_far=self._lost,
                    **report.started.assignment.named,
                    outcome=report.ended.outcome,
                )
            self._on_answered(report)

    async def _refused(self, report: Report, problem: str) -> None:
        """A report that cannot be stored becomes a failure that can; if even that is refused the claim is let go."""
        if report.is_substitute:
            log.error("report_dropped", **report.started.assignment.named, problem=problem)
            await self._link.abandon(report.started)
            self._on_answered(report)
            return
        if isinstance(report.ended.large, SavedResult):
            # The coordinators do not know of it: that costs the result, not the completion.
            lost = LostResult(report.ended.large.size_bytes, f"the result was refused: {problem}"[:1_000])
            self.add(Report(report.started, report.ended._replace(large=lost), is_substitute=True))
            return
        error = ErrorReport("InvalidReport", f"the result was refused: {problem}")
        self.add(Report(report.started, Ended(Outcome.FAILED, error=error, retryable=False), is_substitute=True))
