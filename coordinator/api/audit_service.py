"""AuditService: who did what, for those who may know."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import grpc

from tenure.coordinator.access import denied, may, require
from tenure.coordinator.api.filters import not_a_token
from tenure.model.access import Right
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.store.postgres.database import Database, Row
from tenure.v1 import audit_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.audit_service_pb2_grpc import AuditServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 50
MAX_PAGE = 1_000
WINDOW = 10_000
"""Entries that a call looks at, where not all of them are wanted."""
_FIRST_ID = uuid.UUID(int=0)
Key = tuple[datetime | None, uuid.UUID]
"""Entries before this are still to be told: a time, None for all of them, and an id."""


class AuditService(AuditServiceServicer):
    """The service over Postgres. It only reads; ``coordinator.audit`` writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAudit(self, request: pb.ListAuditRequest, context: Context) -> pb.ListAuditResponse:
        """Read a page of entries, newest first."""
        if request.namespace:
            require(Right.READ, namespace=request.namespace)
        elif not may(Right.OPERATE):
            raise denied(Right.OPERATE, " everywhere, as a look at all namespaces takes: name one that you may read")
        size = request.page_size or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput([FieldViolation("page_size", f"must be 1 to {MAX_PAGE:,}")])
        filters = {name: _text(request, name) for name in ("caller", "action", "namespace", "target")}
        before, before_id = _key(request.page_token) if request.page_token else (_instant(request, "until"), _FIRST_ID)
        page = {"since": _instant(request, "since"), "before": before, "before_id": before_id}
        window = WINDOW if any(filters.values()) else size
        rows = await self._database.fetch("list_audit", {**filters, **page, "window": window, "limit": size})
        *found, last = rows or [None]
        token = ""
        if len(found) == size:
            token = _token(found[-1])
        elif last is not None and last.seen == window:
            token = _token(last)
        return pb.ListAuditResponse(entries=map(_to_pb, found), next_page_token=token)


def _to_pb(row: Row) -> pb.AuditEntry:
    return pb.AuditEntry(
        id=str(row.id),
        at=wire.timestamp(row.at),
        caller=row.caller,
        role=row.role,
        action=row.action,
        namespace=row.namespace,
        target=row.target,
        outcome=row.outcome,
        detail=row.detail,
    )


def _text(request: pb.ListAuditRequest, field: str) -> str | None:
    text: str = getattr(request, field)
    if "\x00" in text:
        raise InvalidInput([FieldViolation(field, "must not contain NUL")])
    return text or None


def _instant(request: pb.ListAuditRequest, field: str) -> datetime | None:
    if not request.HasField(field):
        return None
    try:
        at: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput([FieldViolation(field, str(exc))]) from exc
    return at


def _token(row: Row) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.at.astimezone(UTC).isoformat(), str(row.id)]).encode()).decode()


def _key(token: str) -> Key:
    try:
        at, id = json.loads(base64.urlsafe_b64decode(token.encode()))
        key = datetime.fromisoformat(at), uuid.UUID(id)
    except (ValueError, TypeError, AttributeError) as exc:
        raise not_a_token() from exc
    if key[0].tzinfo is None:
        raise not_a_token()
    return key
