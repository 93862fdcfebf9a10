"""Overview: throughput, what waits and for how long, failures, pools, workers, lost leases, who leads."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from tenure.client.overview import Overview
from tenure.dashboard import charts, render
from tenure.dashboard.visit import Visit


async def show(visit: Visit) -> Response:
    """Show how it goes."""
    return visit.page("overview.html", **_context(visit, await visit.client.overview()))


async def live(visit: Visit) -> Response:
    """Tell how it goes, again and again."""

    async def produce() -> dict[str, str]:
        context = visit.shared_context(**_context(visit, await visit.client.overview()))
        return {name: render.block("overview.html", name, context) for name in ("figures", "summary")}

    return visit.dashboard.live.watch(visit, "overview", produce)


def _context(visit: Visit, overview: Overview) -> dict[str, Any]:
    now = overview.at or visit.now
    return {"overview": overview, "now": now, "chart": charts.minutes(overview.minutes), "summary": _summary(overview)}


def _summary(overview: Overview) -> str:
    """Return what a screen reader is told when it changes: no counts, which change all the time."""
    told = []
    told.append(f"{overview.leader} leads." if overview.leader else "Nobody leads: nothing is dispatched.")
    if not overview.workers:
        told.append("No worker is there.")
    if overview.silent:
        told.append(f"{len(overview.silent)} coordinators did not answer for their figures.")
    if overview.last_minute.lost:
        told.append("Leases were lost in the last minute.")
    if overview.last_minute.failed:
        told.append("Jobs have failed in the last minute.")
    return " ".join(told)


ROUTES = (("/", ("GET",), show), ("/live/overview", ("GET",), live))
