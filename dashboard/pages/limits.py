"""Limits with the slots that are held, and what is paused: pools, kinds and namespaces. Live."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response

from tenure.client.records import Limit
from tenure.dashboard import render
from tenure.dashboard.visit import Visit
from tenure.model.errors import FieldViolation, InvalidInput

SHOWN = 500
NAMES = 20
"""Of a family, so many names are shown: those that hold most."""
EVERY_S = 2.0
SUBJECTS = ("pool", "kind", "namespace")


async def show(visit: Visit) -> Response:
    """List them."""
    return visit.page("limits.html", subjects=SUBJECTS, **await _context(visit))


async def live(visit: Visit) -> Response:
    """Tell which slots are held and what is paused, again and again."""

    async def produce() -> dict[str, str]:
        return {"limits": render.block("limits.html", "limits", visit.shared_context(**await _context(visit)))}

    return visit.dashboard.live.watch(visit, "limits", produce, every_s=EVERY_S)


async def pause(visit: Visit) -> Response:
    """Let nothing of a pool, kind or namespace start."""
    executing = await visit.client.pause(
        **_subject(visit.form.get("subject", ""), visit.form.get("name", "").strip()),
        reason=visit.form.get("reason", ""),
    )
    return visit.back("/ui/limits", f"Paused. {executing:,} of its jobs are still executing.")


async def resume(visit: Visit) -> Response:
    """Let it start again."""
    # One field, as the button is shown to all who watch: the form that it belongs to is each visitor's own.
    subject, _, name = visit.form.get("what", "").partition(":")
    resumed = await visit.client.resume(**_subject(subject, name))
    return visit.back("/ui/limits", "It starts again." if resumed else "It was not paused.")


async def _context(visit: Visit) -> dict[str, Any]:
    limits, pauses = await asyncio.gather(visit.client.limits(), visit.client.pauses())
    return {
        "limits": [(limit, _held(limit)) for limit in limits[:SHOWN]],
        "limits_left": max(0, len(limits) - SHOWN),
        "names": NAMES,
        "pauses": pauses,
    }


def _subject(subject: str, name: str) -> dict[str, Any]:
    if subject not in SUBJECTS:
        raise InvalidInput([FieldViolation("subject", f"must be one of {', '.join(SUBJECTS)}")])
    return {subject: name}


def _held(limit: Limit) -> list[tuple[str, int]]:
    return sorted(limit.held.items(), key=lambda one: (-one[1], one[0]))


ROUTES = (
    ("/limits", ("GET",), show),
    ("/limits/pause", ("POST",), pause),
    ("/limits/resume", ("POST",), resume),
    ("/live/limits", ("GET",), live),
)
