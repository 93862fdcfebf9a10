"""Which calls are written to the audit log, and what is said of each: the table by which handlers are ``audited``.

A call that is not here reads, or is the life of a job (submits, and what workers report), which has its own history.
A test holds this table against all that the services offer. Nothing here says what a payload, a result or a secret was.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.json_format import Error as UnreadableMessage
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.coordinator.audit import Act, Audit
from tenure.model.retention import ANY, Policy
from tenure.model.routes import DEFAULT_NAMESPACE
from tenure.model.schedules import ScheduleSpec
from tenure.v1.job_service_pb2 import JobFilter
from tenure.v1.wire import STATE_FROM_PB

Answer = TypeVar("Answer")
Handler = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class How:
    """What is written of one call."""

    action: str | Callable[[Any], str]
    """A noun and a verb: ``jobs.cancel``."""
    target: Callable[[Any], str]
    """What it is about: an id, a name, a filter."""
    namespace: Callable[[Any], str] = lambda request: ""
    about: Callable[[Any], str] = lambda request: ""
    """The id of the job or workflow whose namespace it is."""
    request: Callable[[Any], Mapping[str, Any]] = lambda request: {}
    """What to say of the request, beside the target."""
    answer: Callable[[Any], Mapping[str, Any]] = lambda answer: {}
    """What to say of the answer."""
    changes: Callable[[Any], bool] = lambda request: True
    """Whether this request changes anything; a preview does not."""

    def asked(self, request: Any) -> Act | None:
        """See ``coordinator.audit.Described``."""
        if not self.changes(request):
            return None
        return Act(
            action=self.action if isinstance(self.action, str) else self.action(request),
            target=self.target(request),
            namespace=self.namespace(request) or None,
            about=_id(self.about(request)),
            detail={name: value for name, value in self.request(request).items() if value not in ("", None)},
        )

    def done(self, act: Act, answer: Any) -> None:
        """See ``coordinator.audit.Described``."""
        act.detail |= self.answer(answer)


def _id(text: str) -> uuid.UUID | None:
    with suppress(ValueError):
        return uuid.UUID(text)
    return None


def _instant(at: Timestamp) -> str | None:
    with suppress(ValueError):
        return at.ToJsonString()
    return None


def filter_text(message: JobFilter) -> str:
    """Return a filter in words; ``all`` if nothing is set."""
    try:
        fields = MessageToDict(message, preserving_proto_field_name=True)
    except UnreadableMessage:  # a time beyond all calendars, which is refused
        return "unreadable"
    return " ".join(f"{name}={_words(value)}" for name, value in sorted(fields.items())) or "all"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={one}" for key, one in sorted(value.items()))
    if isinstance(value, list):
        return ",".join(str(one).removeprefix("JOB_STATE_").lower() for one in value)
    return str(value)


def schedule_facts(spec: ScheduleSpec) -> dict[str, Any]:
    """Return what a schedule is, without what its jobs are given."""
    facts = spec.model_dump(mode="json", exclude={"job", "name", "namespace"}, exclude_defaults=True)
    return facts | {"kind": spec.job.kind, "route": spec.job.route, "priority": spec.job.priority}


def _counts(answer: Any) -> dict[str, Any]:
    """Say how many a pass over many jobs has met, and whether it goes on with another call."""
    counts = {name: getattr(answer, name) for name in ("canceled", "asked", "dependants")}
    return counts | ({"goes_on": True} if answer.next_page_token else {})


def _pause(verb: str) -> How:
    def subject(request: Any) -> str:
        return request.subject.WhichOneof("subject") or "pool"

    return How(
        lambda request: f"{subject(request)}s.{verb}",
        lambda request: getattr(request.subject, subject(request)),
        namespace=lambda request: request.subject.namespace,
    )


def _schedule(verb: str, **told: Any) -> How:
    return How(
        f"schedules.{verb}",
        lambda request: request.schedule,
        namespace=lambda request: request.namespace or DEFAULT_NAMESPACE,
        **told,
    )


def _schedule_given(verb: str, **told: Any) -> How:
    return How(
        f"schedules.{verb}",
        lambda request: request.schedule.name,
        namespace=lambda request: request.schedule.namespace or DEFAULT_NAMESPACE,
        **told,
    )


def _policy_name(request: Any) -> str:
    """Return what a policy is called, from a message with its namespace, kind and state."""
    state = STATE_FROM_PB.get(request.state)
    return Policy(request.namespace, request.kind, str(state) if state else ANY).name


ACTS: Mapping[str, How] = {
    "JobService.CancelJob": How(
        "jobs.cancel",
        lambda request: request.id,
        about=lambda request: request.id,
        request=lambda request: {"reason": request.reason},
    ),
    "JobService.CancelJobs": How(
        "jobs.cancel",
        lambda request: filter_text(request.filter),
        namespace=lambda request: request.filter.namespace,
        request=lambda request: {"reason": request.reason},
        answer=_counts,
        changes=lambda request: not request.preview,
    ),
    "JobService.RetryJob": How(
        "jobs.retry",
        lambda request: request.id,
        about=lambda request: request.id,
        answer=lambda answer: {"retry": answer.job.id, "created": answer.created},
    ),
    "JobService.RetryJobs": How(
        "jobs.retry",
        lambda request: filter_text(request.filter),
        namespace=lambda request: request.filter.namespace,
        answer=lambda answer: (
            {"retried": answer.retried, "skipped": answer.skipped}
            | ({"goes_on": True} if answer.next_page_token else {})
        ),
        changes=lambda request: not request.preview,
    ),
    "JobService.DeleteJob": How("jobs.delete", lambda request: request.id, about=lambda request: request.id),
    "WorkflowService.CancelWorkflow": How(
        "workflows.cancel",
        lambda request: request.id,
        about=lambda request: request.id,
        request=lambda request: {"reason": request.reason},
        answer=_counts,
        changes=lambda request: not request.preview,
    ),
    "ClusterService.RevokeClaim": How(
        "claims.revoke",
        lambda request: request.job_id,
        about=lambda request: request.job_id,
        answer=lambda answer: {"revoked": answer.revoked},
    ),
    "PoolService.Pause": _pause("pause"),
    "PoolService.Resume": _pause("resume"),
    "PoolService.RemovePool": How(
        "pools.remove",
        lambda request: request.pool,
        request=lambda request: {"reason": request.reason},
        answer=lambda answer: _counts(answer) | {"left": answer.left, "removed": answer.removed},
        changes=lambda request: not request.preview,
    ),
    "LimitService.PutLimit": How("limits.put", lambda request: request.limit.name),
    "LimitService.DeleteLimit": How("limits.delete", lambda request: request.name),
    "KindService.PutKindSettings": How(
        "kinds.put", lambda request: request.settings.kind, namespace=lambda request: request.settings.namespace
    ),
    "KindService.DeleteKindSettings": How(
        "kinds.delete", lambda request: request.kind, namespace=lambda request: request.namespace
    ),
    "NamespaceService.UpdateNamespace": How(
        "namespaces.update",
        lambda request: request.namespace.name,
        namespace=lambda request: request.namespace.name,
    ),
    "RetentionService.PutRetentionPolicy": How(
        "retention.put",
        lambda request: _policy_name(request.policy),
        namespace=lambda request: request.policy.namespace,
    ),
    "RetentionService.DeleteRetentionPolicy": How(
        "retention.delete", _policy_name, namespace=lambda request: request.namespace
    ),
    "RetentionService.PutLegalHold": How("holds.put", lambda request: f"{request.key}={request.value}"),
    "RetentionService.AdoptArchiveFile": How(
        "archive.adopt",
        lambda request: request.key,
        answer=lambda answer: {"file": answer.file.key, "jobs": answer.file.jobs, "known": answer.known},
    ),
    "RetentionService.DeleteLegalHold": How("holds.delete", lambda request: f"{request.key}={request.value}"),
    "TokenService.CreateToken": How(
        "tokens.create",
        lambda request: request.name,
        request=lambda request: {
            "role": request.role,
            "namespaces": ",".join(request.namespaces),
            "pools": ",".join(request.pools),
            "certificate_subject": request.certificate_subject,
        },
        answer=lambda answer: {"id": answer.token.id},
    ),
    "TokenService.RevokeToken": How(
        "tokens.revoke", lambda request: request.id, answer=lambda answer: {"name": answer.token.name}
    ),
    "ScheduleService.CreateSchedule": _schedule_given(
        "create", answer=lambda answer: {"created": answer.created, "id": answer.schedule.id}
    ),
    "ScheduleService.UpdateSchedule": _schedule_given(
        "update", answer=lambda answer: {"revision": answer.schedule.revision}
    ),
    "ScheduleService.DeleteSchedule": _schedule("delete"),
    "ScheduleService.PauseSchedule": _schedule("pause"),
    "ScheduleService.ResumeSchedule": _schedule("resume"),
    "ScheduleService.TriggerSchedule": _schedule(
        "trigger", answer=lambda answer: {"job": answer.job_id, "created": answer.created}
    ),
    "ScheduleService.BackfillSchedule": _schedule(
        "backfill",
        request=lambda request: {
            "from": _instant(getattr(request, "from")),
            "until": _instant(request.until),
        },
        answer=lambda answer: {"ticks": len(answer.jobs), "created": sum(job.created for job in answer.jobs)},
    ),
}
"""By service and call."""


class HasAudit(Protocol):
    """A service of which some handlers are audited."""

    _audit: Audit


def audited(handler: Handler[Answer]) -> Handler[Answer]:
    """Mark a handler of a service, ``(self, request, context)``: its calls are written as ``ACTS`` says."""
    how = ACTS[handler.__qualname__]

    @functools.wraps(handler)
    async def call(self: HasAudit, request: Any, context: Any) -> Answer:
        return await self._audit.serve(how, request, lambda: handler(self, request, context))

    return call
