"""Schedules: when they fire next, what became of their last ticks, and pause, resume and trigger."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import Response

from tenure.client.records import Job
from tenure.client.schedules import Schedule
from tenure.dashboard.visit import Visit
from tenure.model.errors import TenureError

SHOWN = 500
TICKS = 10
LOOKED_AT = 200
"""Of the newest jobs of its kind, so many are looked through for those that a schedule has made."""
JOBS = 20
"""Of those, so many are shown."""


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
    )


async def show(visit: Visit) -> Response:
    """Show one, with its ticks to come, its last job, and the newest ones that it has made."""
    schedule = await visit.client.get_schedule(visit.path("name"), namespace=visit.path("namespace"))
    ticks, last, jobs = await asyncio.gather(_ticks(visit, schedule), _last(visit, schedule), _newest(visit, schedule))
    return visit.page(
        "schedule.html",
        schedule=schedule,
        ticks=ticks,
        last=last,
        jobs=jobs[:JOBS],
        found=len(jobs),
        looked_at=LOOKED_AT,
    )


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


async def _newest(visit: Visit, schedule: Schedule) -> list[Job]:
    spec = schedule.spec
    page = await visit.client.list_page(kind=spec.job.kind, namespace=spec.namespace, page_size=LOOKED_AT)
    return [job for job in page.jobs if job.schedule_id == schedule.id]


async def name_of(visit: Visit, job: Job) -> str:
    """Return the name of the schedule that made a job; nothing where it is deleted, or not among the first ones."""
    if job.schedule_id is None:
        return ""
    looked_at = 0
    with suppress(TenureError):  # who may see the job, and no schedules, is shown the job
        async for schedule in visit.client.schedules(namespace=job.namespace):
            looked_at += 1
            if schedule.id == job.schedule_id:
                return schedule.name
            if looked_at == SHOWN:
                break
    return ""


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
