"""The calls of AuditService."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime

from tenure.client.fields import time_of, timestamp
from tenure.client.link import Link
from tenure.client.records import AuditEntry, AuditPage
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import audit_service_pb2 as pb


class AuditCalls:
    """See who did what."""

    _link: Link

    async def audit(
        self,
        *,
        caller: str | None = None,
        action: str | None = None,
        namespace: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        page_size: int = 200,
    ) -> AsyncIterator[AuditEntry]:
        """Yield the entries of the audit log, newest first: those of ``[since, until)`` that match all that is given.

        ``action`` is how it begins (``jobs.``). ``limit`` None means all; pages hold at most 1,000 entries. With a
        namespace it takes the right to read there, without one the right to operate everywhere.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the token does not go so far.
        """
        if limit is not None and limit < 1:
            raise InvalidInput([FieldViolation("limit", "must be at least 1")])
        size = page_size if limit is None else min(page_size, limit)
        request = _request(caller, action, namespace, target, since, until, size)
        told = 0
        answer: pb.ListAuditResponse
        async for answer in self._link.pages(lambda to: to.audit.ListAudit, request):
            for entry in answer.entries:
                yield _entry(entry)
                told += 1
                if told == limit:
                    return

    async def audit_page(
        self,
        *,
        caller: str | None = None,
        action: str | None = None,
        namespace: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 200,
        page_token: str | None = None,
    ) -> AuditPage:
        """Return one page of ``audit``: bounded work, whatever the filters.

        It may be short of ``page_size``, or empty, and still not be the last one: then more was looked through than a
        page may. Go on with the same filters and its ``next_page_token``.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the token does not go so far.
        """
        request = _request(caller, action, namespace, target, since, until, page_size)
        request.page_token = page_token or ""
        answer: pb.ListAuditResponse = await self._link.unary(lambda to: to.audit.ListAudit, request)
        return AuditPage(
            entries=tuple(_entry(entry) for entry in answer.entries), next_page_token=answer.next_page_token or None
        )


def _request(
    caller: str | None,
    action: str | None,
    namespace: str | None,
    target: str | None,
    since: datetime | None,
    until: datetime | None,
    page_size: int,
) -> pb.ListAuditRequest:
    return pb.ListAuditRequest(
        caller=caller or "",
        action=action or "",
        namespace=namespace or "",
        target=target or "",
        since=timestamp(since, "since"),
        until=timestamp(until, "until"),
        page_size=page_size,
    )


def _entry(entry: pb.AuditEntry) -> AuditEntry:
    return AuditEntry(
        id=entry.id,
        at=time_of(entry, "at"),
        caller=entry.caller,
        role=entry.role,
        action=entry.action,
        namespace=entry.namespace or None,
        target=entry.target,
        outcome=entry.outcome,
        detail=json.loads(entry.detail or "{}"),
    )
