"""The calls of WorkflowService, and pictures of workflows."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tenure.client import convert
from tenure.client.drawing import draw, refuse_unknown_format
from tenure.client.fields import duration
from tenure.client.link import Link
from tenure.client.records import CanceledJobs, Job
from tenure.client.resume import Resumption
from tenure.client.workflows import Workflow, WorkflowChange, change_from_wire, workflow_from_wire
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.v1 import workflow_service_pb2 as pb

WORKFLOWS_PAGE = 50


class WorkflowCalls:
    """Read workflows, watch them, cancel them, draw them."""

    _link: Link

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow: its state, and how many of its members are in which.

        Raises:
            NotFound: there is none. InvalidInput: not an id.
        """
        answer: pb.GetWorkflowResponse = await self._link.unary(
            lambda to: to.workflows.GetWorkflow,
            pb.GetWorkflowRequest(id=workflow_id),
        )
        return workflow_from_wire(answer.workflow)

    async def list_workflows(
        self, *, namespace: str | None = None, name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Workflow]:
        """Yield the workflows that match every filter, newest first; ``limit`` None means all.

        Raises:
            InvalidInput: ``limit`` is below 1.
        """
        if limit is not None and limit < 1:
            raise InvalidInput([FieldViolation("limit", "must be at least 1")])
        left = limit
        size = WORKFLOWS_PAGE if left is None else min(WORKFLOWS_PAGE, left)
        request = pb.ListWorkflowsRequest(namespace=namespace or "", name=name or "", page_size=size)
        answer: pb.ListWorkflowsResponse
        async for answer in self._link.pages(lambda to: to.workflows.ListWorkflows, request):
            for workflow in answer.workflows:
                yield workflow_from_wire(workflow)
            if left is not None:
                left -= len(answer.workflows)
                if left <= 0:
                    return
                request.page_size = min(WORKFLOWS_PAGE, left)

    async def workflow_jobs(self, workflow_id: str, *, page_size: int = 1_000) -> AsyncIterator[Job]:
        """Yield the members of a workflow, oldest first, with what they depend on, without payloads and results.

        Pages of ``page_size`` (at most 1,000) are fetched as they are needed.

        Raises:
            NotFound: there is no such workflow.
        """
        request = pb.ListWorkflowJobsRequest(id=workflow_id, page_size=page_size)
        answer: pb.ListWorkflowJobsResponse
        async for answer in self._link.pages(lambda to: to.workflows.ListWorkflowJobs, request):
            for job in answer.jobs:
                yield convert.job_from_wire(job)

    async def watch_workflow(self, workflow_id: str) -> AsyncIterator[WorkflowChange]:
        """Yield the workflow now and as its members change, until all have ended.

        Changes are gathered for a second or so. Resumes after a lost connection: members that ended meanwhile are told
        of, those that were told of shortly before it perhaps again.

        Raises:
            NotFound: there is no such workflow. InvalidInput: not an id.
            Unavailable: no coordinator answered for ``outage_s``. BoundExceeded: the service is out of room.
        """
        resumption = Resumption(self._link)
        token, is_over, has_ended = "", False, False
        while not has_ended:
            request = pb.WatchWorkflowRequest(id=workflow_id, resume_token=token)
            async with resumption.stream(lambda to: to.workflows.WatchWorkflow, request) as messages:
                async for message in messages:
                    token = message.resume_token
                    change = change_from_wire(message)
                    is_over = change.workflow.is_over
                    yield change
                has_ended = is_over  # a stream that broke may have had more members to tell of

    async def cancel_workflow(
        self, workflow_id: str, reason: str = "", *, grace_s: float | None = None, preview: bool = False
    ) -> CanceledJobs:
        """Cancel every member of a workflow that has not ended; executing ones are asked to stop.

        ``grace_s`` is how long their workers have to, before the claims are taken away; None: as the coordinators are
        set. Attempts submit no children into the workflow from then on. ``preview`` only counts.

        Raises:
            NotFound: there is no such workflow. Unavailable: what was done is done; ask again.
        """
        done = CanceledJobs(canceled=0, asked=0, dependants=0, ids=())
        request = pb.CancelWorkflowRequest(
            id=workflow_id, reason=reason, grace=duration(grace_s, "grace_s"), preview=preview
        )
        answer: pb.CancelWorkflowResponse
        async for answer in self._link.pages(lambda to: to.workflows.CancelWorkflow, request):
            done = convert.canceled_from_wire(answer, done)
        return done

    async def draw_workflow(self, workflow_id: str, format: str = "mermaid") -> str:
        """Return a picture of a workflow as text: ``text``, ``mermaid``, ``dot`` or ``svg`` (``client.drawing``).

        Raises:
            NotFound: there is no such workflow. InvalidInput: another format.
        """
        refuse_unknown_format(format)
        return draw([job async for job in self.workflow_jobs(workflow_id)], format)
