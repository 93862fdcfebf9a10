"""Parking: an attempt ends, and its job waits for children of its own before it starts again.

One transaction, under the fence: the checkpoint is kept, the children are held in place in id order and counted afresh,
the edges are written, and the job waits, or is ready at once where they have ended already. The claim goes with the
announcement, as after every other end. Neither errors nor crashes count it.

Invariant: a parked job waits for children of its own and, through them, for their siblings: for nothing else that has
not ended. So whatever it waits for lies below it in the tree of parents and children, and nobody waits for himself.
Called by ``finish``; what the ends of the children mean for it is the affair of ``dependants``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.dependencies import Trigger
from tenure.model.jobs import json_error
from tenure.store.postgres.database import Database, Row, Statement


@dataclass(frozen=True, slots=True)
class Park:
    """What a parking attempt asks for. ``checkpoint`` is JSON text; None keeps the one there is."""

    children: tuple[uuid.UUID, ...]
    checkpoint: str | None = None
    trigger: Trigger = Trigger.ALL_FINISHED


@dataclass(frozen=True, slots=True)
class Parking:
    """A decided parking, ready to be written under its fence."""

    job_id: str
    fence: int
    park: Park


def problem_of(park: Park) -> str | None:
    """Say what is wrong with a request as such, or None."""
    if len(park.children) > DEFAULT_BOUNDS.batch_jobs:
        return f"park.children: {len(park.children)} jobs, at most {DEFAULT_BOUNDS.batch_jobs}"
    if park.checkpoint is not None:
        problem = json_error(
            park.checkpoint, max_bytes=DEFAULT_BOUNDS.checkpoint_bytes, max_depth=DEFAULT_BOUNDS.json_depth
        )
        return f"park.checkpoint: {problem}" if problem else None
    return None


async def strangers(database: Database, parks: Mapping[str, Park]) -> dict[str, str]:
    """Say, of each job that may not park as it asks, for whom it would wait that is no child of its own."""
    parked, children = _pairs(parks.items())
    if not parked:
        return {}
    rows = await database.fetch("not_to_park_on", {"parked": parked, "children": children})
    found: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.waits_for):
        asked = parks[row.id].children
        if row.waits_for in asked:
            place = f"park.children[{asked.index(row.waits_for)}]"
            found[row.id] = f"{place}: job {row.waits_for} is no child of this job"
        else:
            found.setdefault(
                row.id, f"park.children: one of them waits for job {row.waits_for}, which is no child of this job"
            )
    return found


async def write_parkings(
    database: Database, parkings: Sequence[Parking], *, guard: Statement | None = None
) -> list[Row]:
    """Write parkings under their fences; return the rows that were, as ``return_attempts`` and whether ``broken``."""
    ordered = sorted(parkings, key=lambda parking: parking.job_id)
    parked, children = _pairs((one.job_id, one.park) for one in ordered)
    columns = {
        "ids": [one.job_id for one in ordered],
        "fences": [one.fence for one in ordered],
        "checkpoints": [one.park.checkpoint for one in ordered],
        "triggers": [str(one.park.trigger) for one in ordered],
        "parked": parked,
        "children": children,
    }
    statements = [guard] if guard is not None else []
    statements.append(Statement("lock_parents", {"ids": sorted(set(children))}))
    statements.append(Statement("park_attempts", columns))
    return (await database.transaction(statements))[-1]


def _pairs(parks: Iterable[tuple[str, Park]]) -> tuple[list[str], list[uuid.UUID]]:
    pairs = [(id, child) for id, park in parks for child in dict.fromkeys(park.children)]
    return [id for id, _ in pairs], [child for _, child in pairs]
