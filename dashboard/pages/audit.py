"""The audit log: who did what, newest first, by filters, in pages."""

from __future__ import annotations

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
    page = await visit.client.audit_page(
        caller=asked["caller"] or None,
        action=asked["action"] or None,
        namespace=asked["namespace"] or None,
        target=asked["target"] or None,
        since=time_of(asked["since"], "since"),
        until=time_of(asked["until"], "until"),
        page_size=PAGE,
        page_token=visit.query.get("page"),
    )
    older = link("/ui/audit", **asked, page=page.next_page_token) if page.next_page_token else ""
    return visit.page("audit.html", page=page, asked=asked, older=older, size=PAGE)


ROUTES = (("/audit", ("GET",), show),)
