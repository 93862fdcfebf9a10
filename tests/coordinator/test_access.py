"""Who may call what: every RPC, by every kind of caller; what is refused changes nothing."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.coordinator.conftest import Parts, object_signer_of, running

from tenure.coordinator import authenticate, tokens
from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.gate import RULES
from tenure.coordinator.api.grpc_server import SERVICES, GrpcServer
from tenure.coordinator.api.kind_service import KindService
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.token_service import TokenService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.authenticate import Authenticator
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.objects import access_to
from tenure.coordinator.uploads import Uploads
from tenure.coordinator.workflows import Workflows
from tenure.model.access import Right, Role, has
from tenure.model.credentials import validate_credential
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec
from tenure.model.tokens import new_token
from tenure.store.objects.opening import open_store
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub

Code = grpc.StatusCode
TIMEOUT_S = 30.0
METHODS = {
    f"{service.rpartition('.')[2]}/{method.name}": method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}
"""Every RPC there is."""
TABLES = (
    "job history attempt schedule kind namespace job_limit pause pool token workflow lane dependency idempotency "
    "log_head log retention_policy legal_hold"
)


@dataclass
class Place:
    """A running server, a world of things in the namespace ``ns-a``, and a token for each kind of caller."""

    parts: Parts
    channel: grpc.aio.Channel
    authenticator: Authenticator
    server: GrpcServer
    names: dict[str, str]
    secrets: dict[str, str]

    def request(self, method: str) -> Any:
        """Return a well-formed request about ``ns-a``."""
        message = message_factory.GetMessageClass(METHODS[method].input_type)()
        return json_format.ParseDict(_filled(REQUESTS[method], self.names), message)

    async def call(self, method: str, who: str | None, request: Any = None) -> tuple[Code, str, Any]:
        """Call; return the status, its text, and the (first) answer."""
        found = METHODS[method]
        request = self.request(method) if request is None else request
        answers = message_factory.GetMessageClass(found.output_type)
        bearer = None if who is None else self.secrets.get(who, who)
        shown = () if bearer is None else (("authorization", f"Bearer {bearer}"),)
        options: dict[str, Any] = {"timeout": TIMEOUT_S, "metadata": shown}
        coded = {
            "request_serializer": lambda one: one.SerializeToString(),
            "response_deserializer": answers.FromString,
        }
        path = f"/{found.containing_service.full_name}/{found.name}"
        try:
            if found.client_streaming:
                stream = self.channel.stream_stream(path, **coded)(iter([request]), **options)
                return Code.OK, "", await stream.read()
            if found.server_streaming:
                watch = self.channel.unary_stream(path, **coded)(request, **options)
                answer = await watch.read()
                watch.cancel()
                return Code.OK, "", answer
            return Code.OK, "", await self.channel.unary_unary(path, **coded)(request, **options)
        except grpc.aio.AioRpcError as exc:
            return exc.code(), exc.details() or "", None

    async def rows(self) -> list[Any]:
        """Return what all tables hold."""
        return [
            await self.parts.sql(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) AS all FROM tenure.{table} t")
            for table in TABLES.split()
        ]


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


NEW = {"kind": "k", "namespace": "ns-a"}
SCHEDULE = {"name": "made", "namespace": "ns-a", "cron": "0 0 1 1 *", "job": {"kind": "k", "namespace": "ns-a"}}
REQUESTS: dict[str, dict[str, Any]] = {
    "JobService/SubmitJob": {"job": NEW},
    "JobService/SubmitJobs": {"jobs": [NEW]},
    "JobService/StreamSubmitJobs": {"jobs": [NEW], "sequences": [1]},
    "JobService/SubmitEach": {"jobs": [NEW]},
    "JobService/GetJob": {"id": "$job"},
    "JobService/ListJobs": {},
    "JobService/CountJobs": {"byNamespace": True},
    "JobService/WaitJob": {"id": "$job", "timeout": "0s"},
    "JobService/WatchJob": {"id": "$job"},
    "JobService/WatchJobs": {"ids": ["$job"]},
    "JobService/DeleteJob": {"id": "$ended"},
    "JobService/CancelJob": {"id": "$job"},
    "JobService/CancelJobs": {"all": True},
    "JobService/RetryJob": {"id": "$ended"},
    "JobService/RetryJobs": {"all": True, "filter": {"states": ["JOB_STATE_CANCELED"]}},
    "JobService/ExplainJob": {"id": "$job"},
    "JobService/ListAttempts": {"jobId": "$job"},
    "JobService/ReadLogs": {"jobId": "$job"},
    "JobService/ListArtifacts": {"jobId": "$job"},
    "JobService/CreateDownload": {"jobId": "$job", "name": "a"},
    "WorkflowService/ListWorkflows": {},
    "WorkflowService/GetWorkflow": {"id": "$workflow"},
    "WorkflowService/ListWorkflowJobs": {"id": "$workflow"},
    "WorkflowService/WatchWorkflow": {"id": "$workflow"},
    "WorkflowService/CancelWorkflow": {"id": "$workflow"},
    "ScheduleService/CreateSchedule": {"schedule": {**SCHEDULE, "name": "another"}},
    "ScheduleService/GetSchedule": {"namespace": "ns-a", "schedule": "made"},
    "ScheduleService/ListSchedules": {},
    "ScheduleService/UpdateSchedule": {"schedule": {**SCHEDULE, "cron": "0 1 1 1 *"}},
    "ScheduleService/DeleteSchedule": {"namespace": "ns-a", "schedule": "made"},
    "ScheduleService/PauseSchedule": {"namespace": "ns-a", "schedule": "made"},
    "ScheduleService/ResumeSchedule": {"namespace": "ns-a", "schedule": "made"},
    "ScheduleService/TriggerSchedule": {"namespace": "ns-a", "schedule": "made"},
    "ScheduleService/BackfillSchedule": {
        "namespace": "ns-a",
        "schedule": "made",
        "from": "2025-01-01T00:00:00Z",
        "until": "2025-01-02T00:00:00Z",
    },
    "ScheduleService/PreviewSchedule": {"namespace": "ns-a", "schedule": "made"},
    "LimitService/PutLimit": {"limit": {"name": "made", "concurrent": 2}},
    "LimitService/GetLimit": {"name": "made"},
    "LimitService/ListLimits": {},
    "LimitService/DeleteLimit": {"name": "made"},
    "PoolService/ListPools": {},
    "PoolService/Pause": {"subject": {"namespace": "ns-a"}},
    "PoolService/Resume": {"subject": {"namespace": "ns-a"}},
    "PoolService/ListPauses": {},
    "PoolService/RemovePool": {"pool": "pool-a"},
    "NamespaceService/UpdateNamespace": {"namespace": {"name": "ns-a", "weight": 2.0}},
    "NamespaceService/GetNamespace": {"name": "ns-a"},
    "NamespaceService/ListNamespaces": {},
    "KindService/PutKindSettings": {"settings": {"kind": "k", "namespace": "ns-a", "priority": 3}},
    "KindService/GetKindSettings": {"kind": "k", "namespace": "ns-a"},
    "KindService/ListKindSettings": {},
    "KindService/DeleteKindSettings": {"kind": "k", "namespace": "ns-a"},
    "ClusterService/GetCluster": {},
    "ClusterService/ListWorkers": {},
    "ClusterService/WatchCluster": {},
    "ClusterService/ListClaims": {},
    "ClusterService/RevokeClaim": {"jobId": "$job"},
    "ClusterService/HintReady": {},
    "WorkerService/StartAttempts": {
        "worker": "w1",
        "claims": [{"jobId": "$claimed", "attemptSeen": 0, "lease": "$lease", "claimRevision": "$revision"}],
    },
    "WorkerService/FinishAttempts": {"worker": "w1", "reports": [{"jobId": "$job", "fence": 1, "outcome": 1}]},
    "WorkerService/ReportProgress": {"reports": [{"jobId": "$job", "fence": 1, "fraction": 0.5}]},
    "WorkerService/SaveCheckpoint": {"jobId": "$job", "fence": 1, "checkpoint": "{}"},
    "WorkerService/SubmitChildren": {"jobId": "$job", "fence": 1, "jobs": [{"kind": "k", "ref": "a"}]},
    "WorkerService/ReadUpstream": {"jobId": "$job", "fence": 1},
    "WorkerService/AppendLogs": {
        "batches": [{"jobId": "$job", "fence": 1, "firstSeq": 1, "lines": [{"message": "m"}]}]
    },
    "WorkerService/CreateUpload": {"jobId": "$job", "fence": 1, "name": "a", "sizeBytes": 1, "sha256": "a" * 42 + "A="},
    "WorkerService/CompleteUpload": {"jobId": "$job", "fence": 1, "upload": "x"},
    "AuditService/ListAudit": {"namespace": "ns-a"},
    "RetentionService/PutRetentionPolicy": {"policy": {"namespace": "ns-a", "kind": "other", "keep": "86400s"}},
    "RetentionService/GetRetentionPolicy": {"namespace": "ns-a", "kind": "k"},
    "RetentionService/ListRetentionPolicies": {},
    "RetentionService/DeleteRetentionPolicy": {"namespace": "ns-a", "kind": "k"},
    "RetentionService/PreviewRetention": {},
    "RetentionService/PutLegalHold": {"key": "case", "value": "8"},
    "RetentionService/ListLegalHolds": {},
    "RetentionService/DeleteLegalHold": {"key": "case", "value": "7"},
    "RetentionService/ListArchiveFiles": {},
    "RetentionService/VerifyArchiveFile": {"id": "$file"},
    "RetentionService/ListUnknownArchiveFiles": {},
    "RetentionService/AdoptArchiveFile": {"key": "_archive/ns-a/x.parquet"},
    "TokenService/CreateToken": {"name": "n", "role": "viewer", "namespaces": ["ns-a"]},
    "TokenService/ListTokens": {},
    "TokenService/RevokeToken": {"id": "$token"},
}
"""A request about ``ns-a`` for each RPC: one without an entry fails the matrix, and so has to be thought about."""

BY_ID = {
    "JobService/GetJob", "JobService/WaitJob", "JobService/WatchJob", "JobService/WatchJobs", "JobService/DeleteJob",
    "JobService/CancelJob", "JobService/RetryJob", "JobService/ExplainJob", "JobService/ListAttempts",
    "JobService/ListArtifacts", "JobService/CreateDownload", "JobService/ReadLogs",
    "WorkflowService/GetWorkflow", "WorkflowService/ListWorkflowJobs", "WorkflowService/WatchWorkflow",
    "WorkflowService/CancelWorkflow", "RetentionService/VerifyArchiveFile",
}  # fmt: skip
"""To who is of another namespace these answer as for an id that there is not."""
SHOWS_ONLY_OWN = {
    "JobService/ListJobs", "JobService/CancelJobs", "JobService/RetryJobs", "JobService/StreamSubmitJobs",
    "JobService/SubmitEach", "WorkflowService/ListWorkflows", "ScheduleService/ListSchedules",
    "PoolService/ListPauses", "NamespaceService/ListNamespaces", "KindService/ListKindSettings",
    "ClusterService/ListClaims", "JobService/CountJobs", "RetentionService/ListRetentionPolicies",
    "RetentionService/PreviewRetention", "RetentionService/ListArchiveFiles",
}  # fmt: skip
"""These answer, and have nothing of ``ns-a`` in their answers."""
SHARED = {
    "LimitService/GetLimit", "LimitService/ListLimits", "PoolService/ListPools", "ClusterService/GetCluster",
    "ClusterService/ListWorkers", "ClusterService/WatchCluster",
}  # fmt: skip
"""For whoever may read anything."""
STRANGERS: tuple[str | None, ...] = (None, "garbage", "unknown", "revoked", "expired")


async def _token(parts: Parts, role: Role, **scope: Any) -> Any:
    wanted = validate_credential(name=f"a {role}", role=role, **scope)
    return await tokens.create(parts.db, wanted, by="test")


async def _secrets(parts: Parts) -> dict[str, str]:
    made = {
        "admin": await _token(parts, Role.ADMIN),
        "operator": await _token(parts, Role.OPERATOR, namespaces=["ns-a"]),
        "submitter": await _token(parts, Role.SUBMITTER, namespaces=["ns-a"]),
        "viewer": await _token(parts, Role.VIEWER, namespaces=["ns-a"]),
        "foreign": await _token(parts, Role.OPERATOR, namespaces=["ns-b", "ns-c"]),
        "foreign-worker": await _token(parts, Role.WORKER, pools=["pool-b"]),
        "worker": await _token(parts, Role.WORKER, pools=["pool-a"]),
        "runner": await _token(parts, Role.RUNNER, pools=["pool-a"]),
        "revoked": await _token(parts, Role.ADMIN),
        "expired": await _token(parts, Role.ADMIN),
    }
    await tokens.revoke(parts.db, made["revoked"].row.id)
    await parts.sql("UPDATE tenure.token SET expires_at = now() - interval '1 s' WHERE id = %s", made["expired"].row.id)
    return {name: one.secret or "" for name, one in made.items()} | {"unknown": new_token(new_id()).text()}


async def _world(parts: Parts) -> dict[str, str]:
    """Make things in ``ns-a``, and return what requests call them."""
    job = await parts.submit(namespace="ns-a", route="pool-a/x")
    ended = await parts.submit(namespace="ns-a")
    await parts.canceler.cancel(ended, "for the test")
    claimed = await parts.submit(namespace="ns-a", route="pool-a/x")
    claim = await parts.claim(claimed)
    member = JobSpec(kind="k", namespace="ns-a")
    batch = await parts.submitter.submit_batch([member, member], workflow_name="made")
    spare = await _token(parts, Role.VIEWER, namespaces=["ns-a"])
    for statement in (
        "INSERT INTO tenure.kind (namespace, name, settings) VALUES ('ns-a', 'k', '{}') ON CONFLICT DO NOTHING",
        "INSERT INTO tenure.namespace (name) VALUES ('ns-a') ON CONFLICT DO NOTHING",
        "INSERT INTO tenure.pause (subject, name) VALUES ('namespace', 'ns-a') ON CONFLICT DO NOTHING",
        "INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s) VALUES ('ns-a', 'k', '', 86400)",
        "INSERT INTO tenure.legal_hold (key, value, set_by) VALUES ('case', '7', 'test')",
        "INSERT INTO tenure.job_limit (name, concurrent) VALUES ('made', 1) ON CONFLICT DO NOTHING",
    ):
        await parts.sql(statement)
    file = uuid.uuid4()
    await parts.sql(
        "INSERT INTO tenure.archive_file (id, namespace, key, state, jobs, first_id, last_id, made, finished_from,"
        " finished_until, size_bytes, sha256, schema_version, marks, archived_at) VALUES"
        " (%s, 'ns-a', '_archive/ns-a/x', 'done', 1, %s, %s, '[1,1]', now(), now(), 1, sha256(''), 1, '{1}', now())",
        *(file, file, file),
    )
    return {
        "$file": str(file),
        "$job": str(job),
        "$ended": str(ended),
        "$claimed": str(claimed),
        "$lease": str(claim.lease),
        "$revision": str(claim.claim_revision),
        "$workflow": str(batch[0].workflow_id),
        "$token": str(spare.row.id),
    }


@pytest_asyncio.fixture
async def place(alone: Parts, tmp_path: Path) -> AsyncIterator[Place]:
    parts = alone
    uploads = Uploads(parts.db, 1024)
    uploads.objects = access_to(open_store(tmp_path.as_uri()), await object_signer_of(parts), parts.clock)
    authenticator = Authenticator(parts.db, parts.clock)
    jobs = parts.job_service()
    whole = Workflows(parts.db, parts.clock, parts.canceler)
    workflows = WorkflowService(parts.db, parts.etcd, parts.keys, parts.clock, whole, parts.waiters, parts.audit)
    services = (
        jobs,
        WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads),
        parts.cluster_service(),
        LimitService(parts.db, parts.etcd, parts.keys, parts.hints, parts.audit),
        PoolService(parts.db, parts.etcd, parts.keys, parts.lanes, parts.hints, parts.canceler, parts.audit),
        NamespaceService(parts.db, parts.hints, parts.audit),
        ScheduleService(parts.db, parts.lanes, parts.hints, parts.kinds, parts.canceler, parts.audit),
        KindService(parts.db, parts.kinds, parts.audit),
        TokenService(parts.db, parts.audit),
        AuditService(parts.db),
        RetentionService(parts.db, parts.clock, parts.audit),
        workflows,
    )
    server = GrpcServer(services, listen="127.0.0.1:0", with_reflection=True, authenticator=authenticator)
    await server.start()
    await server.set_serving(True)
    bodies = (
        parts.submitter.run(),
        jobs.run(),
        workflows.run(),
        parts.waiters.watch(),
        authenticator.run(),
        parts.cluster_watch.run(),
    )
    async with running(*bodies), grpc.aio.insecure_channel(server.address) as channel:
        made = Place(parts, channel, authenticator, server, await _world(parts), await _secrets(parts))
        schedule = made.request("ScheduleService/CreateSchedule")
        schedule.schedule.name = "made"
        assert (await made.call("ScheduleService/CreateSchedule", "admin", schedule))[0] is Code.OK
        yield made
        await server.stop(0)


def test_every_rpc_has_a_rule_and_a_row_in_the_matrix() -> None:
    assert set(RULES) == set(METHODS) == set(REQUESTS)
    files = [file for file in resources.files("tenure.v1").iterdir() if file.name.endswith(".proto")]
    written = [name for file in files for name in re.findall(r"^service (\w+)", file.read_text(), re.M)]
    assert sorted(written) == sorted(name.rpartition(".")[2] for name in SERVICES)


def _refused(status: str) -> float:
    return REGISTRY.get_sample_value("tenure_calls_refused_total", {"over": "grpc", "status": status}) or 0.0


async def test_calls_that_are_refused_for_who_made_them_are_counted(place: Place) -> None:
    before = {status: _refused(status) for status in ("unauthenticated", "permission_denied")}
    for method, who in (
        ("ClusterService/GetCluster", None),
        ("JobService/WatchJob", "nonsense"),
        ("JobService/StreamSubmitJobs", None),
        ("JobService/CancelJob", "viewer"),
        ("ClusterService/GetCluster", "viewer"),
    ):
        await place.call(method, who)
    assert {status: _refused(status) - count for status, count in before.items()} == {
        "unauthenticated": 3,
        "permission_denied": 1,
    }


async def test_who_is_not_known_is_told_nothing(place: Place) -> None:
    before = await place.rows()
    for method in METHODS:
        for who in STRANGERS:
            code, text, _ = await place.call(method, who)
            wanted = "no credentials" if who is None else "the credentials are not valid"
            assert (code, text) == (Code.UNAUTHENTICATED, wanted), (method, who)
    assert await place.rows() == before


@pytest.mark.parametrize("who", ["viewer", "submitter", "operator", "worker", "runner"])
async def test_who_has_not_the_right_is_denied(place: Place, who: str) -> None:
    identity = await place.authenticator.identify(bearer=place.secrets[who])
    before = await place.rows()
    for method, rule in RULES.items():
        if not has(identity, rule.right):
            code, text, _ = await place.call(method, who)
            assert code is Code.PERMISSION_DENIED, (method, code, text)
            assert f"a {who} ({who}) may not {rule.right}" in text
    assert await place.rows() == before


async def test_the_operator_of_another_namespace_sees_and_changes_nothing_of_this_one(place: Place) -> None:
    before = await place.rows()
    foreign = set(place.names.values()) | {"ns-a"}
    for method in METHODS:
        code, text, answer = await place.call(method, "foreign")
        if method in BY_ID:
            absent = place.request(method)
            field = next(iter(REQUESTS[method]))
            unknown = str(uuid.uuid4())
            own = place.names[next(v for v in place.names if place.names[v] in str(absent))]
            wanted = json_format.ParseDict(
                _filled(REQUESTS[method], {**place.names, **{k: unknown for k, v in place.names.items() if v == own}}),
                type(absent)(),
            )
            code_of_none, text_of_none, _ = await place.call(method, "foreign", wanted)
            assert code is code_of_none is Code.NOT_FOUND, (method, field, code, code_of_none)
            assert text == text_of_none.replace(unknown, own), method
        elif method in SHOWS_ONLY_OWN:
            assert code is Code.OK, (method, code, text)
            told = str(answer).replace("jobs {\n  refusal", "")
            is_submit = "Submit" in method
            assert is_submit or not any(name in told for name in foreign), (method, told)
            assert not is_submit or ("PERMISSION_DENIED" in told and "job.namespace" in told), told
        elif method in SHARED:
            assert code is Code.OK, (method, code, text)
        else:
            assert code is Code.PERMISSION_DENIED, (method, code, text)
    assert await place.rows() == before


async def test_a_batch_names_the_member_that_is_not_allowed(place: Place) -> None:
    request = place.request("JobService/SubmitJobs")
    request.jobs[0].namespace = "ns-b"
    request.jobs.add(kind="k", namespace="ns-c")
    request.jobs.add(kind="k")
    code, text, _ = await place.call("JobService/SubmitJobs", "foreign", request)
    assert (code, text) == (
        Code.PERMISSION_DENIED,
        "jobs[2].namespace: a operator (operator) may not submit in namespace default",
    )
    del request.jobs[2]
    code, text, _ = await place.call("JobService/SubmitJobs", "foreign", request)
    assert code is Code.OK, text


async def test_a_job_of_another_namespace_is_none_to_depend_on(place: Place) -> None:
    request = place.request("JobService/SubmitJob")
    request.job.namespace = "ns-b"
    request.job.depends_on.append(place.names["$job"])
    code, text, _ = await place.call("JobService/SubmitJob", "foreign", request)
    assert code is Code.INVALID_ARGUMENT and f"job {place.names['$job']} does not exist" in text
    request.job.namespace = "ns-a"
    assert (await place.call("JobService/SubmitJob", "operator", request))[0] is Code.OK


async def test_listings_have_what_is_the_callers_own(place: Place) -> None:
    own = str(await place.parts.submit(namespace="ns-c"))
    _, _, answer = await place.call("JobService/ListJobs", "foreign")
    assert [job.id for job in answer.jobs] == [own]
    named = place.request("JobService/ListJobs")
    named.filter.namespace = "ns-a"
    assert (await place.call("JobService/ListJobs", "foreign", named))[0] is Code.PERMISSION_DENIED
    assert len((await place.call("JobService/ListJobs", "viewer"))[2].jobs) == 5
    assert len((await place.call("JobService/ListJobs", "admin"))[2].jobs) == 6
    canceled = (await place.call("JobService/CancelJobs", "foreign"))[2]
    assert (canceled.canceled, list(canceled.ids)) == (1, [own])


async def test_a_workflow_over_several_namespaces_is_for_who_has_them_all(place: Place) -> None:
    members = [JobSpec(kind="k", namespace="ns-a"), JobSpec(kind="k", namespace="ns-b")]
    batch = await place.parts.submitter.submit_batch(members, workflow_name="wide")
    place.names["$workflow"] = str(batch[0].workflow_id)
    assert (await place.call("WorkflowService/GetWorkflow", "viewer"))[0] is Code.OK
    before = await place.rows()
    for method in ("ListWorkflowJobs", "WatchWorkflow", "CancelWorkflow"):
        code, text, _ = await place.call(f"WorkflowService/{method}", "operator")
        assert code is Code.PERMISSION_DENIED and "members in other namespaces" in text
    assert await place.rows() == before
    assert (await place.call("WorkflowService/CancelWorkflow", "admin"))[0] is Code.OK


async def test_a_worker_of_another_pool_starts_nothing_here(place: Place) -> None:
    before = await place.rows()
    code, _, answer = await place.call("WorkerService/StartAttempts", "foreign-worker")
    assert (code, list(answer.attempts)) == (Code.OK, [])
    for method in METHODS:
        if RULES[method].right is not Right.WORK:
            assert (await place.call(method, "foreign-worker"))[0] is Code.PERMISSION_DENIED, method
    assert await place.rows() == before
    _, _, answer = await place.call("WorkerService/StartAttempts", "worker")
    assert [one.job_id for one in answer.attempts] == [place.names["$claimed"]]


async def test_an_admin_may_do_all_but_hint(place: Place) -> None:
    for method in METHODS:
        code, text, _ = await place.call(method, "admin")
        if method == "ClusterService/HintReady":
            assert code is Code.PERMISSION_DENIED
        elif RULES[method].right is Right.WORK:
            assert code in (Code.OK, Code.ABORTED), (method, code, text)
        else:
            # Things may be gone that calls before this one took away.
            assert code in (Code.OK, Code.NOT_FOUND, Code.FAILED_PRECONDITION), (method, code, text)
    place.secrets["coordinator"] = await place.authenticator.own_token()
    assert (await place.call("ClusterService/HintReady", "coordinator"))[0] is Code.OK
    for method in METHODS.keys() - {"ClusterService/HintReady"}:
        assert (await place.call(method, "coordinator"))[0] is Code.PERMISSION_DENIED, method


async def test_a_revoked_token_is_refused_soon(place: Place) -> None:
    request = place.request("TokenService/RevokeToken")
    viewer = await _token(place.parts, Role.VIEWER, namespaces=["*"])
    place.secrets["soon"] = viewer.secret
    assert (await place.call("JobService/ListJobs", "soon"))[0] is Code.OK
    request.id = str(viewer.row.id)
    assert (await place.call("TokenService/RevokeToken", "admin", request))[0] is Code.OK
    began = place.parts.clock.monotonic()
    while (await place.call("JobService/ListJobs", "soon"))[0] is Code.OK:
        assert place.parts.clock.monotonic() - began < 5
        await place.parts.clock.sleep(authenticate.FRESH_S / 20)


async def test_children_go_to_their_parents_namespace_or_to_one_of_the_tokens(place: Place) -> None:
    scoped = await _token(place.parts, Role.WORKER, pools=["pool-a"], namespaces=["ns-b"])
    place.secrets["scoped"] = scoped.secret
    _, _, answer = await place.call("WorkerService/StartAttempts", "scoped")
    [started] = answer.attempts
    request = place.request("WorkerService/SubmitChildren")
    request.job_id, request.fence = started.job_id, started.fence
    request.jobs.add(kind="k", ref="b", namespace="ns-b")
    assert (await place.call("WorkerService/SubmitChildren", "scoped", request))[0] is Code.OK
    request.jobs.add(kind="k", ref="c", namespace="ns-c")
    before = await place.rows()
    code, text, _ = await place.call("WorkerService/SubmitChildren", "scoped", request)
    assert code is Code.PERMISSION_DENIED and text.startswith("jobs[2].namespace: ")
    assert await place.rows() == before
    assert (await place.call("WorkerService/SubmitChildren", "worker", request))[0] is Code.OK


async def test_a_verified_certificate_is_an_identity_on_the_wire(place: Place, tmp_path: Path) -> None:
    for name in ("ca", "server", "client", "stranger"):
        _make_certificate(tmp_path, name)
    roots, key, chain = ((tmp_path / file).read_bytes() for file in ("ca.pem", "server.key", "server.pem"))
    credentials = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=True)
    jobs = place.parts.job_service()
    server = GrpcServer([jobs], listen="127.0.0.1:0", with_reflection=False, authenticator=place.authenticator)
    port = server._server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    await _token(place.parts, Role.VIEWER, namespaces=["ns-a"], subject="client")
    await _token(place.parts, Role.VIEWER, namespaces=["ns-a"], subject="spiffe://here/server")
    wanted = {"client": (Code.OK, ""), "stranger": (Code.UNAUTHENTICATED, "the credentials are not valid")}
    wanted["server"] = (Code.OK, "")  # by its alternative name
    async with running(jobs.run()):
        for name, expected in wanted.items():
            own = ((tmp_path / f"{name}.{part}").read_bytes() for part in ("key", "pem"))
            shown = grpc.ssl_channel_credentials(roots, *own)
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", shown) as channel:
                by_certificate = replace(place, channel=channel)
                assert (await by_certificate.call("JobService/GetJob", None))[:2] == expected, name
                code, _, _ = await by_certificate.call("JobService/SubmitJob", "operator")
                assert code is Code.OK, "a token goes before the certificate"
        await server.stop(0)


def _make_certificate(folder: Path, name: str) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    if name == "ca":
        openssl(*key, *f"-x509 -days 1 -subj /CN=ca -keyout {name}.key -out {name}.pem".split())
        return
    (folder / "san").write_text(f"subjectAltName=IP:127.0.0.1,DNS:{name}.example,URI:spiffe://here/{name}\n")
    openssl(*key, *f"-subj /CN={name} -keyout {name}.key -out {name}.csr".split())
    signed = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile san -out {name}.pem"
    openssl(*signed.split())


async def test_streams_end_with_their_credentials(place: Place) -> None:
    operator = await _token(place.parts, Role.OPERATOR, namespaces=["ns-a"])
    options: dict[str, Any] = {"timeout": TIMEOUT_S, "metadata": (("authorization", f"Bearer {operator.secret}"),)}
    stub = JobServiceStub(place.channel)
    held = await place.parts.submit(namespace="ns-a")
    waiting = stub.WaitJob(jobs_pb.WaitJobRequest(id=str(held)), **options)
    watching = stub.WatchJob(jobs_pb.WatchJobRequest(id=str(held)), **options)
    submitting = stub.StreamSubmitJobs(**options)
    assert (await watching.read()).job.id == str(held)
    await submitting.write(place.request("JobService/StreamSubmitJobs"))
    assert (await submitting.read()).jobs[0].created
    await tokens.revoke(place.parts.db, operator.row.id)
    await place.parts.clock.sleep(authenticate.FRESH_S)
    before = await place.rows()
    await submitting.write(place.request("JobService/StreamSubmitJobs"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await submitting.read()
    assert caught.value.code() is Code.UNAUTHENTICATED
    assert await place.rows() == before
    await place.parts.canceler.cancel(held, "so that there is something to tell")
    for call in (watching.read(), waiting):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is Code.UNAUTHENTICATED


async def test_health_is_open_and_reflection_is_for_who_is_known(place: Place) -> None:
    health = health_pb2_grpc.HealthStub(place.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(place.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")

    async def services(*metadata: tuple[str, str]) -> int:
        call = reflection.ServerReflectionInfo(iter([asked]), timeout=TIMEOUT_S, metadata=metadata)
        return len((await call.read()).list_services_response.service)

    assert await services(("authorization", f"Bearer {place.secrets['viewer']}")) > len(SERVICES)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services()
    assert caught.value.code() is Code.UNAUTHENTICATED
