"""What is decided about a submit whatever the stores hold: plans, refusals, and the shape of an answer. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.jobs import JobSpec, PlannedJob, member_path, resolve_batch
from tenure.model.kinds import KindBook
from tenure.model.request import request_hash
from tenure.model.unique import OnDuplicate, UniqueKey, unique_key_of


class Submitted(NamedTuple):
    """The answer for one job; ``created`` is false when its key stood for an earlier job."""

    id: uuid.UUID
    created: bool
    workflow_id: uuid.UUID | None = None
    duplicate: bool = False
    """It was the unique key that stood for it."""
    written: PlannedJob | None = None
    """The job as it was written, ready at once, where that is known without reading it."""
    written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """On whose behalf children are submitted: an executing attempt, under its fence."""

    id: uuid.UUID
    fence: int
    workflow_id: uuid.UUID | None = None
    """Its children join it."""


def plan(
    specs: Sequence[JobSpec], ids: Sequence[uuid.UUID], parent: Parent | None, path: str, book: KindBook
) -> list[PlannedJob]:
    """Plan the jobs as they are to be written. The hash is of what was asked, whatever settings make of it."""
    parents = resolve_batch(specs, ids, path=path)
    to_write = specs
    if not book.is_empty:
        to_write = [book.apply(spec, path=f"{member_path(path, index)}.") for index, spec in enumerate(specs)]
    parent_id = parent.id if parent else None
    return [
        PlannedJob(id, spec, wanted, request_hash(asked) if asked.idempotency_key is not None else b"", parent_id)
        for id, spec, wanted, asked in zip(ids, to_write, parents, specs, strict=True)
    ]


def is_ready_as_written(job: PlannedJob) -> bool:
    """Say whether a job may start as soon as it is written, and its row holds what was asked for to the letter.

    Otherwise Postgres has a say: times are reckoned, a unique key may hold the job back, and what is no whole number of
    seconds is rounded to a ``real``.
    """
    spec = job.spec
    return (
        not job.parents
        and spec.ttl_s % 1 == 0
        and (spec.timeout_s is None or spec.timeout_s % 1 == 0)
        and all(
            asked is None
            for asked in (
                spec.activate_at,
                spec.delay_s,
                spec.start_by,
                spec.start_within_s,
                spec.job_timeout_s,
                spec.unique_key,
            )
        )
    )


def stands_alone(spec: JobSpec) -> bool:
    """Say whether a job depends on others or replaces one, so that it cannot share a transaction with strangers."""
    return bool(spec.depends_on) or spec.on_duplicate is OnDuplicate.REPLACE


def refuse_too_many(specs: Sequence[JobSpec], path: str) -> None:
    """Refuse a batch that is too large.

    Raises:
        InvalidInput: it is.
    """
    if len(specs) > DEFAULT_BOUNDS.batch_jobs:
        raise InvalidInput([FieldViolation(path, f"{len(specs)} jobs, at most {DEFAULT_BOUNDS.batch_jobs} in a batch")])


def refuse_repeated_keys(specs: Sequence[JobSpec], path: str) -> None:
    """Refuse a batch two of whose members give the same key.

    Raises:
        InvalidInput: some do; the later ones are named.
    """
    seen: dict[tuple[str, ...], int] = {}
    violations = []
    for index, spec in enumerate(specs):
        keys: dict[str, tuple[str, ...]] = {}
        if spec.idempotency_key is not None:
            keys["idempotency_key"] = (spec.namespace, spec.idempotency_key)
        if spec.unique_key is not None:
            keys["unique_key"] = unique_key_of(spec)
        for name, key in keys.items():
            first = seen.setdefault(key, index)
            if first != index:
                violations.append(FieldViolation(f"{path}[{index}].{name}", f"is also the key of {path}[{first}]"))
    if violations:
        raise InvalidInput(violations)


def refuse_foreign_children(specs: Sequence[JobSpec], parent: UniqueKey | None) -> None:
    """Refuse children that cannot be their parent's by their unique keys; ``parent`` is its own key.

    A parent waits for its children and reads their results: a job of somebody else does not do instead.

    Raises:
        InvalidInput: a child takes an existing job for an answer, or would replace its parent.
    """
    violations = [
        FieldViolation(f"jobs[{index}].on_duplicate", "must not be existing for a child: that job may be anybody's")
        for index, spec in enumerate(specs)
        if spec.on_duplicate is OnDuplicate.EXISTING
    ]
    violations += [
        FieldViolation(f"jobs[{index}].unique_key", "is that of the child's parent, which it would replace")
        for index, spec in enumerate(specs)
        if spec.on_duplicate is OnDuplicate.REPLACE and unique_key_of(spec) == parent
    ]
    if violations:
        raise InvalidInput(violations)


def keyed_after_parent(specs: Sequence[JobSpec]) -> list[JobSpec]:
    """Give each child the key under which a repeated attempt finds it again: its own, or its ref.

    Raises:
        InvalidInput: a child has neither.
    """
    violations = [
        FieldViolation(
            f"jobs[{index}].ref",
            "a child needs a ref or an idempotency_key, so that a repeated attempt submits it once",
        )
        for index, spec in enumerate(specs)
        if spec.idempotency_key is None and spec.ref is None
    ]
    if violations:
        raise InvalidInput(violations)
    return [
        spec if spec.idempotency_key is not None else spec.model_copy(update={"idempotency_key": spec.ref})
        for spec in specs
    ]
