"""One attempt while it runs: when it must stop, and what it may say.

Invariant: a handler is told to stop before its claim can expire on the server, and killed, where it can be, before
the margin is used up (``model.trust``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tenure.model.jobs import JobSpec
from tenure.model.logs import LogLine
from tenure.model.trust import WAKE_S
from tenure.worker.execute.call import Ended, Execution, StopCause
from tenure.worker.link import Link, Started
from tenure.worker.logs import AttemptLog, Logs

if TYPE_CHECKING:
    from tenure.model.clock import Clock
    from tenure.worker.artifact import Artifact, Source
    from tenure.worker.upstream import UpstreamPage

STOP_GRACE_S = 5.0
"""How long a canceled, timed-out or released handler may take before it is killed."""
OVERDUE_S = 10.0
"""How long past its timeout a handler that does not stop keeps its claim: longer than engine and leader take."""
UPLOAD_GRACE_S = 2.0
"""How long past the timeout a large result may take to be uploaded: the leader ends the attempt a little later."""
LOST_GRACE_S = WAKE_S
"""How long a handler whose claim is no longer trusted may take: the margin has no more to give."""


class Attempt:
    """A running attempt; also its handler's ``Reporter``. Lives on the control loop."""

    __slots__ = (
        "_clock",
        "_kill_at",
        "_link",
        "_logs",
        "_on_ended",
        "_overdue_at",
        "_trusted_until",
        "began_at",
        "cause",
        "ended",
        "execution",
        "log",
        "started",
        "upload_until",
    )

    def __init__(
        self,
        started: Started,
        link: Link,
        clock: Clock,
        on_ended: Callable[[Attempt, Ended], None],
        timeout_s: float | None = None,
        trusted_until: float | None = None,
        logs: Logs | None = None,
    ) -> None:
        self.started = started
        self.execution: Execution | None = None
        self.cause: StopCause | None = None
        self.ended: Ended | None = None
        self.log: AttemptLog | None = None
        """Made by the first line."""
        self.began_at = math.nan
        """The instant from which on its handler may run; set by whoever has it run."""
        self._logs = logs
        self._trusted_until = link.trusted_until(started) if trusted_until is None else trusted_until
        self._link = link
        self._clock = clock
        self._on_ended = on_ended
        self._kill_at = 0.0
        self._overdue_at = math.inf if timeout_s is None else clock.monotonic() + timeout_s + OVERDUE_S
        self.upload_until = self._overdue_at - OVERDUE_S + UPLOAD_GRACE_S

    def finished(self, ended: Ended) -> None:
        """Take the engine's word that the handler ended."""
        if self.ended is None:
            self.ended = ended
            self._on_ended(self, ended)

    def stop(self, cause: StopCause) -> None:
        """Ask the handler to stop, and kill it if it takes too long. Being lost outdoes every other cause."""
        if self.cause is cause or self.cause is StopCause.LOST or self.ended is not None:
            return
        self.cause = cause
        now = self._clock.monotonic()
        if cause is StopCause.LOST:
            # From the end of trust, not from when that was noticed: a worker that was held up has used up the margin.
            self._kill_at = min(now, self._trusted_until) + LOST_GRACE_S
            if self.log is not None and self._logs is not None:
                self._logs.close(self.log)
        else:
            self._kill_at = now + STOP_GRACE_S
        if self.execution is not None:
            self.execution.stop(cause)

    @property
    def due(self) -> float:
        """The instant before which there is nothing to check, unless the attempt is told to stop meanwhile.

        The trust as it was last seen can only have been extended since: whoever takes it away says so, by ``stop``.
        """
        due = self._overdue_at if self.cause is StopCause.LOST else min(self._overdue_at, self._trusted_until)
        return due if self.cause is None else min(due, self._kill_at)

    def check(self, now: float) -> None:
        """Stop or kill what is due. Timeouts are the engines' affair."""
        if self.cause is not None and now >= self._kill_at:
            self._kill_at = now + STOP_GRACE_S  # once is enough, but a kill that missed is repeated
            if self.execution is not None:
                self.execution.kill()
        if now >= self._overdue_at:
            self._overdue_at = math.inf
            self._link.forsake(self.started)
        if self.cause is not StopCause.LOST:
            until = self._link.trusted_until(self.started)
            if now < until:
                self._trusted_until = until
            else:
                self.stop(StopCause.LOST)

    # -- Reporter --

    async def progress(self, fraction: float, message: str) -> None:
        """See ``Reporter``."""
        await self._link.progress(self.started, fraction, message)

    async def save_checkpoint(self, text: str) -> None:
        """See ``Reporter``."""
        await self._link.save_checkpoint(self.started, text)

    async def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        """See ``Reporter``."""
        return await self._link.submit_children(self.started, jobs)

    async def read_upstream(self, after: str) -> UpstreamPage:
        """See ``Reporter``."""
        return await self._link.read_upstream(self.started, after)

    async def load_result(self, job: str) -> bytes:
        """See ``Reporter``."""
        return await self._link.load_result(self.started, job)

    async def save_artifact(self, name: str, source: Source, content_type: str) -> Artifact:
        """See ``Reporter``."""
        return await self._link.upload(self.started, name, source, content_type)

    def deadline(self) -> float:
        """See ``Reporter``."""
        return self._link.trusted_until(self.started)

    # -- LogSink --

    def write_log(self, line: LogLine) -> None:
        """See ``LogSink``."""
        own = self._own_log()
        if own is not None and self._logs is not None:
            self._logs.write(own, line)

    def takes_logs(self) -> bool:
        """See ``LogSink``."""
        own = self._own_log()
        return own is not None and self._logs is not None and self._logs.has_room(own)

    def drop_logs(self, lines: int) -> None:
        """See ``LogSink``."""
        own = self._own_log()
        if own is not None and self._logs is not None:
            self._logs.drop(own, lines)

    def _own_log(self) -> AttemptLog | None:
        """Return the log, made by whichever thread asks first; None once there is nothing to be written any more."""
        if self._logs is None or self.ended is not None or self.cause is StopCause.LOST:
            return None
        if self.log is None:
            self._logs.open(self)
        return self.log
