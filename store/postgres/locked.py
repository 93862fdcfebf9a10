"""Rows that somebody else has locked, an open transaction of a user above all: one such job fails no other.

Whoever writes to many jobs waits for a row no longer than ``lock_timeout``; then the others are written without it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Set
from typing import TypeVar

import structlog

from tenure.model.errors import Locked
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

Written = TypeVar("Written")


async def write_unlocked(
    database: Database, ids: Iterable[uuid.UUID], write: Callable[[Set[uuid.UUID]], Awaitable[Written]]
) -> tuple[Written, frozenset[uuid.UUID]]:
    """Write to those jobs of a batch that nobody else has locked; return what ``write`` did, and the jobs left out.

    Raises:
        Locked: somebody has locked another row that ``write`` needs.
    """
    wanted = frozenset(ids)
    try:
        return await write(wanted), frozenset()
    except Locked as exc:
        rows = await database.fetch("locked_jobs", {"ids": sorted(wanted)})
        locked = frozenset(row.id for row in rows)
        log.warning(
            "jobs_locked", jobs=len(locked), of=len(wanted), some=sorted(map(str, locked))[:3], error=exc.message
        )
        return await write(wanted - locked), locked
