"""Unique keys in Postgres: who holds them, and the statements that take them away for a new job.

The index ``job_unique`` keeps that no key is held twice; a job that moves to history leaves it. A replaced job that
still executes keeps whoever has its key as waiting, by triggers of the schema, until it is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tenure.model.states import JobState
from tenure.model.unique import Holder, UniqueKey
from tenure.store.postgres.database import Database, Row, Statement

REASON = "replaced by a later job with its unique key"
STATEMENTS = 3
"""As many results come of ``replacing``."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """What became of the jobs that were replaced: rows as ``coordinator.cancel`` knows them."""

    canceled: Sequence[Row] = ()
    settled: Sequence[Row] = ()
    asked: Sequence[Row] = ()


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


def replaced(results: Sequence[Sequence[Row]]) -> Replaced:
    """Read the results of ``replacing``."""
    if not results:
        return Replaced()
    taken, canceled, settled = results
    return Replaced(canceled, settled, [row for row in taken if row.state == JobState.EXECUTING])
