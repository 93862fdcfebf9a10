"""The audit log: every call that steers writes its entry, none says what it must not, and no flood fills the table."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import pkgutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pyarrow as pa
import pytest
import pytest_asyncio
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from pyarrow import parquet
from tests.coordinator.conftest import Parts, running, until

import tenure.v1
from tenure.coordinator import archive_format, tokens
from tenure.coordinator import audit as audit_module
from tenure.coordinator.access import called_by, require
from tenure.coordinator.api import audit_service
from tenure.coordinator.api.acts import ACTS, How
from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.kind_service import KindService
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.token_service import TokenService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.archived import Archived
from tenure.coordinator.audit import Act, Audit
from tenure.coordinator.authenticate import Authenticator
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.workflows import Workflows
from tenure.model.access import Identity, Right, Role
from tenure.model.clock import SystemClock
from tenure.model.credentials import validate_credential
from tenure.model.errors import PermissionDenied, Unavailable
from tenure.model.ids import new_id
from tenure.model.states import Outcome
from tenure.store.objects.folder import FolderObjects
from tenure.v1 import audit_service_pb2 as audit_pb
from tenure.v1 import cluster_service_pb2 as cluster_pb
from tenure.v1 import job_pb2 as pb
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import kind_service_pb2 as kinds_pb
from tenure.v1 import limit_service_pb2 as limits_pb
from tenure.v1 import namespace_service_pb2 as namespaces_pb
from tenure.v1 import pool_service_pb2 as pools_pb
from tenure.v1 import retention_service_pb2 as retention_pb
from tenure.v1 import schedule_service_pb2 as schedules_pb
from tenure.v1 import token_service_pb2 as tokens_pb
from tenure.v1 import workflow_service_pb2 as workflows_pb
from tenure.v1.audit_service_pb2_grpc import AuditServiceStub
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tenure.v1.job_service_pb2_grpc import JobServiceStub
from tenure.v1.kind_service_pb2_grpc import KindServiceStub
from tenure.v1.limit_service_pb2_grpc import LimitServiceStub
from tenure.v1.namespace_service_pb2_grpc import NamespaceServiceStub
from tenure.v1.pool_service_pb2_grpc import PoolServiceStub
from tenure.v1.retention_service_pb2_grpc import RetentionServiceStub
from tenure.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from tenure.v1.token_service_pb2_grpc import TokenServiceStub
from tenure.v1.workflow_service_pb2_grpc import WorkflowServiceStub

CANARY = "canary-b7a1"
ARCHIVE = tempfile.TemporaryDirectory(prefix="tenure-audit-")
"""The object store; it goes with this process."""
LIFE = "the life of a job, which has its own history"
READS = "it reads"
NOT_AUDITED = {
    **dict.fromkeys(
        (
            "AuditService.ListAudit",
            "ClusterService.GetCluster",
            "ClusterService.ListClaims",
            "ClusterService.ListWorkers",
            "ClusterService.WatchCluster",
            "JobService.CountJobs",
            "JobService.ExplainJob",
            "JobService.GetJob",
            "JobService.CreateDownload",
            "JobService.ListArtifacts",
            "JobService.ListAttempts",
            "JobService.ListJobs",
            "JobService.ReadLogs",
            "JobService.WaitJob",
            "JobService.WatchJob",
            "JobService.WatchJobs",
            "KindService.GetKindSettings",
            "KindService.ListKindSettings",
            "LimitService.GetLimit",
            "LimitService.ListLimits",
            "NamespaceService.GetNamespace",
            "NamespaceService.ListNamespaces",
            "PoolService.ListPauses",
            "PoolService.ListPools",
            "RetentionService.GetRetentionPolicy",
            "RetentionService.ListArchiveFiles",
            "RetentionService.ListLegalHolds",
            "RetentionService.ListRetentionPolicies",
            "RetentionService.ListUnknownArchiveFiles",
            "RetentionService.PreviewRetention",
            "RetentionService.VerifyArchiveFile",
            "ScheduleService.GetSchedule",
            "ScheduleService.ListSchedules",
            "ScheduleService.PreviewSchedule",
            "TokenService.ListTokens",
            "WorkerService.ReadUpstream",
            "WorkflowService.GetWorkflow",
            "WorkflowService.ListWorkflowJobs",
            "WorkflowService.ListWorkflows",
            "WorkflowService.WatchWorkflow",
        ),
        READS,
    ),
    **dict.fromkeys(
        (
            "JobService.StreamSubmitJobs",
            "JobService.SubmitEach",
            "JobService.SubmitJob",
            "JobService.SubmitJobs",
            "WorkerService.AppendLogs",
            "WorkerService.CompleteUpload",
            "WorkerService.CreateUpload",
            "WorkerService.FinishAttempts",
            "WorkerService.ReportProgress",
            "WorkerService.SaveCheckpoint",
            "WorkerService.StartAttempts",
            "WorkerService.SubmitChildren",
        ),
        LIFE,
    ),
    "ClusterService.HintReady": "between coordinators; it changes nothing that is kept",
}
"""Calls without an entry, and why."""


@dataclass(slots=True)
class Stage:
    """The stubs, and the parts behind them."""

    parts: Parts
    channel: grpc.aio.Channel

    def __getattr__(self, name: str) -> Any:
        return _STUBS[name](self.channel)

    async def submit(self, **spec: Any) -> str:
        """Submit a job; return its id."""
        return str(await self.parts.submit(**spec))

    async def failed(self, **spec: Any) -> str:
        """Return the id of a job that has failed."""
        id = await self.parts.submit(**spec)
        fence = (await self.parts.execute(id)).fence
        await self.parts.finish(id, fence, Outcome.FAILED, retryable=False)
        return str(id)

    async def entries(self) -> list[Any]:
        """Read the log, oldest first."""
        return await self.parts.sql("SELECT *, detail::text AS text FROM tenure.audit ORDER BY at, id")


_STUBS: dict[str, Callable[[grpc.aio.Channel], Any]] = {
    "jobs": JobServiceStub,
    "workflows": WorkflowServiceStub,
    "cluster": ClusterServiceStub,
    "pools": PoolServiceStub,
    "limits": LimitServiceStub,
    "kinds": KindServiceStub,
    "namespaces": NamespaceServiceStub,
    "schedules": ScheduleServiceStub,
    "tokens": TokenServiceStub,
    "audit": AuditServiceStub,
    "retention": RetentionServiceStub,
}


def _server(
    parts: Parts, authenticator: Authenticator | None = None
) -> tuple[GrpcServer, list[Coroutine[Any, Any, None]]]:
    """Return a server, and the tasks of what it serves."""
    whole = Workflows(parts.db, parts.clock, parts.canceler)
    jobs = parts.job_service()
    archived = Archived(parts.db)
    archived.objects = FolderObjects(Path(ARCHIVE.name))
    workflows = WorkflowService(parts.db, parts.etcd, parts.keys, parts.clock, whole, parts.waiters, parts.audit)
    server = GrpcServer(
        (
            jobs,
            parts.cluster_service(),
            LimitService(parts.db, parts.etcd, parts.keys, parts.hints, parts.audit),
            PoolService(parts.db, parts.etcd, parts.keys, parts.lanes, parts.hints, parts.canceler, parts.audit),
            NamespaceService(parts.db, parts.hints, parts.audit),
            ScheduleService(parts.db, parts.lanes, parts.hints, parts.kinds, parts.canceler, parts.audit),
            KindService(parts.db, parts.kinds, parts.audit),
            workflows,
            TokenService(parts.db, parts.audit),
            AuditService(parts.db),
            RetentionService(parts.db, parts.clock, parts.audit, archived),
        ),
        listen="127.0.0.1:0",
        with_reflection=False,
        on_denied=parts.audit.denied,
        authenticator=authenticator,
    )
    return server, [jobs.run(), workflows.run(), parts.submitter.run()]


@pytest_asyncio.fixture
async def stage(alone: Parts) -> AsyncIterator[Stage]:
    server, bodies = _server(alone)
    await server.start()
    async with running(*bodies), grpc.aio.insecure_channel(server.address) as channel:
        yield Stage(alone, channel)
        await server.stop(0)


def _calls() -> set[str]:
    """Return every call of every service that has stubs."""
    found = set()
    for module in pkgutil.iter_modules(tenure.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"tenure.v1.{module.name}").DESCRIPTOR
            found |= {
                f"{service.name}.{method.name}"
                for service in file.services_by_name.values()
                for method in service.methods
            }
    return found


Case = Callable[[Stage], Awaitable[tuple[str, str, str | None, dict[str, Any]]]]
CASES: dict[str, Case] = {}
"""Makes the call, and says what is to be written of it: action, target, namespace, detail."""


def case(call: str) -> Callable[[Case], Case]:
    def add(made: Case) -> Case:
        CASES[call] = made
        return made

    return add


def schedule_spec(name: str = "nightly", cron: str = "0 2 * * *", payload: str = "null") -> schedules_pb.ScheduleSpec:
    job = pb.JobSpec(kind="k", payload=payload)
    return schedules_pb.ScheduleSpec(name=name, namespace="acme", cron=cron, job=job)


@case("JobService.CancelJob")
async def _(stage: Stage) -> Any:
    id = await stage.submit(namespace="acme")
    await stage.jobs.CancelJob(jobs_pb.CancelJobRequest(id=id, reason="wrong month"))
    return "jobs.cancel", id, "acme", {"reason": "wrong month"}


@case("JobService.CancelJobs")
async def _(stage: Stage) -> Any:
    for _ in range(3):
        await stage.submit(namespace="acme", kind="scan")
    filter = jobs_pb.JobFilter(namespace="acme", kind="scan", states=[pb.JOB_STATE_READY])
    await stage.jobs.CancelJobs(jobs_pb.CancelJobsRequest(filter=filter))
    counts = {"canceled": 3, "asked": 0, "dependants": 0}
    return "jobs.cancel", "kind=scan namespace=acme states=ready", "acme", counts


@case("JobService.RetryJob")
async def _(stage: Stage) -> Any:
    id = await stage.failed(namespace="acme")
    answer = await stage.jobs.RetryJob(jobs_pb.RetryJobRequest(id=id))
    return "jobs.retry", id, "acme", {"retry": answer.job.id, "created": True}


@case("JobService.RetryJobs")
async def _(stage: Stage) -> Any:
    await stage.failed(kind="again")
    await stage.jobs.RetryJobs(jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(kind="again")))
    return "jobs.retry", "kind=again", None, {"retried": 1, "skipped": 0}


@case("JobService.DeleteJob")
async def _(stage: Stage) -> Any:
    id = await stage.failed(namespace="acme")
    await stage.jobs.DeleteJob(jobs_pb.DeleteJobRequest(id=id))
    return "jobs.delete", id, "acme", {}


@case("WorkflowService.CancelWorkflow")
async def _(stage: Stage) -> Any:
    specs = [pb.JobSpec(kind="k", namespace="acme", ref=ref) for ref in "ab"]
    made = await stage.jobs.SubmitJobs(jobs_pb.SubmitJobsRequest(jobs=specs, workflow_name="night"))
    request = workflows_pb.CancelWorkflowRequest(id=made.workflow_id, reason="late")
    await stage.workflows.CancelWorkflow(request)
    counts = {"canceled": 2, "asked": 0, "dependants": 0}
    return "workflows.cancel", made.workflow_id, "acme", {"reason": "late", **counts}


@case("ClusterService.RevokeClaim")
async def _(stage: Stage) -> Any:
    id = await stage.submit(namespace="acme")
    await stage.parts.execute(uuid.UUID(id))
    await stage.cluster.RevokeClaim(cluster_pb.RevokeClaimRequest(job_id=id))
    return "claims.revoke", id, "acme", {"revoked": True}


@case("PoolService.Pause")
async def _(stage: Stage) -> Any:
    subject = pools_pb.PauseSubject(namespace="acme")
    await stage.pools.Pause(pools_pb.PauseRequest(subject=subject, reason="moving"))
    return "namespaces.pause", "acme", "acme", {"before": None, "after": {"reason": "moving"}}


@case("PoolService.Resume")
async def _(stage: Stage) -> Any:
    await stage.pools.Resume(pools_pb.ResumeRequest(subject=pools_pb.PauseSubject(pool="a/b")))
    return "pools.resume", "a/b", None, {"before": None, "after": None}


@case("PoolService.RemovePool")
async def _(stage: Stage) -> Any:
    await stage.submit(route="old/one")
    await stage.pools.RemovePool(pools_pb.RemovePoolRequest(pool="old"))
    counts = {"canceled": 1, "asked": 0, "dependants": 0}
    return "pools.remove", "old", None, {**counts, "left": 0, "removed": True}


@case("LimitService.PutLimit")
async def _(stage: Stage) -> Any:
    await stage.limits.PutLimit(limits_pb.PutLimitRequest(limit=limits_pb.Limit(name="db", concurrent=2)))
    after = {"concurrent": 2, "rate": None, "interval_s": 1.0, "burst": None}
    return "limits.put", "db", None, {"before": None, "after": after}


@case("LimitService.DeleteLimit")
async def _(stage: Stage) -> Any:
    before = {"concurrent": 2, "rate": None, "interval_s": 1, "burst": None}
    await stage.limits.DeleteLimit(limits_pb.DeleteLimitRequest(name="db"))  # that of the case before
    return "limits.delete", "db", None, {"before": before, "after": None}


@case("RetentionService.PutRetentionPolicy")
async def _(stage: Stage) -> Any:
    policy = retention_pb.RetentionPolicy(namespace="acme", state=pb.JOB_STATE_FAILED)
    policy.keep.seconds = 86_400
    await stage.retention.PutRetentionPolicy(retention_pb.PutRetentionPolicyRequest(policy=policy))
    after = {"keep_s": 86_400, "archive": False, "archive_keep_s": None, "storage_class": None}
    return "retention.put", "acme/*/failed", "acme", {"before": None, "after": after}


@case("RetentionService.DeleteRetentionPolicy")
async def _(stage: Stage) -> Any:
    request = retention_pb.DeleteRetentionPolicyRequest(namespace="acme", state=pb.JOB_STATE_FAILED)
    await stage.retention.DeleteRetentionPolicy(request)
    before = {"keep_s": 86_400, "archive": False, "archive_keep_s": None, "storage_class": None}  # of the case before
    return "retention.delete", "acme/*/failed", "acme", {"before": before, "after": None}


@case("RetentionService.PutLegalHold")
async def _(stage: Stage) -> Any:
    await stage.retention.PutLegalHold(retention_pb.PutLegalHoldRequest(key="case", value="7", reason="asked for"))
    return "holds.put", "case=7", None, {"before": None, "after": {"reason": "asked for"}}


@case("RetentionService.AdoptArchiveFile")
async def _(stage: Stage) -> Any:
    at = datetime.now(UTC)
    job = {"id": str(new_id()), "namespace": "acme", "kind": "k", "state": "completed"}
    data, key = io.BytesIO(), "_archive/acme/2026/01/01/x.parquet"
    rows = [{**job, "created_at": at, "finished_at": at}]
    parquet.write_table(pa.Table.from_pylist(rows, schema=archive_format.schema()), data)
    await FolderObjects(Path(ARCHIVE.name)).put(key, data.getvalue())
    answer = await stage.retention.AdoptArchiveFile(retention_pb.AdoptArchiveFileRequest(key=key))
    return "archive.adopt", key, None, {"file": answer.file.key, "jobs": 1, "known": 0}


@case("RetentionService.DeleteLegalHold")
async def _(stage: Stage) -> Any:
    await stage.retention.DeleteLegalHold(retention_pb.DeleteLegalHoldRequest(key="case", value="none"))
    return "holds.delete", "case=none", None, {"before": None, "after": None}


@case("KindService.PutKindSettings")
async def _(stage: Stage) -> Any:
    settings = kinds_pb.KindSettings(kind="scan", namespace="acme", priority=5)
    await stage.kinds.PutKindSettings(kinds_pb.PutKindSettingsRequest(settings=settings))
    return "kinds.put", "scan", "acme", {"before": None, "after": {"priority": 5}}


@case("KindService.DeleteKindSettings")
async def _(stage: Stage) -> Any:
    await stage.kinds.DeleteKindSettings(kinds_pb.DeleteKindSettingsRequest(kind="scan", namespace="acme"))
    return "kinds.delete", "scan", "acme", {"before": {"priority": 5}, "after": None}


@case("NamespaceService.UpdateNamespace")
async def _(stage: Stage) -> Any:
    asked = namespaces_pb.Namespace(name="acme", weight=2.5)
    await stage.namespaces.UpdateNamespace(namespaces_pb.UpdateNamespaceRequest(namespace=asked))
    return "namespaces.update", "acme", "acme", {"before": None, "set": {"weight": 2.5}}


@case("ScheduleService.CreateSchedule")
async def _(stage: Stage) -> Any:
    request = schedules_pb.CreateScheduleRequest(schedule=schedule_spec())
    answer = await stage.schedules.CreateSchedule(request)
    after = {"cron": "0 2 * * *", "kind": "k", "route": "default", "priority": 0}
    return "schedules.create", "nightly", "acme", {"after": after, "created": True, "id": answer.schedule.id}


@case("ScheduleService.UpdateSchedule")
async def _(stage: Stage) -> Any:
    spec = schedule_spec(cron="0 3 * * *", payload="[]")
    await stage.schedules.UpdateSchedule(schedules_pb.UpdateScheduleRequest(schedule=spec))
    same = {"kind": "k", "route": "default", "priority": 0}
    detail = {"before": {"cron": "0 2 * * *", **same}, "after": {"cron": "0 3 * * *", **same}}
    return "schedules.update", "nightly", "acme", {**detail, "payload_kept": False, "revision": 2}


@case("ScheduleService.PauseSchedule")
async def _(stage: Stage) -> Any:
    await stage.schedules.PauseSchedule(schedules_pb.PauseScheduleRequest(namespace="acme", schedule="nightly"))
    return "schedules.pause", "nightly", "acme", {}


@case("ScheduleService.ResumeSchedule")
async def _(stage: Stage) -> Any:
    await stage.schedules.ResumeSchedule(schedules_pb.ResumeScheduleRequest(namespace="acme", schedule="nightly"))
    return "schedules.resume", "nightly", "acme", {}


@case("ScheduleService.TriggerSchedule")
async def _(stage: Stage) -> Any:
    request = schedules_pb.TriggerScheduleRequest(namespace="acme", schedule="nightly", idempotency_key="once")
    answer = await stage.schedules.TriggerSchedule(request)
    return "schedules.trigger", "nightly", "acme", {"job": answer.job_id, "created": True}


@case("ScheduleService.BackfillSchedule")
async def _(stage: Stage) -> Any:
    request = schedules_pb.BackfillScheduleRequest(namespace="acme", schedule="nightly")
    getattr(request, "from").FromDatetime(datetime(2026, 3, 1, tzinfo=UTC))
    request.until.FromDatetime(datetime(2026, 3, 3, tzinfo=UTC))
    await stage.schedules.BackfillSchedule(request)
    detail = {"from": "2026-03-01T00:00:00Z", "until": "2026-03-03T00:00:00Z", "ticks": 2, "created": 2}
    return "schedules.backfill", "nightly", "acme", detail


@case("ScheduleService.DeleteSchedule")
async def _(stage: Stage) -> Any:
    await stage.schedules.DeleteSchedule(schedules_pb.DeleteScheduleRequest(namespace="acme", schedule="nightly"))
    return "schedules.delete", "nightly", "acme", {}


@case("TokenService.CreateToken")
async def _(stage: Stage) -> Any:
    request = tokens_pb.CreateTokenRequest(name="far", role="runner", pools=["a/b", "c"])
    made = await stage.tokens.CreateToken(request)
    return "tokens.create", "far", None, {"role": "runner", "pools": "a/b,c", "id": made.token.id}


@case("TokenService.RevokeToken")
async def _(stage: Stage) -> Any:
    made = await tokens.create(stage.parts.db, validate_credential(name="gone", role=Role.ADMIN), by="the test")
    await stage.tokens.RevokeToken(tokens_pb.RevokeTokenRequest(id=str(made.row.id)))
    return "tokens.revoke", str(made.row.id), None, {"name": "gone"}


def test_every_call_is_audited_or_says_why_not() -> None:
    assert not ACTS.keys() & NOT_AUDITED.keys()
    assert _calls() == ACTS.keys() | NOT_AUDITED.keys(), (
        "name a new call in coordinator.api.acts, or above with a reason"
    )
    assert CASES.keys() == ACTS.keys(), "an audited call is made in a test"


async def test_each_audited_call_writes_one_entry(stage: Stage) -> None:
    for seen, (call, made) in enumerate(CASES.items()):
        action, target, namespace, detail = await made(stage)
        entries = await stage.entries()
        assert len(entries) == seen + 1, call
        entry = entries[-1]
        told = (entry.action, entry.target, entry.namespace, entry.outcome, json.loads(entry.text))
        assert told == (action, target, namespace, "ok", detail), call
        assert (entry.caller, entry.role) == ("anybody", "admin")


async def test_what_was_set_for_a_namespace_is_told_when_it_is_set_anew(stage: Stage) -> None:
    asked = namespaces_pb.Namespace(name="acme", weight=2.5, backlog=10, submit_rate=4.0, submit_burst=8)
    asked.ageing.FromSeconds(60)
    told_never_set = {"unfinished"}
    assert {one.name for one, _ in asked.ListFields()} == {one.name for one in asked.DESCRIPTOR.fields} - told_never_set
    for _ in range(2):
        await stage.namespaces.UpdateNamespace(namespaces_pb.UpdateNamespaceRequest(namespace=asked))
    first, second = [json.loads(entry.text) for entry in await stage.entries()]
    assert first["before"] is None
    assert second["before"] == first["set"]


async def test_a_preview_changes_nothing_and_is_not_written(stage: Stage) -> None:
    filter = jobs_pb.JobFilter(kind="k")
    await stage.jobs.CancelJobs(jobs_pb.CancelJobsRequest(filter=filter, preview=True))
    await stage.jobs.RetryJobs(jobs_pb.RetryJobsRequest(filter=filter, preview=True))
    await stage.pools.RemovePool(pools_pb.RemovePoolRequest(pool="a", preview=True))
    assert await stage.entries() == []


async def test_what_was_refused_is_written_with_its_status_and_names_the_fields_alone(stage: Stage) -> None:
    id = await stage.submit()
    bad = schedule_spec(cron=CANARY, payload=CANARY)
    far = jobs_pb.JobFilter(created_after=Timestamp(seconds=2**60))
    limit = limits_pb.Limit(name="a\x00", concurrent=1)
    for method, request in (
        (stage.jobs.DeleteJob, jobs_pb.DeleteJobRequest(id=id)),
        (stage.schedules.CreateSchedule, schedules_pb.CreateScheduleRequest(schedule=bad)),
        (stage.jobs.CancelJobs, jobs_pb.CancelJobsRequest(filter=far)),
        (stage.limits.PutLimit, limits_pb.PutLimitRequest(limit=limit)),
        (stage.jobs.CancelJob, jobs_pb.CancelJobRequest(id="x" * 5_000)),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await method(request)
    entries = await stage.entries()
    bad_input = "INVALID_ARGUMENT"
    assert [one.outcome for one in entries] == ["FAILED_PRECONDITION", *[bad_input] * 4]
    assert set(json.loads(entries[1].text)["fields"]) == {"schedule.cron", "schedule.job.payload"}
    assert [one.target[:12] for one in entries[2:]] == ["unreadable", "a\ufffd", "x" * 12]
    assert len(entries[-1].target) == audit_module.TARGET_CHARS


async def test_no_payload_and_no_token_comes_into_the_log(stage: Stage) -> None:
    secret = json.dumps({"password": CANARY})
    metadata = (("authorization", f"Bearer {CANARY}"),)
    create = schedules_pb.CreateScheduleRequest(schedule=schedule_spec(payload=secret))
    await stage.schedules.CreateSchedule(create, metadata=metadata)
    spec = schedule_spec(cron="0 3 * * *", payload=json.dumps([CANARY]))
    await stage.schedules.UpdateSchedule(schedules_pb.UpdateScheduleRequest(schedule=spec), metadata=metadata)
    trigger = schedules_pb.TriggerScheduleRequest(namespace="acme", schedule="nightly", idempotency_key=CANARY)
    await stage.schedules.TriggerSchedule(trigger, metadata=metadata)
    id = await stage.failed(payload=secret)
    await stage.jobs.RetryJob(jobs_pb.RetryJobRequest(id=id), metadata=metadata)
    await stage.jobs.DeleteJob(jobs_pb.DeleteJobRequest(id=id), metadata=metadata)
    bad = schedule_spec(name="bad", payload=CANARY)
    with pytest.raises(grpc.aio.AioRpcError):
        await stage.schedules.CreateSchedule(schedules_pb.CreateScheduleRequest(schedule=bad), metadata=metadata)
    rows = await stage.parts.sql("SELECT a::text AS text FROM tenure.audit a")
    assert len(rows) == 6
    assert not [row.text for row in rows if CANARY in row.text]


MAYBE = How("limits.put", lambda request: "db", namespace=lambda request: "acme")
EVE = Identity("eve", Role.VIEWER, ("acme",))
ANN = Identity("ann", Role.OPERATOR, ("acme",))


async def _refused(audit: Audit, who: Identity = EVE) -> None:
    async def answering() -> None:
        require(Right.OPERATE, namespace="acme")

    with called_by(who), pytest.raises(PermissionDenied) as caught:
        await audit.serve(MAYBE, None, answering)
    await audit.denied("LimitService.PutLimit", caught.value)  # as the server does then: not written twice


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


class Hand(SystemClock):
    """Its time is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_a_flood_of_denials_is_bounded_and_counted(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "REFUSED_PER_CALLER", 3)
    monkeypatch.setattr(audit_module, "REFUSED_IN_ALL", 5)
    clock, before = Hand(), counted("tenure_audit_refusals_left_out_total")
    audit = Audit(alone.db, clock)
    for _ in range(10):
        await _refused(audit)
    for number in range(4):
        await _refused(audit, Identity(f"eve{number}", Role.VIEWER, ("acme",)))
    count = "SELECT caller, count(*) AS n FROM tenure.audit WHERE outcome = 'denied' GROUP BY 1 ORDER BY 1"
    assert [tuple(row) for row in await alone.sql(count)] == [("eve", 3), ("eve0", 1), ("eve1", 1)]
    assert counted("tenure_audit_refusals_left_out_total") - before == 9
    clock.now += audit_module.REFUSED_PERIOD_S
    await _refused(audit)
    [last] = await alone.sql("SELECT *, detail::text AS text FROM tenure.audit ORDER BY at DESC, id DESC LIMIT 1")
    assert (last.caller, last.role, last.action, last.namespace, last.target) == (
        "eve",
        "viewer",
        "limits.put",
        "acme",
        "db",
    )
    assert json.loads(last.text)["left_out_before"] == 7


async def test_what_is_done_is_never_bounded(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "REFUSED_PER_CALLER", 3)

    async def answering() -> str:
        return "done"

    for _ in range(10):
        with called_by(ANN):
            assert await alone.audit.serve(MAYBE, None, answering) == "done"
    assert [tuple(row) for row in await alone.sql("SELECT caller, count(*) FROM tenure.audit GROUP BY 1")] == [
        ("ann", 10)
    ]


async def test_an_entry_that_cannot_be_written_is_logged_and_counted_and_the_act_stands(stage: Stage) -> None:
    id = await stage.submit()
    before = counted("tenure_audit_entries_lost_total")
    await stage.parts.sql("ALTER TABLE tenure.audit RENAME TO away")
    with structlog.testing.capture_logs() as logs:
        answer = await stage.jobs.CancelJob(jobs_pb.CancelJobRequest(id=id, reason="late"))
    assert answer.job.state == pb.JOB_STATE_CANCELED
    assert counted("tenure_audit_entries_lost_total") - before == 1
    [lost] = [line for line in logs if line["event"] == "audit_not_written"]
    assert (lost["action"], lost["target"], lost["caller"]) == ("jobs.cancel", id, "anybody")


async def test_settings_and_their_entry_are_written_both_or_neither(stage: Stage) -> None:
    await stage.parts.sql("ALTER TABLE tenure.audit RENAME TO away")
    with pytest.raises(grpc.aio.AioRpcError):
        await stage.limits.PutLimit(limits_pb.PutLimitRequest(limit=limits_pb.Limit(name="db", concurrent=2)))
    assert await stage.parts.db.fetch("limits") == []


async def test_the_entry_of_a_caller_who_went_away_is_written_later(alone: Parts) -> None:
    begun = asyncio.Event()

    async def answering() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def serve() -> None:
        with called_by(ANN):
            await alone.audit.serve(MAYBE, None, answering)

    task = asyncio.create_task(serve())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with running(alone.audit.run()):
        [row] = await until(lambda: alone.sql("SELECT caller, outcome FROM tenure.audit"))
    assert tuple(row) == ("ann", "interrupted")


async def test_callers_who_go_away_do_not_flood_the_table(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "REFUSED_PER_CALLER", 2)

    async def answering() -> None:
        raise asyncio.CancelledError

    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            with called_by(ANN), pytest.raises(asyncio.CancelledError):
                await alone.audit.serve(MAYBE, None, answering)
    await alone.audit.close()
    assert len(await alone.sql("SELECT id FROM tenure.audit")) == 2
    assert [line["target"] for line in logs if line["event"] == "audit_left_out"] == ["db"] * 3


async def test_what_was_postponed_and_cannot_be_written_is_logged_at_the_stop(alone: Parts) -> None:
    async def answering() -> None:
        raise asyncio.CancelledError

    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await alone.audit.serve(MAYBE, None, answering)
    await alone.sql("ALTER TABLE tenure.audit RENAME TO away")
    with structlog.testing.capture_logs() as logs:
        await alone.audit.close()
    assert [line["event"] for line in logs] == ["audit_not_written"] * 3


async def test_an_entry_tried_twice_is_written_once(alone: Parts) -> None:
    entry = Act("jobs.cancel", "x").entry("ok")
    for _ in range(2):
        await alone.db.fetch("insert_audit", entry)
    assert len(await alone.sql("SELECT id FROM tenure.audit")) == 1


async def test_a_store_that_is_away_is_an_outcome_too(alone: Parts) -> None:
    async def answering() -> None:
        raise Unavailable("etcd is away")

    with pytest.raises(Unavailable):
        await alone.audit.serve(MAYBE, None, answering)
    [row] = await alone.sql("SELECT outcome, detail::text AS text FROM tenure.audit")
    assert (row.outcome, json.loads(row.text)) == ("UNAVAILABLE", {"message": "etcd is away"})


async def test_a_denied_call_that_is_not_audited_is_written_under_its_name(alone: Parts) -> None:
    server, bodies = _server(alone)
    with called_by(EVE):  # whom the calls of this server inherit
        await server.start()
    async with running(*bodies), grpc.aio.insecure_channel(server.address) as channel:
        stage = Stage(alone, channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.audit.ListAudit(audit_pb.ListAuditRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        [entry] = await stage.entries()
        assert (entry.caller, entry.action, entry.target, entry.outcome) == (
            "eve",
            "calls.deny",
            "AuditService.ListAudit",
            "denied",
        )
        await server.stop(0)


async def test_an_act_that_is_denied_at_the_gate_is_written_as_the_act(alone: Parts) -> None:
    credential = validate_credential(name="eve", role=Role.VIEWER, namespaces=["acme"])
    secret = (await tokens.create(alone.db, credential, by="the test")).secret
    authenticator = Authenticator(alone.db, alone.clock)
    server, bodies = _server(alone, authenticator)
    await server.start()
    id = await alone.submit(namespace="acme")
    async with running(*bodies, authenticator.run()), grpc.aio.insecure_channel(server.address) as channel:
        stage = Stage(alone, channel)
        metadata = (("authorization", f"Bearer {secret}"),)
        for method, request in (
            (stage.jobs.CancelJob, jobs_pb.CancelJobRequest(id=str(id))),
            (stage.limits.PutLimit, limits_pb.PutLimitRequest(limit=limits_pb.Limit(name="db", concurrent=2))),
            (stage.jobs.SubmitJob, jobs_pb.SubmitJobRequest(job=pb.JobSpec(kind="k", payload=f'"{CANARY}"'))),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        entries = await stage.entries()
        assert {(one.caller, one.role, one.outcome) for one in entries} == {("eve", "viewer", "denied")}
        assert [(one.action, one.namespace, one.target) for one in entries] == [
            ("jobs.cancel", "acme", str(id)),
            ("limits.put", None, "db"),
            ("calls.deny", None, "JobService.SubmitJob"),
        ]
        assert not [one for one in entries if CANARY in one.text or secret in one.text]
        await server.stop(0)


async def _listed(parts: Parts, who: Identity, **request: Any) -> list[str]:
    """Return the targets of all pages."""
    service, found = AuditService(parts.db), []
    token = ""
    with called_by(who):
        while True:
            answer = await service.ListAudit(
                audit_pb.ListAuditRequest(page_token=token, **request),
                None,  # type: ignore[arg-type]
            )
            found += [entry.target for entry in answer.entries]
            if not (token := answer.next_page_token):
                return found


async def test_entries_are_listed_newest_first_by_filter_and_page(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_service, "WINDOW", 7)
    await alone.sql(
        "INSERT INTO tenure.audit (id, at, caller, role, action, namespace, target, outcome)"
        " SELECT gen_random_uuid(), '2026-01-01Z'::timestamptz + make_interval(hours => n / 2),"
        "        CASE WHEN n %% 10 = 0 THEN 'ann' ELSE 'bob' END, 'operator',"
        "        CASE WHEN n %% 5 = 0 THEN 'jobs.cancel' ELSE 'limits.put' END,"
        "        CASE WHEN n %% 3 = 0 THEN 'acme' END, n::text, 'ok' FROM generate_series(0, 49) AS n"
    )
    chief = Identity("chief", Role.OPERATOR)
    everything = await _listed(alone, chief, page_size=3)
    assert sorted(everything, key=int) == [str(n) for n in range(50)]
    assert [int(target) // 2 for target in everything] == sorted((n // 2 for n in range(50)), reverse=True)
    assert await _listed(alone, chief, caller="ann") == ["40", "30", "20", "10", "0"]
    assert await _listed(alone, chief, action="jobs.", page_size=1) == [str(n) for n in range(45, -1, -5)]
    assert await _listed(alone, chief, action="%") == []
    assert await _listed(alone, chief, target="17") == ["17"]
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    since, end = Timestamp(), Timestamp()
    since.FromDatetime(noon)
    end.FromDatetime(noon + timedelta(hours=1))
    assert sorted(await _listed(alone, chief, since=since, until=end)) == ["24", "25"]
    assert set(await _listed(alone, EVE, namespace="acme")) == {str(n) for n in range(0, 50, 3)}


async def test_who_may_list_what(alone: Parts) -> None:
    for who, request in (
        (EVE, {}),
        (ANN, {}),
        (EVE, {"namespace": "other"}),
        (Identity("v", Role.VIEWER), {}),
        (Identity("w", Role.WORKER), {"namespace": "acme"}),
    ):
        with pytest.raises(PermissionDenied):
            await _listed(alone, who, **request)
    for who, request in (
        (EVE, {"namespace": "acme"}),
        (Identity("o", Role.OPERATOR), {}),
        (Identity("a", Role.ADMIN), {}),
    ):
        assert await _listed(alone, who, **request) == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"page_size": 1_001}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "WzEsIDJd"}, "page_token"),
        ({"caller": "\x00"}, "caller"),
        ({"since": Timestamp(seconds=2**60)}, "since"),
    ],
)
async def test_a_bad_listing_is_refused(stage: Stage, request_: Any, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.audit.ListAudit(audit_pb.ListAuditRequest(**request_))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")


@pytest.mark.parametrize(
    "statement",
    ["UPDATE tenure.audit SET caller = 'nobody'", "DELETE FROM tenure.audit", "TRUNCATE tenure.audit"],
)
async def test_what_was_written_cannot_be_changed(alone: Parts, statement: str) -> None:
    await alone.audit.note(Act("jobs.cancel", "x"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        await alone.sql(statement)
    assert len(await alone.sql("SELECT id FROM tenure.audit")) == 1
