"""Whether coordinators take this worker for one: asked before there is a job, and now and then.

A worker registers in etcd, where nobody looks at the credentials that it shows to coordinators. So it asks one of them
to start nothing. Readiness tells the answer (``worker.probes``); nothing else depends on it. A runner needs none of
this: its session is opened by a coordinator.
"""

from __future__ import annotations

import random

import structlog

from tenure.model.clock import Clock
from tenure.model.errors import PermissionDenied, TenureError, Unauthenticated
from tenure.v1 import worker_service_pb2 as pb
from tenure.worker.coordinators import Coordinators

log = structlog.get_logger(__name__)

LOOK_S = 60.0
AGAIN_S = 5.0
"""After a refusal, or no answer."""


class Introduction:
    """Shows a worker's credentials. ``run`` is the body of a task."""

    def __init__(self, coordinators: Coordinators, clock: Clock, worker: str) -> None:
        self._coordinators = coordinators
        self._clock = clock
        self._request = pb.StartAttemptsRequest(worker=worker)
        self._problem: str | None = "no coordinator has answered yet"

    def problem(self) -> str | None:
        """Say why coordinators start nothing for this worker; None if they do, as far as is known."""
        return self._problem

    async def run(self) -> None:
        """Ask, now and then. A coordinator that does not answer changes nothing."""
        while True:
            pause_s = AGAIN_S
            try:
                await self._coordinators.call("StartAttempts", self._request)
                self._problem = None
                pause_s = LOOK_S
            except (Unauthenticated, PermissionDenied) as exc:
                self._refused(exc)
            except TenureError as exc:
                log.info("not_introduced", error=exc.message)
            await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))

    def _refused(self, exc: TenureError) -> None:
        problem = f"refused by coordinators: {exc.message}"
        if problem != self._problem:  # said once; readiness goes on saying it
            log.warning("worker_refused", error=exc.message, next_step=exc.hint)
        self._problem = problem
