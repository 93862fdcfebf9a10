"""Between the wire and the records: the only module of the client that reads or builds protobuf messages.

Invariant: an unset field stays unset, so that the service's own defaults apply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from numbers import Real
from operator import index
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.client.payload import from_json, to_json
from tenure.client.records import (
    Attempt,
    CanceledJobs,
    Claim,
    Cluster,
    Coordinator,
    Explanation,
    HeldClaim,
    Job,
    JobError,
    Limit,
    Namespace,
    NewJob,
    Obstacle,
    Pause,
    Pool,
    RetriedJobs,
    Retry,
    SubmittedJob,
    Worker,
)
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.model.retry import Backoff, RetryPolicy
from tenure.model.states import JobState, Outcome
from tenure.model.unique import OnDuplicate
from tenure.v1 import (
    cluster_service_pb2,
    job_pb2,
    job_service_pb2,
    limit_service_pb2,
    namespace_service_pb2,
    pool_service_pb2,
    wire,
    workflow_service_pb2,
)

E = TypeVar("E", bound=StrEnum)
N = TypeVar("N")
MAX_DURATION_S = 315_576_000_000.0
"""google.protobuf.Duration holds at most ten thousand years."""
FIRST_IDS = 20
"""Ids that are kept of an operation on many jobs."""


def spec_to_wire(job: NewJob, *, idempotency_key: str, path: str = "job.") -> job_pb2.JobSpec:
    """Write a job as asked for. ``path`` prefixes the fields of violations (``jobs[3].``).

    Raises:
        InvalidInput: a value has the wrong type for its field, or cannot be written as JSON.
    """
    payload = to_json(job.payload, path=f"{path}payload")
    try:
        return job_pb2.JobSpec(
            kind=_text(job.kind, f"{path}kind"),
            payload=payload,
            namespace=_text(job.namespace, f"{path}namespace"),
            route=_text(job.route, f"{path}route"),
            priority=whole(job.priority, f"{path}priority"),
            activate_at=timestamp(job.activate_at, f"{path}activate_at"),
            delay=duration(job.delay_s, f"{path}delay_s"),
            retry=retry_to_wire(job.retry, f"{path}retry."),
            ttl=duration(job.ttl_s, f"{path}ttl_s"),
            timeout=duration(job.timeout_s, f"{path}timeout_s"),
            start_within=duration(job.start_within_s, f"{path}start_within_s"),
            start_by=timestamp(job.start_by, f"{path}start_by"),
            job_timeout=duration(job.job_timeout_s, f"{path}job_timeout_s"),
            max_crashes=whole(job.max_crashes, f"{path}max_crashes"),
            idempotency_key=_text(idempotency_key, f"{path}idempotency_key"),
            labels=_labels(job.labels, f"{path}labels"),
            limits=names(job.limits, f"{path}limits"),
            requires=_labels(job.requires, f"{path}requires"),
            depends_on=names(job.depends_on, f"{path}depends_on"),
            ref=_text(job.ref or "", f"{path}ref"),
            trigger=_one_of(Trigger, job.trigger, wire.TRIGGER_TO_PB, f"{path}trigger"),
            upstream_failure=_one_of(
                UpstreamFailure, job.upstream_failure, wire.UPSTREAM_FAILURE_TO_PB, f"{path}upstream_failure"
            ),
            unique_key=None if job.unique_key is None else _text(job.unique_key, f"{path}unique_key"),
            on_duplicate=_on_duplicate_to_wire(job.on_duplicate, f"{path}on_duplicate"),
            idempotency_ttl=duration(job.idempotency_ttl_s, f"{path}idempotency_ttl_s"),
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation(path.rstrip("."), str(exc))]) from exc


def _one_of(words: type[E], value: str, numbers: Mapping[E, N], field: str) -> N:
    """Return the number on the wire of one of an enumeration's words."""
    try:
        return numbers[words(value)]
    except ValueError as exc:
        raise InvalidInput([FieldViolation(field, f"{value!r} is none of {', '.join(words)}")]) from exc


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
        states=[_state_to_wire(state) for state in ([states] if isinstance(states, str) else states)],
        labels=dict(labels or {}),
        parent_id=parent_id or "",
        created_after=timestamp(created_after, "created_after"),
        created_before=timestamp(created_before, "created_before"),
        workflow_id=workflow_id or "",
    )


def duration(seconds: float | None, field: str) -> Duration | None:
    """Write seconds as a protobuf duration, to the nanosecond.

    Raises:
        InvalidInput: not a finite number that a duration can hold; ``field`` is named.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput([FieldViolation(field, f"must be a number of seconds, not {type(seconds).__name__}")])
    if not math.isfinite(seconds) or abs(seconds) > MAX_DURATION_S:
        raise InvalidInput([FieldViolation(field, f"{seconds!r} seconds is not a duration")])
    return wire.duration(seconds)


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
        retry=_retry(job.retry),
        ttl_s=wire.seconds(job.ttl),
        timeout_s=wire.seconds(job.timeout) if job.HasField("timeout") else None,
        max_crashes=job.max_crashes,
        idempotency_key=job.idempotency_key,
        labels=dict(job.labels),
        limits=tuple(job.limits),
        requires=dict(job.requires),
        depends_on=tuple(job.depends_on),
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
        job_timeout_s=wire.seconds(job.job_timeout) if job.HasField("job_timeout") else None,
        trigger=wire.TRIGGER_FROM_PB.get(job.trigger, Trigger.ALL_COMPLETED),
        upstream_failure=wire.UPSTREAM_FAILURE_FROM_PB.get(job.upstream_failure, UpstreamFailure.CANCEL),
        workflow_id=job.workflow_id or None,
        ref=job.ref or None,
        unique_key=job.unique_key or None,
        replaced_by=job.replaced_by or None,
        deleted_at=time_of(job, "deleted_at"),
        created=created,
        aged=job.aged,
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


def worker_from_wire(worker: cluster_service_pb2.Worker) -> Worker:
    """Read a worker."""
    return Worker(
        id=worker.id,
        pools=tuple(worker.pools),
        kinds=tuple(worker.kinds),
        capacity=worker.capacity,
        claims=worker.claims,
        labels=dict(worker.labels),
        mode=worker.mode,
        host=worker.host,
        version=worker.version,
        draining=worker.draining,
        started_at=time_of(worker, "started_at"),
    )


def limit_to_wire(
    name: str, concurrent: int | None, rate: int | None, interval_s: float | None, burst: int | None
) -> limit_service_pb2.Limit:
    """Write a limit.

    Raises:
        InvalidInput: a value has the wrong type, or is no number that the wire can hold.
    """
    try:
        return limit_service_pb2.Limit(
            name=name,
            concurrent=whole(concurrent, "limit.concurrent"),
            rate=whole(rate, "limit.rate"),
            interval=duration(interval_s, "limit.interval"),
            burst=whole(burst, "limit.burst"),
        )
    except (TypeError, ValueError) as exc:
        raise InvalidInput([FieldViolation("limit", str(exc))]) from exc


def limit_from_wire(limit: limit_service_pb2.Limit, held: Mapping[str, int]) -> Limit:
    """Read a limit. ``held`` tells of every name how many slots are held."""
    return Limit(
        name=limit.name,
        concurrent=limit.concurrent if limit.HasField("concurrent") else None,
        rate=limit.rate if limit.HasField("rate") else None,
        interval_s=wire.seconds(limit.interval) if limit.HasField("interval") else 1.0,
        burst=limit.burst if limit.HasField("burst") else None,
        held=held,
    )


def namespace_from_wire(namespace: namespace_service_pb2.Namespace) -> Namespace:
    """Read what is set for a namespace."""
    return Namespace(
        name=namespace.name,
        weight=namespace.weight,
        ageing_s=wire.seconds(namespace.ageing) if namespace.HasField("ageing") else None,
        backlog=namespace.backlog if namespace.HasField("backlog") else None,
        unfinished=namespace.unfinished if namespace.HasField("unfinished") else None,
    )


def pause_subject(pool: str | None, kind: str | None, namespace: str | None) -> pool_service_pb2.PauseSubject:
    """Write what a pause is about.

    Raises:
        InvalidInput: not just one is given.
    """
    given = {name: value for name, value in (("pool", pool), ("kind", kind), ("namespace", namespace)) if value}
    if len(given) != 1:
        raise InvalidInput([FieldViolation("subject", "give one of pool, kind and namespace")])
    return pool_service_pb2.PauseSubject(**given)


def pause_from_wire(pause: pool_service_pb2.Pause) -> Pause:
    """Read a pause."""
    subject = pause.subject.WhichOneof("subject") or ""
    return Pause(
        subject=subject,
        name=getattr(pause.subject, subject) if subject else "",
        reason=pause.reason,
        paused_at=time_of(pause, "paused_at"),
        executing=pause.executing,
    )


def pool_from_wire(pool: pool_service_pb2.Pool) -> Pool:
    """Read a pool."""
    return Pool(path=pool.path, workers=pool.workers, ready=pool.ready, executing=pool.executing, paused=pool.paused)


def explanation_from_wire(answer: job_service_pb2.ExplainJobResponse) -> Explanation:
    """Read why a job does not run."""
    found = tuple(Obstacle(one.code, one.message) for one in answer.obstacles)
    return Explanation(job_from_wire(answer.job), answer.summary, found)


def held_claim_from_wire(claim: cluster_service_pb2.HeldClaim) -> HeldClaim:
    """Read a claim."""
    return HeldClaim(
        job_id=claim.job_id,
        worker=claim.worker,
        namespace=claim.namespace,
        kind=claim.kind,
        route=claim.route,
        lease=claim.lease,
        revision=claim.revision,
        claimed_at=time_of(claim, "claimed_at"),
    )


def cluster_from_wire(cluster: cluster_service_pb2.GetClusterResponse) -> Cluster:
    """Read the cluster."""
    return Cluster(
        coordinators=tuple(
            Coordinator(
                id=c.id,
                grpc=c.grpc,
                http=c.http,
                version=c.version,
                is_leader=c.is_leader,
                started_at=time_of(c, "started_at"),
            )
            for c in cluster.coordinators
        ),
        leader=cluster.leader or None,
        epoch=cluster.epoch,
        etcd_version=cluster.etcd_version,
        postgres_version=cluster.postgres_version,
        schema_version=cluster.schema_version,
        version=cluster.version,
    )


def retry_from_wire(retry: job_pb2.RetryPolicy) -> Retry:
    """Read a retry policy as asked for: what is unset stays None."""
    return Retry(
        max_attempts=retry.max_attempts if retry.HasField("max_attempts") else None,
        backoff=wire.BACKOFF_FROM_PB.get(retry.backoff),
        initial_backoff_s=wire.seconds(retry.initial_backoff) if retry.HasField("initial_backoff") else None,
        multiplier=retry.multiplier if retry.HasField("multiplier") else None,
        max_backoff_s=wire.seconds(retry.max_backoff) if retry.HasField("max_backoff") else None,
        jitter=retry.jitter if retry.HasField("jitter") else None,
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
        backoff=_backoff_to_wire(retry.backoff, f"{path}backoff"),
    )


def _on_duplicate_to_wire(choice: OnDuplicate | str | None, field: str) -> job_pb2.OnDuplicate | None:
    try:
        return None if choice is None else wire.ON_DUPLICATE_TO_PB[OnDuplicate(choice)]
    except ValueError as exc:
        allowed = ", ".join(OnDuplicate)
        raise InvalidInput([FieldViolation(field, f"{str(choice)[:64]!r} is none of {allowed}")]) from exc


def _backoff_to_wire(backoff: Backoff | str | None, field: str) -> job_pb2.Backoff | None:
    try:
        return None if backoff is None else wire.BACKOFF_TO_PB[Backoff(backoff)]
    except ValueError as exc:
        raise InvalidInput([FieldViolation(field, f"{str(backoff)[:64]!r} is none of {', '.join(Backoff)}")]) from exc


def _retry(retry: job_pb2.RetryPolicy) -> RetryPolicy:
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


def names(values: Iterable[str], field: str) -> list[str]:
    """Write a list of texts.

    Raises:
        InvalidInput: something else; ``field`` is named.
    """
    # A lone text would be taken apart into its characters.
    if isinstance(values, str):
        raise InvalidInput([FieldViolation(field, "must be a list of texts, not one text")])
    return [_text(value, f"{field}[{position}]") for position, value in enumerate(values)]


def whole(value: int | None, field: str, *, bits: int = 32) -> int | None:
    """Write a whole number, of so many bits on the wire.

    Raises:
        InvalidInput: something else, or one that the wire cannot hold; ``field`` is named.
    """
    if value is None:
        return None
    try:
        found = index(value)
    except TypeError as exc:
        raise InvalidInput([FieldViolation(field, f"must be a whole number, not {type(value).__name__}")]) from exc
    if not -(2 ** (bits - 1)) <= found < 2 ** (bits - 1):
        raise InvalidInput([FieldViolation(field, f"{value} is out of range")])
    return found


def number(value: float | None, field: str) -> float | None:
    """Write a number.

    Raises:
        InvalidInput: something else; ``field`` is named.
    """
    if value is not None and not isinstance(value, Real):
        raise InvalidInput([FieldViolation(field, f"must be a number, not {type(value).__name__}")])
    return value


def _text(value: str, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput([FieldViolation(field, f"must be a text, not {type(value).__name__}")])
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidInput([FieldViolation(field, "contains a lone surrogate, which is no Unicode text")])
    return value


def _labels(values: Mapping[str, str], field: str) -> dict[str, str]:
    if not isinstance(values, Mapping):
        raise InvalidInput([FieldViolation(field, f"must be a mapping of texts, not {type(values).__name__}")])
    return {_text(key, field): _text(value, f"{field}[{key!r}]") for key, value in values.items()}


def timestamp(at: datetime | None, field: str) -> Timestamp | None:
    """Write an instant.

    Raises:
        InvalidInput: not a datetime with a time zone; ``field`` is named.
    """
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidInput([FieldViolation(field, "must be a datetime that carries a time zone")])
    return wire.timestamp(at)


def time_of(message: Any, field: str) -> datetime | None:
    """Read an instant, None where it is unset."""
    if not message.HasField(field):
        return None
    at: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return at


def _error(error: job_pb2.JobError) -> JobError:
    return JobError(error.type, error.message, error.traceback)


def _state_to_wire(state: JobState | str) -> job_pb2.JobState:
    try:
        return wire.STATE_TO_PB[JobState(state)]
    except ValueError as exc:
        allowed = ", ".join(JobState)
        raise InvalidInput([FieldViolation("states", f"{str(state)[:64]!r} is none of {allowed}")]) from exc


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
