"""Jobs: a listing by filters, in keyset pages, and what can be done to all that match, after a preview."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from tenure.dashboard.visit import Visit, link
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.ids import is_id
from tenure.model.states import JobState

PAGE_JOBS = 50
FILTERS = ("namespace", "kind", "route", "label", "workflow", "parent", "after", "before")
ENDED = ("ended_after", "ended_before")
"""Filters of the listing that acts do not know: where one is set, no act over all that match is offered."""
ACTS = {"cancel": "canceled", "retry": "retried"}
PREVIEW_S = 0.15
"""How long is counted; then the page says that there are more than could be."""
ACT_S = 60.0
"""How long an act over many goes on; then the page says that it is to be repeated."""


async def show(visit: Visit) -> Response:
    """List a page of jobs."""
    asked = visit.query
    if is_id(asked.get("id", "").strip()):
        return visit.back(f"/ui/jobs/{asked['id'].strip()}")
    page = await visit.client.list_page(
        **filter_of(asked, visit.request.query_params.getlist("state")),
        include_deleted="deleted" in asked,
        finished_after=time_of(asked.get("ended_after"), "ended_after"),
        finished_before=time_of(asked.get("ended_before"), "ended_before"),
        page_size=PAGE_JOBS,
        page_token=asked.get("page"),
    )
    ended = {name: asked.get(name, "") for name in ENDED}
    return visit.page("jobs.html", page=page, ended=ended, now=datetime.now(UTC), **_asked(visit))


async def preview(visit: Visit) -> Response:
    """Say what an act would hit, and ask for a yes."""
    act = _act(visit)
    found = filter_of(visit.query, visit.request.query_params.getlist("state"))
    is_all = not any(found.values())
    number: int | None = None
    executing = 0
    ids: tuple[str, ...] = ()
    with suppress(TimeoutError):
        async with asyncio.timeout(PREVIEW_S):
            if act == "cancel":
                told = await visit.client.cancel_many(**found, all=is_all, preview=True)
                number, executing, ids = told.canceled + told.asked, told.asked, told.ids
            else:
                retried = await visit.client.retry_many(**found, all=is_all, preview=True)
                number, ids = retried.retried, retried.ids
    return visit.page("bulk.html", act=act, number=number, executing=executing, ids=ids, is_all=is_all, **_asked(visit))


async def carry_out(visit: Visit) -> Response:
    """Do it to all that match."""
    act = _act(visit)
    asked = {name: visit.form.get(name, "") for name in FILTERS}
    states = visit.lists.get("state", [])
    found = filter_of({name: value for name, value in asked.items() if value}, states)
    is_all = not any(found.values())
    if is_all and visit.form.get("all") != "yes":
        raise InvalidInput([FieldViolation("all", "must be ticked: every job is meant")])
    back = link("/ui/jobs", **asked, state=states)
    try:
        async with asyncio.timeout(ACT_S):
            said = await _done(visit, act, found, is_all)
    except TimeoutError:
        return visit.back(back, f"Not all are done after {ACT_S:g} s; what was done is done. Do it again.", failed=True)
    return visit.back(back, said)


async def _done(visit: Visit, act: str, found: Mapping[str, Any], is_all: bool) -> str:
    if act == "cancel":
        told = await visit.client.cancel_many(**found, all=is_all, reason=visit.form.get("reason", ""))
        also = f", {told.dependants:,} that depended on those" if told.dependants else ""
        return f"{told.canceled:,} canceled, {told.asked:,} asked to stop{also}."
    retried = await visit.client.retry_many(**found, all=is_all)
    return f"{retried.retried:,} retried, {retried.skipped:,} left alone."


def filter_of(asked: Mapping[str, str], states: list[str]) -> dict[str, Any]:
    """Return a filter as the client takes it.

    Raises:
        InvalidInput: a label, a time or a state is malformed.
    """
    labels = {}
    for part in asked.get("label", "").replace(",", " ").split():
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InvalidInput([FieldViolation("label", f"{part[:64]!r} is not KEY=VALUE")])
        labels[key] = value
    return {
        "namespace": asked.get("namespace"),
        "kind": asked.get("kind"),
        "route_prefix": asked.get("route"),
        "states": [_state(one) for one in states if one],
        "labels": labels or None,
        "parent_id": asked.get("parent"),
        "workflow_id": asked.get("workflow"),
        "created_after": time_of(asked.get("after"), "after"),
        "created_before": time_of(asked.get("before"), "before"),
    }


def _asked(visit: Visit) -> dict[str, Any]:
    params = visit.request.query_params
    states = [one for one in params.getlist("state") if one]
    asked = {name: params.get(name, "").strip() for name in FILTERS}
    return {
        "asked": asked,
        "states": states,
        "all_states": [str(one) for one in JobState],
        "deleted": "deleted" in params,
    }


def _act(visit: Visit) -> str:
    act = visit.path("act")
    if act not in ACTS:
        raise InvalidInput([FieldViolation("act", "must be cancel or retry")])
    return act


def _state(word: str) -> JobState:
    try:
        return JobState(word)
    except ValueError as exc:
        raise InvalidInput([FieldViolation("state", f"{word[:64]!r} is no state")]) from exc


def time_of(text: str | None, field: str) -> datetime | None:
    """Read a time; one without a zone is UTC.

    Raises:
        InvalidInput: it is none.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidInput([FieldViolation(field, f"{text[:64]!r} is no ISO 8601 time")]) from exc
    return at if at.tzinfo else at.replace(tzinfo=UTC)


ROUTES = (
    ("/jobs", ("GET",), show),
    ("/jobs/all/{act}", ("GET",), preview),
    ("/jobs/all/{act}", ("POST",), carry_out),
)
