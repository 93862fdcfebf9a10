"""Limits with the slots that are held, and what is paused: pools, kinds and namespaces."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from tenure.client.records import Limit
from tenure.dashboard.visit import Visit
from tenure.model.errors import FieldViolation, InvalidInput

SHOWN = 500
NAMES = 20
"""Of a family, so many names are shown: those that hold most."""
SUBJECTS = ("pool", "kind", "namespace")


async def show(visit: Visit) -> Response:
    """List them."""
    limits, pauses = await asyncio.gather(visit.client.limits(), visit.client.pauses())
    return visit.page(
        "limits.html",
        limits=[(limit, _held(limit)) for limit in limits[:SHOWN]],
        limits_left=max(0, len(limits) - SHOWN),
        names=NAMES,
        pauses=pauses,
        subjects=SUBJECTS,
        now=datetime.now(UTC),
    )


async def pause(visit: Visit) -> Response:
    """Let nothing of a pool, kind or namespace start."""
    executing = await visit.client.pause(**_subject(visit), reason=visit.form.get("reason", ""))
    return visit.back("/ui/limits", f"Paused. {executing:,} of its jobs execute still.")


async def resume(visit: Visit) -> Response:
    """Let it start again."""
    resumed = await visit.client.resume(**_subject(visit))
    return visit.back("/ui/limits", "It starts again." if resumed else "It was not paused.")


def _subject(visit: Visit) -> dict[str, Any]:
    subject = visit.form.get("subject", "")
    if subject not in SUBJECTS:
        raise InvalidInput([FieldViolation("subject", f"must be one of {', '.join(SUBJECTS)}")])
    return {subject: visit.form.get("name", "").strip()}


def _held(limit: Limit) -> list[tuple[str, int]]:
    return sorted(limit.held.items(), key=lambda one: (-one[1], one[0]))


ROUTES = (("/limits", ("GET",), show), ("/limits/pause", ("POST",), pause), ("/limits/resume", ("POST",), resume))
