"""Group commit: jobs of strangers share transactions, and each is answered, or refused, as if it had come alone.

A group is written as one. Where that fails those are set apart that can be answered: their idempotency key is known,
their unique key is held. Where there are none the group is divided, until the one that spoils it is found.
Called by ``coordinator.submit``, which deals with a job alone as with a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.kinds import Kinds
from tenure.coordinator.new_jobs import NewJobs
from tenure.model.batch import Batcher
from tenure.model.clock import Clock
from tenure.model.errors import BoundExceeded, Locked, NamespaceFull, Unavailable
from tenure.model.ids import new_id
from tenure.model.jobs import ALONE, JobSpec, PlannedJob
from tenure.model.submit import Submitted, is_ready_as_written, plan
from tenure.model.unique import Holder, OnDuplicate, held_conflict, unique_key_of
from tenure.store.postgres.database import Database
from tenure.store.postgres.submit import IdempotencyKey, KeyedJob, idempotency_key_of, keyed_jobs
from tenure.store.postgres.taken import KeyTaken, UniqueTaken
from tenure.store.postgres.unique import holders

GROUP_BYTES = 8 * 1024 * 1024
"""Of payloads in a group of submits: such a transaction holds up the loop, which leads, for about half a second."""
REST_S = 0.02
"""The longest that submits wait for others where several came together: a commit costs as much as some of them."""
LOCKED_S = 3.0
"""For how long the members of a group are sought that somebody's locks hold up; the rest is then refused with them."""

Answer = Submitted | Exception
SubmitAlone = Callable[[JobSpec], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a group is written."""

    refuses: bool
    """Whether there is room is still to be seen; single submits are in a group because there was when each came."""
    tells: bool = False
    """The answers say how the jobs were written."""
    hasty_until: float | None = None
    """Monotonic. Somebody's lock was met: those who need it are sought, until then, without waiting for it again."""


class GroupCommit:
    """Writes jobs that know nothing of each other. ``run`` is the body of a task that carries out what is asked."""

    def __init__(
        self,
        database: Database,
        new_jobs: NewJobs,
        kinds: Kinds,
        backlogs: Backlogs,
        clock: Clock,
        submit_alone: SubmitAlone,
    ) -> None:
        self._database = database
        self._new_jobs = new_jobs
        self._kinds = kinds
        self._backlogs = backlogs
        self._clock = clock
        self._submit_alone = submit_alone
        self._asked: Batcher[JobSpec, Submitted] = Batcher(
            lambda specs: self._commit(specs, _Manner(refuses=False, tells=True)),
            max_items=500,
            in_flight=2,
            weigh=_payload_bytes,
            max_weight=GROUP_BYTES,
            rest_s=REST_S,
            name="submit",
        )

    async def run(self) -> None:
        """Carry out group commits until cancelled."""
        await self._asked.run()

    async def ask(self, spec: JobSpec) -> Submitted:
        """Write one job together with others that are asked for at the same time; raises what is its answer."""
        return await self._asked.ask(spec)

    def ask_together(self, specs: Sequence[JobSpec]) -> list[asyncio.Future[Submitted]]:
        """Write jobs that came together with others that are asked for at the same time, as ``ask`` does each."""
        return self._asked.add(specs)

    async def commit(self, specs: Sequence[JobSpec]) -> list[Answer]:
        """Write jobs that came together, each for itself."""
        return await self._commit(specs, _Manner(refuses=True))

    async def _commit(self, specs: Sequence[JobSpec], manner: _Manner) -> list[Answer]:
        """Write independent jobs in one transaction; when that fails, in smaller ones."""
        if not specs:
            return []
        keys: list[IdempotencyKey] = []
        try:
            planned = plan(specs, [new_id() for _ in specs], None, ALONE, self._kinds.book)
            keys = [idempotency_key_of(job) for job in planned if job.spec.idempotency_key]
            if len(keys) == len(set(keys)):
                in_haste = manner.hasty_until is not None
                at = await self._new_jobs.write(
                    planned, refuses=manner.refuses, in_haste=in_haste, tells_time=manner.tells
                )
                return [
                    Submitted(job.id, True, written=job if at and is_ready_as_written(job) else None, written_at=at)
                    for job in planned
                ]
        except (KeyTaken, NamespaceFull) as exc:
            if known := await keyed_jobs(self._database, keys) if keys else {}:
                return await self._commit_unknown(specs, planned, known, manner)
            if isinstance(exc, NamespaceFull) and all(self._has_no_place(spec) for spec in specs):
                return [exc] * len(specs)
        except UniqueTaken:
            if answers := await self._commit_unheld(specs, planned, manner):
                return answers
        except Locked as exc:  # a key or a lane that an open transaction makes, too
            until = manner.hasty_until or self._clock.monotonic() + LOCKED_S
            if len(specs) == 1 or self._clock.monotonic() > until:
                return [exc] * len(specs)
            manner = replace(manner, hasty_until=until)
        except (Unavailable, BoundExceeded) as exc:  # Postgres' trouble, not one member's
            return [exc] * len(specs)
        except Exception as exc:  # one is malformed, or two that know nothing of each other have the same ref
            if len(specs) == 1:
                return [exc]
        return await self._commit_halves(specs, manner)

    async def _commit_halves(self, specs: Sequence[JobSpec], manner: _Manner) -> list[Answer]:
        """Find the bad ones by halves."""
        if len(specs) == 1:
            return [await self._submit_alone(specs[0])]
        half = len(specs) // 2
        return [*await self._commit(specs[:half], manner), *await self._commit(specs[half:], manner)]

    def _has_no_place(self, spec: JobSpec) -> bool:
        """Say whether there is no room for a job, and no other that would be the answer instead."""
        return spec.on_duplicate is not OnDuplicate.EXISTING and self._backlogs.is_full(spec.namespace)

    async def _commit_unknown(
        self,
        specs: Sequence[JobSpec],
        planned: Sequence[PlannedJob],
        known: Mapping[IdempotencyKey, KeyedJob],
        manner: _Manner,
    ) -> list[Answer]:
        """Answer those whose idempotency keys are known, as when a broken stream is sent again; write the others."""
        # As asked: what the settings of their kinds make of them is no part of a request.
        rest = [spec for spec, job in zip(specs, planned, strict=True) if idempotency_key_of(job) not in known]
        written = iter(await self._commit(rest, manner))
        answers: list[Answer] = []
        for spec, job in zip(specs, planned, strict=True):
            earlier = known.get(idempotency_key_of(job))
            if earlier is None:
                answers.append(next(written))
            elif earlier.request_hash == job.request_hash:
                answers.append(Submitted(earlier.job_id, False))
            else:
                answers.append(await self._submit_alone(spec))  # refused there
        return answers

    async def _commit_unheld(
        self, specs: Sequence[JobSpec], planned: Sequence[PlannedJob], manner: _Manner
    ) -> list[Answer] | None:
        """Answer those whose unique keys are held, and write the others; None when no key is held any more."""
        wanted = {index: unique_key_of(spec) for index, spec in enumerate(specs) if spec.unique_key is not None}
        held = await holders(self._database, wanted.values())
        holder_of = {index: held[key] for index, key in wanted.items() if key in held}
        first = {key: index for index, key in reversed(wanted.items())}
        repeats = [index for index, key in wanted.items() if key not in held and first[key] != index]
        if not holder_of and not repeats:
            return None
        answers = await self._answer_with_holders(specs, planned, holder_of)
        later = {*holder_of, *repeats}
        free = [index for index in range(len(specs)) if index not in later]
        for part in (free, repeats):  # the first one with a key answers for the next ones
            written = await self._commit([specs[index] for index in part], manner)
            answers.update(zip(part, written, strict=True))
        return [answers[index] for index in range(len(specs))]

    async def _answer_with_holders(
        self, specs: Sequence[JobSpec], planned: Sequence[PlannedJob], holder_of: Mapping[int, Holder]
    ) -> dict[int, Answer]:
        """Answer with the holders of unique keys; who gave an idempotency key, too, gets the same answer again.

        That none of those keys is known was found out before it came to unique keys.
        """
        answers: dict[int, Answer] = {}
        keyed: dict[int, PlannedJob] = {}
        for index, holder in holder_of.items():
            if specs[index].on_duplicate is OnDuplicate.REFUSE:
                answers[index] = held_conflict(ALONE, specs[index], holder)
                continue
            answers[index] = Submitted(holder.id, False, duplicate=True)
            if specs[index].idempotency_key is not None:
                keyed[index] = planned[index]._replace(id=holder.id)
        try:
            await self._new_jobs.write((), list(keyed.values()))
        except (KeyTaken, Locked):  # since then; or by somebody's open transaction, which concerns one of them alone
            answers.update({index: await self._submit_alone(specs[index]) for index in keyed})
        return answers


def _payload_bytes(spec: JobSpec) -> int:
    return len(spec.payload) if spec.payload.isascii() else len(spec.payload.encode())
