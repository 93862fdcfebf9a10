"""Writes new jobs: one transaction for rows, dependencies and idempotency keys, whole or not at all."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.errors import DatabaseError

from tenure.model.bounds import IDEMPOTENCY_TTL_S
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import ParentGone, WrongState
from tenure.model.jobs import PlannedJob, RetrySpec
from tenure.model.unique import unique_key_of
from tenure.store.postgres.database import Database, Statement
from tenure.store.postgres.stopped import Stopped
from tenure.store.postgres.unique import (
    STATEMENTS,
    replaced,
    replacing,
)

_DEFAULT_RETRY = RetrySpec()
_WORKFLOW_CANCELED = "TN004"
_PARENT_GONE = "TN005"

IdempotencyKey = tuple[str, str, str]
"""Namespace, scope, key."""


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A workflow that jobs are written with."""

    id: uuid.UUID
    namespace: str
    name: str | None


class Written(NamedTuple):
    """What came of a transaction that wrote jobs."""

    replaced: Stopped
    """What became of the jobs that were replaced."""
    at: datetime | None
    """When the jobs were created, by Postgres' clock; None unless asked for."""


@dataclass(frozen=True, slots=True)
class KeyedJob:
    """What an idempotency key stands for."""

    job_id: uuid.UUID
    request_hash: bytes


def scope_of(job: PlannedJob) -> str:
    """Return the scope of a job's key: its parent for a child, its schedule, else the submitters' common one."""
    if job.schedule_id is not None:
        return f"schedule:{job.schedule_id}"
    return str(job.parent_id) if job.parent_id else ""


def idempotency_key_of(job: PlannedJob) -> IdempotencyKey:
    """Return the key with its scope; only for a job that has one."""
    return (job.spec.namespace, scope_of(job), job.spec.idempotency_key or "")


async def keyed_jobs(database: Database, keys: Sequence[IdempotencyKey]) -> dict[IdempotencyKey, KeyedJob]:
    """Return what keys stand for; expired keys are freed on the way."""
    namespaces, scopes, names = (list(column) for column in zip(*keys, strict=True))
    params = {"namespaces": namespaces, "scopes": scopes, "keys": names}
    await database.fetch("free_expired_keys", params)
    rows = await database.fetch("keyed_jobs", params)
    return {(row.namespace, row.scope, row.key): KeyedJob(row.job_id, bytes(row.request_hash)) for row in rows}


async def write_jobs(
    database: Database,
    jobs: Sequence[PlannedJob],
    lanes: Sequence[int],
    *,
    fence: int | None = None,
    workflow: NewWorkflow | None = None,
    replaces: Mapping[uuid.UUID, uuid.UUID] | None = None,
    answered: Sequence[PlannedJob] = (),
    tells_time: bool = False,
) -> Written:
    """Insert jobs with their dependencies and keys, and with ``workflow`` that, too.

    With ``fence`` all jobs are children of one parent, whose attempt must still execute under that fence, and whose
    workflow, if it is a member of one, must not be canceled. ``replaces`` names the holders of unique keys that the
    jobs are to replace. ``answered`` are requests that were answered with an earlier job, by whose id they go: their
    idempotency keys are taken, for the same answer when they come again. ``tells_time`` asks for the time of creation.

    Raises:
        KeyTaken: an idempotency key (or an id) is taken.
        UniqueTaken: a unique key is held.
        OwnershipLost: the fence is old.
        WrongState: the parent's workflow is canceled.
        Unavailable: the outcome is unknown.
    """
    if fence is None and workflow is None and not replaces and not answered and _are_plain(jobs):
        (row,) = await database.fetch("insert_plain_jobs", _plain_columns(jobs, lanes))
        return Written(replaced(()), row.now)
    statements: list[Statement] = []
    child = next(iter([*jobs, *answered]), None)
    if fence is not None and child is not None:
        statements.append(Statement("assert_fence", {"id": child.parent_id, "fence": fence}))
        if child.workflow_id is not None:
            statements.append(Statement("assert_workflow", {"id": child.workflow_id}))
    if workflow is not None:
        columns = {"id": workflow.id, "namespace": workflow.namespace, "name": workflow.name, "jobs": len(jobs)}
        statements.append(Statement("insert_workflow", columns))
    first = len(statements)
    replacement = replacing(replaces or {})
    statements.extend(replacement)
    statements.extend(_insertions(jobs, lanes, answered))
    if tells_time:
        statements.append(Statement("time", {}))
    try:
        if len(statements) == 1:
            await database.fetch(*statements[0])
            return Written(replaced(()), None)
        results = await database.transaction(statements)
    except DatabaseError as exc:
        if exc.sqlstate == _WORKFLOW_CANCELED:
            raise WrongState(
                f"workflow {child and child.workflow_id} is canceled: nothing is submitted into it"
            ) from exc
        if exc.sqlstate == _PARENT_GONE:
            raise ParentGone(str(exc).partition("\n")[0]) from exc
        raise
    return Written(
        replaced(results[first : first + STATEMENTS] if replacement else ()), results[-1][0].now if tells_time else None
    )


def _are_plain(jobs: Sequence[PlannedJob]) -> bool:
    """Say whether all jobs are such as ``insert_plain_jobs`` can write."""
    return _asked_for(jobs) <= _PLAIN and not any(
        job.parents or job.parent_id or job.schedule_id or job.workflow_id for job in jobs
    )


def _asked_for(jobs: Sequence[PlannedJob]) -> frozenset[str]:
    return frozenset[str]().union(*(job.spec.model_fields_set for job in jobs))


_PLAIN = frozenset(
    {"kind", "namespace", "route", "priority", "payload", "ttl_s", "max_crashes", "idempotency_key", "ref"}
)


def _plain_columns(jobs: Sequence[PlannedJob], lanes: Sequence[int]) -> dict[str, Any]:
    specs = [job.spec for job in jobs]
    return {
        "ids": [job.id for job in jobs],
        "namespaces": [spec.namespace for spec in specs],
        "kinds": [spec.kind for spec in specs],
        "routes": [spec.route for spec in specs],
        "lanes": lanes,
        "priorities": [spec.priority for spec in specs],
        "payloads": [spec.payload for spec in specs],
        "ttls": [spec.ttl_s for spec in specs],
        "max_crashes": [spec.max_crashes for spec in specs],
        "keys": [spec.idempotency_key for spec in specs],
        "hashes": [job.request_hash for job in jobs],
        "key_ttl": IDEMPOTENCY_TTL_S,
    }


def _insertions(
    jobs: Sequence[PlannedJob], lanes: Sequence[int], answered: Sequence[PlannedJob]
) -> Iterator[Statement]:
    """Return what inserts jobs with their keys and edges."""
    own = {job.id for job in jobs}
    edges = [(job.id, parent) for job in jobs for parent in job.parents]
    outside = sorted({parent for _, parent in edges if parent not in own})
    if outside:
        yield Statement("lock_parents", {"ids": outside})
    keyed = [job for job in (*jobs, *answered) if job.spec.idempotency_key is not None]
    if keyed:
        yield Statement("take_keys", _key_columns(keyed))
    if jobs:
        yield from _rows(jobs, lanes)
    if edges:
        children, parents = (list(column) for column in zip(*edges, strict=True))
        yield Statement("insert_dependencies", {"children": children, "parents": parents})


def insertion(jobs: Sequence[PlannedJob], lanes: Sequence[int], answered: Sequence[PlannedJob] = ()) -> list[Statement]:
    """Return the statements that insert jobs, for a transaction that does more; ``answered`` as in ``write_jobs``."""
    return list(_insertions(jobs, lanes, answered))


def _rows(jobs: Sequence[PlannedJob], lanes: Sequence[int]) -> Iterator[Statement]:
    unique = [unique_key_of(job.spec) for job in jobs if job.spec.unique_key is not None]
    if unique:
        namespaces, kinds, keys = (list(column) for column in zip(*unique, strict=True))
        yield Statement("lock_replaced", {"namespaces": namespaces, "kinds": kinds, "keys": keys})
        # In one order: of two writers that have keys in common one waits for the other, and not each for the other.
        ordered = sorted(zip(jobs, lanes, strict=True), key=lambda pair: unique_key_of(pair[0].spec))
        jobs, lanes = [job for job, _ in ordered], [lane for _, lane in ordered]
    yield Statement("insert_jobs", _job_columns(jobs, lanes))


def _key_columns(jobs: Sequence[PlannedJob]) -> dict[str, Any]:
    return {
        "namespaces": [job.spec.namespace for job in jobs],
        "scopes": _unless_empty([scope_of(job) or None for job in jobs]),
        "keys": [job.spec.idempotency_key for job in jobs],
        "ids": [job.id for job in jobs],
        "hashes": [job.request_hash for job in jobs],
        "ttls": [job.spec.idempotency_ttl_s or IDEMPOTENCY_TTL_S for job in jobs],
    }


def _job_columns(jobs: Sequence[PlannedJob], lanes: Sequence[int]) -> dict[str, Any]:
    specs = [job.spec for job in jobs]
    columns = {
        **_plain_columns(jobs, lanes),
        "waits": _unless_empty([True if job.parents else None for job in jobs]),
        "parents": _unless_empty([job.parent_id for job in jobs]),
        "schedules": _unless_empty([job.schedule_id for job in jobs]),
        "ticks": _unless_empty([job.scheduled_at for job in jobs]),
        "workflows": _unless_empty([job.workflow_id for job in jobs]),
        "refs": _unless_empty([job.spec.ref if job.workflow_id else None for job in jobs]),
    }
    asked = _asked_for(jobs)
    for column, (name, stored) in _ASKED.items():
        columns[column] = [stored(getattr(spec, name)) for spec in specs] if name in asked else []
    return columns


def _unless_empty(values: list[Any]) -> list[Any]:
    """Return a column, with nothing in it where it is null for all."""
    return values if any(value is not None for value in values) else []


def _as_it_is(value: Any) -> Any:
    return value


_ASKED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "activations": ("activate_at", _as_it_is),
    "delays": ("delay_s", lambda seconds: seconds or None),
    "timeouts": ("timeout_s", _as_it_is),
    "retries": ("retry", lambda retry: None if retry == _DEFAULT_RETRY else retry.model_dump_json()),
    "labels": ("labels", lambda labels: json.dumps(labels) if labels else None),
    "limits": ("limits", lambda limits: ",".join(sorted(limits)) or None),
    "requires": ("requires", lambda requires: json.dumps(requires) if requires else None),
    "start_withins": ("start_within_s", _as_it_is),
    "start_bys": ("start_by", _as_it_is),
    "job_timeouts": ("job_timeout_s", _as_it_is),
    "triggers": ("trigger", lambda trigger: None if trigger is Trigger.ALL_COMPLETED else str(trigger)),
    "upstream_failures": (
        "upstream_failure",
        lambda ending: None if ending is UpstreamFailure.CANCEL else str(ending),
    ),
    "unique_keys": ("unique_key", _as_it_is),
}
"""Columns that are null where nobody asked for anything: the field, and what is stored of it."""
