"""Runs a transaction that is for all of the rows that it was made for, or for none."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.errors import DatabaseError

from tenure.model.errors import Locked
from tenure.store.postgres.database import Database, Row, Statement

_NOT_AS_SEEN = "TN003"


async def all_or_none(database: Database, statements: Sequence[Statement]) -> list[list[Row]]:
    """Run statements as one transaction, of which some ``assert_all``.

    Raises:
        Locked: some rows are not as they were seen, or somebody holds them; nothing was written.
        As ``Database.transaction`` else.
    """
    try:
        return await database.transaction(statements)
    except DatabaseError as exc:
        if exc.sqlstate == _NOT_AS_SEEN:
            raise Locked(str(exc).partition("\n")[0]) from exc
        raise
