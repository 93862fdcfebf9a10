"""From rows to messages: the only place of the coordinator that knows both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from tenure.coordinator.archived import ArchivedJob
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.jobs import PlannedJob, RetrySpec
from tenure.model.objects import RESULT
from tenure.model.states import JobState
from tenure.store.postgres.database import Row
from tenure.v1 import job_pb2 as pb
from tenure.v1 import job_service_pb2, wire

_DEFAULT_RETRY = wire.retry_to_pb(wire.DEFAULT_RETRY)


def _retry_to_pb(stored: str | None) -> pb.RetryPolicy:
    return wire.retry_to_pb(RetrySpec.model_validate_json(stored)) if stored else _DEFAULT_RETRY


def error_to_pb(stored: str | None) -> pb.JobError | None:
    """Convert a stored error (JSON text)."""
    return pb.JobError(**json.loads(stored)) if stored else None


def labels_from_text(stored: str | None) -> dict[str, str]:
    """Convert stored labels (JSON text)."""
    return json.loads(stored) if stored else {}


def job_to_pb(row: Row, *, parents: Sequence[object] = (), claim: pb.Claim | None = None) -> pb.Job:
    """Convert a row of the view ``tenure.jobs``."""
    executing = row.state == JobState.EXECUTING
    if executing:
        claim = pb.Claim(worker=row.worker, lease=row.lease, revision=row.claim_revision)
    return pb.Job(
        id=str(row.id),
        namespace=row.namespace,
        kind=row.kind,
        route=row.route,
        state=wire.STATE_TO_PB[row.state],
        priority=row.priority,
        payload=row.payload,
        result=row.result,
        error=error_to_pb(row.error),
        reason=row.reason,
        attempt=row.attempt,
        errors=row.errors,
        crashes=row.crashes,
        fence=row.fence or 0,
        claim=claim,
        created_at=wire.timestamp(row.created_at),
        activate_at=wire.timestamp(row.activate_at),
        started_at=wire.timestamp(row.started_at),
        finished_at=wire.timestamp(row.finished_at),
        retry=_retry_to_pb(row.retry),
        ttl=wire.duration(round(row.ttl_s, 3)),
        timeout=wire.duration(row.timeout_s if row.timeout_s is None else round(row.timeout_s, 3)),
        max_crashes=row.max_crashes,
        idempotency_key=row.idempotency_key,
        labels=labels_from_text(row.labels),
        depends_on=[str(parent) for parent in parents],
        parent_id=str(row.parent_id) if row.parent_id else None,
        schedule_id=str(row.schedule_id) if row.schedule_id else None,
        scheduled_at=wire.timestamp(row.scheduled_at),
        progress=round(row.progress, 6),
        progress_message=row.progress_message,
        cancel_requested=row.cancel_requested,
        worker=row.worker,
        limits=row.limits,
        requires=labels_from_text(row.requires),
        retry_of=str(row.retry_of) if row.retry_of else None,
        retried_by=str(row.retried_by) if row.retried_by else None,
        start_by=wire.timestamp(row.start_by),
        deadline=wire.timestamp(row.deadline),
        job_timeout=wire.duration(row.job_timeout_s),
        trigger=wire.TRIGGER_TO_PB[Trigger(row.trigger)] if row.trigger else None,
        upstream_failure=wire.UPSTREAM_FAILURE_TO_PB[UpstreamFailure(row.upstream_failure)]
        if row.upstream_failure
        else None,
        workflow_id=str(row.workflow_id) if row.workflow_id else None,
        ref=row.ref,
        aged=row.aged,
        unique_key=row.unique_key,
        replaced_by=str(row.replaced_by) if row.replaced_by else None,
        deleted_at=wire.timestamp(row.deleted_at),
    )


def archived_to_pb(found: ArchivedJob) -> pb.Job:
    """Convert a job that lies in the archive."""
    row = found.row
    job = job_to_pb(row, parents=row.depends_on)
    job.archived_at.FromDatetime(found.file.archived_at)
    for one in row.artifacts:
        if one.name == RESULT and one.attempt == row.attempt and row.state == JobState.COMPLETED:
            if one.lost is None:
                job.result_object.CopyFrom(pb.ResultObject(size_bytes=one.size_bytes, sha256=one.sha256))
            else:
                job.result_lost.CopyFrom(pb.ResultLost(reason=one.lost, size_bytes=one.size_bytes))
    return job


def artifact_to_pb(row: Row) -> job_service_pb2.Artifact:
    """Convert a row of ``tenure.artifact``."""
    return job_service_pb2.Artifact(
        attempt=row.attempt,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        content_type=row.content_type,
        created_at=wire.timestamp(row.created_at),
        is_result=row.name == RESULT,
    )


def absolute(url: str, base_url: str) -> str:
    """Return a URL; one that is a path is at ``base_url``."""
    return base_url + url if url.startswith("/") else url


def written_to_pb(job: PlannedJob, at: datetime) -> pb.Job:
    """Convert a job that was written at this time and is ready: what ``job_to_pb`` makes of its row."""
    spec = job.spec
    asked = spec.model_fields_set
    written_at = _timestamp(at)
    message = pb.Job(
        id=str(job.id),
        namespace=spec.namespace,
        kind=spec.kind,
        route=spec.route,
        state=pb.JOB_STATE_READY,
        priority=spec.priority,
        payload=spec.payload,
        created_at=written_at,
        activate_at=written_at,
        retry=wire.retry_to_pb(spec.retry) if "retry" in asked else _DEFAULT_RETRY,
        ttl=_duration(spec.ttl_s),
        max_crashes=spec.max_crashes,
        idempotency_key=spec.idempotency_key,
    )
    if asked <= _IN_EVERY_JOB:
        return message
    message.MergeFrom(
        pb.Job(
            timeout=wire.duration(spec.timeout_s),
            labels=spec.labels,
            limits=sorted(spec.limits),
            requires=spec.requires,
            trigger=None if spec.trigger is Trigger.ALL_COMPLETED else wire.TRIGGER_TO_PB[spec.trigger],
            upstream_failure=None
            if spec.upstream_failure is UpstreamFailure.CANCEL
            else wire.UPSTREAM_FAILURE_TO_PB[spec.upstream_failure],
        )
    )
    return message


_IN_EVERY_JOB = frozenset(
    {"kind", "namespace", "route", "priority", "payload", "retry", "ttl_s", "max_crashes", "idempotency_key", "ref"}
)
_timestamp = lru_cache(64)(wire.timestamp)
_duration = lru_cache(64)(wire.duration)


def attempt_to_pb(row: Row) -> pb.Attempt:
    """Convert a row of ``attempts_of``."""
    return pb.Attempt(
        job_id=str(row.job_id),
        attempt=row.attempt,
        fence=row.fence,
        worker=row.worker,
        lease=row.lease,
        claim_revision=row.claim_revision,
        outcome=wire.OUTCOME_TO_PB[row.outcome] if row.outcome else pb.OUTCOME_UNSPECIFIED,
        error=error_to_pb(row.error),
        started_at=wire.timestamp(row.started_at),
        finished_at=wire.timestamp(row.finished_at),
    )
