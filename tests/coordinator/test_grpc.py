"""The gRPC services over a real server in this process: what callers are told, above all when they ask for nonsense."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from tests.coordinator.conftest import Parts, running, until

from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.grpc_server import SERVICES, GrpcServer
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.worker_service import MAX_BATCH, WorkerService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.revoke import Revoker
from tenure.coordinator.workflows import Workflows
from tenure.model.errors import ConfigurationError
from tenure.model.ids import new_id
from tenure.model.states import Outcome
from tenure.store.etcd.port import Delete, Put, Txn
from tenure.store.postgres.migrate import SchemaStatus
from tenure.v1 import cluster_service_pb2 as cluster_pb
from tenure.v1 import job_pb2 as pb
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import worker_service_pb2 as worker_pb
from tenure.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tenure.v1.job_service_pb2_grpc import JobServiceStub
from tenure.v1.worker_service_pb2_grpc import WorkerServiceStub

Code = grpc.StatusCode
TIMEOUT_S = 30.0


class Service:
    """Stubs of a running server, and its parts."""

    def __init__(self, parts: Parts, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        self.parts = parts
        self.server = server
        self.channel = channel
        self.jobs = JobServiceStub(channel)
        self.workers = WorkerServiceStub(channel)
        self.cluster = ClusterServiceStub(channel)

    async def submit(self, **spec: Any) -> pb.Job:
        """Submit one job and return it."""
        request = jobs_pb.SubmitJobRequest(job=pb.JobSpec(**{"kind": "k", **spec}))
        job: pb.Job = (await self.jobs.SubmitJob(request, timeout=TIMEOUT_S)).job
        return job


def _server(parts: Parts, listen: str) -> tuple[JobService, GrpcServer]:
    jobs = parts.job_service()
    workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    revoker = Revoker(parts.db, parts.etcd, parts.keys, parts.finisher)
    schema = SchemaStatus("0003", "0003")
    cluster = ClusterService(
        parts.db, parts.etcd, parts.keys, schema, revoker, lambda lanes: True, parts.audit, parts.cluster_watch
    )
    limits = LimitService(parts.db, parts.etcd, parts.keys, parts.hints, parts.audit)
    pools = PoolService(parts.db, parts.etcd, parts.keys, parts.lanes, parts.hints, parts.canceler, parts.audit)
    schedules = ScheduleService(parts.db, parts.lanes, parts.hints, parts.kinds, parts.canceler, parts.audit)
    whole = Workflows(parts.db, parts.clock, parts.canceler)
    workflows = WorkflowService(parts.db, parts.etcd, parts.keys, parts.clock, whole, parts.waiters, parts.audit)
    namespaces = NamespaceService(parts.db, parts.hints, parts.audit)
    services = (jobs, workers, cluster, limits, pools, namespaces, schedules, workflows)
    return jobs, GrpcServer(services, listen=listen, with_reflection=True)


@pytest_asyncio.fixture
async def service(parts: Parts) -> AsyncIterator[Service]:
    jobs, server = _server(parts, "127.0.0.1:0")
    await server.start()
    bodies = (
        parts.submitter.run(),
        jobs.run(),
        parts.waiters.watch(),
        parts.waiters.reread(),
        parts.cluster_watch.run(),
    )
    async with running(*bodies), grpc.aio.insecure_channel(server.address) as channel:
        yield Service(parts, server, channel)
        await server.stop(0)


async def refused(call: Any) -> tuple[Code, dict[str, str], str]:
    """Await a call that must fail; return its status, the bad fields it names, and its message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    fields: dict[str, str] = {}
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            fields |= {violation.field: violation.description for violation in bad.field_violations}
    return caught.value.code(), fields, caught.value.details() or ""


async def test_who_submits_too_fast_is_told_when_it_fits(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:8]}"
    params = {"name": namespace, "weight": None, "ageing_s": None, "backlog": None}
    await service.parts.db.fetch("put_namespace", {**params, "submit_rate": 0.001, "submit_burst": 1})
    await service.parts.backlogs.refresh()
    await service.submit(namespace=namespace)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.submit(namespace=namespace)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    status, told = rpc_status.from_call(caught.value), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(told) for detail in status.details)
    assert 0 < told.retry_delay.seconds <= 1_000


# -- submit --

BAD_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"kind": ""}, "kind"),
    ({"kind": "no spaces"}, "kind"),
    ({"kind": "x" * 129}, "kind"),
    ({"payload": "{"}, "payload"),
    ({"retry": pb.RetryPolicy(backoff=99)}, "retry.backoff"),  # type: ignore[arg-type]
    ({"start_within": Duration(seconds=0)}, "start_within"),
    ({"start_within": Duration(seconds=-1)}, "start_within"),
    ({"start_within": Duration(seconds=10**9)}, "start_within"),
    ({"start_within": Duration(seconds=1), "start_by": Timestamp(seconds=2_000_000_000)}, "start_by"),
    ({"activate_at": Timestamp(seconds=2_000_000_000), "start_by": Timestamp(seconds=1_999_999_999)}, "start_by"),
    ({"start_by": Timestamp(seconds=10**12)}, "start_by"),
    ({"job_timeout": Duration(seconds=0)}, "job_timeout"),
    ({"trigger": 9}, "trigger"),
    ({"upstream_failure": 9}, "upstream_failure"),
    ({"payload": '"\\u0000"'}, "payload"),
    ({"payload": "NaN"}, "payload"),
    ({"payload": "[" * 65 + "]" * 65}, "payload"),
    ({"payload": '"' + "x" * 256 * 1024 + '"'}, "payload"),
    ({"namespace": "UPPER"}, "namespace"),
    ({"route": "a//b"}, "route"),
    ({"route": "/a"}, "route"),
    ({"route": "/".join("a" * 9)}, "route"),
    ({"route": "a/\x00"}, "route"),
    ({"priority": 1001}, "priority"),
    ({"priority": -1001}, "priority"),
    ({"activate_at": Timestamp(seconds=2**60)}, "activate_at"),
    ({"activate_at": Timestamp(seconds=-(2**60))}, "activate_at"),
    ({"activate_at": Timestamp(seconds=1), "delay": Duration(seconds=1)}, "activate_at"),
    ({"delay": Duration(seconds=-1)}, "delay"),
    ({"delay": Duration(seconds=10**9)}, "delay"),
    ({"ttl": Duration(seconds=1)}, "ttl"),
    ({"ttl": Duration(seconds=3601)}, "ttl"),
    ({"timeout": Duration()}, "timeout"),
    ({"timeout": Duration(seconds=-5)}, "timeout"),
    ({"max_crashes": 0}, "max_crashes"),
    ({"max_crashes": 101}, "max_crashes"),
    ({"idempotency_key": "x" * 256}, "idempotency_key"),
    ({"idempotency_key": "a\nb"}, "idempotency_key"),
    ({"labels": {"Upper": "x"}}, "labels"),
    ({"labels": {"a": "x" * 64}}, "labels"),
    ({"labels": {"a": "\x00"}}, "labels"),
    ({"labels": {f"k{n}": "" for n in range(33)}}, "labels"),
    ({"depends_on": ["not-an-id"]}, "depends_on[0]"),
    ({"ref": "x\x07"}, "ref"),
    ({"retry": pb.RetryPolicy(max_attempts=0)}, "retry.max_attempts"),
    ({"retry": pb.RetryPolicy(initial_backoff=Duration(seconds=-1))}, "retry.initial_backoff"),
    ({"retry": pb.RetryPolicy(multiplier=0.5)}, "retry.multiplier"),
    ({"retry": pb.RetryPolicy(multiplier=float("nan"))}, "retry.multiplier"),
    ({"retry": pb.RetryPolicy(max_backoff=Duration(seconds=10**9))}, "retry.max_backoff"),
    ({"retry": pb.RetryPolicy(jitter=1.5)}, "retry.jitter"),
    ({"retry": pb.RetryPolicy(non_retryable=["x"] * 33)}, "retry.non_retryable"),
    ({"retry": pb.RetryPolicy(non_retryable=["x", "x" * 256])}, "retry.non_retryable.1"),
]


async def test_every_bad_field_is_named_and_nothing_is_written(service: Service) -> None:
    before = await service.parts.sql("SELECT count(*) FROM tenure.job")
    for spec, field in BAD_SPECS:
        code, fields, message = await refused(service.submit(**spec))
        assert code is Code.INVALID_ARGUMENT, (spec, message)
        named = {name.removeprefix("job.") for name in fields}
        assert named == {field}, (spec, fields)
    assert await service.parts.sql("SELECT count(*) FROM tenure.job") == before


async def test_all_bad_fields_of_a_batch_are_named_at_once(service: Service) -> None:
    request = jobs_pb.SubmitJobsRequest(
        jobs=[
            pb.JobSpec(kind="k"),
            pb.JobSpec(kind="", route="a//b", priority=5000),
            pb.JobSpec(kind="k", payload="{", delay=Duration(seconds=-1)),
        ]
    )
    code, fields, _ = await refused(service.jobs.SubmitJobs(request))
    assert code is Code.INVALID_ARGUMENT
    assert set(fields) == {"jobs[1].kind", "jobs[1].route", "jobs[1].priority", "jobs[2].payload", "jobs[2].delay"}


async def test_a_cycle_and_an_unknown_ref_are_refused_with_their_path(service: Service) -> None:
    request = jobs_pb.SubmitJobsRequest(
        jobs=[
            pb.JobSpec(kind="k", ref="a", depends_on=["b"]),
            pb.JobSpec(kind="k", ref="b", depends_on=["a", "nobody"]),
        ]
    )
    code, fields, _ = await refused(service.jobs.SubmitJobs(request))
    assert code is Code.INVALID_ARGUMENT
    assert "a -> b -> a" in fields["jobs[0].depends_on"]
    assert "jobs[1].depends_on[1]" in fields


async def test_a_batch_beyond_the_bound_is_refused(service: Service) -> None:
    request = jobs_pb.SubmitJobsRequest(jobs=[pb.JobSpec(kind="k")] * 10_001)
    code, fields, _ = await refused(service.jobs.SubmitJobs(request))
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"jobs"})


async def test_a_job_comes_back_as_it_was_asked_for(service: Service) -> None:
    at = Timestamp(seconds=4_000_000_000)
    spec = {
        "kind": "insights-discovery",
        "payload": '{"ü": [1, 2.5, "\\u00e9"]}',
        "namespace": "acme",
        "route": "pool-abc/insights/scan-123",
        "priority": -7,
        "activate_at": at,
        "retry": pb.RetryPolicy(max_attempts=9, multiplier=1.5, non_retryable=["Fatal"], backoff=pb.BACKOFF_LINEAR),
        "ttl": Duration(seconds=2, nanos=500_000_000),
        "timeout": Duration(seconds=90),
        "start_by": Timestamp(seconds=4_000_000_100),
        "job_timeout": Duration(seconds=3_600),
        "max_crashes": 5,
        "trigger": pb.TRIGGER_ANY_FINISHED,
        "upstream_failure": pb.UPSTREAM_FAILURE_FAIL,
        "labels": {"team": "blue", "empty": ""},
        "idempotency_key": str(uuid.uuid4()),
    }
    job = await service.submit(**spec)
    for name in ("kind", "payload", "namespace", "route", "priority", "ttl", "timeout", "max_crashes"):
        assert getattr(job, name) == spec[name], name
    assert (job.trigger, job.upstream_failure) == (pb.TRIGGER_ANY_FINISHED, pb.UPSTREAM_FAILURE_FAIL)
    assert (job.start_by, job.job_timeout) == (spec["start_by"], spec["job_timeout"])
    assert job.deadline == Timestamp(seconds=4_000_003_600)
    assert job.activate_at == at
    assert dict(job.labels) == spec["labels"]
    assert (job.retry.max_attempts, job.retry.multiplier, list(job.retry.non_retryable)) == (9, 1.5, ["Fatal"])
    assert (job.retry.jitter, job.retry.backoff) == (0.2, pb.BACKOFF_LINEAR)
    assert job.state == pb.JOB_STATE_READY
    assert job == (await service.jobs.GetJob(jobs_pb.GetJobRequest(id=job.id))).job


async def test_a_key_answers_with_the_first_job_and_refuses_another_request(service: Service) -> None:
    key = str(uuid.uuid4())
    first = await service.submit(idempotency_key=key)
    request = jobs_pb.SubmitJobRequest(job=pb.JobSpec(kind="k", idempotency_key=key))
    again = await service.jobs.SubmitJob(request)
    assert (again.job.id, again.created) == (first.id, False)
    code, _, message = await refused(service.submit(idempotency_key=key, payload="1"))
    assert code is Code.ALREADY_EXISTS
    assert first.id in message


# -- read --


@pytest.mark.parametrize("id", ["", "x", "123", "\x00", "é" * 99, "00000000-0000-0000-0000-00000000000g"])
async def test_what_is_no_id_is_refused_everywhere(service: Service, id: str) -> None:
    calls = [
        (service.jobs.GetJob(jobs_pb.GetJobRequest(id=id)), "id"),
        (service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=id)), "id"),
        (service.jobs.CancelJob(jobs_pb.CancelJobRequest(id=id)), "id"),
        (service.jobs.ListAttempts(jobs_pb.ListAttemptsRequest(job_id=id)), "job_id"),
        (service.jobs.WatchJob(jobs_pb.WatchJobRequest(id=id)).read(), "id"),
        (service.cluster.RevokeClaim(cluster_pb.RevokeClaimRequest(job_id=id)), "job_id"),
        (service.workers.SaveCheckpoint(worker_pb.SaveCheckpointRequest(job_id=id, checkpoint="1")), "job_id"),
        (service.workers.SubmitChildren(worker_pb.SubmitChildrenRequest(job_id=id)), "job_id"),
        (
            service.workers.StartAttempts(
                worker_pb.StartAttemptsRequest(worker="w", claims=[worker_pb.ClaimedJob(job_id=id)])
            ),
            "claims[0].job_id",
        ),
        (
            service.workers.ReportProgress(
                worker_pb.ReportProgressRequest(reports=[worker_pb.ProgressReport(job_id=id)])
            ),
            "reports[0].job_id",
        ),
    ]
    for call, field in calls:
        code, fields, _ = await refused(call)
        assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {field})


async def test_a_job_that_is_not_there_is_not_found(service: Service) -> None:
    id = str(new_id())
    for call in (
        service.jobs.GetJob(jobs_pb.GetJobRequest(id=id)),
        service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=id, timeout=Duration(seconds=1))),
        service.jobs.CancelJob(jobs_pb.CancelJobRequest(id=id)),
        service.jobs.ListAttempts(jobs_pb.ListAttemptsRequest(job_id=id)),
        service.jobs.WatchJob(jobs_pb.WatchJobRequest(id=id)).read(),
    ):
        code, _, message = await refused(call)
        assert code is Code.NOT_FOUND
        assert id in message


async def test_pages_give_each_job_once_newest_first(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:20]}"
    ids = [(await service.submit(namespace=namespace)).id for _ in range(7)]
    finished = uuid.UUID(ids[2])
    started = await service.parts.execute(finished)
    await service.parts.finish(finished, started.fence)
    found: list[str] = []
    token, pages = "", 0
    while True:
        request = jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(namespace=namespace), page_size=3, page_token=token)
        page = await service.jobs.ListJobs(request)
        found.extend(job.id for job in page.jobs)
        pages += 1
        token = page.next_page_token
        if not token:
            break
    assert found == ids[::-1]
    assert pages == 3


async def test_filters_select(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:20]}"
    a = await service.submit(namespace=namespace, route="p/q", labels={"x": "1", "y": "2"}, kind="one")
    b = await service.submit(namespace=namespace, route="p/qq", labels={"x": "1"}, kind="two")
    c = await service.submit(namespace=namespace, route="p/q/r", depends_on=[a.id])

    async def listed(**values: Any) -> set[str]:
        request = jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(**{"namespace": namespace, **values}))
        return {job.id for job in (await service.jobs.ListJobs(request)).jobs}

    assert await listed() == {a.id, b.id, c.id}
    assert await listed(route_prefix="p/q") == {a.id, c.id}
    assert await listed(kind="two") == {b.id}
    assert await listed(labels={"x": "1"}) == {a.id, b.id}
    assert await listed(labels={"x": "1", "y": "2"}) == {a.id}
    assert await listed(states=[pb.JOB_STATE_WAITING]) == {c.id}
    assert await listed(states=[pb.JOB_STATE_COMPLETED]) == set()
    assert await listed(created_after=b.created_at) == {b.id, c.id}
    assert await listed(created_before=b.created_at) == {a.id}
    assert await listed(parent_id=a.id) == set()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (jobs_pb.ListJobsRequest(page_size=-1), "page_size"),
        (jobs_pb.ListJobsRequest(page_size=1001), "page_size"),
        (jobs_pb.ListJobsRequest(page_token="!"), "page_token"),
        (jobs_pb.ListJobsRequest(page_token="AAAA"), "page_token"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(route_prefix="/")), "filter.route_prefix"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(states=[pb.JOB_STATE_UNSPECIFIED])), "filter.states"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(states=[99])), "filter.states"),  # type: ignore[list-item]
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(namespace="\x00")), "filter.namespace"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(kind="\x00")), "filter.kind"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(labels={"a": "\x00"})), "filter.labels"),
        (jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(parent_id="x")), "filter.parent_id"),
        (
            jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(created_after=Timestamp(seconds=2**60))),
            "filter.created_after",
        ),
        (
            jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(created_before=Timestamp(seconds=-(2**60)))),
            "filter.created_before",
        ),
    ],
)
async def test_a_bad_listing_is_refused(service: Service, request_: jobs_pb.ListJobsRequest, field: str) -> None:
    code, fields, _ = await refused(service.jobs.ListJobs(request_))
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {field})


# -- wait, watch, cancel --


async def test_a_wait_ends_with_the_job_or_with_its_time(service: Service) -> None:
    job = await service.submit()
    soon = Duration(nanos=50_000_000)
    answer = await service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id, timeout=soon))
    assert (answer.finished, answer.job.state) == (False, pb.JOB_STATE_READY)
    answer = await service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id, timeout=Duration()))
    assert answer.finished is False
    answer = await service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id), timeout=0.7)
    assert answer.finished is False  # answered before the call's own deadline
    waits = [
        asyncio.ensure_future(service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id), timeout=TIMEOUT_S))
        for _ in range(5)
    ]
    started = await service.parts.execute(uuid.UUID(job.id))
    await service.parts.finish(started.id, started.fence, result="42")
    for answer in await asyncio.gather(*waits):
        assert (answer.finished, answer.job.state, answer.job.result) == (True, pb.JOB_STATE_COMPLETED, "42")
    code, fields, _ = await refused(
        service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id, timeout=Duration(seconds=-1)))
    )
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"timeout"})


async def test_a_watch_shows_each_change_and_ends_with_the_job(service: Service) -> None:
    job = await service.submit()
    states: list[tuple[int, float]] = []
    id = uuid.UUID(job.id)
    fence = 0
    async for change in service.jobs.WatchJob(jobs_pb.WatchJobRequest(id=job.id), timeout=TIMEOUT_S):
        states.append((change.job.state, change.job.progress))
        if change.job.state == pb.JOB_STATE_READY:
            fence = (await service.parts.execute(id)).fence
        elif change.job.progress == 0:
            report = worker_pb.ProgressReport(job_id=job.id, fence=fence, fraction=0.5, message="half")
            await service.workers.ReportProgress(worker_pb.ReportProgressRequest(reports=[report]))
        elif change.job.state == pb.JOB_STATE_EXECUTING:
            await service.parts.finish(id, fence)
    assert states == [
        (pb.JOB_STATE_READY, 0),
        (pb.JOB_STATE_EXECUTING, 0),
        (pb.JOB_STATE_EXECUTING, 0.5),
        (pb.JOB_STATE_COMPLETED, 1),
    ]


async def test_a_cancel_answers_with_what_became_of_the_job(service: Service) -> None:
    ready = await service.submit()
    waiting = await service.submit(depends_on=[(await service.submit()).id])
    executing = await service.submit()
    await service.parts.register()
    await service.parts.execute(uuid.UUID(executing.id))

    async def cancel(job: pb.Job, reason: str = "no\x00thing") -> pb.Job:
        request = jobs_pb.CancelJobRequest(id=job.id, reason=reason)
        canceled: pb.Job = (await service.jobs.CancelJob(request)).job
        return canceled

    for job in (ready, waiting):
        answer = await cancel(job)
        assert (answer.state, answer.reason) == (pb.JOB_STATE_CANCELED, "nothing")
    answer = await cancel(executing)
    assert (answer.state, answer.cancel_requested) == (pb.JOB_STATE_EXECUTING, True)
    again = await cancel(ready, "again")
    assert (again.state, again.reason) == (pb.JOB_STATE_CANCELED, "nothing")


# -- workers --


async def _failed(service: Service, **spec: Any) -> str:
    job = await service.submit(retry=pb.RetryPolicy(max_attempts=1), **spec)
    started = await service.parts.execute(uuid.UUID(job.id))
    await service.parts.finish(uuid.UUID(job.id), started.fence, Outcome.FAILED)
    return job.id


async def test_a_retry_over_the_wire_says_whether_it_is_new(service: Service) -> None:
    old = await _failed(service, payload='{"a":1}')
    first = await service.jobs.RetryJob(jobs_pb.RetryJobRequest(id=old), timeout=TIMEOUT_S)
    again = await service.jobs.RetryJob(jobs_pb.RetryJobRequest(id=old), timeout=TIMEOUT_S)
    assert (first.created, again.created) == (True, False)
    assert first.job.id == again.job.id
    assert (first.job.retry_of, first.job.payload, first.job.state) == (old, '{"a":1}', pb.JOB_STATE_READY)
    shown = (await service.jobs.GetJob(jobs_pb.GetJobRequest(id=old), timeout=TIMEOUT_S)).job
    assert (shown.retried_by, shown.state) == (first.job.id, pb.JOB_STATE_FAILED)
    code, _, message = await refused(service.jobs.RetryJob(jobs_pb.RetryJobRequest(id=first.job.id), timeout=TIMEOUT_S))
    assert code is Code.FAILED_PRECONDITION
    assert "is ready" in message


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (jobs_pb.RetryJobsRequest(), "filter"),
        (jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(states=[pb.JOB_STATE_COMPLETED])), "filter.states"),
        (jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(kind="k"), page_token="!"), "page_token"),
        (jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(kind="k"), page_token="AAAA"), "page_token"),
        (jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(route_prefix="/")), "filter.route_prefix"),
    ],
)
async def test_a_bad_retry_of_many_is_refused(service: Service, request_: jobs_pb.RetryJobsRequest, field: str) -> None:
    code, fields, _ = await refused(service.jobs.RetryJobs(request_, timeout=TIMEOUT_S))
    assert code is Code.INVALID_ARGUMENT
    assert list(fields) == [field]


async def test_a_retry_of_many_is_counted_before_it_is_done(service: Service) -> None:
    old = {await _failed(service, kind="many") for _ in range(3)}
    request = jobs_pb.RetryJobsRequest(filter=jobs_pb.JobFilter(kind="many"), preview=True)
    seen = await service.jobs.RetryJobs(request, timeout=TIMEOUT_S)
    assert (seen.retried, set(seen.ids), seen.next_page_token) == (3, old, "")
    request.preview = False
    done = await service.jobs.RetryJobs(request, timeout=TIMEOUT_S)
    assert (done.retried, done.skipped) == (3, 0)
    assert len(set(done.ids) | old) == 6


async def test_an_attempt_from_claim_to_end_over_the_wire(service: Service) -> None:
    job = await service.submit(payload='{"a":1}', labels={"l": "v"}, timeout=Duration(seconds=9))
    id = uuid.UUID(job.id)
    claim = await service.parts.claim(id)
    start = worker_pb.StartAttemptsRequest(
        worker="w1",
        claims=[
            worker_pb.ClaimedJob(job_id=job.id, attempt_seen=0, lease=claim.lease, claim_revision=claim.claim_revision),
            worker_pb.ClaimedJob(job_id=str(new_id()), lease=1, claim_revision=1),
        ],
    )
    [attempt] = (await service.workers.StartAttempts(start)).attempts
    assert (attempt.job_id, attempt.attempt, attempt.payload, dict(attempt.labels)) == (
        job.id,
        1,
        '{"a":1}',
        {"l": "v"},
    )
    assert attempt.timeout == Duration(seconds=9)
    save = worker_pb.SaveCheckpointRequest(job_id=job.id, fence=attempt.fence, checkpoint="[1]")
    assert (await service.workers.SaveCheckpoint(save)).verdict == worker_pb.VERDICT_RECORDED
    save.fence += 1
    assert (await service.workers.SaveCheckpoint(save)).verdict == worker_pb.VERDICT_LOST
    finish = worker_pb.FinishAttemptsRequest(
        worker="w1",
        reports=[
            worker_pb.AttemptReport(job_id=job.id, fence=attempt.fence, outcome=pb.OUTCOME_COMPLETED, result='{"r":1}')
        ],
    )
    for verdict in (worker_pb.VERDICT_RECORDED, worker_pb.VERDICT_REPEATED):
        [answer] = (await service.workers.FinishAttempts(finish)).attempts
        assert (answer.verdict, answer.state) == (verdict, pb.JOB_STATE_COMPLETED)
    assert answer.claim_deleted is False  # the second time there was nothing left to delete
    read = (await service.jobs.GetJob(jobs_pb.GetJobRequest(id=job.id))).job
    assert (read.result, read.worker, read.fence) == ('{"r":1}', "w1", attempt.fence)
    [listed] = (await service.jobs.ListAttempts(jobs_pb.ListAttemptsRequest(job_id=job.id))).attempts
    assert (listed.outcome, listed.fence, listed.claim_revision) == (
        pb.OUTCOME_COMPLETED,
        attempt.fence,
        claim.claim_revision,
    )


async def test_a_bad_report_fails_alone(service: Service) -> None:
    job = await service.submit()
    claim = await service.parts.claim(uuid.UUID(job.id))
    start = worker_pb.StartAttemptsRequest(
        worker="w1",
        claims=[worker_pb.ClaimedJob(job_id=job.id, lease=claim.lease, claim_revision=claim.claim_revision)],
    )
    [attempt] = (await service.workers.StartAttempts(start)).attempts
    reports = [
        worker_pb.AttemptReport(job_id="no-id", fence=1, outcome=pb.OUTCOME_COMPLETED),
        worker_pb.AttemptReport(job_id=job.id, fence=attempt.fence),
        worker_pb.AttemptReport(job_id=job.id, fence=attempt.fence, outcome=pb.OUTCOME_COMPLETED, result="{"),
        worker_pb.AttemptReport(job_id=job.id, fence=attempt.fence, outcome=pb.OUTCOME_LOST),
        worker_pb.AttemptReport(job_id=job.id, fence=attempt.fence, outcome=pb.OUTCOME_COMPLETED),
        worker_pb.AttemptReport(job_id=str(new_id()), fence=1, outcome=pb.OUTCOME_COMPLETED),
    ]
    answers = (await service.workers.FinishAttempts(worker_pb.FinishAttemptsRequest(reports=reports))).attempts
    invalid = worker_pb.VERDICT_INVALID
    verdicts = [invalid, invalid, invalid, invalid, worker_pb.VERDICT_RECORDED, worker_pb.VERDICT_LOST]
    assert [answer.verdict for answer in answers] == verdicts
    assert [answer.job_id for answer in answers] == [report.job_id for report in reports]
    fields = [answer.message.partition(":")[0] for answer in answers[:4]]
    assert fields == ["job_id", "outcome", "result", "outcome"]


async def test_a_claimed_job_that_is_not_started_is_shown_with_its_claim(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:20]}"
    claimed, odd, free = [await service.submit(namespace=namespace) for _ in range(3)]
    claim = await service.parts.claim(uuid.UUID(claimed.id))
    await service.parts.etcd.txn(Txn((), (Put(service.parts.keys.claim(odd.id), b"written by hand"),)))
    job = (await service.jobs.GetJob(jobs_pb.GetJobRequest(id=claimed.id))).job
    shown = pb.Claim(worker="w1", lease=claim.lease, revision=claim.claim_revision)
    assert (job.state, job.claim) == (pb.JOB_STATE_READY, shown)
    listing = await service.jobs.ListJobs(jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(namespace=namespace)))
    claims = {one.id: one.claim for one in listing.jobs if one.HasField("claim")}
    assert claims == {claimed.id: shown}
    assert free.id in {one.id for one in listing.jobs}
    await service.parts.etcd.txn(Txn((), (Delete(service.parts.keys.claim(odd.id)),)))


@pytest.mark.parametrize("worker", ["", "w\x00", "w" * 256])
async def test_a_worker_needs_a_name(service: Service, worker: str) -> None:
    job = await service.submit()
    claim = await service.parts.claim(uuid.UUID(job.id))
    message = worker_pb.ClaimedJob(job_id=job.id, lease=claim.lease, claim_revision=claim.claim_revision)
    code, fields, _ = await refused(
        service.workers.StartAttempts(worker_pb.StartAttemptsRequest(worker=worker, claims=[message]))
    )
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"worker"})
    assert await service.parts.state(uuid.UUID(job.id)) == "ready"


async def test_progress_so_small_that_it_is_none_is_taken(service: Service) -> None:
    job = await service.submit()
    started = await service.parts.execute(uuid.UUID(job.id))
    reports = [
        worker_pb.ProgressReport(job_id=job.id, fence=started.fence, fraction=0.3, message="first"),
        worker_pb.ProgressReport(job_id=job.id, fence=started.fence, fraction=5e-324, message="second \x00"),
        worker_pb.ProgressReport(job_id=job.id, fence=started.fence + 1, fraction=1),
    ]
    answer = await service.workers.ReportProgress(worker_pb.ReportProgressRequest(reports=reports))
    assert list(answer.verdicts) == [
        worker_pb.VERDICT_RECORDED,
        worker_pb.VERDICT_RECORDED,
        worker_pb.VERDICT_LOST,
    ]
    row = await service.parts.row(started.id)
    assert (row.progress, row.progress_message) == (0, "second \ufffd")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
async def test_progress_out_of_range_is_refused(service: Service, fraction: float) -> None:
    report = worker_pb.ProgressReport(job_id=str(new_id()), fraction=fraction)
    code, fields, _ = await refused(service.workers.ReportProgress(worker_pb.ReportProgressRequest(reports=[report])))
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"reports[0].fraction"})


async def test_a_batch_of_a_worker_is_bounded(service: Service) -> None:
    claims = [worker_pb.ClaimedJob(job_id=str(uuid.UUID(int=0)))] * (MAX_BATCH + 1)
    code, fields, _ = await refused(
        service.workers.StartAttempts(worker_pb.StartAttemptsRequest(worker="w", claims=claims))
    )
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"claims"})


async def test_children_come_in_their_parents_namespace_and_only_under_its_fence(service: Service) -> None:
    job = await service.submit(namespace="acme")
    started = await service.parts.execute(uuid.UUID(job.id))
    children = [pb.JobSpec(kind="k", ref="a"), pb.JobSpec(kind="k", ref="b", depends_on=["a"])]
    request = worker_pb.SubmitChildrenRequest(job_id=job.id, fence=started.fence, jobs=children)
    first = await service.workers.SubmitChildren(request)
    again = await service.workers.SubmitChildren(request)
    assert (first.verdict, again.verdict) == (worker_pb.VERDICT_RECORDED, worker_pb.VERDICT_REPEATED)
    assert [one.id for one in first.jobs] == [one.id for one in again.jobs]
    child = (await service.jobs.GetJob(jobs_pb.GetJobRequest(id=first.jobs[1].id))).job
    assert (child.namespace, child.parent_id, list(child.depends_on)) == ("acme", job.id, [first.jobs[0].id])
    listing = await service.jobs.ListJobs(jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(parent_id=job.id)))
    assert {one.id for one in listing.jobs} == {one.id for one in first.jobs}
    request.fence += 1
    request.jobs.add(kind="k", ref="c")
    code, _, _ = await refused(service.workers.SubmitChildren(request))
    assert code is Code.ABORTED
    nameless = worker_pb.SubmitChildrenRequest(job_id=job.id, fence=started.fence, jobs=[pb.JobSpec(kind="k")])
    code, fields, _ = await refused(service.workers.SubmitChildren(nameless))
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"jobs[0].ref"})


async def test_a_child_is_its_parents_whatever_its_unique_key(service: Service) -> None:
    job = await service.submit(unique_key=(key := str(uuid.uuid4())))
    started = await service.parts.execute(uuid.UUID(job.id))
    children = [
        pb.JobSpec(kind="k", ref="a", unique_key=f"{key}-a", on_duplicate=pb.ON_DUPLICATE_EXISTING),
        pb.JobSpec(kind="k", ref="b", unique_key=key, on_duplicate=pb.ON_DUPLICATE_REPLACE),
        pb.JobSpec(kind="other", ref="c", unique_key=key, on_duplicate=pb.ON_DUPLICATE_REPLACE),
    ]
    request = worker_pb.SubmitChildrenRequest(job_id=job.id, fence=started.fence, jobs=children)
    code, fields, _ = await refused(service.workers.SubmitChildren(request))
    assert (code, set(fields)) == (Code.INVALID_ARGUMENT, {"jobs[0].on_duplicate", "jobs[1].unique_key"})
    request = worker_pb.SubmitChildrenRequest(job_id=job.id, fence=started.fence, jobs=children[2:])
    assert (await service.workers.SubmitChildren(request)).verdict == worker_pb.VERDICT_RECORDED


# -- the cluster, health, reflection --


async def test_the_cluster_lists_workers_and_claims_and_revokes_one(service: Service) -> None:
    await service.parts.register("w1", capacity=3, labels={"zone": "a"})
    job = await service.submit()
    claim = await service.parts.claim(uuid.UUID(job.id))
    [worker] = (await service.cluster.ListWorkers(cluster_pb.ListWorkersRequest())).workers
    assert (worker.id, worker.capacity, worker.claims, dict(worker.labels)) == ("w1", 3, 1, {"zone": "a"})
    [held] = (await service.cluster.ListClaims(cluster_pb.ListClaimsRequest())).claims
    assert (held.job_id, held.lease, held.revision) == (job.id, claim.lease, claim.claim_revision)
    revoke = cluster_pb.RevokeClaimRequest(job_id=job.id)
    assert (await service.cluster.RevokeClaim(revoke)).revoked is True
    assert (await service.cluster.RevokeClaim(revoke)).revoked is False
    assert await service.parts.claim_of(uuid.UUID(job.id)) is None
    cluster = await service.cluster.GetCluster(cluster_pb.GetClusterRequest())
    assert (cluster.epoch, cluster.schema_version, list(cluster.coordinators)) == (1, "0003", [])


async def test_keys_written_by_hand_do_not_spoil_the_listings(service: Service) -> None:
    """Operators are told to use etcdctl: one odd key must not blind them to all the others."""
    parts = service.parts
    await parts.register("w1")
    job = await service.submit()
    await parts.claim(uuid.UUID(job.id))
    junk = [
        Put(parts.keys.worker("junk"), b"junk"),
        Put(parts.keys.claim("junk"), b"junk"),
        Put(parts.keys.coordinator("junk"), b"junk"),
        Put(parts.keys.leader, b"junk"),
    ]
    await parts.etcd.txn(Txn((), tuple(junk)))
    try:
        workers = await service.cluster.ListWorkers(cluster_pb.ListWorkersRequest())
        assert [worker.id for worker in workers.workers] == ["w1"]
        claims = await service.cluster.ListClaims(cluster_pb.ListClaimsRequest())
        assert [claim.job_id for claim in claims.claims] == [job.id]
        cluster = await service.cluster.GetCluster(cluster_pb.GetClusterRequest())
        assert (cluster.leader, list(cluster.coordinators)) == ("", [])
    finally:
        await parts.etcd.txn(Txn((), tuple(Delete(put.key) for put in junk)))


async def test_health_follows_what_the_coordinator_says(service: Service) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    await service.server.set_serving(True)
    for name in ("", *SERVICES):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == serving
    await service.server.set_serving(False)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    code, _, _ = await refused(stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert code is Code.NOT_FOUND


async def test_health_can_be_watched_and_what_it_does_not_list_is_unimplemented(service: Service) -> None:
    """Found by fuzzing: both calls ended with INTERNAL."""
    await service.server.set_serving(True)
    stub = health_pb2_grpc.HealthStub(service.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=TIMEOUT_S)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await service.server.set_serving(False)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    code, _, _ = await refused(stub.List(health_pb2.HealthListRequest(), timeout=TIMEOUT_S))
    assert code is Code.UNIMPLEMENTED


async def test_bytes_that_are_no_message_are_an_invalid_argument(service: Service) -> None:
    """Found by fuzzing: grpc itself answers UNKNOWN."""
    raw: Any = service.channel
    for path in ("/tenure.v1.JobService/SubmitJob", "/grpc.health.v1.Health/Check"):
        code, fields, _ = await refused(raw.unary_unary(path)(b"\xff\xff", timeout=TIMEOUT_S))
        assert (code, list(fields)) == (Code.INVALID_ARGUMENT, ["message"])
    call = raw.unary_stream("/tenure.v1.JobService/WatchJob")(b"\xff\xff", timeout=TIMEOUT_S)
    assert (await refused(call.read()))[0] is Code.INVALID_ARGUMENT
    stream = raw.stream_stream("/tenure.v1.JobService/StreamSubmitJobs")(iter([b"\xff\xff"]))
    assert (await refused(stream.read()))[0] is Code.INVALID_ARGUMENT


async def test_reflection_lists_the_services_and_gives_their_files(service: Service) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tenure.v1.JobService"),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {one.name for one in answers[0].list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= names
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_a_port_that_is_taken_is_a_configuration_error(service: Service) -> None:
    _, second = _server(service.parts, service.server.address)
    with pytest.raises(ConfigurationError, match="cannot listen"):
        await second.start()


async def test_a_waiting_call_does_not_hold_up_the_stop(service: Service) -> None:
    job = await service.submit()
    wait = asyncio.ensure_future(service.jobs.WaitJob(jobs_pb.WaitJobRequest(id=job.id), timeout=TIMEOUT_S))

    async def waiting() -> bool:
        return job.id in service.parts.waiters._waiting

    await until(waiting)
    service.parts.waiters.close()
    code, _, _ = await refused(wait)
    assert code is Code.UNAVAILABLE
