"""Workflows as the client gives them back: frozen records, and how they are read from the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tenure.client.convert import job_from_wire, state_from_wire
from tenure.client.fields import time_of
from tenure.client.records import Job
from tenure.model.states import JobState
from tenure.model.workflows import WorkflowState
from tenure.v1 import workflow_service_pb2 as pb

_STATES = {pb.WorkflowState.Value(f"WORKFLOW_STATE_{state.name}"): state for state in WorkflowState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A batch as a whole, as the service knew it when it answered."""

    id: str
    namespace: str
    name: str
    """Empty where none was given."""
    state: WorkflowState | None
    """None where none of its members is known any more."""
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    """When the last member ended."""
    submitted: int
    """Jobs that it was submitted with."""
    jobs: int
    """Members; one that was retried is stood for by its retry."""
    counts: Mapping[JobState, int]
    progress: float
    """0 to 1."""
    canceled_at: datetime | None
    cancel_reason: str

    @property
    def is_over(self) -> bool:
        """Say whether all its members have ended."""
        return self.state is not WorkflowState.RUNNING


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """The workflow now, and which of its members have started, gone on or ended since the change before."""

    workflow: Workflow
    jobs: tuple[Job, ...]


def workflow_from_wire(workflow: pb.Workflow) -> Workflow:
    """Read a workflow."""
    return Workflow(
        id=workflow.id,
        namespace=workflow.namespace,
        name=workflow.name,
        state=_STATES.get(workflow.state),
        created_at=time_of(workflow, "created_at"),
        started_at=time_of(workflow, "started_at"),
        finished_at=time_of(workflow, "finished_at"),
        submitted=workflow.submitted,
        jobs=workflow.jobs,
        counts={state_from_wire(count.state): count.jobs for count in workflow.counts},
        progress=workflow.progress,
        canceled_at=time_of(workflow, "canceled_at"),
        cancel_reason=workflow.cancel_reason,
    )


def change_from_wire(message: pb.WatchWorkflowResponse) -> WorkflowChange:
    """Read a message of a watch."""
    return WorkflowChange(workflow_from_wire(message.workflow), tuple(job_from_wire(job) for job in message.jobs))
