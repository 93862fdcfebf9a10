"""How long jobs are kept after their end: policies, legal holds, and how many have ended of late."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from starlette.responses import Response

from tenure.client.retention import LegalHold
from tenure.dashboard.visit import Visit
from tenure.model.errors import PermissionDenied
from tenure.model.states import TERMINAL

DAYS = 14
SHOWN = 500


async def show(visit: Visit) -> Response:
    """List them."""
    today = visit.now.replace(hour=0, minute=0, second=0, microsecond=0)
    policies, holds, counts = await asyncio.gather(
        visit.client.retentions(),
        _holds(visit),
        visit.client.count(by=("day", "state"), finished_after=today - timedelta(days=DAYS - 1)),
    )
    jobs: Counter[tuple[str, str]] = Counter()
    for one in counts.counts:
        jobs[str(one.day), str(one.state)] += one.jobs
    return visit.page(
        "retention.html",
        policies=policies[:SHOWN],
        holds=holds,
        days=[f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in range(DAYS)],
        states=sorted(str(state) for state in TERMINAL),
        jobs=jobs,
        counted_until=counts.counted_until,
    )


async def _holds(visit: Visit) -> list[LegalHold] | None:
    """Read the legal holds; None for who may not."""
    try:
        return (await visit.client.holds())[:SHOWN]
    except PermissionDenied:
        return None


ROUTES = (("/retention", ("GET",), show),)
