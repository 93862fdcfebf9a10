"""The link: all that differs between a worker beside etcd (direct) and a runner behind HTTPS (remote).

A worker asks its link for attempts, reports their ends, and is told when one must stop. How a claim is won and kept
alive is the link's affair; *that* an attempt is executed only while its claim is trusted is the worker's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tenure.model.errors import Unavailable
from tenure.model.jobs import JobSpec
from tenure.model.logs import LogLine
from tenure.worker.artifact import Artifact, Source
from tenure.worker.execute.call import Assignment, Ended, StopCause
from tenure.worker.upstream import UpstreamPage

if TYPE_CHECKING:
    from tenure.worker.upload import Watch


class Started(NamedTuple):
    """An attempt to execute now, and the claim under which it runs."""

    assignment: Assignment
    lease: int
    claim_revision: int


class Report(NamedTuple):
    """How an attempt ended, to be reported until it is answered."""

    started: Started
    ended: Ended
    is_substitute: bool = False
    """Stands for a report that was refused as malformed."""


class Answer(NamedTuple):
    """What became of a report: recorded, or refused because ownership was lost, or malformed (``problem``).

    ``locked``: nothing yet, since a transaction has locked the job; report again.
    """

    recorded: bool
    problem: str | None = None
    locked: bool = False


class LogBatch(NamedTuple):
    """Lines of one attempt's log, numbered from ``first_seq``."""

    started: Started
    first_seq: int
    lines: tuple[LogLine, ...]


class LogAnswer(NamedTuple):
    """What became of a batch: it was written (perhaps before), unless one of these is set."""

    is_over: bool = False
    """Ownership was lost, or the log is full: send no more."""
    is_again: bool = False
    """Nothing yet: send it again."""
    problem: str | None = None
    """It was refused as malformed."""


class UnknownCall(Unavailable):
    """Coordinators that answered are of a release that does not have this call; during an upgrade one soon will."""


StopAttempt = Callable[[str, int | None, StopCause], None]
"""Called with a job id, a fence (None: whichever runs) and the cause."""


class Link(Protocol):
    """What a worker needs from the outside."""

    def attempts(self) -> AsyncIterator[Sequence[Started]]:
        """Yield attempts that this worker is to execute, in batches, as its room allows."""
        ...

    def trusted_until(self, started: Started) -> float:
        """Return the monotonic instant until which the attempt's claim is trusted; only reads, from any thread."""
        ...

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        """Report ends, once. Raises ``Unavailable``: the outcome is unknown, report again."""
        ...

    async def progress(self, started: Started, fraction: float, message: str) -> None:
        """Report progress. Raises ``OwnershipLost``."""
        ...

    async def save_checkpoint(self, started: Started, text: str) -> None:
        """Save a checkpoint. Raises ``OwnershipLost``."""
        ...

    async def submit_children(self, started: Started, jobs: Sequence[JobSpec]) -> list[str]:
        """Submit jobs on behalf of the attempt. Raises ``OwnershipLost``, ``InvalidInput``, ``Conflict``."""
        ...

    async def read_upstream(self, started: Started, after: str) -> UpstreamPage:
        """Return a page of what became of the jobs that this one waited for. Raises ``OwnershipLost``."""
        ...

    async def append_logs(self, batches: Sequence[LogBatch]) -> list[LogAnswer]:
        """Write lines to attempts' logs, once. Raises ``Unavailable``: the outcome is unknown, send them again."""
        ...

    async def upload(
        self, started: Started, name: str, source: Source, content_type: str, *, watch: Watch | None = None
    ) -> Artifact:
        """Save a file of the attempt. Raises as ``worker.upload.Uploader.upload``."""
        ...

    def forsake(self, started: Started) -> None:
        """Renew the attempt's claim no more: it expires, and somebody else may have the job."""
        ...

    async def abandon(self, started: Started) -> None:
        """Let go of the claim of an attempt that cannot be reported."""
        ...

    async def drain(self) -> None:
        """Take no more; return when nothing is on its way in any more."""
        ...
