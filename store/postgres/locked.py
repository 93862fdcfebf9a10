"""Rows that somebody else has locked, an open transaction of a user above all: one such job fails no other.

Whoever writes to many jobs waits for a row no longer than ``lock_timeout``; then the others are written without it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Set
from typing import TypeVar

import structlog

from tenure.model.errors import Locked
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

Written = TypeVar("Written")
Id = TypeVar("Id", str, uuid.UUID)


async def write_unlocked(
    database: Database, ids: Iterable[Id], write: Callable[[Set[Id]], Awaitable[Written]]
) -> tuple[Written, frozenset[Id]]:
    """Write to those jobs of a batch that nobody else has locked; return what ``write`` did, and the jobs left out.

    Raises:
        Locked: somebody has locked another row that ``write`` needs.
    """
    wanted = frozenset(ids)
    try:
        return await write(wanted), frozenset()
    except Locked as exc:
        rows = await database.fetch("locked_jobs", {"ids": sorted(wanted)})
        names = {str(row.id) for row in rows}
        locked = frozenset(id for id in wanted if str(id) in names)
        log.warning(
            "jobs_locked", jobs=len(locked), of=len(wanted), some=sorted(map(str, locked))[:3], error=exc.message
        )
        return await write(wanted - locked), locked


async def write_rows(
    database: Database, ids: Iterable[str], write: Callable[[Set[str]], Awaitable[list[Row]]]
) -> tuple[list[Row], frozenset[str]]:
    """Do as ``write_unlocked`` with a statement that returns a row for each job it wrote, and try the others once more.

    A statement that goes by the places of rows passes over one that somebody changes meanwhile: its place is another.
    """
    wanted = frozenset(ids)
    rows, locked = await write_unlocked(database, wanted, write)
    if len(rows) + len(locked) < len(wanted) and (missed := wanted - locked - {row.id for row in rows}):
        more, locked_since = await write_unlocked(database, missed, write)
        return [*rows, *more], locked | locked_since
    return rows, locked
