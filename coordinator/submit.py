"""Step 1, submit: jobs are validated, written in one transaction, and the leader is told.

Unary submits that arrive together share a transaction (group commit); a batch has one of its own. The answer is
given after the commit. An idempotency key that is known answers with its first job, or refuses another request.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.model.batch import Batcher
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.errors import BacklogFull, BoundExceeded, Conflict, FieldViolation, InvalidInput, Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob, resolve_batch
from tenure.model.kinds import KindBook
from tenure.store.postgres.database import Database
from tenure.store.postgres.submit import KeyTaken, NewWorkflow, keyed_jobs, scope_of, write_jobs

_TRIES = 5
"""How often a batch is planned again because a key was taken at the same moment."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer for one job; ``created`` is false when its key stood for an earlier job."""

    id: uuid.UUID
    created: bool
    workflow_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """On whose behalf children are submitted: an executing attempt, under its fence."""

    id: uuid.UUID
    fence: int
    workflow_id: uuid.UUID | None = None
    """Its children join it."""


class Submitter:
    """Accepts validated jobs. ``run`` is the body of a task that carries out the group commits."""

    def __init__(self, database: Database, lanes: Lanes, hints: Hints, kinds: Kinds, backlogs: Backlogs) -> None:
        self._database = database
        self._lanes = lanes
        self._hints = hints
        self._kinds = kinds
        self._backlogs = backlogs
        self._singles: Batcher[JobSpec, Submitted] = Batcher(
            self._commit_group, max_items=500, in_flight=3, name="submit"
        )

    async def run(self) -> None:
        """Carry out group commits until cancelled."""
        await self._singles.run()

    async def submit(self, spec: JobSpec) -> Submitted:
        """Write one job, together with others that arrive at the same time.

        Raises:
            InvalidInput: it depends on a job that does not exist.
            Conflict: its idempotency key stands for another request.
            BacklogFull: its namespace has as many unfinished jobs as it may have.
        """
        if spec.depends_on or self._backlogs.is_full(spec.namespace):
            return (await self.submit_batch([spec], path="job"))[0]
        return await self._singles.ask(spec)

    async def submit_batch(
        self,
        specs: Sequence[JobSpec],
        *,
        parent: Parent | None = None,
        path: str = "jobs",
        workflow_name: str | None = None,
    ) -> list[Submitted]:
        """Write a batch whole or not at all; answers are in the order of ``specs``.

        A batch whose members depend on each other, or that has a ``workflow_name``, is a workflow. Members that keys
        answer for stay in the workflow that they are in.

        Raises:
            InvalidInput, Conflict, BacklogFull: as ``submit``, with the member named.
            OwnershipLost: the parent's fence is old.
            WrongState: the parent's workflow is canceled.
        """
        if not specs:
            return []
        if len(specs) > DEFAULT_BOUNDS.batch_jobs:
            raise InvalidInput(
                [FieldViolation(path, f"{len(specs)} jobs, at most {DEFAULT_BOUNDS.batch_jobs} in a batch")]
            )
        _refuse_repeated_keys(specs, path)
        ids = [new_id() for _ in specs]
        created = [True] * len(specs)
        for _ in range(_TRIES):
            planned = _plan(specs, ids, parent, path, self._kinds.book)
            await self._require_known(planned, path)
            new = [job for job, is_new in zip(planned, created, strict=True) if is_new]
            workflow = None if parent or not new else _workflow_of(planned, workflow_name)
            joined = workflow.id if workflow else parent.workflow_id if parent else None
            if joined:
                new = [replace(job, workflow_id=joined) for job in new]
            try:
                await self._write(new, fence=parent.fence if parent else None, workflow=workflow)
            except KeyTaken:
                await self._adopt(planned, ids, created, path)
                continue
            except BacklogFull:
                before = list(created)
                await self._adopt(planned, ids, created, path)
                if created == before:
                    raise
                continue  # some are there already: a repetition needs no room for them
            earlier = await self._workflows_of([id for id, is_new in zip(ids, created, strict=True) if not is_new])
            if not new:
                await self._require_same_name([earlier.get(id) for id in ids], workflow_name)
            return [
                Submitted(id, is_new, joined if is_new else earlier.get(id))
                for id, is_new in zip(ids, created, strict=True)
            ]
        raise Unavailable("idempotency keys of this batch kept changing", hint="send the same request again")

    async def _write(
        self,
        jobs: Sequence[PlannedJob],
        *,
        fence: int | None = None,
        workflow: NewWorkflow | None = None,
        refuses: bool = True,
    ) -> None:
        if not jobs:
            return
        with self._backlogs.writing(jobs, refuses=refuses):
            lanes = await self._lanes.of([job.spec for job in jobs])
            await write_jobs(self._database, jobs, lanes, fence=fence, workflow=workflow)
        self._hints.ready(set(lanes))

    async def _workflows_of(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID | None]:
        if not ids:
            return {}
        rows = await self._database.fetch("workflows_of_jobs", {"ids": list(ids)})
        return {row.id: row.workflow_id for row in rows}

    async def _require_same_name(self, workflows: Sequence[uuid.UUID | None], name: str | None) -> None:
        """Refuse a repeated batch that asks for a name other than that of the workflow it has become."""
        if name is None:
            return
        found = next((id for id in workflows if id is not None), None)
        rows = await self._database.fetch("workflows_by_id", {"ids": [found]}) if found else []
        if not rows or rows[0].name != name:
            raise Conflict(
                f"the keys of this batch stand for jobs that are not of a workflow named {name!r}",
                hint="use other keys for another workflow",
            )

    async def _adopt(self, planned: Sequence[PlannedJob], ids: list[uuid.UUID], created: list[bool], path: str) -> None:
        """Take over the ids of jobs whose keys are known, so that references in the batch mean those."""
        keys = [_key(job) for job in planned if job.spec.idempotency_key]
        known = await keyed_jobs(self._database, keys) if keys else {}
        for index, job in enumerate(planned):
            earlier = known.get(_key(job)) if job.spec.idempotency_key else None
            if earlier is None:
                ids[index], created[index] = (ids[index] if created[index] else new_id()), True
                continue
            if earlier.request_hash != job.request_hash:
                raise Conflict(
                    f"{path}[{index}].idempotency_key {job.spec.idempotency_key!r} stands for job {earlier.job_id},"
                    " which was asked for differently",
                    hint="use another key for another request",
                )
            ids[index], created[index] = earlier.job_id, False

    async def _require_known(self, planned: Sequence[PlannedJob], path: str) -> None:
        own = {job.id for job in planned}
        outside = {parent for job in planned for parent in job.parents} - own
        if not outside:
            return
        rows = await self._database.fetch("known_jobs", {"ids": sorted(outside)})
        missing = outside - {row.id for row in rows}
        if missing:
            raise InvalidInput(
                [
                    FieldViolation(f"{path}[{index}].depends_on", f"job {parent} does not exist")
                    for index, job in enumerate(planned)
                    for parent in job.parents
                    if parent in missing
                ]
            )

    async def _commit_group(self, specs: list[JobSpec]) -> list[Submitted | Exception]:
        """Write independent jobs in one transaction; when that fails, each for itself."""
        try:
            planned = _plan(specs, [new_id() for _ in specs], None, "job", self._kinds.book)
            keys = [_key(job) for job in planned if job.spec.idempotency_key]
            if len(keys) == len(set(keys)):
                await self._write(planned, refuses=False)  # each had room when it came
                return [Submitted(job.id, True) for job in planned]
        except KeyTaken:
            pass
        except (Unavailable, BoundExceeded) as exc:  # Postgres' trouble, not one member's
            return [exc] * len(specs)
        except Exception:  # one is malformed, or two that know nothing of each other have the same ref
            if len(specs) == 1:
                raise
        answers: list[Submitted | Exception] = []
        for spec in specs:
            try:
                answers.extend(await self.submit_batch([spec], path="job"))
            except Exception as exc:  # to its own caller alone: a defect in one job fails no other
                answers.append(exc)
        return answers


def _key(job: PlannedJob) -> tuple[str, str, str]:
    return (job.spec.namespace, scope_of(job), job.spec.idempotency_key or "")


def _workflow_of(planned: Sequence[PlannedJob], name: str | None) -> NewWorkflow | None:
    """Return the workflow that a batch becomes: one with a name, or with edges between its members."""
    if name is None:
        own = {job.id for job in planned}
        if not any(parent in own for job in planned for parent in job.parents):
            return None
    return NewWorkflow(new_id(), planned[0].spec.namespace, name)


def _plan(
    specs: Sequence[JobSpec], ids: Sequence[uuid.UUID], parent: Parent | None, path: str, book: KindBook
) -> list[PlannedJob]:
    """Plan the jobs as they are to be written. The hash is of what was asked, whatever settings make of it."""
    parents = resolve_batch(specs, ids, path=path)
    return [
        PlannedJob(
            id,
            book.apply(spec, path=f"{path}[{index}]."),
            wanted,
            _request_hash(spec),
            parent.id if parent else None,
        )
        for index, (id, spec, wanted) in enumerate(zip(ids, specs, parents, strict=True))
    ]


def _request_hash(spec: JobSpec) -> bytes:
    if spec.idempotency_key is None:
        return b""
    # Maps and sets: their order is no part of the request.
    maps = {
        name: dict(sorted(value.items())) for name in ("labels", "requires") if len(value := getattr(spec, name)) > 1
    }
    if maps or len(spec.limits) > 1:
        spec = spec.model_copy(update={**maps, "limits": tuple(sorted(spec.limits))})
    return hashlib.sha256(spec.model_dump_json(exclude={"idempotency_key"}).encode()).digest()


def _refuse_repeated_keys(specs: Sequence[JobSpec], path: str) -> None:
    seen: dict[tuple[str, str], int] = {}
    violations = []
    for index, spec in enumerate(specs):
        if spec.idempotency_key is None:
            continue
        first = seen.setdefault((spec.namespace, spec.idempotency_key), index)
        if first != index:
            violations.append(FieldViolation(f"{path}[{index}].idempotency_key", f"is also the key of {path}[{first}]"))
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
