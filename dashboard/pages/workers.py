"""Workers, and the claims that they hold, with what is left of their leases: live."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response

from tenure.dashboard import render
from tenure.dashboard.visit import Visit

WORKERS = 500
CLAIMS = 200
EVERY_S = 2.0


async def show(visit: Visit) -> Response:
    """List them."""
    return visit.page("workers.html", **await _context(visit))


async def live(visit: Visit) -> Response:
    """Tell who is there and what they hold, again and again."""

    async def produce() -> dict[str, str]:
        return {"workers": render.block("workers.html", "workers", visit.shared_context(**await _context(visit)))}

    return visit.dashboard.live.watch(visit, "workers", produce, every_s=EVERY_S)


async def _context(visit: Visit) -> dict[str, Any]:
    workers, claims, cluster = await asyncio.gather(
        visit.client.workers(), visit.client.claims(limit=CLAIMS, with_time_left=True), visit.client.cluster()
    )
    return {
        "workers": workers[:WORKERS],
        "workers_left": max(0, len(workers) - WORKERS),
        "held": sum(worker.claims for worker in workers),
        "claims": claims,
        "cluster": cluster,
    }


ROUTES = (("/workers", ("GET",), show), ("/live/workers", ("GET",), live))
