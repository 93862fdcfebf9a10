"""The audit log: who did what, newest first, by filters, in pages by time."""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

from tenure.dashboard.pages.jobs import time_of
from tenure.dashboard.visit import Visit, link

PAGE = 100
FILTERS = ("caller", "action", "namespace", "target", "since", "until")


async def show(visit: Visit) -> Response:
    """List a page of entries."""
    asked = {name: visit.query.get(name, "").strip() for name in FILTERS}
    confined = visit.caller is not None and "*" not in visit.caller.namespaces
    if visit.caller is not None and confined and not asked["namespace"]:
        asked["namespace"] = next(iter(visit.caller.namespaces), "")  # all of them are for others to see
    found = [
        entry
        async for entry in visit.client.audit(
            caller=asked["caller"] or None,
            action=asked["action"] or None,
            namespace=asked["namespace"] or None,
            target=asked["target"] or None,
            since=time_of(asked["since"], "since"),
            until=time_of(asked["until"], "until"),
            limit=PAGE,
        )
    ]
    last: datetime | None = found[-1].at if len(found) == PAGE else None
    # Up to the instant of the last one: more than a page of one instant is nothing that people do.
    older = link("/ui/audit", **{**asked, "until": last.isoformat()}) if last else ""
    return visit.page("audit.html", entries=found, asked=asked, older=older)


ROUTES = (("/audit", ("GET",), show),)
