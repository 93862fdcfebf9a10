"""Jobs between the wire and the records: what is asked for, what is answered, and what comes of many at once.

Invariant: an unset field stays unset, so that the service's own defaults apply. Called by ``client.calls`` and by
what else of the client holds jobs; what is not about jobs is read where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

from tenure.client.fields import (
    duration,
    labels,
    names,
    number,
    number_of,
    seconds_of,
    text,
    time_of,
    timestamp,
    value_of,
    whole,
)
from tenure.client.payload import from_json, to_json
from tenure.client.records import (
    Artifact,
    Attempt,
    CanceledJobs,
    Claim,
    Explanation,
    Job,
    JobClaim,
    JobError,
    NewJob,
    Obstacle,
    ResultLost,
    ResultObject,
    RetriedJobs,
    Retry,
    SubmittedJob,
)
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.model.retry import RetryPolicy
from tenure.model.states import JobState, Outcome
from tenure.v1 import (
    job_pb2,
    job_service_pb2,
    wire,
    workflow_service_pb2,
)

FIRST_IDS = 20
"""Ids that are kept of an operation on many jobs."""


def spec_to_wire(job: NewJob, *, idempotency_key: str, path: str = "job.") -> job_pb2.JobSpec:
    """Write a job as asked for. ``path`` prefixes the fields of violations (``jobs[3].``).

    Raises:
        InvalidInput: a value has the wrong type for its field, or cannot be written as JSON.
    """
    fields: dict[str, Any] = {
        "kind": text(job.kind, f"{path}kind"),
        "payload": to_json(job.payload, path=f"{path}payload"),
        "namespace": text(job.namespace, f"{path}namespace"),
        "route": text(job.route, f"{path}route"),
        "idempotency_key": text(idempotency_key, f"{path}idempotency_key"),
    }
    try:
        values = _asked_of(job)
        if values != _UNSET:
            for (name, unset, wire_name, write), value in zip(_ASKED, values, strict=True):
                if value != unset:
                    fields[wire_name] = write(value, f"{path}{name}")
        return job_pb2.JobSpec(**fields)
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation(path.rstrip("."), str(exc))]) from exc


def filter_to_wire(
    *,
    namespace: str | None,
    kind: str | None,
    route_prefix: str | None,
    states: Iterable[JobState | str],
    labels: Mapping[str, str] | None,
    parent_id: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    workflow_id: str | None = None,
) -> job_service_pb2.JobFilter:
    """Write a filter; None and empty match everything.

    Raises:
        InvalidInput: an unknown state, or a time without a zone.
    """
    return job_service_pb2.JobFilter(
        namespace=namespace or "",
        kind=kind or "",
        route_prefix=route_prefix or "",
        states=[
            number_of(wire.STATE_TO_PB, state, "states") for state in ([states] if isinstance(states, str) else states)
        ],
        labels=dict(labels or {}),
        parent_id=parent_id or "",
        created_after=timestamp(created_after, "created_after"),
        created_before=timestamp(created_before, "created_before"),
        workflow_id=workflow_id or "",
    )


def job_from_wire(job: job_pb2.Job, *, created: bool | None = None) -> Job:
    """Read a job."""
    return Job(
        id=job.id,
        namespace=job.namespace,
        kind=job.kind,
        route=job.route,
        state=state_from_wire(job.state),
        priority=job.priority,
        payload=from_json(job.payload),
        result=from_json(job.result),
        error=_error(job.error) if job.HasField("error") else None,
        reason=job.reason,
        attempt=job.attempt,
        errors=job.errors,
        crashes=job.crashes,
        fence=job.fence,
        claim=Claim(job.claim.worker, job.claim.lease, job.claim.revision) if job.HasField("claim") else None,
        created_at=time_of(job, "created_at"),
        activate_at=time_of(job, "activate_at"),
        started_at=time_of(job, "started_at"),
        finished_at=time_of(job, "finished_at"),
        retry=_retry(job.retry.SerializeToString()),
        ttl_s=wire.seconds(job.ttl),
        timeout_s=seconds_of(job, "timeout"),
        max_crashes=job.max_crashes,
        idempotency_key=job.idempotency_key,
        labels=dict(job.labels) if job.labels else {},
        limits=tuple(job.limits) if job.limits else (),
        requires=dict(job.requires) if job.requires else {},
        depends_on=tuple(job.depends_on) if job.depends_on else (),
        parent_id=job.parent_id or None,
        schedule_id=job.schedule_id or None,
        scheduled_at=time_of(job, "scheduled_at"),
        progress=job.progress,
        progress_message=job.progress_message,
        cancel_requested=job.cancel_requested,
        retry_of=job.retry_of or None,
        retried_by=job.retried_by or None,
        start_by=time_of(job, "start_by"),
        deadline=time_of(job, "deadline"),
        job_timeout_s=seconds_of(job, "job_timeout"),
        trigger=wire.TRIGGER_FROM_PB.get(job.trigger, Trigger.ALL_COMPLETED),
        upstream_failure=wire.UPSTREAM_FAILURE_FROM_PB.get(job.upstream_failure, UpstreamFailure.CANCEL),
        workflow_id=job.workflow_id or None,
        ref=job.ref or None,
        unique_key=job.unique_key or None,
        replaced_by=job.replaced_by or None,
        deleted_at=time_of(job, "deleted_at"),
        archived_at=time_of(job, "archived_at"),
        created=created,
        aged=job.aged,
        result_object=_result_object(job.result_object) if job.HasField("result_object") else None,
        result_lost=ResultLost(job.result_lost.reason, job.result_lost.size_bytes)
        if job.HasField("result_lost")
        else None,
    )


def _result_object(told: job_pb2.ResultObject) -> ResultObject:
    return ResultObject(told.size_bytes, told.sha256.hex())


def artifact_from_wire(artifact: job_service_pb2.Artifact) -> Artifact:
    """Read a file of a job."""
    return Artifact(
        attempt=artifact.attempt,
        name=artifact.name,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256.hex(),
        content_type=artifact.content_type,
        created_at=time_of(artifact, "created_at"),
        is_result=artifact.is_result,
    )


def submitted_from_wire(job: job_service_pb2.SubmittedJob, *, own_key: bool) -> SubmittedJob:
    """Read a member of a batch. ``own_key``: nobody but this call knows the key, so a repeat created it, too."""
    return SubmittedJob(job.id, job.ref or None, job.created or (own_key and not job.duplicate))


def canceled_from_wire(
    answer: job_service_pb2.CancelJobsResponse | workflow_service_pb2.CancelWorkflowResponse, before: CanceledJobs
) -> CanceledJobs:
    """Read an answer to a cancel of many, added to those before it."""
    return CanceledJobs(
        canceled=before.canceled + answer.canceled,
        asked=before.asked + answer.asked,
        dependants=before.dependants + answer.dependants,
        ids=(*before.ids, *answer.ids)[:FIRST_IDS],
    )


def retried_from_wire(answer: job_service_pb2.RetryJobsResponse, before: RetriedJobs) -> RetriedJobs:
    """Read an answer to a retry of many, added to those before it."""
    return RetriedJobs(
        retried=before.retried + answer.retried,
        skipped=before.skipped + answer.skipped,
        ids=(*before.ids, *answer.ids)[:FIRST_IDS],
    )


def attempt_from_wire(attempt: job_pb2.Attempt) -> Attempt:
    """Read an attempt."""
    return Attempt(
        job_id=attempt.job_id,
        attempt=attempt.attempt,
        fence=attempt.fence,
        worker=attempt.worker,
        lease=attempt.lease,
        claim_revision=attempt.claim_revision,
        outcome=_outcome(attempt.outcome),
        error=_error(attempt.error) if attempt.HasField("error") else None,
        started_at=time_of(attempt, "started_at"),
        finished_at=time_of(attempt, "finished_at"),
    )


def job_claim_from_wire(job_id: str, answer: job_service_pb2.GetJobClaimResponse) -> JobClaim:
    """Read who holds a job."""
    claim = answer.claim if answer.HasField("claim") else job_service_pb2.JobClaim()
    return JobClaim(
        job_id=job_id,
        worker=claim.worker if answer.HasField("claim") else None,
        lease=claim.lease,
        revision=claim.revision,
        claimed_at=time_of(claim, "claimed_at"),
        remaining_s=seconds_of(claim, "remaining"),
        granted_s=seconds_of(claim, "granted"),
        hold=answer.hold if answer.HasField("hold") else None,
        read_at_revision=answer.revision,
    )


def explanation_from_wire(answer: job_service_pb2.ExplainJobResponse) -> Explanation:
    """Read why a job does not run."""
    found = tuple(Obstacle(one.code, one.message) for one in answer.obstacles)
    return Explanation(job_from_wire(answer.job), answer.summary, found)


def retry_from_wire(retry: job_pb2.RetryPolicy) -> Retry:
    """Read a retry policy as asked for: what is unset stays None."""
    return Retry(
        max_attempts=value_of(retry, "max_attempts"),
        backoff=wire.BACKOFF_FROM_PB.get(retry.backoff),
        initial_backoff_s=seconds_of(retry, "initial_backoff"),
        multiplier=value_of(retry, "multiplier"),
        max_backoff_s=seconds_of(retry, "max_backoff"),
        jitter=value_of(retry, "jitter"),
        non_retryable=tuple(retry.non_retryable),
    )


def retry_to_wire(retry: Retry | None, path: str) -> job_pb2.RetryPolicy | None:
    """Write a retry policy.

    Raises:
        InvalidInput: a value cannot be written; ``path`` leads to its field.
    """
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        raise InvalidInput([FieldViolation(path.rstrip("."), f"must be a Retry, not {type(retry).__name__}")])
    return job_pb2.RetryPolicy(
        max_attempts=whole(retry.max_attempts, f"{path}max_attempts"),
        initial_backoff=duration(retry.initial_backoff_s, f"{path}initial_backoff_s"),
        multiplier=number(retry.multiplier, f"{path}multiplier"),
        max_backoff=duration(retry.max_backoff_s, f"{path}max_backoff_s"),
        jitter=number(retry.jitter, f"{path}jitter"),
        non_retryable=names(retry.non_retryable, f"{path}non_retryable"),
        backoff=number_of(wire.BACKOFF_TO_PB, retry.backoff, f"{path}backoff"),
    )


_ASKED: tuple[tuple[str, Any, str, Callable[[Any, str], Any]], ...] = (
    ("priority", None, "priority", whole),
    ("activate_at", None, "activate_at", timestamp),
    ("delay_s", None, "delay", duration),
    ("retry", None, "retry", lambda retry, field: retry_to_wire(retry, f"{field}.")),
    ("ttl_s", None, "ttl", duration),
    ("timeout_s", None, "timeout", duration),
    ("start_within_s", None, "start_within", duration),
    ("start_by", None, "start_by", timestamp),
    ("job_timeout_s", None, "job_timeout", duration),
    ("max_crashes", None, "max_crashes", whole),
    ("labels", {}, "labels", labels),
    ("limits", (), "limits", names),
    ("requires", {}, "requires", labels),
    ("depends_on", (), "depends_on", names),
    ("ref", None, "ref", text),
    ("trigger", Trigger.ALL_COMPLETED, "trigger", partial(number_of, wire.TRIGGER_TO_PB)),
    (
        "upstream_failure",
        UpstreamFailure.CANCEL,
        "upstream_failure",
        partial(number_of, wire.UPSTREAM_FAILURE_TO_PB),
    ),
    ("unique_key", None, "unique_key", text),
    ("on_duplicate", None, "on_duplicate", partial(number_of, wire.ON_DUPLICATE_TO_PB)),
    ("idempotency_ttl_s", None, "idempotency_ttl", duration),
)
"""What most jobs do not ask for: the field, what it is then, its name on the wire and how it is written."""
_asked_of = attrgetter(*(name for name, *_ in _ASKED))
_UNSET = tuple(unset for _, unset, *_ in _ASKED)


@lru_cache(256)
def _retry(written: bytes) -> RetryPolicy:
    retry = job_pb2.RetryPolicy.FromString(written)
    # Read field by field: what an older service leaves out keeps the default of the rule.
    known: dict[str, Any] = {
        name: getattr(retry, name) for name in ("max_attempts", "multiplier", "jitter") if retry.HasField(name)
    }
    if retry.HasField("initial_backoff"):
        known["initial_backoff_s"] = wire.seconds(retry.initial_backoff)
    if retry.HasField("max_backoff"):
        known["max_backoff_s"] = wire.seconds(retry.max_backoff)
    if retry.backoff in wire.BACKOFF_FROM_PB:
        known["backoff"] = wire.BACKOFF_FROM_PB[retry.backoff]
    return RetryPolicy(**known, non_retryable=tuple(retry.non_retryable))


def _error(error: job_pb2.JobError) -> JobError:
    return JobError(error.type, error.message, error.traceback)


def state_from_wire(state: int) -> JobState:
    """Read a state.

    Raises:
        TenureError: it is one that this client does not know.
    """
    try:
        return wire.STATE_FROM_PB[state]
    except KeyError as exc:
        raise TenureError(
            f"the service answered with the job state {state}, which this client does not know",
            hint="upgrade the client to the version of the service",
        ) from exc


def _outcome(outcome: int) -> Outcome | None:
    if outcome == job_pb2.OUTCOME_UNSPECIFIED:
        return None
    try:
        return wire.OUTCOME_FROM_PB[outcome]
    except KeyError as exc:
        raise TenureError(
            f"the service answered with the outcome {outcome}, which this client does not know",
            hint="upgrade the client to the version of the service",
        ) from exc
