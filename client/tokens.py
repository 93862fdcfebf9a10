"""Credentials as an admin's client sees them. Only the answer to making one holds its secret, and never in its repr."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tenure.client.fields import time_of
from tenure.v1 import token_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential: a bearer token, or the identity that certificates of a subject stand for."""

    id: str
    name: str
    role: str
    """admin, operator, submitter, viewer, worker or runner."""
    namespaces: tuple[str, ...]
    """``*`` is every one."""
    pools: tuple[str, ...]
    certificate_subject: str | None
    created_at: datetime | None
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedToken:
    """What was made. ``secret`` is what its owner sends: it is shown now and never again; None for a certificate."""

    token: Token
    secret: str | None = field(repr=False)


def token_from_wire(token: pb.Token) -> Token:
    """Read a credential."""
    return Token(
        id=token.id,
        name=token.name,
        role=token.role,
        namespaces=tuple(token.namespaces),
        pools=tuple(token.pools),
        certificate_subject=token.certificate_subject or None,
        created_at=time_of(token, "created_at"),
        created_by=token.created_by,
        expires_at=time_of(token, "expires_at"),
        revoked_at=time_of(token, "revoked_at"),
    )
