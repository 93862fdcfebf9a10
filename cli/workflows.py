"""``tenure workflows``: batches as a whole: list them, watch them, draw them, cancel them.

A workflow is named by its id, or by its name: then the newest of that name is meant.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import parse
from tenure.cli.filters import Preview, Yes
from tenure.cli.output import (
    Format,
    Output,
    ago,
    counted,
    line,
    print_fields,
    print_json,
    print_spans,
    print_table,
    span,
    state_text,
    to_stderr,
    to_stdout,
)
from tenure.cli.repair import confirm
from tenure.cli.session import Address, connect
from tenure.model.errors import FieldViolation, InvalidInput, NotFound
from tenure.model.states import JobState
from tenure.model.workflows import WorkflowState

if TYPE_CHECKING:
    from tenure.client import Client, Workflow, WorkflowChange

app = typer.Typer(help="List, show, watch, draw and cancel workflows: batches as a whole.", no_args_is_help=True)
WorkflowArgument = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Its id, or its name: then the newest of that name.")
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")]
ORDER = ("completed", "executing", "restarting", "ready", "waiting", "failed", "canceled")
"""How counts by state are listed."""


class Picture(StrEnum):
    """What to draw."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


@app.command("list")
def list_workflows(
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option("--name", help="Only of this name.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List workflows, newest first."""
    with connect(coordinator) as client:
        found = list(client.list_workflows(namespace=namespace, name=name, limit=limit))
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        ("id", "name", "namespace", "state", "jobs", "done", "created", "took"),
        [
            (w.id, w.name, w.namespace, _state(w), _counts(w.counts), f"{w.progress:.0%}", ago(w.created_at), _took(w))
            for w in found
        ],
        empty="no such workflows",
    )
    if len(found) == limit:
        to_stderr(f"the newest {limit}; --limit shows more")


@app.command("get")
def get(
    workflow: WorkflowArgument,
    namespace: Namespace = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Show one workflow: its state, and how many of its jobs are in which."""
    with connect(coordinator) as client:
        found = client.get_workflow(_find(client, workflow, namespace))
    if output is Format.JSON:
        print_json(found)
        return
    print_fields(
        (
            ("id", found.id),
            ("name", found.name),
            ("namespace", found.namespace),
            ("state", _state(found)),
            ("canceled", f"{ago(found.canceled_at)} {found.cancel_reason}".strip() if found.canceled_at else None),
            ("jobs", _counts(found.counts)),
            ("submitted", found.submitted if found.submitted != found.jobs else None),
            ("done", f"{found.progress:.0%}"),
            ("created", ago(found.created_at)),
            ("started", ago(found.started_at)),
            ("finished", ago(found.finished_at)),
            ("took", _took(found)),
        )
    )


@app.command("watch")
def watch(
    workflow: WorkflowArgument,
    namespace: Namespace = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Follow a workflow until all its jobs have ended: a live picture on a terminal, else lines for each change.

    Exits 0 if all completed, 1 if not.
    """
    with connect(coordinator) as client:
        changes = client.watch_workflow(_find(client, workflow, namespace))
        last: Workflow | None = None
        if output is Format.TABLE and sys.stdout.isatty():
            from tenure.cli.live import follow

            last = follow(changes)
        else:
            for change in changes:
                last = change.workflow
                if output is Format.JSON:
                    print_json(change, compact=True)
                else:
                    _print_change(change)
    if last is None or last.state is not WorkflowState.COMPLETED:
        raise typer.Exit(1)


@app.command("draw")
def draw(
    workflow: WorkflowArgument,
    namespace: Namespace = None,
    picture: Annotated[Picture, typer.Option("--format", "-f", help="What to draw.")] = Picture.TEXT,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every job, however many (else, of more than 200, groups).")
    ] = False,
    coordinator: Address = None,
) -> None:
    """Draw a workflow: its jobs in layers, each after those that it waits for, with their states."""
    from tenure.client import drawing

    with connect(coordinator) as client:
        jobs = list(client.workflow_jobs(_find(client, workflow, namespace)))
    most = None if full else drawing.MAX_NODES
    if file is not None:
        try:
            file.write_text(drawing.draw(jobs, picture, max_nodes=most), encoding="utf-8")
        except OSError as exc:
            raise InvalidInput([FieldViolation("--output", f"cannot write {file}: {exc.strerror}")]) from exc
        to_stderr(f"written to {file}")
    elif picture is Picture.TEXT:
        print_spans(drawing.text_lines(drawing.picture_of(jobs, max_nodes=most)))
    else:
        sys.stdout.write(drawing.draw(jobs, picture, max_nodes=most))


@app.command("cancel")
def cancel(
    workflow: WorkflowArgument,
    namespace: Namespace = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the story of the jobs.")] = "",
    grace: Annotated[
        str | None,
        typer.Option("--grace", help="How long workers have to stop executing jobs.", show_default="30s"),
    ] = None,
    preview: Preview = False,
    yes: Yes = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Cancel all jobs of a workflow that have not ended; executing ones are asked to stop."""
    grace_s = parse.duration_s(grace, "--grace")
    with connect(coordinator) as client:
        workflow_id = _find(client, workflow, namespace)
        if not preview and not yes:
            found = client.cancel_workflow(workflow_id, preview=True)
            confirm(f"cancel {counted(found.canceled + found.asked, 'job')}?", found.canceled + found.asked)
        done = client.cancel_workflow(workflow_id, reason, grace_s=grace_s, preview=preview)
    if output is Format.JSON:
        print_json(done)
        return
    would = "would be " if preview else ""
    to_stdout(f"{workflow_id}")
    asked = counted(done.asked, "executing one")
    to_stderr(f"{counted(done.canceled, 'job')} {would}canceled, {asked} {would}asked to stop")
    if done.dependants:
        to_stderr(f"{done.dependants} ended with them: their dependants and children")


def _find(client: Client, text: str, namespace: str | None) -> str:
    """Return the id of a workflow that was named by its id or its name."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        pass
    newest = next(iter(client.list_workflows(namespace=namespace, name=text, limit=1)), None)
    if newest is None:
        raise NotFound(f"no workflow is named {text!r}", hint="tenure workflows list")
    return newest.id


def _print_change(change: WorkflowChange) -> None:
    workflow = change.workflow
    for job in change.jobs:
        name = job.ref or f"…{job.id[-8:]}"
        note = f"  {job.reason}" if job.reason else ""
        to_stdout(f"  {line(name)}  {job.kind}  {job.state}{note}")
    to_stdout(f"{workflow.state or 'unknown'}  {workflow.progress:.0%}  {_counts(workflow.counts)}")


def _counts(counts: Mapping[JobState, int]) -> str:
    told = [f"{counts[JobState(state)]} {state}" for state in ORDER if counts.get(JobState(state))]
    return ", ".join(told)


def _state(workflow: Workflow) -> Any:
    stopping = " (stopping)" if workflow.canceled_at and not workflow.is_over else ""
    return state_text(f"{workflow.state or 'unknown'}{stopping}")


def _took(workflow: Workflow) -> str:
    if workflow.started_at and workflow.finished_at:
        return span((workflow.finished_at - workflow.started_at).total_seconds())
    return ""
