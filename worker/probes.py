"""What a worker says of itself over HTTP: does it live, is it ready, its numbers.

Served on the control loop, so an answer shows that this loop turns. Liveness is what only a restart heals: a kubelet
restarts for it, which ends every attempt here. So a handler that blocks the handler loop does not fail it (claims are
kept alive meanwhile, and processes and threads go on); it is told as a number. An event loop that has ended does:
nothing can run on it any more. Liveness asks nothing of etcd or coordinators, which no restart brings back.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette

from tenure.probes.server import application
from tenure.worker.connection import Connection
from tenure.worker.control import Control
from tenure.worker.execute.engines import Engines


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

    registry = CollectorRegistry()
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "capacity": ("Jobs that this worker takes at the same time.", lambda: capacity),
        "executing": ("Attempts whose handlers are at work.", lambda: control.executing),
        "unreported": ("Attempts that ended and whose report is not answered yet.", lambda: control.unreported),
        "claims": ("Leases that carry a claim, or may.", lambda: link.claims),
        "trust_margin_seconds": (
            "How long the session and all claims will be trusted without another answer from etcd.",
            keeper.trust_margin_s,
        ),
        "loop_blocked_seconds": (
            "For how long the event loop of async handlers, or that of processes, has not turned, as seen from the "
            "first scrape on; a handler that blocks it delays the others.",
            lambda: max((loop.blocked_s(keeper.now()) for loop in engines.loops()), default=0.0),
        ),
        "ready": ("1 while registered, trusted, taken by coordinators, and not draining.", lambda: problem() is None),
    }
    for name, (meaning, read) in gauges.items():
        Gauge(f"tenure_worker_{name}", meaning, registry=registry).set_function(read)
    return application({"worker": readiness}, registry, alive={"loops": liveness})
