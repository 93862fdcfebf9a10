"""The one transaction of a submit: planned jobs are written, and whoever must know of it is told after the commit.

Called by ``coordinator.submit`` for a batch and by ``coordinator.group_commit`` for strangers. What to do where a key
is taken or a namespace is full is theirs to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tenure.coordinator import counted
from tenure.coordinator.backlog import Backlogs
from tenure.coordinator.cancel import Canceler
from tenure.coordinator.hint import Hints
from tenure.coordinator.lanes import Lanes
from tenure.coordinator.metrics import SUBMIT_S
from tenure.model.clock import elapsed_s, wall_ns
from tenure.model.jobs import PlannedJob
from tenure.model.unique import OnDuplicate, unique_key_of
from tenure.probes import tracing
from tenure.store.postgres.database import Database
from tenure.store.postgres.submit import NewWorkflow, write_jobs
from tenure.store.postgres.unique import holders


class NewJobs:
    """Writes jobs that have been planned."""

    def __init__(self, database: Database, lanes: Lanes, hints: Hints, backlogs: Backlogs, canceler: Canceler) -> None:
        self._database = database
        self._hasty = database.in_haste()
        self._lanes = lanes
        self._hints = hints
        self._backlogs = backlogs
        self._canceler = canceler

    async def write(
        self,
        jobs: Sequence[PlannedJob],
        answered: Sequence[PlannedJob] = (),
        *,
        fence: int | None = None,
        workflow: NewWorkflow | None = None,
        refuses: bool = True,
        in_haste: bool = False,
        tells_time: bool = False,
    ) -> datetime | None:
        """Write jobs whole or not at all, in the place of those that they replace.

        ``answered`` are requests that were answered with the holder of their unique key, by whose id they go: their
        idempotency keys, if they have any, are taken for the same answer. ``refuses`` says what becomes
        of those whose namespace has too many: refused, or written beyond its bound. Who is too fast is always refused.
        ``in_haste`` waits for nobody's lock. With ``tells_time`` the time of their creation is returned.

        Raises: as ``store.postgres.submit.write_jobs``.
            NamespaceFull: there is no room for all of them, or they come too fast.
        """
        answered = [job for job in answered if job.spec.idempotency_key is not None]
        if not jobs and not answered:
            return None
        began, began_ns = elapsed_s(), wall_ns()
        database = self._hasty if in_haste else self._database
        wanted = {unique_key_of(job.spec): job.id for job in jobs if job.spec.on_duplicate is OnDuplicate.REPLACE}
        held = await holders(self._database, wanted) if wanted else {}
        replaces = {holder.id: wanted[key] for key, holder in held.items()}
        with self._backlogs.writing(jobs, refuses=refuses):
            lanes = await self._lanes.of([job.spec for job in jobs], database)
            written = await write_jobs(
                database,
                jobs,
                lanes,
                fence=fence,
                workflow=workflow,
                replaces=replaces,
                answered=answered,
                tells_time=tells_time,
            )
        SUBMIT_S.observe(elapsed_s() - began)
        counted.submitted(lanes, "submit" if fence is None else "child")
        if tracing.is_on():
            tracing.passed("accept", [(str(job.id), job.spec.kind, job.spec.labels) for job in jobs], began_ns)
        self._hints.ready(set(lanes))
        await self._canceler.tell(written.replaced)
        return written.at
