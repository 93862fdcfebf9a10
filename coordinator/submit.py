"""Step 1, submit: jobs are validated, written in one transaction, and the leader is told.

Unary submits that arrive together share a transaction (group commit); a batch has one of its own. The answer is
given after the commit. An idempotency key that is known answers with its first job, or refuses another request; a
unique key that an unfinished job has is dealt with as the request says (``model.unique``).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import structlog

from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.hint import Hints
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.lanes import Lanes
from tenure.model.batch import Batcher
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.errors import (
    BacklogFull,
    BoundExceeded,
    Conflict,
    FieldViolation,
    InvalidInput,
    Locked,
    TenureError,
    Unavailable,
)
from tenure.model.ids import new_id
from tenure.model.jobs import ALONE, JobSpec, PlannedJob, member_path, resolve_batch
from tenure.model.kinds import KindBook
from tenure.model.request import request_hash
from tenure.model.unique import OnDuplicate
from tenure.store.postgres.database import Database
from tenure.store.postgres.submit import KeyedJob, KeyTaken, NewWorkflow, keyed_jobs, scope_of, write_jobs
from tenure.store.postgres.unique import REASON, Holder, Replaced, UniqueKey, UniqueTaken, holders, unique_key_of

log = structlog.get_logger(__name__)

GROUP_BYTES = 8 * 1024 * 1024
"""Of payloads in a group of submits: such a transaction holds up the loop, which leads, for about half a second."""
_TRIES = 10
"""How often a batch is planned again because a key was taken at the same moment."""
LOCKED_S = 3.0
"""For how long the members of a group are sought that somebody's locks hold up; the rest is then refused with them."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer for one job; ``created`` is false when its key stood for an earlier job."""

    id: uuid.UUID
    created: bool
    workflow_id: uuid.UUID | None = None
    duplicate: bool = False
    """It was the unique key that stood for it."""


@dataclass(frozen=True, slots=True)
class Parent:
    """On whose behalf children are submitted: an executing attempt, under its fence."""

    id: uuid.UUID
    fence: int
    workflow_id: uuid.UUID | None = None
    """Its children join it."""


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
        self._hasty = database.in_haste()
        self._lanes = lanes
        self._hints = hints
        self._kinds = kinds
        self._backlogs = backlogs
        self._canceler = canceler
        self._clock = clock
        self._singles: Batcher[JobSpec, Submitted] = Batcher(
            self._commit_group,
            max_items=500,
            in_flight=3,
            weigh=_payload_bytes,
            max_weight=GROUP_BYTES,
            name="submit",
        )

    async def run(self) -> None:
        """Carry out group commits until cancelled."""
        await self._singles.run()

    async def submit(self, spec: JobSpec) -> Submitted:
        """Write one job, together with others that arrive at the same time.

        Raises:
            InvalidInput: it depends on a job that does not exist.
            Conflict: its idempotency key stands for another request, or its unique key is held.
            BacklogFull: its namespace has as many unfinished jobs as it may have.
        """
        if _is_alone(spec) or self._backlogs.is_full(spec.namespace):
            return (await self.submit_batch([spec], path=ALONE))[0]
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
        duplicates: set[int] = set()
        for _ in range(_TRIES):
            planned = _plan(specs, ids, parent, path, self._kinds.book)
            await self._require_known(planned, path)
            new = [job for job, is_new in zip(planned, created, strict=True) if is_new]
            workflow = None if parent or not new else _workflow_of(planned, workflow_name)
            joined = workflow.id if workflow else parent.workflow_id if parent else None
            if joined:
                new = [replace(job, workflow_id=joined) for job in new]
            answered = [planned[index] for index in sorted(duplicates)]
            try:
                await self._write(new, answered, fence=parent.fence if parent else None, workflow=workflow)
            except KeyTaken:
                await self._adopt(planned, ids, created, path)
                duplicates.clear()
                continue
            except BacklogFull:
                before = list(created)
                await self._adopt(planned, ids, created, path)
                duplicates = await self._meet_holders(planned, ids, created, path)
                if created == before:
                    raise
                continue  # some are there already: a repetition needs no room for them
            except UniqueTaken:
                duplicates |= await self._meet_holders(planned, ids, created, path)
                continue
            earlier = await self._workflows_of([id for id, is_new in zip(ids, created, strict=True) if not is_new])
            if not new:
                await self._require_same_name([earlier.get(id) for id in ids], workflow_name)
            return [
                Submitted(id, is_new, joined if is_new else earlier.get(id), index in duplicates)
                for index, (id, is_new) in enumerate(zip(ids, created, strict=True))
            ]
        raise Unavailable("the keys of this batch kept changing hands", hint="send the same request again")

    async def _write(
        self,
        jobs: Sequence[PlannedJob],
        answered: Sequence[PlannedJob] = (),
        *,
        fence: int | None = None,
        workflow: NewWorkflow | None = None,
        refuses: bool = True,
        in_haste: bool = False,
    ) -> None:
        database = self._hasty if in_haste else self._database
        answered = [job for job in answered if job.spec.idempotency_key is not None]
        if not jobs and not answered:
            return
        replacing = {unique_key_of(job.spec): job.id for job in jobs if job.spec.on_duplicate is OnDuplicate.REPLACE}
        held = await holders(self._database, replacing) if replacing else {}
        replaces = {holder.id: replacing[key] for key, holder in held.items()}
        with self._backlogs.writing(jobs, refuses=refuses):
            lanes = await self._lanes.of([job.spec for job in jobs], database)
            gone = await write_jobs(
                database, jobs, lanes, fence=fence, workflow=workflow, replaces=replaces, answered=answered
            )
        self._hints.ready(set(lanes))
        await self._tell(gone)

    async def _tell(self, gone: Replaced) -> None:
        try:
            await self._canceler.tell(gone.canceled, gone.settled, gone.asked, REASON)
        except TenureError as exc:  # it is written: the sweeps of dependants and of cancels make it good
            log.warning("replaced_not_told", error=exc.message)

    async def _meet_holders(
        self, planned: Sequence[PlannedJob], ids: list[uuid.UUID], created: list[bool], path: str
    ) -> set[int]:
        """Do as the new jobs want about the unique keys that are held; return the members answered with the holders."""
        wanted = {
            index: unique_key_of(job.spec)
            for index, job in enumerate(planned)
            if created[index] and job.spec.unique_key is not None and job.spec.on_duplicate is not OnDuplicate.REPLACE
        }
        held = await holders(self._database, wanted.values())
        met = {index: held[key] for index, key in wanted.items() if key in held}
        for index, holder in met.items():
            spec = planned[index].spec
            if spec.on_duplicate is OnDuplicate.REFUSE:
                raise held_conflict(member_path(path, index), spec, holder)
            ids[index], created[index] = holder.id, False
        return set(met)

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
                    f"{member_path(path, index)}.idempotency_key {job.spec.idempotency_key!r} stands for"
                    f" job {earlier.job_id}, which was asked for differently",
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
                    FieldViolation(f"{member_path(path, index)}.depends_on", f"job {parent} does not exist")
                    for index, job in enumerate(planned)
                    for parent in job.parents
                    if parent in missing
                ]
            )

    async def _commit_group(
        self, specs: list[JobSpec], *, refuses: bool = False, hasty_until: float | None = None
    ) -> list[Submitted | Exception]:
        """Write independent jobs in one transaction; when that fails, in smaller ones.

        Single submits are in a group because there was room when each came; of others, ``refuses`` says to look.
        ``hasty_until`` (monotonic): somebody's lock was met; those who need it are sought without waiting for it again.
        """
        if not specs:
            return []
        keys: list[tuple[str, str, str]] = []
        try:
            planned = _plan(specs, [new_id() for _ in specs], None, ALONE, self._kinds.book)
            keys = [_key(job) for job in planned if job.spec.idempotency_key]
            if len(keys) == len(set(keys)):
                await self._write(planned, refuses=refuses, in_haste=hasty_until is not None)
                return [Submitted(job.id, True) for job in planned]
        except (KeyTaken, BacklogFull) as exc:
            if known := await keyed_jobs(self._database, keys) if keys else {}:
                return await self._commit_rest(specs, planned, known, refuses=refuses, hasty_until=hasty_until)
            if isinstance(exc, BacklogFull) and all(self._has_no_place(spec) for spec in specs):
                return [exc] * len(specs)
        except UniqueTaken:
            if answers := await self._commit_unheld(specs, planned, refuses=refuses, hasty_until=hasty_until):
                return answers
        except Locked as exc:  # a key or a lane that an open transaction makes, too
            hasty_until = hasty_until or self._clock.monotonic() + LOCKED_S
            if len(specs) == 1 or self._clock.monotonic() > hasty_until:
                return [exc] * len(specs)
        except (Unavailable, BoundExceeded) as exc:  # Postgres' trouble, not one member's
            return [exc] * len(specs)
        except Exception as exc:  # one is malformed, or two that know nothing of each other have the same ref
            if len(specs) == 1:
                return [exc]
        if len(specs) == 1:
            return [await self._submit_alone(specs[0])]
        half = len(specs) // 2  # the bad ones are found by halves
        return [
            *await self._commit_group(specs[:half], refuses=refuses, hasty_until=hasty_until),
            *await self._commit_group(specs[half:], refuses=refuses, hasty_until=hasty_until),
        ]

    def _has_no_place(self, spec: JobSpec) -> bool:
        """Say whether there is no room for a job, and no other that would be the answer instead."""
        return spec.on_duplicate is not OnDuplicate.EXISTING and self._backlogs.is_full(spec.namespace)

    async def _commit_rest(
        self,
        specs: Sequence[JobSpec],
        planned: Sequence[PlannedJob],
        known: Mapping[tuple[str, str, str], KeyedJob],
        *,
        refuses: bool,
        hasty_until: float | None,
    ) -> list[Submitted | Exception]:
        """Answer those whose keys are known, as when a broken stream is sent again, and write the others."""
        # As asked: what the settings of their kinds make of them is no part of a request.
        rest = [spec for spec, job in zip(specs, planned, strict=True) if _key(job) not in known]
        written = iter(await self._commit_group(rest, refuses=refuses, hasty_until=hasty_until))
        answers: list[Submitted | Exception] = []
        for spec, job in zip(specs, planned, strict=True):
            earlier = known.get(_key(job))
            if earlier is None:
                answers.append(next(written))
            elif earlier.request_hash == job.request_hash:
                answers.append(Submitted(earlier.job_id, False))
            else:
                answers.append(await self._submit_alone(spec))  # refused there
        return answers

    async def _commit_unheld(
        self,
        specs: Sequence[JobSpec],
        planned: Sequence[PlannedJob],
        *,
        refuses: bool,
        hasty_until: float | None,
    ) -> list[Submitted | Exception] | None:
        """Answer those whose unique keys are held, and write the others; None when no key is held any more."""
        wanted = {index: unique_key_of(spec) for index, spec in enumerate(specs) if spec.unique_key is not None}
        held = await holders(self._database, wanted.values())
        met = {index: held[key] for index, key in wanted.items() if key in held}
        first = {key: index for index, key in reversed(wanted.items())}
        repeats = [index for index, key in wanted.items() if key not in held and first[key] != index]
        if not met and not repeats:
            return None
        answers = await self._answer_met(specs, planned, met)
        later = {*met, *repeats}
        free = [index for index in range(len(specs)) if index not in later]
        for part in (free, repeats):  # the first one with a key answers for the next ones
            written = await self._commit_group(
                [specs[index] for index in part], refuses=refuses, hasty_until=hasty_until
            )
            answers.update(zip(part, written, strict=True))
        return [answers[index] for index in range(len(specs))]

    async def _answer_met(
        self, specs: Sequence[JobSpec], planned: Sequence[PlannedJob], met: Mapping[int, Holder]
    ) -> dict[int, Submitted | Exception]:
        """Answer with the holders of unique keys; who gave an idempotency key, too, gets the same answer again.

        That none of those keys is known was found out before it came to unique keys.
        """
        answers: dict[int, Submitted | Exception] = {}
        keyed: dict[int, PlannedJob] = {}
        for index, holder in met.items():
            if specs[index].on_duplicate is OnDuplicate.REFUSE:
                answers[index] = held_conflict(ALONE, specs[index], holder)
                continue
            answers[index] = Submitted(holder.id, False, duplicate=True)
            if specs[index].idempotency_key is not None:
                keyed[index] = replace(planned[index], id=holder.id)
        try:
            await self._write((), list(keyed.values()))
        except (KeyTaken, Locked):  # since then; or by somebody's open transaction, which concerns one of them alone
            answers.update({index: await self._submit_alone(specs[index]) for index in keyed})
        return answers

    async def _submit_alone(self, spec: JobSpec) -> Submitted | Exception:
        try:
            return (await self.submit_batch([spec], path=ALONE))[0]
        except Exception as exc:  # to its own caller alone: a defect in one job fails no other
            return exc

    async def submit_each(self, specs: Sequence[JobSpec]) -> list[Submitted | Exception]:
        """Write jobs that have nothing to do with each other, in order, in few transactions; each fails alone."""
        answers: list[Submitted | Exception] = []
        for alone, group in groupby(specs, _is_alone):
            if alone:
                answers.extend([await self._submit_alone(spec) for spec in group])
            else:
                answers.extend(await self._commit_group(list(group), refuses=True))
        return answers


def _payload_bytes(spec: JobSpec) -> int:
    return len(spec.payload) if spec.payload.isascii() else len(spec.payload.encode())


def _is_alone(spec: JobSpec) -> bool:
    """Say whether a job asks for more than an insertion, so that it cannot share a transaction with strangers."""
    return bool(spec.depends_on) or spec.on_duplicate is OnDuplicate.REPLACE


def held_conflict(path: str, spec: JobSpec, holder: Holder) -> Conflict:
    """Return the refusal of a job whose unique key is held."""
    return Conflict(
        f"{path}.unique_key {spec.unique_key!r} is that of job {holder.id}, which is {holder.state}",
        hint=f"wait for its end or cancel it: tenure jobs cancel {holder.id}",
    )


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
            book.apply(spec, path=f"{member_path(path, index)}."),
            wanted,
            request_hash(spec) if spec.idempotency_key is not None else b"",
            parent.id if parent else None,
        )
        for index, (id, spec, wanted) in enumerate(zip(ids, specs, parents, strict=True))
    ]


def _refuse_repeated_keys(specs: Sequence[JobSpec], path: str) -> None:
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


def refuse_to_meet(specs: Sequence[JobSpec], parent: UniqueKey | None) -> None:
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
