"""Step 1, submit: jobs are validated, written in one transaction, and the leader is told.

Unary submits that arrive together share a transaction (``coordinator.group_commit``); a batch has one of its own. The
answer is given after the commit. An idempotency key that is known answers with its first job, or refuses another
request; a unique key that an unfinished job has is dealt with as the request says (``model.unique``).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tenure.coordinator.access import sees
from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.group_commit import Answer, GroupCommit
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.new_jobs import NewJobs
from tenure.model.clock import Clock
from tenure.model.errors import Conflict, FieldViolation, InvalidInput, NamespaceFull, ParentGone, Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import ALONE, JobSpec, PlannedJob, member_path
from tenure.model.kinds import KindBook
from tenure.model.submit import Parent, Submitted, plan, refuse_repeated_keys, refuse_too_many, stands_alone
from tenure.model.unique import OnDuplicate, held_conflict, unique_key_of
from tenure.store.postgres.database import Database
from tenure.store.postgres.submit import NewWorkflow, idempotency_key_of, keyed_jobs
from tenure.store.postgres.taken import KeyTaken, UniqueTaken
from tenure.store.postgres.unique import holders

_TRIES = 10
"""How often a batch is planned again because a key was taken at the same moment."""
_APART_AT_ONCE = 5
"""How many transactions jobs of one call have at a time: the leader needs connections, too."""


@dataclass(slots=True)
class _Batch:
    """A batch on its way: which job each member is, a new one or an earlier one that a key of it stands for."""

    specs: Sequence[JobSpec]
    path: str
    """How refusals name the batch."""
    parent: Parent | None
    workflow_name: str | None
    ids: list[uuid.UUID]
    is_new: list[bool]
    duplicates: set[int] = field(default_factory=set)
    """The members that holders of their unique keys answer for."""
    planned: list[PlannedJob] = field(default_factory=list)
    new: list[PlannedJob] = field(default_factory=list)
    workflow: NewWorkflow | None = None
    joined: uuid.UUID | None = None
    """The workflow that new members are of: this new one, or the parent's."""

    def plan(self, book: KindBook) -> None:
        """Plan the jobs as the members are seen now."""
        self.planned = plan(self.specs, self.ids, self.parent, self.path, book)
        self.new = [job for job, is_new in zip(self.planned, self.is_new, strict=True) if is_new]
        self.workflow = None if self.parent or not self.new else _workflow_of(self.planned, self.workflow_name)
        self.joined = self.workflow.id if self.workflow else self.parent.workflow_id if self.parent else None
        if self.joined:
            self.new = [job._replace(workflow_id=self.joined) for job in self.new]

    def stand_for(self, index: int, earlier: uuid.UUID) -> None:
        """Have a member be an earlier job, so that references in the batch mean that one."""
        self.ids[index], self.is_new[index] = earlier, False


class Submitter:
    """Accepts validated jobs. ``run`` is the body of a task that carries out the group commits."""

    def __init__(
        self,
        database: Database,
        lanes: Lanes,
        hints: Hints,
        kinds: Kinds,
        backlogs: Backlogs,
        canceler: Canceler,
        clock: Clock,
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._backlogs = backlogs
        self._new_jobs = NewJobs(database, lanes, hints, backlogs, canceler)
        self._group = GroupCommit(database, self._new_jobs, kinds, backlogs, clock, self._submit_alone)

    async def run(self) -> None:
        """Carry out group commits until cancelled."""
        await self._group.run()

    async def submit(self, spec: JobSpec) -> Submitted:
        """Write one job, together with others that arrive at the same time.

        Raises:
            InvalidInput: it depends on a job that does not exist.
            Conflict: its idempotency key stands for another request, or its unique key is held.
            NamespaceFull: its namespace has as many unfinished jobs as it may have, or submits too fast.
        """
        if stands_alone(spec) or self._backlogs.is_full(spec.namespace):
            return (await self.submit_batch([spec], path=ALONE))[0]
        return await self._group.ask(spec)

    async def submit_together(self, specs: Sequence[JobSpec]) -> list[Answer]:
        """Write jobs that one call brought, each as ``submit`` does."""
        alone = [
            index for index, spec in enumerate(specs) if stands_alone(spec) or self._backlogs.is_full(spec.namespace)
        ]
        apart = set(alone)
        grouped = [index for index in range(len(specs)) if index not in apart] if apart else range(len(specs))
        asked = self._group.ask_together([specs[index] for index in grouped])
        own, others = await asyncio.gather(
            self._submit_apart([specs[index] for index in alone]),
            asyncio.gather(*asked, return_exceptions=True),
        )
        answers: dict[int, Answer] = dict(zip(alone, own, strict=True))
        for index, answer in zip(grouped, others, strict=True):
            if not isinstance(answer, (tuple, Exception)):
                raise answer
            answers[index] = answer
        return [answers[index] for index in range(len(specs))]

    async def _submit_apart(self, specs: Sequence[JobSpec]) -> list[Answer]:
        """Write jobs in a transaction each; who waits for a lock holds up few others."""
        room = asyncio.Semaphore(_APART_AT_ONCE)

        async def submitted(spec: JobSpec) -> Answer:
            async with room:
                return await self._submit_alone(spec)

        return await asyncio.gather(*map(submitted, specs))

    async def submit_each(self, specs: Sequence[JobSpec]) -> list[Answer]:
        """Write jobs that have nothing to do with each other, in order, in few transactions; each fails alone."""
        answers: list[Answer] = []
        for alone, group in groupby(specs, stands_alone):
            if alone:
                answers.extend([await self._submit_alone(spec) for spec in group])
            else:
                answers.extend(await self._group.commit(list(group)))
        return answers

    async def _submit_alone(self, spec: JobSpec) -> Answer:
        try:
            return (await self.submit_batch([spec], path=ALONE))[0]
        except Exception as exc:  # to its own caller alone: a defect in one job fails no other
            return exc

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
            InvalidInput, Conflict, NamespaceFull: as ``submit``, with the member named.
            OwnershipLost: the parent's fence is old.
            WrongState: the parent's workflow is canceled.
        """
        if not specs:
            return []
        refuse_too_many(specs, path)
        refuse_repeated_keys(specs, path)
        batch = _Batch(specs, path, parent, workflow_name, [new_id() for _ in specs], [True] * len(specs))
        for _ in range(_TRIES):
            await asyncio.sleep(0)  # a large batch takes some time to plan, and to write out: others have their turn
            batch.plan(self._kinds.book)
            await asyncio.sleep(0)
            await self._require_parents(batch)
            if await self._write(batch):
                return await self._answers(batch)
        raise Unavailable("the keys of this batch kept changing hands", hint="send the same request again")

    async def _require_parents(self, batch: _Batch) -> None:
        """Refuse a batch that depends on jobs which do not exist, as far as the caller can see."""
        outside = {parent for job in batch.planned for parent in job.parents}
        if outside:
            outside -= {job.id for job in batch.planned}
        if not outside:
            return
        rows = await self._database.fetch("known_jobs", {"ids": sorted(outside)})
        missing = outside - {row.id for row in rows if sees(row.namespace)}
        if missing:
            raise InvalidInput(
                [
                    FieldViolation(f"{member_path(batch.path, index)}.depends_on", f"job {parent} does not exist")
                    for index, job in enumerate(batch.planned)
                    for parent in job.parents
                    if parent in missing
                ]
            )

    async def _write(self, batch: _Batch) -> bool:
        """Write what is new of a batch; false where keys stand for other jobs than was thought: plan again."""
        answered = [batch.planned[index] for index in sorted(batch.duplicates)]
        fence = batch.parent.fence if batch.parent else None
        try:
            await self._new_jobs.write(batch.new, answered, fence=fence, workflow=batch.workflow)
        except ParentGone:
            return False  # which is then refused
        except KeyTaken:
            await self._adopt_known(batch)
            return False
        except UniqueTaken:
            await self._adopt_holders(batch)
            return False
        except NamespaceFull:
            before = list(batch.is_new)
            await self._adopt_known(batch)
            await self._adopt_holders(batch)
            if batch.is_new == before:
                raise
            return False  # some are there already: a repetition needs no room for them
        return True

    async def _adopt_known(self, batch: _Batch) -> None:
        """Have members be the jobs that their idempotency keys stand for, and all others new ones."""
        keys = [idempotency_key_of(job) for job in batch.planned if job.spec.idempotency_key]
        known = await keyed_jobs(self._database, keys) if keys else {}
        batch.duplicates.clear()
        for index, job in enumerate(batch.planned):
            earlier = known.get(idempotency_key_of(job)) if job.spec.idempotency_key else None
            if earlier is None:
                if not batch.is_new[index]:
                    batch.ids[index], batch.is_new[index] = new_id(), True
                continue
            if earlier.request_hash != job.request_hash:
                raise Conflict(
                    f"{member_path(batch.path, index)}.idempotency_key {job.spec.idempotency_key!r} stands for job"
                    f" {earlier.job_id}, which was asked for differently",
                    hint="use another key for another request",
                )
            batch.stand_for(index, earlier.job_id)

    async def _adopt_holders(self, batch: _Batch) -> None:
        """Have new members be the holders of their unique keys, where they ask for that, or refuse them."""
        wanted = {
            index: unique_key_of(job.spec)
            for index, job in enumerate(batch.planned)
            if batch.is_new[index]
            and job.spec.unique_key is not None
            and job.spec.on_duplicate is not OnDuplicate.REPLACE
        }
        held = await holders(self._database, wanted.values())
        for index, key in wanted.items():
            if (holder := held.get(key)) is None:
                continue
            spec = batch.planned[index].spec
            if spec.on_duplicate is OnDuplicate.REFUSE:
                raise held_conflict(member_path(batch.path, index), spec, holder)
            batch.stand_for(index, holder.id)
            batch.duplicates.add(index)

    async def _answers(self, batch: _Batch) -> list[Submitted]:
        """Say for each member of a batch that is written which job it is."""
        earlier = [id for id, is_new in zip(batch.ids, batch.is_new, strict=True) if not is_new]
        rows = await self._database.fetch("workflows_of_jobs", {"ids": earlier}) if earlier else []
        workflows = {row.id: row.workflow_id for row in rows}
        if not batch.new:
            await self._require_same_name([workflows.get(id) for id in batch.ids], batch.workflow_name)
        return [
            Submitted(id, is_new, batch.joined if is_new else workflows.get(id), index in batch.duplicates)
            for index, (id, is_new) in enumerate(zip(batch.ids, batch.is_new, strict=True))
        ]

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


def _workflow_of(planned: Sequence[PlannedJob], name: str | None) -> NewWorkflow | None:
    """Return the workflow that a batch becomes: one with a name, or with edges between its members."""
    if name is None:
        own = {job.id for job in planned}
        if not any(parent in own for job in planned for parent in job.parents):
            return None
    return NewWorkflow(new_id(), planned[0].spec.namespace, name)
