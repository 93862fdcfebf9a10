"""What a handler is told of the jobs that its job waited for: those it depends on, or children that it parked on.

Read page by page when the handler asks, never shipped with the start: most handlers do not look, and a fan-in may be
wide. Invariant: a page is bounded (the service's affair), so that it fits into any frame on its way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tenure.model.states import JobState
from tenure.worker.execute.call import ErrorReport, LostResult, SavedResult


@dataclass(frozen=True, slots=True)
class UpstreamJob:
    """A job that this one waited for. One that has not ended (``any_completed``, ``any_finished``) says where it is."""

    id: str
    kind: str
    key: str
    """Its idempotency key; of a child the ``ref`` under which it was submitted."""
    state: JobState
    result_text: str | None = None
    """JSON text, if it completed and is not forgotten."""
    error: ErrorReport | None = None
    reason: str = ""
    large: SavedResult | LostResult | None = None
    """What became of a result that is not in ``result``. If it is in the object store, ``ctx.result_of`` gives it."""
    result_url: str = ""
    """For who fetches it; empty until then."""

    @property
    def result(self) -> Any:
        """The result, parsed; None if there is none, or if it is ``large``."""
        return json.loads(self.result_text) if self.result_text is not None else None

    @property
    def completed(self) -> bool:
        """Say whether it completed."""
        return self.state is JobState.COMPLETED


@dataclass(frozen=True, slots=True)
class UpstreamPage:
    """Some of those jobs, and where the next page begins; empty on the last."""

    jobs: Sequence[UpstreamJob]
    next: str = ""

    def to_frame(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {"jobs": [_frame(job) for job in self.jobs], "next": self.next}

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> UpstreamPage:
        """Rebuild it from ``to_frame``."""
        return cls([_job(job) for job in frame["jobs"]], frame["next"])


def _frame(job: UpstreamJob) -> dict[str, Any]:
    return asdict(job) | {"large": job.large._asdict() if job.large is not None else None}


def _job(frame: Mapping[str, Any]) -> UpstreamJob:
    error = frame["error"]
    told = ErrorReport(**{**error, "bases": tuple(error["bases"])}) if error else None
    large = frame["large"]
    kept = (SavedResult if "sha256" in large else LostResult)(**large) if large else None
    return UpstreamJob(**{**frame, "state": JobState(frame["state"]), "error": told, "large": kept})
