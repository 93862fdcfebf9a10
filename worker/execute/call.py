"""The contract between the worker's control loop and the engines that execute handlers.

Invariant: ``begin``, ``stop`` and ``kill`` are called on the control loop and never block; ``on_ended`` is called
on the control loop, at most once per call, and exactly once unless the handler outlives ``Engine.close``.
Called by ``worker/`` (which claims, starts and reports) and by the harness. Decides nothing about retries:
that is ``model.retry`` in the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tenure.model.dependencies import Trigger
from tenure.model.jobs import JobSpec
from tenure.model.logs import Level, LogLine
from tenure.model.states import Outcome

if TYPE_CHECKING:
    from tenure.probes.tracing import Run
    from tenure.worker.artifact import Artifact, Source
    from tenure.worker.handler import Handler
    from tenure.worker.upstream import UpstreamPage


class StopCause(StrEnum):
    """Why a running handler is told to stop."""

    CANCELED = "canceled"
    """Somebody canceled the job."""
    LOST = "lost"
    """The claim is no longer trusted: whatever the handler does next counts for nothing."""
    TIMED_OUT = "timed_out"
    """The attempt ran longer than its timeout."""
    RELEASED = "released"
    """The worker gives the job back, because it stops."""


NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Assignment(NamedTuple):
    """One attempt as its worker was given it. ``payload`` and ``checkpoint`` are JSON text."""

    job_id: str
    attempt: int
    fence: int
    namespace: str
    kind: str
    route: str
    payload: str
    checkpoint: str | None = None
    labels: Mapping[str, str] = NO_LABELS
    timeout_s: float | None = None
    parent_id: str | None = None
    parked_attempt: int | None = None
    """The last attempt that parked."""

    @property
    def named(self) -> dict[str, Any]:
        """How lines of the worker's own log name it; the worker's name is on all of them."""
        return {"job": self.job_id, "attempt": self.attempt, "fence": self.fence}


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What went wrong, for people and for ``RetryPolicy.non_retryable``. Bounded by ``Bounds.error_chars``."""

    type: str
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()
    """The types that ``type`` is a kind of."""


@dataclass(frozen=True, slots=True)
class ParkRequest:
    """What a parking attempt waits for. ``checkpoint`` is JSON text; None keeps the one there is."""

    children: tuple[str, ...]
    checkpoint: str | None = None
    trigger: str = Trigger.ALL_FINISHED


class SavedResult(NamedTuple):
    """A result that is too large for its job, and was uploaded."""

    size_bytes: int
    sha256: str
    """In hex."""


class LostResult(NamedTuple):
    """A result that is too large for its job, and could not be uploaded."""

    size_bytes: int
    reason: str


class Ended(NamedTuple):
    """How an attempt ended. ``result`` is JSON text, for completed; ``delay_s`` is for rescheduled.

    An attempt stopped as LOST ends as ``released``: its report is refused by the fence if the loss was real, and
    gives the job back without counting an error if it was not.
    """

    outcome: Outcome
    result: str | None = None
    error: ErrorReport | None = None
    retryable: bool = True
    delay_s: float = 0.0
    spends_budget: bool = False
    """For rescheduled: count it as an error."""
    park: ParkRequest | None = None
    """For parked."""
    large: SavedResult | LostResult | None = None
    """For completed: what became of a result that is not in ``result``."""


class Reporter(Protocol):
    """What an attempt may tell the service while it runs. Lives on the control loop; every write is fenced.

    Each coroutine raises ``OwnershipLost`` when the fence is old.
    """

    async def progress(self, fraction: float, message: str) -> None:
        """Say how far the attempt is, 0 to 1."""
        ...

    async def save_checkpoint(self, text: str) -> None:
        """Keep a JSON text for the job's next attempt."""
        ...

    async def submit_children(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Submit jobs on behalf of the attempt; return their ids in order."""
        ...

    async def read_upstream(self, after: str) -> UpstreamPage:
        """Return a page of what became of the jobs that this one waited for; ``after`` is the ``next`` of the last."""
        ...

    async def load_result(self, job: str) -> bytes:
        """Return the JSON text of the result of a job that this one waited for, wherever it is kept."""
        ...

    async def save_artifact(self, name: str, source: Source, content_type: str) -> Artifact:
        """Upload a file of the attempt: bytes, or what lies at a path."""
        ...

    def deadline(self) -> float:
        """Return the monotonic instant until which the claim is trusted; it moves on with every KeepAlive.

        Called from other threads too: it must only read.
        """
        ...


class LogSink(Protocol):
    """Takes the lines of one attempt's log, from any thread; never blocks, never raises."""

    def write_log(self, line: LogLine) -> None:
        """Add a line."""
        ...

    def takes_logs(self) -> bool:
        """Say whether a line would find room now."""
        ...

    def drop_logs(self, lines: int) -> None:
        """Count lines that were not even made because there was no room."""
        ...


class Call(NamedTuple):
    """One attempt to execute."""

    handler: Handler
    assignment: Assignment
    reporter: Reporter
    on_ended: Callable[[Ended], None]
    log: Any = None
    """A structlog logger that shows what ``ctx.log`` writes, too, but for processes; None: the configured one."""
    sink: LogSink | None = None
    """Where the handler's lines go; None: nowhere."""
    least_level: Level = Level.INFO
    """What ``ctx.log`` and ``logging`` write below it is not kept."""
    run: Run | None = None
    """The span of the attempt, if it is traced."""

    @property
    def write(self) -> Callable[[LogLine], None] | None:
        """What takes a line."""
        return None if self.sink is None else self.sink.write_log


def timeout_s(handler: Handler, assignment: Assignment) -> float | None:
    """Return after how long an attempt times out: the job's timeout or the handler's, the shorter one."""
    own, asked = handler.timeout_s, assignment.timeout_s
    if own is None or asked is None:
        return asked if own is None else own
    return min(own, asked)


class Execution(Protocol):
    """A running attempt, as seen from the control loop."""

    def stop(self, cause: StopCause) -> None:
        """Ask the handler to stop. The first cause decides the outcome; LOST may follow any other and hurries it."""
        ...

    def kill(self) -> None:
        """End the handler for certain where that is possible: processes and commands. Otherwise as ``stop``."""
        ...


class Engine(Protocol):
    """Executes the handlers of one mode."""

    def begin(self, call: Call) -> Execution:
        """Start an attempt; never blocks."""
        ...

    async def close(self) -> None:
        """Stop what runs (as RELEASED), wait a little, kill what can be killed, and free the engine's resources."""
        ...
