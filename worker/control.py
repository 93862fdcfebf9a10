"""The control loop of a worker: attempts come from the link, run in the engines, and their ends are reported.

Runs apart from user code, on an event loop of its own. Invariant: an attempt's claim stays alive until its report is
answered; an attempt whose claim is not trusted any more is told to stop, whatever it does.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial

import structlog

from tenure.model.clock import Clock
from tenure.model.logs import Level
from tenure.model.states import Outcome
from tenure.probes import tracing
from tenure.worker.attempt import Attempt
from tenure.worker.execute.call import Call, Ended, ErrorReport, StopCause, timeout_s
from tenure.worker.execute.engines import Engines
from tenure.worker.execute.loops import Census
from tenure.worker.handler import Registry
from tenure.worker.large_results import LargeResults, is_large
from tenure.worker.link import Link, Report, Started
from tenure.worker.logs import AttemptLog, Logs
from tenure.worker.metrics import STARTED, observe_attempt
from tenure.worker.report import Reports

log = structlog.get_logger(__name__)

TICK_S = 0.05
"""How late a handler is stopped at most; the margin of trust has room for twice as much."""


class Control:
    """Runs attempts. ``execute`` and ``tick_forever`` are bodies of tasks."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        engines: Engines,
        capacity: int,
        *,
        least_level: Level = Level.INFO,
        worker: str = "",
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._engines = engines
        self._capacity = capacity
        self._least_level = least_level
        self._worker = worker
        """Its id, as spans tell it."""
        self._running: dict[str, Attempt] = {}
        self._unanswered = Census()
        self._runs: dict[int, tracing.Run] = {}
        """Spans of attempts whose report is not answered, by fence."""
        self._due = math.inf
        """The earliest instant at which one of the attempts may have to be stopped or killed."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.link: Link
        self.reports: Reports
        self.logs: Logs
        self.large_results: LargeResults

    def attach(self, link: Link) -> None:
        """Set the link; it and this object know each other."""
        self.link = link
        self.reports = Reports(link, self._clock, self._answered)
        self.logs = Logs(link, self._clock)
        self.large_results = LargeResults(link, self._clock, self.reports.add)

    def room(self) -> int:
        """Return how many more attempts fit."""
        return self._capacity - len(self._running) - len(self._unanswered)

    @property
    def executing(self) -> int:
        """How many attempts have handlers at work."""
        return len(self._running)

    @property
    def unreported(self) -> int:
        """How many attempts have ended whose report is not answered yet."""
        return len(self._unanswered)

    async def execute(self) -> None:
        """Begin attempts as they start, until cancelled."""
        async for batch in self.link.attempts():
            now = self._clock.monotonic()
            STARTED.add(len(batch))
            for started in batch:
                self._begin(started, now)

    async def tick_forever(self) -> None:
        """Watch over deadlines, until cancelled."""
        while True:
            self.tick()
            await self._clock.sleep(TICK_S)

    def tick(self) -> None:
        """Stop and kill what is due; with thousands of attempts that is seldom, since their trust moves on."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = math.inf
        for attempt in list(self._running.values()):
            attempt.check(now)
            self._watch(attempt)

    def _watch(self, attempt: Attempt) -> None:
        self._due = min(self._due, attempt.due)

    def _stop(self, attempt: Attempt, cause: StopCause) -> None:
        attempt.stop(cause)
        self._watch(attempt)

    def stop(self, job_id: str, fence: int | None, cause: StopCause) -> None:
        """Stop a job's attempt, if it runs here under that fence."""
        attempt = self._running.get(job_id)
        if attempt is not None and fence in (None, attempt.started.assignment.fence):
            self._stop(attempt, cause)

    async def drain(self, grace_s: float) -> None:
        """Let attempts finish within a grace period, then hand them back; return when every report is answered."""
        await self.link.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
                return
        except TimeoutError:
            log.warning("drain_grace_over", running=len(self._running))
        for attempt in list(self._running.values()):
            self._stop(attempt, StopCause.RELEASED)
        await self._idle.wait()

    async def stop_all(self, timeout_s: float) -> None:
        """Stop what runs, killing what can be killed; wait, but no longer than that, until all ends are answered."""
        await self._engines.close()
        if not await self._unanswered.empty(timeout_s):
            log.warning("reports_given_up", reports=len(self._unanswered))

    def _begin(self, started: Started, now: float) -> None:
        assignment = started.assignment
        trusted_until = self.link.trusted_until(started)
        if now >= trusted_until:
            # Claimed and started, but too late: to run it now would be to run without trust.
            self._report(started, Ended(Outcome.RELEASED))
            return
        handler = self._registry.get(assignment.kind)
        if handler is None:
            error = ErrorReport("UnknownKind", f"this worker has no handler for kind {assignment.kind!r}")
            self._report(started, Ended(Outcome.FAILED, error=error))
            return
        limit_s = timeout_s(handler, assignment)
        attempt = Attempt(started, self.link, self._clock, self._ended, limit_s, trusted_until, self.logs)
        if (before := self._running.get(assignment.job_id)) is not None:
            self._stop(
                before, StopCause.LOST
            )  # the job came back to us under a newer fence: the older attempt is a zombie
            self._running[f"{assignment.job_id}#{before.started.assignment.fence}"] = before
        self._running[assignment.job_id] = attempt
        attempt.began_at = now
        self._watch(attempt)
        self._idle.clear()
        attempt.execution = self._engines.begin(
            Call(
                handler,
                assignment,
                attempt,
                attempt.finished,
                sink=attempt,
                least_level=self._least_level,
                run=self._traced(started),
            )
        )

    def _traced(self, started: Started) -> tracing.Run | None:
        one = started.assignment
        run = tracing.begin(
            tracing.Identity(
                one.job_id, one.kind, one.route, one.namespace, one.attempt, one.fence, one.labels, self._worker
            )
        )
        if run is not None:
            self._runs[one.fence] = run
        return run

    def _ended(self, attempt: Attempt, ended: Ended) -> None:
        assignment = attempt.started.assignment
        observe_attempt(self._clock.monotonic() - attempt.began_at, assignment.kind, ended.outcome)
        if (run := self._runs.get(assignment.fence)) is not None:
            error = ended.error
            run.ended(str(ended.outcome), error.type if error else None, error.message if error else "")
        if self._running.get(assignment.job_id) is attempt:
            del self._running[assignment.job_id]
        else:
            self._running.pop(f"{assignment.job_id}#{assignment.fence}", None)
        self._report(attempt.started, ended, attempt.upload_until, attempt.log)

    def _report(
        self, started: Started, ended: Ended, upload_until: float = math.inf, own_log: AttemptLog | None = None
    ) -> None:
        # Its place is taken until the report is answered.
        self._unanswered.enter()
        self._idle.clear()
        send = partial(self._send, Report(started, ended), upload_until)
        if own_log is None:
            send()
        else:
            self.logs.end(own_log, send)  # first its lines are written

    def _send(self, report: Report, upload_until: float) -> None:
        if is_large(report.ended):
            self.large_results.add(report, until=upload_until)
        else:
            self.reports.add(report)

    def _answered(self, report: Report) -> None:
        if (run := self._runs.pop(report.started.assignment.fence, None)) is not None:
            run.reported()
        self.logs.forget(report.started)
        self._unanswered.leave()
        if not self._running and not len(self._unanswered):
            self._idle.set()
