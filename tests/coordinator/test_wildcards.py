"""What clients name is taken literally: no wildcard of SQL or of a pattern widens a filter, no quote ends a text."""

from __future__ import annotations

import uuid

import grpc
import pytest
from tests.coordinator.test_grpc import TIMEOUT_S, Service, service

from tenure.v1 import job_service_pb2 as pb
from tenure.v1 import workflow_service_pb2 as workflows_pb
from tenure.v1.workflow_service_pb2_grpc import WorkflowServiceStub

__all__ = ["service"]

HOSTILE = [
    "%", "_", "\\", "a%", "a_b%", "a\\_b", "*", ".*", "(a+)+$", "[ab]", "a_b/%", "a_b/", "/", "../a_b",
    "' OR '1'='1", "'; DELETE FROM tenure.job; --", '"; --', "a_b' --", "$1", "%(route)s", "%s", "{}", "x" * 64_000,
]  # fmt: skip


async def listed(service: Service, **filter_: object) -> list[str]:
    """Return the routes of the jobs that match, or nothing where the filter is refused as malformed."""
    request = pb.ListJobsRequest(filter=pb.JobFilter(**filter_), page_size=1_000)  # type: ignore[arg-type]
    try:
        answer = await service.jobs.ListJobs(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as refusal:
        assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT, refusal.details()
        return []
    return sorted(job.route for job in answer.jobs)


async def test_a_route_prefix_matches_literally_and_by_whole_segments(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:8]}"
    for route in ("a_b", "axb", "a.b", "a_b/c", "axb/c", "a_bc"):
        await service.submit(namespace=namespace, route=route, labels={"a_b": "%", "axb": "x"})
    assert await listed(service, namespace=namespace, route_prefix="a_b") == ["a_b", "a_b/c"]
    assert await listed(service, namespace=namespace, route_prefix="a.b") == ["a.b"]
    assert len(await listed(service, namespace=namespace, labels={"a_b": "%"})) == 6
    assert await listed(service, namespace=namespace, labels={"a_b": "x"}) == []
    request = pb.CancelJobsRequest(filter=pb.JobFilter(namespace=namespace, route_prefix="a_b"), preview=True)
    assert (await service.jobs.CancelJobs(request, timeout=TIMEOUT_S)).canceled == 2


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
async def test_hostile_filters_match_nothing(service: Service, text: str) -> None:
    namespace = f"n{uuid.uuid4().hex[:8]}"
    await service.submit(namespace=namespace, route="a_b", labels={"k": "v"})
    assert await listed(service, namespace=namespace, route_prefix=text) == []
    assert await listed(service, namespace=text) == []
    assert await listed(service, namespace=namespace, kind=text) == []
    assert await listed(service, namespace=namespace, labels={"k": text}) == []
    assert await listed(service, namespace=namespace, labels={text: "v"}) == []
    cancel = pb.CancelJobsRequest(filter=pb.JobFilter(namespace=namespace, route_prefix=text))
    with pytest.raises(grpc.aio.AioRpcError):
        await service.jobs.CancelJobs(cancel, timeout=TIMEOUT_S)
    assert await listed(service, namespace=namespace) == ["a_b"]


async def test_keys_and_names_are_what_they_are(service: Service) -> None:
    namespace = f"n{uuid.uuid4().hex[:8]}"
    keys = ["a_b", "axb", "%", "_", "a\\b", "' OR '1'='1"]
    assert len({(await service.submit(namespace=namespace, idempotency_key=key)).id for key in keys}) == len(keys)
    assert len({(await service.submit(namespace=namespace, unique_key=key)).id for key in keys}) == len(keys)
    workflows = WorkflowServiceStub(service.channel)
    for name in keys:
        batch = pb.SubmitJobsRequest(workflow_name=name)
        batch.jobs.add(kind="k", namespace=namespace)
        await service.jobs.SubmitJobs(batch, timeout=TIMEOUT_S)
    for name in keys:
        asked = workflows_pb.ListWorkflowsRequest(namespace=namespace, name=name)
        found = await workflows.ListWorkflows(asked, timeout=TIMEOUT_S)
        assert [one.name for one in found.workflows] == [name]
