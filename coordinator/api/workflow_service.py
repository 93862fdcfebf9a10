"""WorkflowService: for those who look after batches as a whole."""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc

from tenure.coordinator import access
from tenure.coordinator.api import convert
from tenure.coordinator.api.acts import audited
from tenure.coordinator.api.filters import not_a_token, page_key
from tenure.coordinator.audit import Audit
from tenure.coordinator.following import Follower
from tenure.coordinator.passing import FIRST_ID
from tenure.coordinator.pending import show_pending
from tenure.coordinator.waiters import Waiters
from tenure.coordinator.workflows import Summary, Workflows, not_found
from tenure.model.access import Right
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, PermissionDenied
from tenure.model.ids import parse_id
from tenure.model.workflows import WorkflowState
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row
from tenure.v1 import wire
from tenure.v1 import workflow_service_pb2 as pb
from tenure.v1.workflow_service_pb2_grpc import WorkflowServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 20
MAX_PAGE = 100
"""Each workflow of a page is counted."""
DEFAULT_JOBS = 200
MAX_JOBS = 1_000
MAX_GRACE_S = 3_600.0
MAX_REASON_CHARS = 512
STATE_TO_PB: dict[WorkflowState | None, pb.WorkflowState] = {
    None: pb.WORKFLOW_STATE_UNSPECIFIED,
    WorkflowState.RUNNING: pb.WORKFLOW_STATE_RUNNING,
    WorkflowState.COMPLETED: pb.WORKFLOW_STATE_COMPLETED,
    WorkflowState.FAILED: pb.WORKFLOW_STATE_FAILED,
    WorkflowState.CANCELED: pb.WORKFLOW_STATE_CANCELED,
}


class WorkflowService(WorkflowServiceServicer):
    """The service over workflows. ``run`` is the body of a task that batches reads."""

    def __init__(
        self,
        database: Database,
        etcd: Etcd,
        keys: Keyspace,
        clock: Clock,
        workflows: Workflows,
        waiters: Waiters,
        audit: Audit,
    ) -> None:
        self._audit = audit
        self._database = database
        self._etcd = etcd
        self._keys = keys
        self._clock = clock
        self._workflows = workflows
        self._waiters = waiters

    async def run(self) -> None:
        """Carry out batched reads until cancelled."""
        await self._workflows.run()

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Context) -> pb.ListWorkflowsResponse:
        """Read a page of workflows, newest first."""
        size = _page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE)
        rows = await self._database.fetch(
            "list_workflows",
            {
                "before": page_key(request.page_token),
                "namespace": _no_nul(request.namespace, "namespace") or None,
                "namespaces": access.namespaces_for(Right.READ, request.namespace),
                "name": _no_nul(request.name, "name") or None,
                "limit": size,
            },
        )
        summaries = await self._workflows.summaries(rows)
        return pb.ListWorkflowsResponse(
            workflows=[workflow_to_pb(summary) for summary in summaries], next_page_token=_next_page(rows, size)
        )

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        """Read one workflow."""
        summary = await self._read(parse_id(request.id, "id"))
        return pb.GetWorkflowResponse(workflow=workflow_to_pb(summary))

    async def ListWorkflowJobs(
        self, request: pb.ListWorkflowJobsRequest, context: Context
    ) -> pb.ListWorkflowJobsResponse:
        """Read a page of members with their edges, oldest first."""
        size = _page_size(request.page_size, DEFAULT_JOBS, MAX_JOBS)
        workflow_id = parse_id(request.id, "id")
        await self._require_members(workflow_id)
        after = page_key(request.page_token) if request.page_token else FIRST_ID
        params = {"workflow_id": workflow_id, "after": after, "limit": size}
        rows = await self._database.fetch("workflow_jobs", params)
        if not rows:
            await self._read(workflow_id)  # NOT_FOUND is another answer than none
        edges = await self._database.fetch("dependencies_of", {"ids": [row.id for row in rows]})
        parents = {edge.child_id: edge.parents for edge in edges}
        jobs = [convert.job_to_pb(row, parents=parents.get(row.id, ())) for row in rows]
        await show_pending(self._etcd, self._keys, jobs)
        return pb.ListWorkflowJobsResponse(jobs=jobs, next_page_token=_next_page(rows, size))

    async def WatchWorkflow(
        self, request: pb.WatchWorkflowRequest, context: Context
    ) -> AsyncIterator[pb.WatchWorkflowResponse]:
        """Stream the workflow at each change until all its members have ended."""
        workflow_id = parse_id(request.id, "id")
        await self._require_members(workflow_id)
        follower = Follower(self._database, self._workflows, self._waiters, self._clock, workflow_id)
        async for change in follower.follow(_instant(request.resume_token)):
            yield pb.WatchWorkflowResponse(
                workflow=workflow_to_pb(change.summary),
                jobs=[convert.job_to_pb(row) for row in change.jobs],
                resume_token=_token(change.at),
            )

    @audited
    async def CancelWorkflow(self, request: pb.CancelWorkflowRequest, context: Context) -> pb.CancelWorkflowResponse:
        """Cancel every member that has not ended, or count them."""
        workflow_id = parse_id(request.id, "id")
        await self._require_members(workflow_id)
        grace_s = wire.seconds(request.grace) if request.HasField("grace") else None
        if grace_s is not None and not 0 <= grace_s <= MAX_GRACE_S:
            raise InvalidInput([FieldViolation("grace", f"must be 0 s to {MAX_GRACE_S:g} s")])
        before = page_key(request.page_token) if request.page_token else None
        if request.preview:
            done, rest = await self._workflows.preview_cancel(workflow_id), None
        else:
            reason = request.reason[:MAX_REASON_CHARS].replace("\x00", "")
            result = await self._workflows.cancel(workflow_id, before, reason, grace_s)
            done, rest = result.done, result.before
        return pb.CancelWorkflowResponse(
            canceled=done.canceled,
            asked=done.asked,
            dependants=done.dependants,
            ids=[str(id) for id in done.ids],
            next_page_token=_page_token(rest) if rest else "",
        )

    async def _read(self, workflow_id: uuid.UUID) -> Summary:
        summary = await self._workflows.read(workflow_id)
        if not access.sees(summary.row.namespace):
            raise not_found(workflow_id)
        return summary

    async def _require_members(self, workflow_id: uuid.UUID) -> None:
        """Refuse a workflow that is not the caller's, or not as a whole: members can be of several namespaces."""
        if not access.is_confined():
            return
        await self._read(workflow_id)
        params = {"workflow_id": workflow_id, "namespaces": list(access.caller().namespaces)}
        if await self._database.fetch("foreign_members", params):
            raise PermissionDenied(
                f"workflow {workflow_id} has members in other namespaces than yours",
                hint="look at single jobs, or ask an admin for a token of all its namespaces",
            )


def workflow_to_pb(summary: Summary) -> pb.Workflow:
    """Convert a workflow."""
    row = summary.row
    return pb.Workflow(
        id=str(row.id),
        namespace=row.namespace,
        name=row.name,
        state=STATE_TO_PB[summary.state],
        created_at=wire.timestamp(row.created_at),
        started_at=wire.timestamp(summary.started_at),
        finished_at=wire.timestamp(summary.finished_at),
        submitted=row.jobs,
        jobs=sum(summary.counts.values()),
        counts=[
            pb.StateCount(state=wire.STATE_TO_PB[state], jobs=jobs)
            for state, jobs in sorted(summary.counts.items(), key=lambda item: wire.STATE_TO_PB[item[0]])
        ],
        progress=round(summary.progress, 6),
        canceled_at=wire.timestamp(row.canceled_at),
        cancel_reason=row.cancel_reason,
    )


def _page_size(asked: int, default: int, most: int) -> int:
    size = asked or default
    if not 1 <= size <= most:
        raise InvalidInput([FieldViolation("page_size", f"must be 1 to {most:,}")])
    return size


def _no_nul(text: str, field: str) -> str:
    if "\x00" in text:
        raise InvalidInput([FieldViolation(field, "must not contain NUL")])
    return text


def _page_token(id: uuid.UUID) -> str:
    return base64.urlsafe_b64encode(id.bytes).decode()


def _next_page(rows: list[Row], size: int) -> str:
    return _page_token(rows[-1].id) if len(rows) == size else ""


def _token(at: datetime) -> str:
    return base64.urlsafe_b64encode(at.astimezone(UTC).isoformat().encode()).decode()


def _instant(token: str) -> datetime | None:
    """Read a resume token; None for none.

    Raises:
        InvalidInput: it is not one that this service gave.
    """
    if not token:
        return None
    try:
        at = datetime.fromisoformat(base64.urlsafe_b64decode(token.encode()).decode())
    except ValueError as exc:
        raise not_a_token("resume_token") from exc
    if at.tzinfo is None or not 2000 <= at.year <= 9000:
        raise not_a_token("resume_token")
    return at
