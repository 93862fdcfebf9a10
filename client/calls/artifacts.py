"""Files that attempts have saved, and results that are too large to be kept with their jobs: found, fetched, checked.

A coordinator says where a file is; it is read from there, without credentials, and compared with its SHA-256.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenure.client import convert
from tenure.client.link import Link
from tenure.client.records import Artifact, Job
from tenure.model.errors import NotFound, TenureError, Unavailable, WrongState
from tenure.model.states import JobState
from tenure.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from tenure.v1.transfer import Files, Measured

T = TypeVar("T")
TRIES = 3
"""Of a download, each with a URL of its own."""


class ArtifactCalls:
    """Read what jobs have made."""

    _link: Link
    _files: Files | None

    async def result(self, job: Job | str) -> Any:
        """Return the result of a job that has completed, parsed, wherever it is kept.

        ``job`` is an id, or the job as it was answered: then a result that came with it is not asked for again.

        Raises:
            WrongState: it has not completed. NotFound: there is no such job, or its result could not be kept.
        """
        if isinstance(job, str):
            answer: pb.GetJobResponse = await self._link.unary(lambda to: to.jobs.GetJob, pb.GetJobRequest(id=job))
            job = convert.job_from_wire(answer.job)
        if job.state is not JobState.COMPLETED:
            raise WrongState(f"job {job.id} has no result: it is {job.state}")
        if job.result_lost is not None:
            raise NotFound(f"the result of job {job.id} could not be kept: {job.result_lost.reason}")
        if job.result_object is None:
            return job.result

        async def fetch(files: Files, url: str, expected: Measured) -> bytes:
            return await files.fetch(url, expected)

        return json.loads(await self._fetched(pb.CreateDownloadRequest(job_id=job.id), fetch))

    async def artifacts(self, job_id: str) -> builtins.list[Artifact]:
        """Return the files that attempts of a job have saved, by attempt and name; a large result is one of them.

        Raises:
            NotFound: there is no such job.
        """
        answer: pb.ListArtifactsResponse = await self._link.unary(
            lambda to: to.jobs.ListArtifacts, pb.ListArtifactsRequest(job_id=job_id)
        )
        return [convert.artifact_from_wire(one) for one in answer.artifacts]

    async def download(self, job_id: str, name: str | None = None, path: str | Path = ".", *, attempt: int = 0) -> Path:
        """Fetch a file of a job and return where it is: ``path``, or under its name in that folder.

        It is there only when it is whole and right. ``name`` None means the result; ``attempt`` 0 the last attempt that
        has saved it.

        Raises:
            NotFound: there is no such job or file. InvalidInput: it cannot be written there.
            WrongState: the coordinators have no object store. Unavailable: it could not be read.
        """
        request = pb.CreateDownloadRequest(job_id=job_id, name=name or "", attempt=attempt)

        async def save(files: Files, url: str, expected: Measured) -> Path:
            return await files.save(url, expected, Path(path), name or f"{job_id}.json")

        return await self._fetched(request, save)

    async def download_url(self, job_id: str, name: str | None = None, *, attempt: int = 0) -> str:
        """Return where a file of a job is read by GET, without credentials, for some minutes. As for ``download``.

        Raises:
            NotFound: there is no such job or file. WrongState: the coordinators have no object store.
        """
        answer: pb.CreateDownloadResponse = await self._link.unary(
            lambda to: to.jobs.CreateDownload, pb.CreateDownloadRequest(job_id=job_id, name=name or "", attempt=attempt)
        )
        return answer.url

    async def _fetched(
        self, request: pb.CreateDownloadRequest, fetch: Callable[[Files, str, Measured], Awaitable[T]]
    ) -> T:
        from tenure.v1.transfer import Measured

        problem: TenureError | None = None
        for _ in range(TRIES):
            answer: pb.CreateDownloadResponse = await self._link.unary(lambda to: to.jobs.CreateDownload, request)
            expected = Measured(answer.artifact.size_bytes, answer.artifact.sha256)
            try:
                return await fetch(self._opened(), answer.url, expected)
            except Unavailable as exc:
                problem = exc
        raise problem or Unavailable("it was not tried")

    def _opened(self) -> Files:
        # Imported and made with the first download: most clients never have one.
        if self._files is None:
            from tenure.v1.transfer import Files

            self._files = Files(ca_files=self._link.ca_files())
        return self._files
