"""Makes, lists and revokes credentials. The secret of a token leaves here once, and is kept nowhere.

Called by ``TokenService``, and by ``tenure db admin-token``, which makes the first one.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from tenure.model.credentials import NewCredential
from tenure.model.errors import Conflict, NotFound
from tenure.model.ids import new_id
from tenure.model.tokens import new_token
from tenure.store.postgres.database import Database, Row


@dataclass(frozen=True, slots=True)
class Made:
    """A credential as its row says, and what its owner sends: None for a certificate."""

    row: Row
    secret: str | None = field(repr=False)


async def create(database: Database, wanted: NewCredential, *, by: str) -> Made:
    """Make a credential; a subject that is bound to the very same identity answers with that.

    Raises:
        Conflict: the subject is bound to another identity.
    """
    token = new_token(new_id())
    params = {
        "id": token.id,
        "name": wanted.name,
        "role": str(wanted.role),
        "namespaces": list(wanted.namespaces),
        "pools": list(wanted.pools),
        "hash": None if wanted.subject else token.hash(),
        "subject": wanted.subject,
        "created_by": by,
        "expires_in_s": wanted.expires_in_s,
    }
    rows = await database.fetch("insert_token", params)
    if rows:
        return Made(rows[0], None if wanted.subject else token.text())
    for row in await database.fetch("token_of_subject", {"subject": wanted.subject}):
        if all(getattr(row, name) == params[name] for name in ("name", "role", "namespaces", "pools")):
            return Made(row, None)
    raise Conflict(
        f"certificates of {wanted.subject!r} stand for another identity", hint="revoke that first: tenure tokens list"
    )


async def revoke(database: Database, id: uuid.UUID) -> Row:
    """Revoke a credential, and return it.

    Raises:
        NotFound: there is none.
    """
    rows = await database.fetch("revoke_token", {"id": id})
    if not rows:
        raise NotFound(f"token {id} does not exist", hint="tenure tokens list --all")
    return rows[0]
