"""Schedules: when they fire next, what became of their last ticks, and pause, resume and trigger."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from starlette.responses import Response

from tenure.client.schedules import Schedule
from tenure.dashboard.visit import Visit
from tenure.model.errors import TenureError

SHOWN = 500
TICKS = 10


async def show_all(visit: Visit) -> Response:
    """List schedules."""
    namespace = visit.query.get("namespace")
    found: list[Schedule] = []
    is_cut = False
    async for schedule in visit.client.schedules(namespace=namespace, page_size=SHOWN + 1):
        if len(found) == SHOWN:
            is_cut = True
            break
        found.append(schedule)
    return visit.page(
        "schedules.html",
        schedules=found,
        is_cut=is_cut,
        shown=SHOWN,
        asked={"namespace": namespace or ""},
        now=datetime.now(UTC),
    )


async def show(visit: Visit) -> Response:
    """Show one, with its ticks to come and its last job."""
    schedule = await visit.client.get_schedule(visit.path("name"), namespace=visit.path("namespace"))
    ticks, last = await asyncio.gather(_ticks(visit, schedule), _last(visit, schedule))
    return visit.page("schedule.html", schedule=schedule, ticks=ticks, last=last, now=datetime.now(UTC))


async def pause(visit: Visit) -> Response:
    """Let it tick no more."""
    await visit.client.pause_schedule(visit.path("name"), namespace=visit.path("namespace"))
    return visit.back(_path(visit), "Paused.")


async def resume(visit: Visit) -> Response:
    """Let it tick again."""
    await visit.client.resume_schedule(visit.path("name"), namespace=visit.path("namespace"))
    return visit.back(_path(visit), "It ticks again.")


async def trigger(visit: Visit) -> Response:
    """Make a job of it now."""
    made = await visit.client.trigger_schedule(visit.path("name"), namespace=visit.path("namespace"))
    return visit.back(f"/ui/jobs/{made.job_id}", "Triggered: this is its job.")


async def _ticks(visit: Visit, schedule: Schedule) -> list[object]:
    try:
        return list(await visit.client.preview_schedule(schedule.name, namespace=schedule.spec.namespace, count=TICKS))
    except TenureError:  # a schedule that is over has none
        return []


async def _last(visit: Visit, schedule: Schedule) -> object:
    if schedule.last_job_id is None:
        return None
    try:
        return await visit.client.get(schedule.last_job_id)
    except TenureError:  # retention has removed it
        return None


def _path(visit: Visit) -> str:
    return f"/ui/schedules/{visit.path('namespace')}/{visit.path('name')}"


_ONE = "/schedules/{namespace}/{name}"
ROUTES = (
    ("/schedules", ("GET",), show_all),
    (_ONE, ("GET",), show),
    (f"{_ONE}/pause", ("POST",), pause),
    (f"{_ONE}/resume", ("POST",), resume),
    (f"{_ONE}/trigger", ("POST",), trigger),
)
