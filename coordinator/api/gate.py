"""The gate: who calls, and whether the method is for them. Installed only where credentials are asked for.

Every method of every service has a rule in ``RULES``; one without is refused. A rule names the right, and where it must
hold: everywhere, in a namespace that the request names, or ``within`` the caller's scope: then the service itself looks
at what is touched (``coordinator.access``). Health is open; reflection is for whoever has credentials.

A call can outlive its credentials: each message of a stream, and each answer to a read, asks again who this is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from tenure.coordinator import access
from tenure.coordinator.authenticate import Authenticator
from tenure.model.access import Right
from tenure.model.errors import PermissionDenied
from tenure.model.routes import DEFAULT_NAMESPACE

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
Check = Callable[[Right, Any], None]
Again = Callable[[], Awaitable[object]]
"""Asks again whether the credentials are valid; cheap, and raises if they are not."""
Enter = Callable[[Any, Any], Awaitable[Again]]
OURS = "/tenure.v1."
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = ("/grpc.reflection.v1alpha.ServerReflection/", "/grpc.reflection.v1.ServerReflection/")
_NAMES = ("x509_common_name", "x509_subject_alternative_name")


def everywhere(right: Right, request: Any) -> None:
    """It is of no namespace, or of all of them."""
    access.require(right)


def within(right: Right, request: Any) -> None:
    """The service confines what it does to the caller's scope."""
    access.require_somewhere(right)


def in_namespace(right: Right, request: Any) -> None:
    """The request names a namespace."""
    access.require(right, namespace=request.namespace or DEFAULT_NAMESPACE)


def _in_name(right: Right, request: Any) -> None:
    access.require(right, namespace=request.name)


def _in_job(right: Right, request: Any) -> None:
    in_namespace(right, request.job)


def _in_every_job(right: Right, request: Any) -> None:
    if not access.is_confined():
        return access.require(right)
    for index, job in enumerate(request.jobs):
        namespace = job.namespace or DEFAULT_NAMESPACE
        if not access.may(right, namespace=namespace):
            raise access.denied(right, f" in namespace {namespace[:64]}", field=f"jobs[{index}].namespace")
    access.require_somewhere(right)


def _in_schedule(right: Right, request: Any) -> None:
    in_namespace(right, request.schedule)


def _in_previewed(right: Right, request: Any) -> None:
    in_namespace(right, request.spec if request.HasField("spec") else request)


def _in_subject(right: Right, request: Any) -> None:
    is_namespace = request.subject.WhichOneof("subject") == "namespace"
    access.require(right, namespace=request.subject.namespace if is_namespace else None)


def _in_or_everywhere(right: Right, request: Any) -> None:
    access.require(right, namespace=request.namespace or None)


def _in_or_within(right: Right, request: Any) -> None:
    if request.namespace:
        access.require(right, namespace=request.namespace)
    access.require_somewhere(right)


def _in_policy(right: Right, request: Any) -> None:
    _in_or_everywhere(right, request.policy)


def _in_settings(right: Right, request: Any) -> None:
    _in_or_everywhere(right, request.settings)


@dataclass(frozen=True, slots=True)
class Rule:
    """The right that a method needs, and where."""

    right: Right
    check: Check


RULES: dict[str, Rule] = {
    "JobService/SubmitJob": Rule(Right.SUBMIT, _in_job),
    "JobService/SubmitJobs": Rule(Right.SUBMIT, _in_every_job),
    "JobService/StreamSubmitJobs": Rule(Right.SUBMIT, within),
    "JobService/SubmitEach": Rule(Right.SUBMIT, within),
    "JobService/GetJob": Rule(Right.READ, within),
    "JobService/ListJobs": Rule(Right.READ, within),
    "JobService/CountJobs": Rule(Right.READ, within),
    "JobService/WaitJob": Rule(Right.READ, within),
    "JobService/WatchJob": Rule(Right.READ, within),
    "JobService/WatchJobs": Rule(Right.READ, within),
    "JobService/DeleteJob": Rule(Right.OPERATE, within),
    "JobService/CancelJob": Rule(Right.OPERATE, within),
    "JobService/CancelJobs": Rule(Right.OPERATE, within),
    "JobService/ExplainJob": Rule(Right.READ, within),
    "JobService/ListAttempts": Rule(Right.READ, within),
    "JobService/RetryJob": Rule(Right.OPERATE, within),
    "JobService/RetryJobs": Rule(Right.OPERATE, within),
    "JobService/ReadLogs": Rule(Right.READ, within),
    "JobService/ListArtifacts": Rule(Right.READ, within),
    "JobService/CreateDownload": Rule(Right.READ, within),
    "WorkflowService/ListWorkflows": Rule(Right.READ, within),
    "WorkflowService/GetWorkflow": Rule(Right.READ, within),
    "WorkflowService/ListWorkflowJobs": Rule(Right.READ, within),
    "WorkflowService/WatchWorkflow": Rule(Right.READ, within),
    "WorkflowService/CancelWorkflow": Rule(Right.OPERATE, within),
    "ScheduleService/CreateSchedule": Rule(Right.OPERATE, _in_schedule),
    "ScheduleService/GetSchedule": Rule(Right.READ, in_namespace),
    "ScheduleService/ListSchedules": Rule(Right.READ, within),
    "ScheduleService/UpdateSchedule": Rule(Right.OPERATE, _in_schedule),
    "ScheduleService/DeleteSchedule": Rule(Right.OPERATE, in_namespace),
    "ScheduleService/PauseSchedule": Rule(Right.OPERATE, in_namespace),
    "ScheduleService/ResumeSchedule": Rule(Right.OPERATE, in_namespace),
    "ScheduleService/TriggerSchedule": Rule(Right.SUBMIT, in_namespace),
    "ScheduleService/BackfillSchedule": Rule(Right.OPERATE, in_namespace),
    "ScheduleService/PreviewSchedule": Rule(Right.READ, _in_previewed),
    "LimitService/PutLimit": Rule(Right.OPERATE, everywhere),
    "LimitService/GetLimit": Rule(Right.READ, within),
    "LimitService/ListLimits": Rule(Right.READ, within),
    "LimitService/DeleteLimit": Rule(Right.OPERATE, everywhere),
    "PoolService/ListPools": Rule(Right.READ, within),
    "PoolService/Pause": Rule(Right.OPERATE, _in_subject),
    "PoolService/Resume": Rule(Right.OPERATE, _in_subject),
    "PoolService/ListPauses": Rule(Right.READ, within),
    "PoolService/RemovePool": Rule(Right.OPERATE, everywhere),
    # Weight, ageing and backlog share the cluster out between namespaces: not for one of them to say.
    "NamespaceService/UpdateNamespace": Rule(Right.OPERATE, everywhere),
    "NamespaceService/GetNamespace": Rule(Right.READ, _in_name),
    "NamespaceService/ListNamespaces": Rule(Right.READ, within),
    "KindService/PutKindSettings": Rule(Right.OPERATE, _in_settings),
    "KindService/GetKindSettings": Rule(Right.READ, _in_or_within),
    "KindService/ListKindSettings": Rule(Right.READ, within),
    "KindService/DeleteKindSettings": Rule(Right.OPERATE, _in_or_everywhere),
    "ClusterService/GetCluster": Rule(Right.READ, within),
    "ClusterService/WatchCluster": Rule(Right.READ, within),
    "ClusterService/ListWorkers": Rule(Right.READ, within),
    "ClusterService/ListClaims": Rule(Right.READ, within),
    "ClusterService/RevokeClaim": Rule(Right.OPERATE, everywhere),
    "ClusterService/HintReady": Rule(Right.COORDINATE, everywhere),
    "WorkerService/StartAttempts": Rule(Right.WORK, within),
    # The rest carry the fence that the start gave.
    "WorkerService/FinishAttempts": Rule(Right.WORK, within),
    "WorkerService/ReportProgress": Rule(Right.WORK, within),
    "WorkerService/SaveCheckpoint": Rule(Right.WORK, within),
    "WorkerService/SubmitChildren": Rule(Right.WORK, within),
    "WorkerService/ReadUpstream": Rule(Right.WORK, within),
    "WorkerService/AppendLogs": Rule(Right.WORK, within),
    "WorkerService/CreateUpload": Rule(Right.WORK, within),
    "WorkerService/CompleteUpload": Rule(Right.WORK, within),
    # Of one namespace for who reads there, of all for who operates everywhere: the service looks.
    "AuditService/ListAudit": Rule(Right.READ, within),
    "RetentionService/PutRetentionPolicy": Rule(Right.OPERATE, _in_policy),
    "RetentionService/GetRetentionPolicy": Rule(Right.READ, _in_or_within),
    "RetentionService/ListRetentionPolicies": Rule(Right.READ, within),
    "RetentionService/DeleteRetentionPolicy": Rule(Right.OPERATE, _in_or_everywhere),
    "RetentionService/PreviewRetention": Rule(Right.READ, _in_or_within),
    # A hold is of no namespace. Whoever may set what removes jobs is not who lifts it.
    "RetentionService/PutLegalHold": Rule(Right.OPERATE, everywhere),
    "RetentionService/ListLegalHolds": Rule(Right.READ, everywhere),
    "RetentionService/DeleteLegalHold": Rule(Right.ADMINISTER, everywhere),
    "RetentionService/ListArchiveFiles": Rule(Right.READ, _in_or_within),
    "RetentionService/VerifyArchiveFile": Rule(Right.READ, within),
    "RetentionService/ListUnknownArchiveFiles": Rule(Right.OPERATE, everywhere),
    "RetentionService/AdoptArchiveFile": Rule(Right.OPERATE, everywhere),
    "TokenService/CreateToken": Rule(Right.ADMINISTER, everywhere),
    "TokenService/ListTokens": Rule(Right.ADMINISTER, everywhere),
    "TokenService/RevokeToken": Rule(Right.ADMINISTER, everywhere),
}
"""Service and method of ``tenure.v1``, and what it takes."""


class Gate(grpc.aio.ServerInterceptor):
    """Wraps every method; its refusals are errors of ours, for ``Refusals`` to turn into statuses."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler behind the gate."""
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        enter = self._entering(method)
        if handler.unary_unary:
            rule = RULES.get(method.removeprefix(OURS))
            is_read = rule is not None and rule.right is Right.READ
            return grpc.unary_unary_rpc_method_handler(
                _answering(enter, handler.unary_unary, asks_again=is_read),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(enter, handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_stream:
            wrap = _writing if method.startswith(OURS) else _streaming
            return grpc.stream_stream_rpc_method_handler(
                wrap(enter, handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        raise NotImplementedError(f"{method}: a kind of call that no service has yet")

    def _entering(self, method: str) -> Enter:
        rule = RULES.get(method.removeprefix(OURS))
        is_open = method.startswith(_REFLECTION)

        async def enter(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Again:
            bearer, subjects = credentials_of(context)
            # Each call has a task of its own, and so its own caller.
            access.serve_as(await self._authenticator.identify(bearer=bearer, subjects=subjects))
            if rule is not None:
                rule.check(rule.right, request)
            elif not is_open:
                raise PermissionDenied(f"{method} is for nobody: it has no rule")
            return partial(self._authenticator.identify, bearer=bearer, subjects=subjects)

        return enter


def credentials_of(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str | None, list[str]]:
    """Return the bearer token of a call (empty for another kind of authorization), and its certificate's subjects."""
    bearer = None
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            scheme, _, token = str(value).partition(" ")
            bearer = token.strip() if scheme.lower() == "bearer" else ""
    shown = context.auth_context()
    subjects = [text.decode("utf-8", "replace") for name in _NAMES for text in shown.get(name, ())]
    return bearer, subjects


def _answering(enter: Enter, method: Any, *, asks_again: bool) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        again = await enter(request, context)
        answer = await method(request, context)
        if asks_again:  # not after a write: what is done is to be told
            await again()
        return answer

    return call


def _writing(enter: Enter, method: Any) -> Any:
    async def call(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await method(_while_known(requests, await enter(requests, context)), context)

    return call


async def _while_known(requests: AsyncIterator[Any], again: Again) -> AsyncIterator[Any]:
    async for request in requests:
        await again()
        yield request


def _streaming(enter: Enter, method: Any) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        again = await enter(request, context)
        async for response in method(request, context):
            await again()
            yield response

    return call
