"""The calls of TokenService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from tenure.client.fields import duration, names, text, timestamp
from tenure.client.link import Link
from tenure.client.tokens import CreatedToken, Token, token_from_wire
from tenure.v1 import token_service_pb2 as pb


class TokenCalls:
    """Say who may call."""

    _link: Link

    async def create_token(
        self,
        name: str,
        role: str,
        *,
        namespaces: Iterable[str] = (),
        pools: Iterable[str] = (),
        expires_in_s: float | None = None,
        expires_at: datetime | None = None,
        certificate_subject: str | None = None,
    ) -> CreatedToken:
        """Make a bearer token, or let certificates of a subject stand for an identity; it expires after 90 days.

        ``role``: admin, operator, submitter or viewer (of ``namespaces``), worker or runner (of ``pools``); ``*`` is
        every one. The secret is shown in the answer and never again.

        Raises:
            InvalidInput: with every bad field.
            Conflict: the certificate's subject is bound to another identity.
        """
        request = pb.CreateTokenRequest(
            name=text(name, "name"),
            role=text(role, "role"),
            namespaces=names(namespaces, "namespaces"),
            pools=names(pools, "pools"),
            expires_in=duration(expires_in_s, "expires_in_s"),
            expires_at=timestamp(expires_at, "expires_at"),
            certificate_subject=text(certificate_subject or "", "certificate_subject"),
        )
        answer: pb.CreateTokenResponse = await self._link.unary(lambda to: to.tokens.CreateToken, request)
        return CreatedToken(token=token_from_wire(answer.token), secret=answer.secret or None)

    async def tokens(self, *, all: bool = False, page_size: int = 200) -> AsyncIterator[Token]:
        """Yield the credentials, newest first; ``all`` lets those through that were revoked or have expired."""
        request = pb.ListTokensRequest(page_size=page_size, all=all)
        answer: pb.ListTokensResponse
        async for answer in self._link.pages(lambda to: to.tokens.ListTokens, request):
            for token in answer.tokens:
                yield token_from_wire(token)

    async def revoke_token(self, token_id: str) -> Token:
        """Have a credential be refused everywhere within 5 s, and return it.

        Raises:
            NotFound: there is none.
        """
        answer: pb.RevokeTokenResponse = await self._link.unary(
            lambda to: to.tokens.RevokeToken, pb.RevokeTokenRequest(id=token_id)
        )
        return token_from_wire(answer.token)
