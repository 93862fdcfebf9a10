"""Sits in the worker's process and writes down what the worker is told: answers to reports, and how long it may trust.

It changes nothing: each wrapped method is called as it was, with what it was called with. Installed by ``handlers``.
Not in a fork server or a handler's process: it brings gRPC with it.
"""

from __future__ import annotations

import time
from typing import Any

from tests.chaos import effects
from tests.chaos.handlers import KILLABLE
from tests.chaos.history import Deadline, Finish

from tenure.v1 import wire
from tenure.v1 import worker_service_pb2 as pb
from tenure.worker.coordinators import Coordinators
from tenure.worker.direct import DirectLink
from tenure.worker.link import Started

VERDICTS = {
    pb.VERDICT_RECORDED: "recorded",
    pb.VERDICT_REPEATED: "repeated",
    pb.VERDICT_LOST: "lost",
    pb.VERDICT_INVALID: "invalid",
    pb.VERDICT_LOCKED: "locked",
}


def install() -> None:
    """Wrap the worker's calls to coordinators and its view of trust."""
    _record_reports()
    _record_deadlines()


def _record_reports() -> None:
    call = Coordinators.call

    async def recorded(self: Coordinators, method: str, request: Any, **options: Any) -> Any:
        if method != "FinishAttempts":
            return await call(self, method, request, **options)
        verdicts = ["info"] * len(request.reports)
        try:
            response = await call(self, method, request, **options)
            verdicts = [VERDICTS[answer.verdict] for answer in response.attempts]
            return response
        finally:
            for report, verdict in zip(request.reports, verdicts, strict=True):
                effects.record(
                    Finish(
                        at=time.monotonic(),
                        job=report.job_id,
                        fence=report.fence,
                        outcome=str(wire.OUTCOME_FROM_PB[report.outcome]),
                        verdict=verdict,
                    )
                )

    Coordinators.call = recorded  # type: ignore[method-assign]


def _record_deadlines() -> None:
    trusted_until = DirectLink.trusted_until
    last: dict[int, tuple[int, float]] = {}

    def recorded(self: DirectLink, started: Started) -> float:
        until = trusted_until(self, started)
        one = started.assignment
        if one.kind in KILLABLE:
            trust = self._keeper.trust(started.lease)
            if trust is not None and last.get(started.lease) != (one.fence, trust.expires_at):
                last[started.lease] = (one.fence, trust.expires_at)
                effects.record(
                    Deadline(at=time.monotonic(), job=one.job_id, fence=one.fence, expires_at=trust.expires_at)
                )
        return until

    DirectLink.trusted_until = recorded  # type: ignore[method-assign]
