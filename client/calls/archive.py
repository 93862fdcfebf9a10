"""The calls about the archive."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tenure.client.fields import text
from tenure.client.link import Link
from tenure.client.retention import ArchiveFile, file_from_wire
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import retention_service_pb2 as pb


class ArchiveCalls:
    """See which files there are in the archive, and whether they are whole."""

    _link: Link

    async def archive_files(
        self, *, namespace: str | None = None, limit: int | None = None, page_size: int = 200
    ) -> AsyncIterator[ArchiveFile]:
        """Yield the files of the archive, newest first. ``limit`` None means all; pages hold at most 1,000 files.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the namespace is not the caller's.
        """
        if limit is not None and limit < 1:
            raise InvalidInput([FieldViolation("limit", "must be at least 1")])
        request = pb.ListArchiveFilesRequest(
            namespace=namespace or "", page_size=page_size if limit is None else min(page_size, limit)
        )
        told = 0
        answer: pb.ListArchiveFilesResponse
        async for answer in self._link.pages(lambda to: to.retention.ListArchiveFiles, request):
            for file in answer.files:
                yield file_from_wire(file)
                told += 1
                if told == limit:
                    return

    async def verify_archive_file(self, file_id: str) -> str | None:
        """Have a file of the archive read from the object store; return what is wrong with it, None if nothing is.

        Raises:
            NotFound: there is no such file in the archive. WrongState: the coordinators have no object store.
            Unavailable: it does not answer.
        """
        answer: pb.VerifyArchiveFileResponse = await self._link.unary(
            lambda to: to.retention.VerifyArchiveFile, pb.VerifyArchiveFileRequest(id=file_id)
        )
        return answer.problem or None

    async def unknown_archive_files(self) -> AsyncIterator[str]:
        """Yield the keys of files that lie in the archive and do not count, since the database does not know them.

        So it is after it was restored to a time before they were made. Takes an operator of all namespaces.

        Raises:
            WrongState: the coordinators have no object store. Unavailable: it does not answer.
        """
        answer: pb.ListUnknownArchiveFilesResponse
        async for answer in self._link.pages(
            lambda to: to.retention.ListUnknownArchiveFiles, pb.ListUnknownArchiveFilesRequest()
        ):
            for key in answer.keys:
                yield key

    async def adopt_archive_file(self, key: str) -> tuple[ArchiveFile | None, int]:
        """Have a file that does not count replaced by one that does, with those of its jobs that are nowhere else.

        Return that file, None if none of its jobs was missing elsewhere; and how many are in the database, or in other
        files. Takes an operator of all namespaces.

        Raises:
            NotFound: there is no such file. WrongState: it counts already, or cannot be read.
            Unavailable: the object store does not answer.
        """
        answer: pb.AdoptArchiveFileResponse = await self._link.unary(
            lambda to: to.retention.AdoptArchiveFile, pb.AdoptArchiveFileRequest(key=text(key, "key"))
        )
        return (file_from_wire(answer.file) if answer.HasField("file") else None), answer.known
