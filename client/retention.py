"""Retention as users of the client see it: policies, legal holds and what has expired, and their way from the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tenure.client.fields import number_of, time_of, whole
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.states import JobState
from tenure.v1 import retention_service_pb2 as pb
from tenure.v1 import wire


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long jobs are kept after their end; the most specific policy that covers a job decides."""

    namespace: str | None = None
    """None: any."""
    kind: str | None = None
    state: JobState | None = None
    """Completed, failed or canceled."""
    keep_s: int | None = None
    """None: for ever."""
    archive: bool = False
    archive_keep_s: int | None = None
    """How long files of the archive are kept. None: for ever."""
    storage_class: str | None = None
    """Of files of the archive, in S3. None: the bucket's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHold:
    """A label; jobs that have it are not removed."""

    key: str
    value: str
    reason: str
    set_by: str
    set_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredJobs:
    """Jobs of a namespace and a state that have expired by a policy: those that would go, and those kept for now."""

    policy: RetentionPolicy
    namespace: str
    state: JobState
    jobs: int
    held: int
    """By a legal hold."""
    needed: int
    """By a job that has not ended."""
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """A file of the archive: jobs of one namespace that retention has removed."""

    id: str
    namespace: str
    key: str
    """In the object store, under the coordinators' prefix."""
    jobs: int
    size_bytes: int
    sha256: str
    """Hexadecimal."""
    first_id: str
    last_id: str
    finished_from: datetime
    finished_until: datetime
    archived_at: datetime | None
    schema_version: int
    storage_class: str | None = None
    expires_at: datetime | None = None
    """None: never, by the policy of its jobs as that is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredFiles:
    """Files of the archive that have expired by a policy; those that hold a job on legal hold are kept for all that."""

    policy: RetentionPolicy
    namespace: str
    files: int
    jobs: int
    size_bytes: int


def policy_to_wire(
    namespace: str | None,
    kind: str | None,
    state: JobState | str | None,
    keep_s: int | None,
    archive: bool = False,
    archive_keep_s: int | None = None,
    storage_class: str | None = None,
) -> pb.RetentionPolicy:
    """Write a policy.

    Raises:
        InvalidInput: a value has the wrong type for its field.
    """
    try:
        policy = pb.RetentionPolicy(
            namespace=namespace,
            kind=kind,
            state=number_of(wire.STATE_TO_PB, state, "policy.state"),
            archive=archive,
            storage_class=storage_class,
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation("policy", str(exc))]) from exc
    seconds = whole(keep_s, "policy.keep_s", bits=64)
    if seconds is not None:
        policy.keep.seconds = seconds
    archive_seconds = whole(archive_keep_s, "policy.archive_keep_s", bits=64)
    if archive_seconds is not None:
        policy.archive_keep.seconds = archive_seconds
    return policy


def policy_from_wire(policy: pb.RetentionPolicy) -> RetentionPolicy:
    """Read a policy."""
    return RetentionPolicy(
        namespace=policy.namespace or None,
        kind=policy.kind or None,
        state=wire.STATE_FROM_PB.get(policy.state),
        keep_s=policy.keep.seconds if policy.HasField("keep") else None,
        archive=policy.archive,
        archive_keep_s=policy.archive_keep.seconds if policy.HasField("archive_keep") else None,
        storage_class=policy.storage_class or None,
    )


def hold_from_wire(hold: pb.LegalHold) -> LegalHold:
    """Read a legal hold."""
    return LegalHold(
        key=hold.key, value=hold.value, reason=hold.reason, set_by=hold.set_by, set_at=time_of(hold, "set_at")
    )


def file_from_wire(file: pb.ArchiveFile) -> ArchiveFile:
    """Read a file of the archive."""
    return ArchiveFile(
        id=file.id,
        namespace=file.namespace,
        key=file.key,
        jobs=file.jobs,
        size_bytes=file.size_bytes,
        sha256=file.sha256.hex(),
        first_id=file.first_id,
        last_id=file.last_id,
        finished_from=file.finished_from.ToDatetime(tzinfo=UTC),
        finished_until=file.finished_until.ToDatetime(tzinfo=UTC),
        archived_at=time_of(file, "archived_at"),
        schema_version=file.schema_version,
        storage_class=file.storage_class or None,
        expires_at=time_of(file, "expires_at"),
    )


def expired_files_from_wire(files: pb.ExpiredFiles) -> ExpiredFiles:
    """Read a count of files that have expired."""
    return ExpiredFiles(
        policy=policy_from_wire(files.policy),
        namespace=files.namespace,
        files=files.files,
        jobs=files.jobs,
        size_bytes=files.size_bytes,
    )


def added_up(expired: list[pb.ExpiredJobs]) -> list[ExpiredJobs]:
    """Read what pages of a preview have counted, added up."""
    found: dict[tuple[RetentionPolicy, str, JobState], ExpiredJobs] = {}
    for one in expired:
        key = policy_from_wire(one.policy), one.namespace, wire.STATE_FROM_PB[one.state]
        before = found.get(key)
        times = [at for at in (time_of(one, "oldest"), before.oldest if before else None) if at is not None]
        found[key] = ExpiredJobs(
            policy=key[0],
            namespace=key[1],
            state=key[2],
            jobs=one.jobs + (before.jobs if before else 0),
            held=one.held + (before.held if before else 0),
            needed=one.needed + (before.needed if before else 0),
            oldest=min(times, default=None),
        )
    return sorted(found.values(), key=lambda one: (one.namespace, one.state, one.policy.kind or ""))
