"""RetentionService: how long jobs are kept after their end, what is held, and what would go."""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc

from tenure.coordinator import access, adopt
from tenure.coordinator.access import namespaces_for, sees
from tenure.coordinator.api.acts import audited
from tenure.coordinator.api.filters import not_a_token, page_key
from tenure.coordinator.archived import Archived
from tenure.coordinator.audit import Audit, noted
from tenure.coordinator.passing import FIRST_ID, PASS_S
from tenure.coordinator.retain import bounds_of, policy_of, spans_of_history
from tenure.model.access import Right
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, NotFound
from tenure.model.ids import first_id_at, parse_id
from tenure.model.retention import (
    ANY,
    Policy,
    Span,
    names_violations,
    policy_for,
    shortest_keep_s,
    validate_hold,
    validate_policy,
)
from tenure.model.states import JobState
from tenure.store.postgres.database import Database, Row, Statement
from tenure.v1 import job_pb2, wire
from tenure.v1 import retention_service_pb2 as pb
from tenure.v1.retention_service_pb2_grpc import RetentionServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 50
MAX_PAGE = 1_000
WINDOW_JOBS = 5_000
"""Rows that one statement of a preview looks at."""
_NO_POLICY = dict.fromkeys(("asked_namespace", "asked_kind", "asked_state", "asked_keep_s", "asked_archive_keep_s"))
HOLD_WAITS_S = 12
"""For a removal that is under way: less than a statement may take (15 s by default), so that the lock is told of."""
_SET = ("keep_s", "archive", "archive_keep_s", "storage_class")
"""What a policy says."""
_Group = tuple[str, str, str, str, str]
"""Namespace, kind and state of a policy; namespace and state of jobs that have expired by it."""


class RetentionService(RetentionServiceServicer):
    """The service over Postgres. It removes nothing; ``coordinator.retain`` does."""

    def __init__(self, database: Database, clock: Clock, audit: Audit, archived: Archived | None = None) -> None:
        self._audit = audit
        self._database = database
        self._clock = clock
        self._archived = archived or Archived(database)

    @audited
    async def PutRetentionPolicy(
        self, request: pb.PutRetentionPolicyRequest, context: Context
    ) -> pb.PutRetentionPolicyResponse:
        """Set a policy."""
        policy = self._validated(request.policy)
        names, asked = _names(policy), {name: getattr(policy, name) for name in _SET}
        *_, [row] = await self._database.transaction(
            [
                Statement("lock_retention", {}),
                noted("audit_retention_policy", after=asked, kind=policy.kind, state=policy.state),
                Statement("put_retention_policy", {**names, **asked}),
            ]
        )
        return pb.PutRetentionPolicyResponse(policy=_policy_to_pb(policy_of(row)))

    async def GetRetentionPolicy(
        self, request: pb.GetRetentionPolicyRequest, context: Context
    ) -> pb.GetRetentionPolicyResponse:
        """Read one policy, or the one that decides about such jobs."""
        names = request.namespace, request.kind, _state_from_pb(request.state, "state")
        policies = await self._policies()
        if request.deciding:
            found = policy_for(policies, *names)
        else:
            found = next((one for one in policies if (one.namespace, one.kind, one.state) == names), None)
        if found is None:
            which = "decides about" if request.deciding else "is set for"
            raise NotFound(
                f"no policy {which} {Policy(*names).name[:300]!r}: such jobs are kept",
                hint="tenure retention list",
            )
        return pb.GetRetentionPolicyResponse(policy=_policy_to_pb(found))

    async def ListRetentionPolicies(
        self, request: pb.ListRetentionPoliciesRequest, context: Context
    ) -> pb.ListRetentionPoliciesResponse:
        """Read all policies."""
        return pb.ListRetentionPoliciesResponse(policies=map(_policy_to_pb, await self._policies()))

    @audited
    async def DeleteRetentionPolicy(
        self, request: pb.DeleteRetentionPolicyRequest, context: Context
    ) -> pb.DeleteRetentionPolicyResponse:
        """Forget a policy."""
        state = _state_from_pb(request.state, "state")
        names = _names(Policy(request.namespace.replace("\x00", ""), request.kind.replace("\x00", ""), state))
        *_, rows = await self._database.transaction(
            [
                Statement("lock_retention", {}),
                noted("audit_retention_policy", after=None, kind=names["kind"], state=state),
                Statement("delete_retention_policy", names),
            ]
        )
        return pb.DeleteRetentionPolicyResponse(deleted=bool(rows))

    async def PreviewRetention(
        self, request: pb.PreviewRetentionRequest, context: Context
    ) -> pb.PreviewRetentionResponse:
        """Count what would go now, for some seconds."""
        if violations := names_violations(request.namespace, ANY, ANY):
            raise InvalidInput(violations)
        policies = await self._policies(are_all=True)
        asked = _NO_POLICY
        if request.HasField("policy"):
            policy = self._validated(request.policy)
            told = {**_names(policy), "keep_s": policy.keep_s, "archive_keep_s": policy.archive_keep_s}
            asked = {f"asked_{name}": value for name, value in told.items()}
            policies = [one for one in policies if one.name != policy.name] + [policy]
        by_name = {(one.namespace, one.kind, one.state): one for one in policies}
        own = {
            **asked,
            "namespace": request.namespace or None,
            "namespaces": namespaces_for(Right.READ, request.namespace),
        }
        files = [] if request.page_token else await self._expired_files(own, by_name)
        keep_s = shortest_keep_s(policies)
        if keep_s is None:
            return pb.PreviewRetentionResponse(expired_files=files)
        made_before, found = await spans_of_history(self._database, keep_s)
        where = {**own, "before": first_id_at(made_before), "window": WINDOW_JOBS}
        counts = await self._count(where, found, _place_from_token(request.page_token))
        return pb.PreviewRetentionResponse(
            expired_files=files,
            expired=[
                pb.ExpiredJobs(
                    policy=_policy_to_pb(by_name[group[:3]]),
                    namespace=group[3],
                    state=wire.STATE_TO_PB[JobState(group[4])],
                    jobs=counts.jobs[group],
                    held=counts.held[group],
                    needed=counts.needed[group],
                    oldest=wire.timestamp(counts.oldest[group]),
                )
                for group in sorted(counts.oldest)
                if group[:3] in by_name  # not one that was set since this call began
            ],
            seen=counts.seen,
            next_page_token=counts.next_page_token,
        )

    async def _count(self, where: dict[str, Any], found: Sequence[Span], place: _Place) -> _Counts:
        counts = _Counts()
        until = self._clock.monotonic() + PASS_S
        for span in found:
            if place.span_from is not None and (span.from_at is None or span.from_at < place.span_from):
                continue  # an earlier call has looked at it
            after = place.after if span.from_at == place.span_from else FIRST_ID
            while True:
                *rows, last = await self._database.fetch(
                    "preview_retention", {**where, **bounds_of(span), "after": after}
                )
                counts.add(rows, last.seen)
                if last.seen < WINDOW_JOBS:
                    break
                after = last.last
                if self._clock.monotonic() >= until:
                    counts.next_page_token = _token_of(span, after)
                    return counts
        return counts

    @audited
    async def PutLegalHold(self, request: pb.PutLegalHoldRequest, context: Context) -> pb.PutLegalHoldResponse:
        """Hold what has a label."""
        key, value = validate_hold(request.key, request.value, request.reason)
        asked = {"key": key, "value": value, "reason": request.reason}
        *_, [row] = await self._database.transaction(
            [
                Statement("wait_briefly", {"lock_timeout": f"{HOLD_WAITS_S * 1_000}ms"}),
                Statement("lock_retention", {}),
                noted("audit_legal_hold", after={"reason": request.reason}, key=key, value=value),
                Statement("put_legal_hold", {**asked, "set_by": access.caller().name}),
            ]
        )
        return pb.PutLegalHoldResponse(hold=_hold_to_pb(row))

    async def ListLegalHolds(self, request: pb.ListLegalHoldsRequest, context: Context) -> pb.ListLegalHoldsResponse:
        """Read all holds."""
        return pb.ListLegalHoldsResponse(holds=map(_hold_to_pb, await self._database.fetch("legal_holds")))

    @audited
    async def DeleteLegalHold(self, request: pb.DeleteLegalHoldRequest, context: Context) -> pb.DeleteLegalHoldResponse:
        """Lift a hold."""
        label = {"key": request.key.replace("\x00", ""), "value": request.value.replace("\x00", "")}
        *_, rows = await self._database.transaction(
            [
                Statement("lock_retention", {}),
                noted("audit_legal_hold", after=None, **label),
                Statement("delete_legal_hold", label),
            ]
        )
        return pb.DeleteLegalHoldResponse(deleted=bool(rows))

    async def ListArchiveFiles(
        self, request: pb.ListArchiveFilesRequest, context: Context
    ) -> pb.ListArchiveFilesResponse:
        """Read a page of the files of the archive."""
        size = request.page_size or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput([FieldViolation("page_size", f"must be 1 to {MAX_PAGE:,}")])
        rows = await self._database.fetch(
            "list_archive_files",
            {
                "namespaces": namespaces_for(Right.READ, request.namespace),
                "namespace": request.namespace.replace("\x00", "") or None,
                "before": page_key(request.page_token),
                "limit": size,
            },
        )
        token = base64.urlsafe_b64encode(rows[-1].id.bytes).decode() if len(rows) == size else ""
        return pb.ListArchiveFilesResponse(files=map(_file_to_pb, rows), next_page_token=token)

    async def VerifyArchiveFile(
        self, request: pb.VerifyArchiveFileRequest, context: Context
    ) -> pb.VerifyArchiveFileResponse:
        """Read a file of the archive, and say whether it is as it was written."""
        file = parse_id(request.id, "id")
        rows = await self._database.fetch("archive_file", {"id": file})
        if not rows or not sees(rows[0].namespace):
            raise NotFound(f"there is no file {file} in the archive", hint="tenure archive list")
        problem = await self._archived.problem_of(rows[0])
        return pb.VerifyArchiveFileResponse(file=_file_to_pb(rows[0]), problem=problem or "")

    async def ListUnknownArchiveFiles(
        self, request: pb.ListUnknownArchiveFilesRequest, context: Context
    ) -> pb.ListUnknownArchiveFilesResponse:
        """Look through a page of the archive's objects for files that the database does not know."""
        try:
            after = base64.urlsafe_b64decode(request.page_token.encode()).decode()
        except ValueError as exc:
            raise not_a_token() from exc
        keys, rest = await adopt.unknown_files(self._database, self._archived, after)
        token = base64.urlsafe_b64encode(rest.encode()).decode() if rest else ""
        return pb.ListUnknownArchiveFilesResponse(keys=keys, next_page_token=token)

    @audited
    async def AdoptArchiveFile(
        self, request: pb.AdoptArchiveFileRequest, context: Context
    ) -> pb.AdoptArchiveFileResponse:
        """Take in what a file holds that the database does not know."""
        adopted = await adopt.adopt(self._database, self._archived, request.key)
        rows = await self._database.fetch("archive_file", {"id": adopted.file}) if adopted.file else []
        return pb.AdoptArchiveFileResponse(file=_file_to_pb(rows[0]) if rows else None, known=adopted.known)

    def _validated(self, message: pb.RetentionPolicy) -> Policy:
        objects = self._archived.objects
        has_classes = objects is not None and objects.has_storage_classes
        return validate_policy(_policy_from_pb(message), no_archive=self._archived.missing(), has_classes=has_classes)

    async def _expired_files(
        self, where: Mapping[str, Any], policies: Mapping[tuple[str, str, str], Policy]
    ) -> list[pb.ExpiredFiles]:
        """Count files of the archive that would go, by policy and namespace."""
        return [
            pb.ExpiredFiles(
                policy=_policy_to_pb(policies[key]),
                namespace=row.namespace,
                files=row.files,
                jobs=row.jobs,
                size_bytes=row.size_bytes,
            )
            for row in await self._database.fetch("preview_archive", where)
            if (key := (row.policy_namespace, row.policy_kind, row.policy_state)) in policies
        ]

    async def _policies(self, *, are_all: bool = False) -> list[Policy]:
        """Read the policies that the caller may see, those for any namespace and of its own; or all of them."""
        policies = [policy_of(row) for row in await self._database.fetch("retention_policies")]
        return [one for one in policies if are_all or one.namespace == ANY or sees(one.namespace)]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a preview goes on: in which span, and after which id."""

    span_from: datetime | None = None
    after: uuid.UUID = FIRST_ID


@dataclass(slots=True)
class _Counts:
    """What a preview has counted so far."""

    jobs: Counter[_Group] = field(default_factory=Counter)
    held: Counter[_Group] = field(default_factory=Counter)
    needed: Counter[_Group] = field(default_factory=Counter)
    oldest: dict[_Group, datetime] = field(default_factory=dict)
    seen: int = 0
    next_page_token: str = ""

    def add(self, rows: Sequence[Row], seen: int) -> None:
        """Add what was found in a window."""
        self.seen += seen
        for row in rows:
            group = (row.of_namespace, row.of_kind, row.of_state, row.namespace, row.state)
            self.jobs[group] += row.jobs
            self.held[group] += row.held
            self.needed[group] += row.needed
            self.oldest[group] = min(row.oldest, self.oldest.get(group, row.oldest))


def _token_of(span: Span, after: uuid.UUID) -> str:
    from_at = span.from_at.isoformat() if span.from_at else None
    return base64.urlsafe_b64encode(json.dumps([from_at, str(after)]).encode()).decode()


def _place_from_token(token: str) -> _Place:
    if not token:
        return _Place()
    try:
        from_at, after = json.loads(base64.urlsafe_b64decode(token.encode()))
        place = _Place(datetime.fromisoformat(from_at) if from_at is not None else None, uuid.UUID(after))
    except (ValueError, TypeError, AttributeError) as exc:
        raise not_a_token() from exc
    if place.span_from is not None and place.span_from.tzinfo is None:
        raise not_a_token()
    return place


def _names(policy: Policy) -> dict[str, str]:
    return {"namespace": policy.namespace, "kind": policy.kind, "state": policy.state}


def _state_from_pb(number: int, path: str) -> str:
    if number == job_pb2.JOB_STATE_UNSPECIFIED:
        return ANY
    state = wire.STATE_FROM_PB.get(number)
    if state is None:
        raise InvalidInput([FieldViolation(path, f"{number} is not a state")])
    return str(state)


def _policy_from_pb(message: pb.RetentionPolicy) -> Policy:
    keep_s: int | None = None
    if message.HasField("keep"):
        if message.keep.nanos:
            raise InvalidInput([FieldViolation("policy.keep", "must be whole seconds")])
        keep_s = message.keep.seconds
    state = _state_from_pb(message.state, "policy.state")
    archive_keep_s: int | None = None
    if message.HasField("archive_keep"):
        if message.archive_keep.nanos:
            raise InvalidInput([FieldViolation("policy.archive_keep", "must be whole seconds")])
        archive_keep_s = message.archive_keep.seconds
    names = message.namespace, message.kind, state
    return Policy(*names, keep_s, message.archive, archive_keep_s, message.storage_class or None)


def _policy_to_pb(policy: Policy) -> pb.RetentionPolicy:
    return pb.RetentionPolicy(
        namespace=policy.namespace,
        kind=policy.kind,
        state=wire.STATE_TO_PB[JobState(policy.state)] if policy.state else None,
        keep=wire.duration(policy.keep_s),
        archive=policy.archive,
        archive_keep=wire.duration(policy.archive_keep_s),
        storage_class=policy.storage_class or "",
    )


def _file_to_pb(row: Row) -> pb.ArchiveFile:
    return pb.ArchiveFile(
        id=str(row.id),
        namespace=row.namespace,
        key=row.key,
        jobs=row.jobs,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        first_id=str(row.first_id),
        last_id=str(row.last_id),
        finished_from=wire.timestamp(row.finished_from),
        finished_until=wire.timestamp(row.finished_until),
        archived_at=wire.timestamp(row.archived_at),
        schema_version=row.schema_version,
        storage_class=row.storage_class or "",
        expires_at=wire.timestamp(row.expires_at),
    )


def _hold_to_pb(row: Row) -> pb.LegalHold:
    return pb.LegalHold(
        key=row.key, value=row.value, reason=row.reason, set_by=row.set_by, set_at=wire.timestamp(row.set_at)
    )
