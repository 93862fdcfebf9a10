"""Unique keys in Postgres: who holds them, and the statements that take them away for a new job.

The index ``job_unique`` keeps that no key is held twice; a job that moves to history leaves it. A replaced job that
still executes keeps whoever has its key as waiting, by triggers of the schema, until it is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from tenure.model.states import JobState
from tenure.model.unique import Holder, UniqueKey
from tenure.store.postgres.database import Database, Row, Statement
from tenure.store.postgres.stopped import Stopped

REASON = "replaced by a later job with its unique key"
STATEMENTS = 3
"""As many results come of ``replacing``."""


async def holders(database: Database, keys: Iterable[UniqueKey]) -> dict[UniqueKey, Holder]:
    """Return who holds these keys now."""
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    namespaces, kinds, names = (list(column) for column in zip(*wanted, strict=True))
    rows = await database.fetch("unique_holders", {"namespaces": namespaces, "kinds": kinds, "keys": names})
    return {(row.namespace, row.kind, row.unique_key): Holder(row.id, JobState(row.state)) for row in rows}


def replacing(replaces: Mapping[uuid.UUID, uuid.UUID]) -> list[Statement]:
    """Return the statements, to be run before the insertion, that replace jobs: old id to new."""
    if not replaces:
        return []
    old = sorted(replaces)
    return [
        Statement("replace_holders", {"ids": old, "new_ids": [replaces[id] for id in old], "reason": REASON}),
        Statement("cancel_idle", {"ids": old, "reason": REASON}),
        Statement("settle_parents", {"ids": old}),
    ]


def replaced(results: Sequence[Sequence[Row]]) -> Stopped:
    """Read the results of ``replacing``."""
    if not results:
        return Stopped(REASON)
    taken, canceled, settled = results
    return Stopped(REASON, canceled, settled, [row for row in taken if row.state == JobState.EXECUTING])
