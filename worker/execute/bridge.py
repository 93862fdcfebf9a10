"""A handler's requests, taken from whatever thread it runs in to the reporter on the control loop.

Owns the state of one attempt that several threads look at: why it is to stop. Invariant: a cause, once set, stays,
but for LOST, which replaces any other. Used by the engines as the ``Link`` of the contexts they make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from tenure.model.jobs import JobSpec
from tenure.model.logs import Level, LogLine
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Call, StopCause
from tenure.worker.upstream import UpstreamPage

T = TypeVar("T")


class Bridge:
    """The link of one attempt that runs in the worker's own process."""

    __slots__ = ("_loop", "call", "cause", "first_cause", "timeout_at")

    def __init__(self, call: Call, loop: asyncio.AbstractEventLoop, timeout_at: float | None = None) -> None:
        self.call = call
        self.cause: StopCause | None = None
        self.first_cause: StopCause | None = None
        """Decides the outcome."""
        self.timeout_at = timeout_at
        self._loop = loop

    def note(self, cause: StopCause) -> bool:
        """Record a cause; False if it adds nothing to what is known."""
        if self.first_cause is None:
            self.first_cause = self.cause = cause
            return True
        if cause is StopCause.LOST and self.cause is not StopCause.LOST:
            self.cause = cause
            return True
        return False

    def deadline(self) -> float:
        """Return the monotonic instant until which the claim is trusted."""
        return self.call.reporter.deadline()

    def progress(self, fraction: float, message: str) -> Future[None]:
        """Send a progress report."""
        return self._ask(self.call.reporter.progress(fraction, message))

    def save_checkpoint(self, text: str) -> Future[None]:
        """Send a checkpoint."""
        return self._ask(self.call.reporter.save_checkpoint(text))

    def submit_children(self, jobs: Sequence[JobSpec]) -> Future[list[str]]:
        """Send jobs to submit."""
        return self._ask(self.call.reporter.submit_children(jobs))

    def read_upstream(self, after: str) -> Future[UpstreamPage]:
        """Ask for a page of what became of the jobs that this one waited for."""
        return self._ask(self.call.reporter.read_upstream(after))

    def load_result(self, job: str) -> Future[bytes]:
        """Ask for the result of a job that this one waited for."""
        return self._ask(self.call.reporter.load_result(job))

    def write_log(self, line: LogLine) -> None:
        """Add a line to the attempt's log."""
        if self.call.sink is not None:
            self.call.sink.write_log(line)

    def takes_logs(self) -> bool:
        """Say whether a line would find room now."""
        return self.call.sink is not None and self.call.sink.takes_logs()

    def drop_logs(self, lines: int) -> None:
        """Count lines that were not even made."""
        if self.call.sink is not None:
            self.call.sink.drop_logs(lines)

    @property
    def least_level(self) -> Level:
        """The level from which on lines are kept."""
        return self.call.least_level

    def save_artifact(self, name: str, source: Source, content_type: str) -> Future[Artifact]:
        """Upload a file."""
        return self._ask(self.call.reporter.save_artifact(name, source, content_type))

    def _ask(self, request: Coroutine[Any, Any, T]) -> Future[T]:
        # Born outside a TaskGroup on purpose: the handler that waits for it owns it, and lives in another thread.
        return asyncio.run_coroutine_threadsafe(request, self._loop)
