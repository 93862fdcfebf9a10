"""Filters and page tokens of requests, read into the parameters of queries; every bad field is named."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Set
from datetime import UTC, datetime
from typing import Any

from tenure.coordinator.access import namespaces_for
from tenure.coordinator.listing import Ended
from tenure.coordinator.passing import LAST_ID, Span
from tenure.model.access import Right
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.ids import parse_id
from tenure.model.routes import route_error
from tenure.model.states import JobState
from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import wire


def page_key(token: str) -> uuid.UUID:
    """Return the id after which a page begins."""
    if not token:
        return LAST_ID
    try:
        return uuid.UUID(bytes=base64.urlsafe_b64decode(token.encode()))
    except ValueError as exc:
        raise not_a_token() from exc


def span_from_token(token: str) -> Span:
    """Return what a pass over many jobs has still to look at; an empty token begins one."""
    if not token:
        return Span.up_to_now()
    try:
        held = base64.urlsafe_b64decode(token.encode())
        return Span(uuid.UUID(bytes=held[:16]), uuid.UUID(bytes=held[16:]))
    except ValueError as exc:
        raise not_a_token() from exc


def token_of_span(span: Span | None) -> str:
    """Return the token that ``span_from_token`` reads; empty if nothing is left."""
    return base64.urlsafe_b64encode(span.after.bytes + span.until.bytes).decode() if span else ""


def mass_filters(
    message: pb.JobFilter, *, all_: bool, allowed: Set[JobState], default: Set[JobState]
) -> dict[str, Any]:
    """Return the filter of an operation on many jobs: never everything by accident, and only states that it is for.

    Raises:
        InvalidInput: nothing is set and ``all_`` is not; a state that is not ``allowed``; as ``filters_from_pb``.
    """
    if not all_ and not message.ListFields():
        raise InvalidInput(
            [FieldViolation("filter", "is empty; set all to mean every job")], hint="name a namespace, kind or route"
        )
    filters = filters_from_pb(message, right=Right.OPERATE)
    states = {JobState(state) for state in filters["states"] or default}
    if strange := sorted(states - allowed):
        may = ", ".join(sorted(allowed))
        raise InvalidInput([FieldViolation("filter.states", f"{strange[0]} is none of {may}")])
    return {**filters, "states": sorted(str(state) for state in states)}


def not_a_token(field: str = "page_token") -> InvalidInput:
    """Return the refusal of a token."""
    return InvalidInput([FieldViolation(field, "is not a token that this service gave")])


def filters_from_pb(message: pb.JobFilter, *, right: Right = Right.READ) -> dict[str, Any]:
    """Return the filter as parameters of queries, confined to the caller's namespaces; what is not set is None.

    Raises:
        InvalidInput: with every bad field.
        PermissionDenied: the caller has no such right in the namespace that is named.
    """
    violations = []
    if message.route_prefix and (problem := route_error(message.route_prefix)):
        violations.append(FieldViolation("filter.route_prefix", problem))
    states = []
    for number in message.states:
        state = wire.STATE_FROM_PB.get(number)
        if state is None:
            violations.append(FieldViolation("filter.states", f"{number} is not a state"))
        else:
            states.append(str(state))
    for name in ("namespace", "kind"):
        if "\x00" in getattr(message, name):
            violations.append(FieldViolation(f"filter.{name}", "must not contain NUL"))
    if any("\x00" in text for label in message.labels.items() for text in label):
        violations.append(FieldViolation("filter.labels", "must not contain NUL"))
    times: dict[str, datetime | None] = {"created_after": None, "created_before": None}
    for name in times:
        if message.HasField(name):
            try:
                times[name] = getattr(message, name).ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError) as exc:
                violations.append(FieldViolation(f"filter.{name}", str(exc)))
    parent = parse_id(message.parent_id, "filter.parent_id") if message.parent_id else None
    if violations:
        raise InvalidInput(violations)
    return {
        "namespace": message.namespace or None,
        "namespaces": namespaces_for(right, message.namespace),
        "kind": message.kind or None,
        "route": message.route_prefix or None,
        "states": states or None,
        "labels": json.dumps(dict(message.labels)) if message.labels else None,
        "parent_id": parent,
        **times,
        "workflow_id": parse_id(message.workflow_id, "filter.workflow_id") if message.workflow_id else None,
    }


def ended_from_pb(message: pb.ListJobsRequest) -> Ended:
    """Read the bounds of the end.

    Raises:
        InvalidInput: a time beyond all calendars.
    """
    times: dict[str, datetime] = {}
    for name in ("finished_after", "finished_before"):
        if message.HasField(name):
            try:
                times[name] = getattr(message, name).ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError) as exc:
                raise InvalidInput([FieldViolation(name, str(exc))]) from exc
    return Ended(times.get("finished_after"), times.get("finished_before"))
