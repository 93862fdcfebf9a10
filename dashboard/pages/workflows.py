"""Workflows: the newest ones, and one as a drawn graph with the states of its members."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from tenure.client.drawing import MAX_NODES, draw
from tenure.client.records import Job
from tenure.client.workflows import Workflow
from tenure.dashboard import render
from tenure.dashboard.visit import Visit, link

SHOWN = 100
MAX_MEMBERS = 500
"""Of a larger workflow so many are read, and the page says so."""
LISTED = 100


async def show_all(visit: Visit) -> Response:
    """List the newest workflows."""
    namespace, name = visit.query.get("namespace"), visit.query.get("name")
    found = [one async for one in visit.client.list_workflows(namespace=namespace, name=name, limit=SHOWN)]
    asked = {"namespace": namespace or "", "name": name or ""}
    return visit.page("workflows.html", workflows=found, shown=SHOWN, asked=asked)


async def show(visit: Visit) -> Response:
    """Show one."""
    return visit.page("workflow.html", **await _context(visit))


async def live(visit: Visit) -> Response:
    """Tell where it stands, again and again."""

    async def produce() -> dict[str, str]:
        context = visit.shared_context(**await _context(visit))
        return {name: render.block("workflow.html", name, context) for name in ("head", "members")}

    return visit.dashboard.live.watch(visit, ("workflow", visit.path("id")), produce, every_s=2.0)


async def cancel(visit: Visit) -> Response:
    """Cancel its members."""
    id = visit.path("id")
    told = await visit.client.cancel_workflow(id, visit.form.get("reason", ""))
    return visit.back(f"/ui/workflows/{id}", f"{told.canceled:,} canceled, {told.asked:,} asked to stop.")


async def _context(visit: Visit) -> dict[str, Any]:
    id = visit.path("id")
    workflow = await visit.client.get_workflow(id)
    jobs: list[Job] = []
    async for job in visit.client.workflow_jobs(id, page_size=MAX_MEMBERS):
        jobs.append(job)
        if len(jobs) == MAX_MEMBERS:
            break
    return {
        "workflow": workflow,
        "jobs": jobs[:LISTED],
        "is_cut": workflow.jobs > len(jobs),
        "read": len(jobs),
        "is_folded": len(jobs) > MAX_NODES,
        "listing": link("/ui/jobs", workflow=id),
        "graph": _graph(workflow, jobs),
    }


def _graph(workflow: Workflow, jobs: list[Job]) -> Markup:
    """Draw the members, from left to right; a large workflow folded by stage, kind and state."""
    # What the client draws is well formed and escaped, whatever jobs are called.
    return Markup(draw(jobs, "svg")) if jobs else Markup("")


ROUTES = (
    ("/workflows", ("GET",), show_all),
    ("/workflows/{id}", ("GET",), show),
    ("/workflows/{id}/cancel", ("POST",), cancel),
    ("/live/workflows/{id}", ("GET",), live),
)
