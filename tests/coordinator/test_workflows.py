"""Workflows: what makes one, who joins it, what callers are told, and that a cancel leaves none of its members over."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from tests.coordinator.conftest import Parts, running
from tests.coordinator.test_grpc import refused

from tenure.coordinator import cancel, workflows
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.following import Change, Follower
from tenure.coordinator.workflows import Workflows
from tenure.model.errors import Conflict, NotFound, WrongState
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec
from tenure.model.states import JobState, Outcome
from tenure.model.submit import Parent, Submitted
from tenure.model.workflows import WorkflowState
from tenure.store.etcd.keyspace import CancelRequest, parse_inbox
from tenure.store.postgres.database import query
from tenure.v1 import job_pb2 as pb
from tenure.v1 import job_service_pb2 as jobs_pb
from tenure.v1 import worker_service_pb2 as worker_pb
from tenure.v1 import workflow_service_pb2 as workflow_pb
from tenure.v1.job_service_pb2_grpc import JobServiceStub
from tenure.v1.worker_service_pb2_grpc import WorkerServiceStub
from tenure.v1.workflow_service_pb2_grpc import WorkflowServiceStub

Code = grpc.StatusCode
TIMEOUT_S = 30.0
PATIENCE_S = 30.0
DIAMOND = [
    JobSpec(kind="k", ref="a"),
    JobSpec(kind="k", ref="b", depends_on=("a",)),
    JobSpec(kind="k", ref="c", depends_on=("a",)),
    JobSpec(kind="k", ref="d", depends_on=("b", "c")),
]


def workflows_of(parts: Parts) -> Workflows:
    return Workflows(parts.db, parts.clock, parts.canceler)


async def submit(parts: Parts, specs: list[JobSpec], **more: Any) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """Submit a batch that is a workflow; return its id and those of its members."""
    made = await parts.submitter.submit_batch(specs, **more)
    workflow_id = made[0].workflow_id
    assert workflow_id is not None
    return workflow_id, [one.id for one in made]


async def end(parts: Parts, id: uuid.UUID, outcome: Outcome = Outcome.COMPLETED, **report: Any) -> None:
    started = await parts.execute(id)
    await parts.finish(id, started.fence, outcome, **report)


# -- what makes a workflow --


async def test_a_batch_is_a_workflow_by_its_edges_or_by_a_name(parts: Parts) -> None:
    bulk = await parts.submitter.submit_batch([JobSpec(kind="k", ref="x"), JobSpec(kind="k")])
    assert [one.workflow_id for one in bulk] == [None, None]
    row = await parts.row(bulk[0].id)
    assert (row.workflow_id, row.ref) == (None, None), "a bulk batch costs nothing"
    later = await parts.submitter.submit_batch([JobSpec(kind="k", depends_on=(str(bulk[0].id),))])
    assert later[0].workflow_id is None, "an edge to an earlier job makes no workflow"
    by_edges, members = await submit(parts, DIAMOND)
    row = await parts.row(members[3])
    assert (row.workflow_id, row.ref) == (by_edges, "d")
    by_name, _ = await submit(parts, [JobSpec(kind="k")], workflow_name="nightly")
    [stored] = await parts.db.fetch("workflows_by_id", {"ids": [by_name]})
    assert (stored.name, stored.jobs) == ("nightly", 1)


async def test_a_repeated_batch_answers_with_the_first_workflow(parts: Parts) -> None:
    stem = new_id()
    specs = [spec.model_copy(update={"idempotency_key": f"{stem}-{spec.ref}"}) for spec in DIAMOND]
    first, members = await submit(parts, specs, workflow_name="n")
    again = await parts.submitter.submit_batch(specs, workflow_name="n")
    assert again == [Submitted(id, False, first) for id in members]
    assert {one.workflow_id for one in await parts.submitter.submit_batch(specs)} == {first}
    with pytest.raises(Conflict, match="not of a workflow named 'other'"):
        await parts.submitter.submit_batch(specs, workflow_name="other")
    rows = await parts.sql("SELECT 1 FROM tenure.workflow WHERE id > %s", first)
    assert rows == []


async def test_members_that_are_new_make_a_workflow_of_their_own(parts: Parts) -> None:
    """A key may stand for a job that two batches share: neither takes it from the other."""
    shared = JobSpec(kind="k", ref="shared", idempotency_key=f"shared-{new_id()}")
    first, [id, _] = await submit(parts, [shared, JobSpec(kind="k", depends_on=("shared",))])
    made = await parts.submitter.submit_batch([shared, JobSpec(kind="k", depends_on=("shared",))])
    assert [(one.created, one.workflow_id == first) for one in made] == [(False, True), (True, False)]
    assert made[0].id == id and made[1].workflow_id is not None


async def test_children_and_retries_join(parts: Parts) -> None:
    workflow_id, members = await submit(parts, DIAMOND)
    started = await parts.execute(members[0])
    parent = Parent(members[0], started.fence, workflow_id)
    [child] = await parts.submitter.submit_batch([JobSpec(kind="k", ref="x", idempotency_key="x")], parent=parent)
    assert child == Submitted(child.id, True, workflow_id)
    await end(parts, child.id, Outcome.FAILED, retryable=False)
    retry, _ = await parts.retryer.retry(child.id)
    row = await parts.row(retry)
    assert (row.workflow_id, row.ref, row.parent_id) == (workflow_id, "x", members[0])
    whole = workflows_of(parts)
    async with running(whole.run()):
        counts = (await whole.read(workflow_id)).counts
    assert counts == {JobState.EXECUTING: 1, JobState.WAITING: 3, JobState.READY: 1}


# -- cancel --


async def test_a_cancel_meets_every_member_and_nobody_else(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "WINDOW_JOBS", 3)
    whole = workflows_of(alone)
    await alone.register("w1")
    specs = [JobSpec(kind="k", ref="root"), *(JobSpec(kind="k", depends_on=("root",)) for _ in range(10))]
    workflow_id, members = await submit(alone, [*specs, *(JobSpec(kind="k") for _ in range(4))])
    outside = await alone.submit(depends_on=(str(members[0]),))
    other = await alone.submit()
    fence = (await alone.execute(members[0])).fence
    async with running(whole.run()):
        seen = await whole.preview_cancel(workflow_id)
        assert (seen.canceled, seen.asked, len(seen.ids)) == (14, 1, 15)
        result = await whole.cancel(workflow_id, None, "not needed", 7.0)
        assert (result.done.canceled, result.done.asked, result.before) == (14, 1, None)
        assert await alone.state(other) is JobState.READY
        rows = [await alone.row(id) for id in members[1:]]
        assert {(row.state, row.reason) for row in rows} == {("canceled", "not needed")}
        [item] = (await alone.etcd.list(alone.keys.inbox("w1"))).items
        request = parse_inbox(item.value)
        assert isinstance(request, CancelRequest) and request.fence == fence
        [page] = await alone.db.fetch(
            "executing_page", {"after": uuid.UUID(int=0), "limit": 10, "timeout_grace_s": 10.0}
        )
        assert page.cancel_grace_s == 7.0
        assert (await whole.read(workflow_id)).state is WorkflowState.RUNNING
        assert (await alone.finish(members[0], fence, Outcome.CANCELED)).state is JobState.CANCELED
        summary = await whole.read(workflow_id)
        assert (summary.state, summary.row.cancel_reason) == (WorkflowState.CANCELED, "not needed")
    assert await alone.state(outside) is JobState.CANCELED, "it depends on a member"


async def test_an_attempt_adds_nothing_to_a_canceled_workflow(alone: Parts) -> None:
    workflow_id, [first, *_] = await submit(alone, DIAMOND)
    started = await alone.execute(first)
    await workflows_of(alone).cancel(workflow_id, None, "", None)
    parent = Parent(first, started.fence, workflow_id)
    with pytest.raises(WrongState, match="is canceled"):
        await alone.submitter.submit_batch([JobSpec(kind="k", idempotency_key="x")], parent=parent)
    assert (await alone.finish(first, started.fence, Outcome.FAILED)).state is JobState.CANCELED


async def test_a_cancel_races_children_and_leaves_none_over(alone: Parts) -> None:
    """Each child is refused, or canceled with the others."""
    specs = [JobSpec(kind="k", ref=f"p{n}") for n in range(20)]
    workflow_id, members = await submit(alone, specs, workflow_name="race")
    fences = [(await alone.execute(id)).fence for id in members]

    async def spawn(id: uuid.UUID, fence: int) -> int:
        made = 0
        for n in range(20):
            child = JobSpec(kind="k", idempotency_key=f"c{n}")
            try:
                await alone.submitter.submit_batch([child], parent=Parent(id, fence, workflow_id))
            except WrongState:
                return made
            made += 1
        return made

    async def cancel_soon() -> None:
        await asyncio.sleep(0.05)
        await workflows_of(alone).cancel(workflow_id, None, "enough", None)

    canceling = asyncio.create_task(cancel_soon())
    made = await asyncio.gather(*map(spawn, members, fences))
    await canceling
    rows = await alone.sql("SELECT state FROM tenure.jobs WHERE parent_id IS NOT NULL")
    assert len(rows) == sum(made)
    assert {row.state for row in rows} <= {"canceled"}
    left = await alone.sql("SELECT state, cancel_requested FROM tenure.job")
    assert {(row.state, row.cancel_requested) for row in left} == {("executing", True)}


async def test_a_workflow_of_ten_thousand_is_canceled(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """In calls that end in time: each goes on where the one before ended."""
    monkeypatch.setattr(workflows, "PASS_S", 0.5)
    monkeypatch.setattr(cancel, "PASS_S", 0.5)
    specs = [JobSpec(kind="k", ref="0")]
    specs += [JobSpec(kind="k", ref=str(n), depends_on=(str(n // 10),)) for n in range(1, 10_000)]
    workflow_id, members = await submit(alone, specs)
    whole = workflows_of(alone)
    result = await whole.cancel(workflow_id, None, "too many", None)
    canceled, calls = result.done.canceled + result.done.dependants, 1
    while result.before is not None:
        result = await whole.cancel(workflow_id, result.before, "too many", None)
        canceled, calls = canceled + result.done.canceled + result.done.dependants, calls + 1
    assert (canceled, len(members)) == (10_000, 10_000)
    rows = await alone.sql("SELECT state, reason, count(*) AS jobs FROM tenure.jobs GROUP BY state, reason")
    assert [(row.state, row.reason, row.jobs) for row in rows] == [("canceled", "too many", 10_000)]
    async with running(whole.run()):
        assert (await whole.read(workflow_id)).state is WorkflowState.CANCELED


# -- following --


async def collect(changes: AsyncIterator[Change]) -> tuple[list[Change], dict[uuid.UUID, list[str]]]:
    """Follow to the end; return the changes, and the states of each job in the order in which they were told."""
    seen: list[Change] = []
    told: dict[uuid.UUID, list[str]] = {}
    async with asyncio.timeout(PATIENCE_S):
        async for change in changes:
            seen.append(change)
            for row in change.jobs:
                told.setdefault(row.id, []).append(row.state)
    return seen, told


async def test_a_watcher_is_told_of_every_end_and_of_the_whole(alone: Parts) -> None:
    workflow_id, members = await submit(alone, DIAMOND)
    whole = workflows_of(alone)
    async with running(whole.run(), alone.waiters.watch(), alone.waiters.reread()):
        follower = Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id)
        watching = asyncio.create_task(collect(follower.follow(None)))
        for id in members:
            await end(alone, id)
        changes, told = await watching
        assert {id: states[-1] for id, states in told.items()} == dict.fromkeys(members, "completed")
        assert all(len(states) == len(set(states)) for states in told.values()), "nothing is told twice"
        assert changes[-1].summary.state is WorkflowState.COMPLETED
        assert changes[-1].summary.finished_at is not None
        # Afterwards a watch answers once, with the whole alone.
        late = Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id)
        [last], told = await collect(late.follow(None))
        assert (last.summary.state, told) == (WorkflowState.COMPLETED, {})
        # One that goes on from the first message is told of what has ended since.
        resumed = Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id)
        _, told = await collect(resumed.follow(changes[0].at))
        assert set(told) == set(members)


async def test_a_member_that_is_given_back_is_told_of(alone: Parts) -> None:
    workflow_id, [id] = await submit(alone, [JobSpec(kind="k")], workflow_name="n")
    whole = workflows_of(alone)
    started = await alone.execute(id)
    async with running(whole.run(), alone.waiters.watch()):
        follower = Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id)
        states: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            async for change in follower.follow(None):
                states.extend(row.state for row in change.jobs)
                if states == ["executing"]:
                    await alone.finish(id, started.fence, Outcome.RELEASED)
                elif states == ["executing", "ready"]:
                    await alone.canceler.cancel(id, "")
    assert states == ["executing", "ready", "canceled"]


async def test_an_end_that_is_committed_late_is_told_of(alone: Parts) -> None:
    """Its time is that of the beginning of its transaction: before looks that could not see it."""
    workflow_id, [late, *others] = await submit(alone, [JobSpec(kind="k") for _ in range(3)], workflow_name="n")
    whole = workflows_of(alone)
    told: list[uuid.UUID] = []
    async with running(whole.run()), await psycopg.AsyncConnection.connect(alone.dsn) as writer:
        await writer.execute("SELECT now()")
        async with asyncio.timeout(PATIENCE_S):
            async for change in Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id).follow(None):
                told.extend(row.id for row in change.jobs)
                if others:
                    await alone.canceler.cancel(others.pop(), "")
                elif late not in told:
                    await writer.execute(query("cancel_idle"), {"ids": [late], "reason": ""})
                    await writer.commit()
    assert told.count(late) == 1


async def test_many_ends_are_told_of_in_pages(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.coordinator.following.PAGE_JOBS", 7)
    workflow_id, members = await submit(alone, [JobSpec(kind="k") for _ in range(40)], workflow_name="n")
    whole = workflows_of(alone)
    async with running(whole.run(), alone.waiters.watch()):
        follower = Follower(alone.db, whole, alone.waiters, alone.clock, workflow_id)
        watching = asyncio.create_task(collect(follower.follow(None)))
        await whole.cancel(workflow_id, None, "", None)
        changes, told = await watching
    assert set(told) <= set(members)
    assert all(len(change.jobs) <= 7 for change in changes)
    assert changes[-1].summary.counts == {JobState.CANCELED: 40}


# -- over gRPC --


class Service:
    """Stubs of a running server."""

    def __init__(self, parts: Parts, channel: grpc.aio.Channel) -> None:
        self.parts = parts
        self.jobs = JobServiceStub(channel)
        self.workers = WorkerServiceStub(channel)
        self.workflows = WorkflowServiceStub(channel)

    async def submit(self, *specs: pb.JobSpec, name: str = "") -> Any:
        """Submit a batch and return the answer."""
        request = jobs_pb.SubmitJobsRequest(jobs=specs, workflow_name=name)
        return await self.jobs.SubmitJobs(request, timeout=TIMEOUT_S)

    async def get(self, id: str) -> workflow_pb.Workflow:
        """Read a workflow."""
        answer = await self.workflows.GetWorkflow(workflow_pb.GetWorkflowRequest(id=id), timeout=TIMEOUT_S)
        workflow: workflow_pb.Workflow = answer.workflow
        return workflow


@pytest_asyncio.fixture
async def service(alone: Parts) -> AsyncIterator[Service]:
    jobs = alone.job_service()
    workers = WorkerService(alone.db, alone.starter, alone.finisher, alone.submitter)
    whole = WorkflowService(
        alone.db, alone.etcd, alone.keys, alone.clock, workflows_of(alone), alone.waiters, alone.audit
    )
    server = GrpcServer((jobs, workers, whole), listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    bodies = (alone.submitter.run(), jobs.run(), whole.run(), alone.waiters.watch(), alone.waiters.reread())
    async with running(*bodies), grpc.aio.insecure_channel(server.address) as channel:
        yield Service(alone, channel)
        await server.stop(0)


async def test_a_workflow_is_submitted_read_listed_and_drawn_from(service: Service) -> None:
    made = await service.submit(
        pb.JobSpec(kind="k", ref="a", payload='{"x":1}'),
        pb.JobSpec(kind="k", ref="b", depends_on=["a"]),
        name="nightly",
    )
    workflow = await service.get(made.workflow_id)
    assert (workflow.name, workflow.namespace, workflow.submitted, workflow.jobs) == ("nightly", "default", 2, 2)
    assert workflow.state == workflow_pb.WORKFLOW_STATE_RUNNING
    assert {count.state: count.jobs for count in workflow.counts} == {pb.JOB_STATE_READY: 1, pb.JOB_STATE_WAITING: 1}
    assert not workflow.HasField("finished_at")
    jobs: list[pb.Job] = []
    token = ""
    while True:
        request = workflow_pb.ListWorkflowJobsRequest(id=workflow.id, page_size=1, page_token=token)
        answer = await service.workflows.ListWorkflowJobs(request, timeout=TIMEOUT_S)
        jobs.extend(answer.jobs)
        token = answer.next_page_token
        if not token:
            break
    assert [(job.ref, list(job.depends_on), job.payload) for job in jobs] == [("a", [], ""), ("b", [jobs[0].id], "")]
    assert {job.workflow_id for job in jobs} == {workflow.id}
    other = await service.submit(pb.JobSpec(kind="k"), name="other")
    for name, ids in (("", [other.workflow_id, workflow.id]), ("nightly", [workflow.id]), ("none", [])):
        listed = await service.workflows.ListWorkflows(workflow_pb.ListWorkflowsRequest(name=name), timeout=TIMEOUT_S)
        assert [one.id for one in listed.workflows] == ids
    filtered = await service.jobs.ListJobs(
        jobs_pb.ListJobsRequest(filter=jobs_pb.JobFilter(workflow_id=other.workflow_id)), timeout=TIMEOUT_S
    )
    assert [job.id for job in filtered.jobs] == [other.jobs[0].id]
    assert (await service.submit(pb.JobSpec(kind="k"), pb.JobSpec(kind="k"))).workflow_id == ""


async def test_children_of_an_attempt_are_members(service: Service) -> None:
    made = await service.submit(pb.JobSpec(kind="k"), name="n")
    id = made.jobs[0].id
    started = await service.parts.execute(uuid.UUID(id))
    request = worker_pb.SubmitChildrenRequest(job_id=id, fence=started.fence, jobs=[pb.JobSpec(kind="k", ref="child")])
    await service.workers.SubmitChildren(request, timeout=TIMEOUT_S)
    assert (await service.get(made.workflow_id)).jobs == 2
    answer = await service.workflows.CancelWorkflow(
        workflow_pb.CancelWorkflowRequest(id=made.workflow_id, reason="r"), timeout=TIMEOUT_S
    )
    assert (answer.canceled, answer.asked, answer.next_page_token) == (1, 1, "")
    request.jobs[0].ref = "late"
    code, _, _ = await refused(service.workers.SubmitChildren(request, timeout=TIMEOUT_S))
    assert code is Code.FAILED_PRECONDITION


async def test_a_watch_streams_until_the_end(service: Service) -> None:
    made = await service.submit(pb.JobSpec(kind="k", ref="a"), pb.JobSpec(kind="k", depends_on=["a"]))
    call = service.workflows.WatchWorkflow(workflow_pb.WatchWorkflowRequest(id=made.workflow_id), timeout=TIMEOUT_S)
    stream = aiter(call)
    first = await anext(stream)
    assert first.workflow.state == workflow_pb.WORKFLOW_STATE_RUNNING
    preview = await service.workflows.CancelWorkflow(
        workflow_pb.CancelWorkflowRequest(id=made.workflow_id, preview=True), timeout=TIMEOUT_S
    )
    assert (preview.canceled, preview.asked, len(preview.ids)) == (2, 0, 2)
    await service.workflows.CancelWorkflow(workflow_pb.CancelWorkflowRequest(id=made.workflow_id), timeout=TIMEOUT_S)
    rest = [message async for message in stream]
    assert rest[-1].workflow.state == workflow_pb.WORKFLOW_STATE_CANCELED
    assert rest[-1].workflow.progress == 1.0
    assert {job.id for message in rest for job in message.jobs} == {job.id for job in made.jobs}


ABSENT = str(new_id())
NONSENSE: list[tuple[str, Any, str]] = [
    ("GetWorkflow", workflow_pb.GetWorkflowRequest(id="x"), "id"),
    ("ListWorkflowJobs", workflow_pb.ListWorkflowJobsRequest(id="x"), "id"),
    ("ListWorkflowJobs", workflow_pb.ListWorkflowJobsRequest(id=ABSENT, page_size=1_001), "page_size"),
    ("ListWorkflowJobs", workflow_pb.ListWorkflowJobsRequest(id=ABSENT, page_token="ü"), "page_token"),
    ("ListWorkflows", workflow_pb.ListWorkflowsRequest(page_size=-1), "page_size"),
    ("ListWorkflows", workflow_pb.ListWorkflowsRequest(name="\x00"), "name"),
    ("ListWorkflows", workflow_pb.ListWorkflowsRequest(namespace="\x00"), "namespace"),
    ("ListWorkflows", workflow_pb.ListWorkflowsRequest(page_token="x"), "page_token"),
    ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=""), "id"),
    ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=ABSENT, grace=Duration(seconds=-1)), "grace"),
    ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=ABSENT, grace=Duration(seconds=3_601)), "grace"),
    ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=ABSENT, page_token="x"), "page_token"),
]


@pytest.mark.parametrize(("method", "request_", "field"), NONSENSE)
async def test_nonsense_is_refused_with_the_field_named(
    service: Service, method: str, request_: Any, field: str
) -> None:
    code, fields, _ = await refused(getattr(service.workflows, method)(request_, timeout=TIMEOUT_S))
    assert (code, list(fields)) == (Code.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("token", ["x", "ü", "MjAyNg==", "MjAyNi0wMS0wMVQwMDowMDowMA=="])
async def test_a_bad_resume_token_is_refused(service: Service, token: str) -> None:
    request = workflow_pb.WatchWorkflowRequest(id=ABSENT, resume_token=token)
    code, fields, _ = await refused(service.workflows.WatchWorkflow(request, timeout=TIMEOUT_S).read())
    assert (code, list(fields)) == (Code.INVALID_ARGUMENT, ["resume_token"])


@pytest.mark.parametrize("name", ["x" * 256, "a\nb", "\x00"])
async def test_a_bad_workflow_name_is_refused_and_nothing_written(service: Service, name: str) -> None:
    code, fields, _ = await refused(service.submit(pb.JobSpec(kind="k"), name=name))
    assert (code, list(fields)) == (Code.INVALID_ARGUMENT, ["workflow_name"])
    assert await service.parts.sql("SELECT 1 FROM tenure.jobs") == []


async def test_what_is_not_there_is_not_found(service: Service) -> None:
    for method, request in (
        ("GetWorkflow", workflow_pb.GetWorkflowRequest(id=ABSENT)),
        ("ListWorkflowJobs", workflow_pb.ListWorkflowJobsRequest(id=ABSENT)),
        ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=ABSENT)),
        ("CancelWorkflow", workflow_pb.CancelWorkflowRequest(id=ABSENT, preview=True)),
    ):
        code, _, _ = await refused(getattr(service.workflows, method)(request, timeout=TIMEOUT_S))
        assert code is Code.NOT_FOUND
    watch = workflow_pb.WatchWorkflowRequest(id=ABSENT)
    code, _, _ = await refused(service.workflows.WatchWorkflow(watch, timeout=TIMEOUT_S).read())
    assert code is Code.NOT_FOUND


async def test_a_cancel_of_nothing_is_not_found(parts: Parts) -> None:
    with pytest.raises(NotFound):
        await workflows_of(parts).cancel(new_id(), None, "", None)
