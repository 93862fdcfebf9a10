"""The Python client: submit jobs, wait for them, watch them, look after them. ``AsyncClient`` and ``Client``.

Both speak gRPC to the coordinators and never see Postgres or etcd. What they raise is here, too. Importing this package
is cheap; gRPC is imported with the first client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenure.client.records import (
    Artifact,
    Attempt,
    AuditEntry,
    AuditPage,
    Caller,
    CanceledJobs,
    Claim,
    Cluster,
    ClusterPicture,
    Coordinator,
    Explanation,
    HeldClaim,
    Job,
    JobClaim,
    JobError,
    JobPage,
    Limit,
    LogLine,
    Namespace,
    NewJob,
    Obstacle,
    Pause,
    Pool,
    ResultLost,
    ResultObject,
    RetriedJobs,
    Retry,
    ServedPool,
    StoreStep,
    SubmittedJob,
    SubmittedJobs,
    Worker,
)
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import (
    BoundExceeded,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TenureError,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from tenure.model.retry import Backoff
from tenure.model.states import JobState, Outcome
from tenure.model.unique import OnDuplicate
from tenure.model.workflows import WorkflowState

if TYPE_CHECKING:
    from tenure.client.async_client import AsyncClient
    from tenure.client.counts import JobCount, JobCounts
    from tenure.client.kinds import KindSettings
    from tenure.client.link import TLS
    from tenure.client.overview import Figures, Overview, PoolOverview
    from tenure.client.retention import ArchiveFile, ExpiredFiles, ExpiredJobs, LegalHold, RetentionPolicy
    from tenure.client.schedules import NewSchedule, Schedule, Tick, TickJob
    from tenure.client.stream import StreamedJob
    from tenure.client.sync_client import Client
    from tenure.client.tokens import CreatedToken, Token
    from tenure.client.workflows import Workflow, WorkflowChange

__all__ = [
    "TLS",
    "ArchiveFile",
    "Artifact",
    "AsyncClient",
    "Attempt",
    "AuditEntry",
    "AuditPage",
    "Backoff",
    "BoundExceeded",
    "Caller",
    "CanceledJobs",
    "Claim",
    "Client",
    "Cluster",
    "ClusterPicture",
    "ConfigurationError",
    "Conflict",
    "Coordinator",
    "CreatedToken",
    "DeadlineExceeded",
    "ExpiredFiles",
    "ExpiredJobs",
    "Explanation",
    "FieldViolation",
    "Figures",
    "HeldClaim",
    "InvalidInput",
    "Job",
    "JobClaim",
    "JobCount",
    "JobCounts",
    "JobError",
    "JobPage",
    "JobState",
    "KindSettings",
    "LegalHold",
    "Limit",
    "LogLine",
    "Namespace",
    "NewJob",
    "NewSchedule",
    "NotFound",
    "Obstacle",
    "OnDuplicate",
    "Outcome",
    "Overview",
    "Pause",
    "PermissionDenied",
    "Pool",
    "PoolOverview",
    "ResultLost",
    "ResultObject",
    "RetentionPolicy",
    "RetriedJobs",
    "Retry",
    "Schedule",
    "ServedPool",
    "StoreStep",
    "StreamedJob",
    "SubmittedJob",
    "SubmittedJobs",
    "TenureError",
    "Tick",
    "TickJob",
    "Token",
    "Trigger",
    "Unauthenticated",
    "Unavailable",
    "UpstreamFailure",
    "Worker",
    "Workflow",
    "WorkflowChange",
    "WorkflowState",
    "WrongState",
]

_LAZY = {
    "AsyncClient": "async_client",
    "Client": "sync_client",
    "KindSettings": "kinds",
    "TLS": "link",
    "StreamedJob": "stream",
} | dict.fromkeys(("NewSchedule", "Schedule", "Tick", "TickJob"), "schedules")
_LAZY |= dict.fromkeys(("CreatedToken", "Token"), "tokens")
_LAZY |= dict.fromkeys(("JobCount", "JobCounts"), "counts")
_LAZY |= dict.fromkeys(("ArchiveFile", "ExpiredFiles", "ExpiredJobs", "LegalHold", "RetentionPolicy"), "retention")
_LAZY |= dict.fromkeys(("Workflow", "WorkflowChange"), "workflows")
_LAZY |= dict.fromkeys(("Figures", "Overview", "PoolOverview"), "overview")


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"tenure.client.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
