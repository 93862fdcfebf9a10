"""Files of attempts on their way into the object store: begun and ended under the attempt's fence.

Invariant: a file is there to read (a row of ``tenure.artifact``) only when it is whole in the store, with the size that
was announced; and it lies under the number of its attempt and its own hash, so that nobody's is overwritten: a URL that
was given out can only write again what it was given for. What it holds is proven by its SHA-256, to whoever reads it.
An attempt that begins an upload has a row in ``tenure.upload`` before it has a URL, which counts them, and by which
retention knows that there may be objects, whatever became of them. What a file was before it was saved again stays
until the job is removed: to delete it is to race with who saves that again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from tenure.coordinator.metrics import STALE_WRITES
from tenure.coordinator.object_tokens import ObjectSigner, UploadToken
from tenure.coordinator.transfers import File, Transfers, UploadPlan
from tenure.model.errors import FieldViolation, InvalidInput, NotFound, OwnershipLost, PermissionDenied, WrongState
from tenure.model.objects import (
    CONTENT_TYPE,
    DEFAULT_CONTENT_TYPE,
    MAX_ARTIFACTS,
    MAX_PARTS,
    MAX_UPLOADS,
    RESULT,
    artifact_name_error,
    file_key,
)
from tenure.store.objects.port import ObjectStore
from tenure.store.postgres.database import Database

log = structlog.get_logger(__name__)

SHA256_BYTES = 32
MAX_TAG_CHARS = 256


class Wanted(NamedTuple):
    """A file that an attempt wants to save."""

    name: str
    size_bytes: int
    sha256: bytes
    content_type: str = DEFAULT_CONTENT_TYPE
    upload: str = ""
    """Names the upload under way whose URLs have expired."""


class Begun(NamedTuple):
    """An upload, and where its bytes go."""

    upload: str
    plan: UploadPlan


class ObjectAccess(NamedTuple):
    """A store, and what is signed for it."""

    store: ObjectStore
    transfers: Transfers
    signer: ObjectSigner


def no_object_store() -> WrongState:
    """Return the refusal of who has none."""
    return WrongState("the coordinators have no object store", hint="set TENURE_OBJECT_STORE for them")


class Uploads:
    """Begins and ends uploads. Without ``objects`` there is no object store."""

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self.objects: ObjectAccess | None = None

    async def begin(self, job: uuid.UUID, fence: int, wanted: Wanted) -> Begun:
        """Return where the bytes of a file go.

        Raises:
            InvalidInput: a name, hash or type that is none, or too large or too many. OwnershipLost: an old fence.
            WrongState: there is no object store. Unavailable: ask again.
        """
        self._require_valid(wanted)
        objects = self._objects()
        asked = {"id": job, "fence": fence, "name": wanted.name, "more": 0 if wanted.upload else 1}
        rows = await self._database.fetch("begin_upload", asked)
        if not rows:
            raise self._lost(job, fence)
        if rows[0].others >= MAX_ARTIFACTS:
            raise InvalidInput(
                [FieldViolation("name", f"is one more than the {MAX_ARTIFACTS} that an attempt may save")]
            )
        if rows[0].begun > MAX_UPLOADS:
            raise InvalidInput([FieldViolation("name", f"an attempt may begin {MAX_UPLOADS} uploads, and has")])
        key = file_key(rows[0].namespace, job, rows[0].attempt, wanted.name, wanted.sha256)
        file = File(key, wanted.size_bytes, wanted.sha256, wanted.content_type)
        plan = await objects.transfers.begin(file, self._upload_id(wanted, str(job), fence, key))
        token = UploadToken(str(job), fence, wanted.name, *file, plan.upload_id)
        return Begun(objects.signer.sign(token), plan)

    async def end(self, job: uuid.UUID, fence: int, upload: str, tags: Sequence[str]) -> None:
        """Make a file that was sent one that can be read. May be repeated.

        Raises:
            NotFound: it was not sent. InvalidInput: it has another size. OwnershipLost: an old fence.
            PermissionDenied: this names no upload of the attempt. Unavailable: ask again.
        """
        objects = self._objects()
        if len(tags) > MAX_PARTS or any(len(tag) > MAX_TAG_CHARS for tag in tags):
            raise InvalidInput(
                [FieldViolation("part_tags", f"must be at most {MAX_PARTS}, each of an answer to a PUT")]
            )
        # First of all, so that a zombie ends nothing in the store.
        if not await self._database.fetch("attempt_under_fence", {"id": job, "fence": fence}):
            raise self._lost(job, fence)
        token = objects.signer.read(upload, UploadToken)
        if (token.job, token.fence) != (str(job), fence):
            raise PermissionDenied("this names an upload of another attempt")
        file = File(token.key, token.size_bytes, token.sha256, token.content_type)
        try:
            await objects.transfers.end(file, token.upload_id, tags)
        except NotFound:
            # It may have been ended before, by a call whose answer was lost.
            if await objects.store.head(token.key) is None:
                raise
        found = await objects.store.head(token.key)
        if found is None:
            raise NotFound(f"{token.name} was not uploaded")
        if found.size_bytes != token.size_bytes:
            raise InvalidInput(
                [FieldViolation("size_bytes", f"{found.size_bytes} were uploaded, {token.size_bytes} were told")]
            )
        rows = await self._database.fetch(
            "record_artifact",
            {
                "id": job,
                "fence": fence,
                "name": token.name,
                "size_bytes": token.size_bytes,
                "sha256": token.sha256,
                "content_type": token.content_type,
            },
        )
        if not rows:
            raise self._lost(job, fence)

    def _objects(self) -> ObjectAccess:
        if self.objects is None:
            raise no_object_store()
        return self.objects

    def _upload_id(self, wanted: Wanted, job: str, fence: int, key: str) -> str:
        if not wanted.upload:
            return ""
        token = self._objects().signer.read(wanted.upload, UploadToken)
        if (token.job, token.fence, token.key, token.size_bytes) != (job, fence, key, wanted.size_bytes):
            raise PermissionDenied("this names another upload")
        return token.upload_id

    def _require_valid(self, wanted: Wanted) -> None:
        violations = []
        if wanted.name != RESULT and (problem := artifact_name_error(wanted.name)):
            violations.append(FieldViolation("name", problem))
        if not 0 <= wanted.size_bytes <= self._max_bytes:
            told = f"is {wanted.size_bytes}; at most {self._max_bytes} are allowed (TENURE_OBJECT_MAX_BYTES)"
            violations.append(FieldViolation("size_bytes", told))
        if len(wanted.sha256) != SHA256_BYTES:
            violations.append(FieldViolation("sha256", f"must be {SHA256_BYTES} bytes"))
        if not CONTENT_TYPE.fullmatch(wanted.content_type):
            violations.append(FieldViolation("content_type", "must be such as application/json"))
        if violations:
            raise InvalidInput(violations)

    @staticmethod
    def _lost(job: uuid.UUID, fence: int) -> OwnershipLost:
        STALE_WRITES.labels("artifact").inc()
        log.warning("stale_upload_refused", job=str(job), fence=fence)
        return OwnershipLost(f"job {job} is not executing under fence {fence}")
