"""TokenService: for admins, who may call."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog

from tenure.coordinator import tokens
from tenure.coordinator.access import caller
from tenure.coordinator.api.acts import audited
from tenure.coordinator.api.filters import page_key
from tenure.coordinator.audit import Audit
from tenure.model.credentials import NewCredential, validate_credential
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.ids import parse_id
from tenure.store.postgres.database import Database, Row
from tenure.v1 import token_service_pb2 as pb
from tenure.v1 import wire
from tenure.v1.token_service_pb2_grpc import TokenServiceServicer

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 50
MAX_PAGE = 1_000


class TokenService(TokenServiceServicer):
    """The service over ``tenure.token``."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    @audited
    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """Make a credential."""
        made = await tokens.create(self._database, await self._wanted(request), by=caller().name)
        log.info("token_made", id=str(made.row.id), name=made.row.name, role=made.row.role, by=caller().name)
        return pb.CreateTokenResponse(token=_to_pb(made.row), secret=made.secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """Read a page of credentials, newest first."""
        size = request.page_size or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput([FieldViolation("page_size", f"must be 1 to {MAX_PAGE:,}")])
        params = {"before": page_key(request.page_token), "limit": size, "all": request.all}
        rows = await self._database.fetch("list_tokens", params)
        more = base64.urlsafe_b64encode(rows[-1].id.bytes).decode() if len(rows) == size else ""
        return pb.ListTokensResponse(tokens=map(_to_pb, rows), next_page_token=more)

    @audited
    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        """Have a credential be no good any more."""
        row = await tokens.revoke(self._database, parse_id(request.id, "id"))
        log.info("token_revoked", id=str(row.id), name=row.name, by=caller().name)
        return pb.RevokeTokenResponse(token=_to_pb(row))

    async def _wanted(self, request: pb.CreateTokenRequest) -> NewCredential:
        expires_in_s = wire.seconds(request.expires_in) if request.HasField("expires_in") else None
        if request.HasField("expires_at"):
            if expires_in_s is not None:
                raise InvalidInput([FieldViolation("expires_at", "at most one of expires_in and expires_at")])
            expires_in_s = (_instant(request) - await self._now()).total_seconds()
        return validate_credential(
            name=request.name,
            role=request.role,
            namespaces=list(request.namespaces),
            pools=list(request.pools),
            expires_in_s=expires_in_s,
            subject=request.certificate_subject,
            expiry_field="expires_at" if request.HasField("expires_at") else "expires_in",
        )

    async def _now(self) -> datetime:
        now: datetime = (await self._database.fetch("time"))[0].now
        return now


def _instant(request: pb.CreateTokenRequest) -> datetime:
    try:
        return request.expires_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput([FieldViolation("expires_at", str(exc))]) from exc


def _to_pb(row: Row) -> pb.Token:
    return pb.Token(
        id=str(row.id),
        name=row.name,
        role=row.role,
        namespaces=row.namespaces,
        pools=row.pools,
        certificate_subject=row.subject,
        created_at=wire.timestamp(row.created_at),
        created_by=row.created_by,
        expires_at=wire.timestamp(row.expires_at),
        revoked_at=wire.timestamp(row.revoked_at),
    )
