"""What a worker says of itself over HTTP: does it live, is it ready, its numbers.

Served on the control loop, so an answer shows that this loop turns. Liveness is what only a restart heals: a kubelet
restarts for it, which ends every attempt here. So a handler that blocks the handler loop does not fail it (claims are
kept alive meanwhile, and processes and threads go on); it is told as a number. An event loop that has ended does:
nothing can run on it any more. Liveness asks nothing of etcd or coordinators, which no restart brings back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette

from tenure.probes.server import application
from tenure.worker.connection import Connection
from tenure.worker.control import Control
from tenure.worker.execute.engines import Engines
from tenure.worker.metrics import REGISTRY

GAUGES = {
    "capacity": "Jobs that this worker takes at the same time.",
    "executing": "Attempts whose handlers are at work.",
    "unreported": "Attempts that ended and whose report is not answered yet.",
    "claims": "Leases that carry a claim, or may.",
    "trust_margin_seconds": "How long the session and all claims will be trusted without another answer from etcd.",
    "loop_blocked_seconds": "For how long the event loop of async handlers, or that of processes, has not turned, as "
    "seen from the first scrape on; a handler that blocks it delays the others.",
    "ready": "1 while registered, trusted, taken by coordinators, and not draining.",
}
"""What is read when somebody scrapes: ``tenure_worker_`` and this name."""


class Gauges(Collector):
    """Reads the gauges of one worker; without ``reads``, what they would be."""

    def __init__(self, reads: Mapping[str, Callable[[], float]] | None = None) -> None:
        self._reads = reads

    def collect(self) -> Iterable[Metric]:
        """See ``prometheus_client``."""
        for name, meaning in GAUGES.items():
            value = None if self._reads is None else self._reads[name]()
            yield GaugeMetricFamily(f"tenure_worker_{name}", meaning, value=value)


def probes(
    capacity: int,
    control: Control,
    connection: Connection,
    engines: Engines,
) -> Starlette:
    """Build the routes ``/livez``, ``/readyz`` and ``/metrics`` of a worker."""
    keeper, link = connection.keeper, connection.link

    def problem() -> str | None:
        return connection.registration.problem() or connection.problem()

    async def readiness() -> str | None:
        return problem()

    async def liveness() -> str | None:
        ended = [loop.name for loop in engines.loops() if loop.has_ended]
        return f"ended: {', '.join(ended)}" if ended else None

    gauges = Gauges(
        {
            "capacity": lambda: capacity,
            "executing": lambda: control.executing,
            "unreported": lambda: control.unreported,
            "claims": lambda: link.claims,
            "trust_margin_seconds": keeper.trust_margin_s,
            "loop_blocked_seconds": lambda: max(
                (loop.blocked_s(keeper.now()) for loop in engines.loops()), default=0.0
            ),
            "ready": lambda: float(problem() is None),
        }
    )
    registry = CollectorRegistry()
    registry.register(gauges)
    registry.register(_Counted())
    return application({"worker": readiness}, registry, alive={"loops": liveness})


class _Counted(Collector):
    """What the process has counted."""

    def collect(self) -> Iterable[Metric]:
        """See ``prometheus_client``."""
        return REGISTRY.collect()
