"""Reading what attempts have saved: which files there are, where each can be had, and which results are not kept with
their jobs. Who may read is for the services to say."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tenure.coordinator.transfers import Download, File
from tenure.coordinator.uploads import ObjectAccess, no_object_store
from tenure.model.errors import FieldViolation, InvalidInput, NotFound
from tenure.model.objects import RESULT, artifact_name_error, file_key
from tenure.model.states import JobState
from tenure.store.postgres.database import Database, Row
from tenure.v1 import job_pb2

HINT = "tenure jobs artifacts ID lists what there is"


class Found(NamedTuple):
    """A file, and where to read it."""

    row: Row
    download: Download


class Artifacts:
    """Reads. Without ``objects`` there is no object store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.objects: ObjectAccess | None = None

    async def of(self, job: uuid.UUID) -> list[Row]:
        """Return the files of a job."""
        return await self._database.fetch("artifacts_of", {"id": job})

    async def find(
        self, job: uuid.UUID, namespace: str, name: str, attempt: int, *, saved: Sequence[Any] | None = None
    ) -> Found:
        """Return a file of a job, and where to read it; ``attempt`` 0 means the last one that has saved it.

        ``saved``: all that it has saved, where that is not in Postgres.

        Raises:
            NotFound: there is none. WrongState: there is no object store.
        """
        if name != RESULT and (problem := artifact_name_error(name)):
            raise InvalidInput([FieldViolation("name", problem)], hint=HINT)
        if attempt < 0:
            raise InvalidInput([FieldViolation("attempt", "must not be negative")])
        if saved is None:
            rows = await self._database.fetch("artifact_to_read", {"id": job, "name": name, "attempt": attempt})
        else:
            named = (
                one for one in saved if one.name == name and one.sha256 is not None and attempt in (0, one.attempt)
            )
            rows = sorted(named, key=lambda one: -one.attempt)
        if not rows:
            raise NotFound(f"job {job} has saved no {name}" + (f" in attempt {attempt}" if attempt else ""), hint=HINT)
        if self.objects is None:
            raise no_object_store()
        row = rows[0]
        key = file_key(namespace, job, row.attempt, name, row.sha256)
        file = File(key, row.size_bytes, row.sha256, row.content_type)
        return Found(row, await self.objects.transfers.download(file, f"{job}.json" if name == RESULT else name))


async def tell_results(database: Database, rows: Sequence[Row], jobs: Mapping[uuid.UUID, job_pb2.Job]) -> None:
    """Say of jobs that have completed, and have no result, where it is; only then does this ask Postgres."""
    lacking = [row for row in rows if row.result is None and row.state == JobState.COMPLETED]
    if not lacking:
        return
    asked = {"ids": [row.id for row in lacking], "attempts": [row.attempt for row in lacking]}
    for row in await database.fetch("results_of", asked):
        job = jobs[row.job_id]
        if row.lost is None:
            job.result_object.CopyFrom(job_pb2.ResultObject(size_bytes=row.size_bytes, sha256=row.sha256))
        else:
            job.result_lost.CopyFrom(job_pb2.ResultLost(reason=row.lost, size_bytes=row.size_bytes))
