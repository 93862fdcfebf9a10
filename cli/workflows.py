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

from tenure.cli import completing, parse
from tenure.cli.filters import Preview, Yes
from tenure.cli.output import (
    Format,
    Output,
    ago,
    counted,
    line,
    print_data,
    print_fields,
    print_record,
    print_spans,
    span,
    state_text,
    to_stderr,
    to_stdout,
)
from tenure.cli.repair import confirm
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show
from tenure.model.errors import FieldViolation, InvalidInput, NotFound
from tenure.model.states import JobState
from tenure.model.workflows import WorkflowState

if TYPE_CHECKING:
    from tenure.client import Client, Workflow, WorkflowChange

app = typer.Typer(help="List, show, watch, draw and cancel workflows: batches as a whole.", no_args_is_help=True)
WorkflowArgument = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        help="Its id, or its name: then the newest of that name.",
        autocompletion=completing.workflows,
    ),
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
    watch: Watch = False,
    every: Every = EVERY,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List workflows, newest first."""
    columns: list[Column[Workflow]] = [
        Column("id", lambda w: w.id, rank=0, is_whole=True),
        Column("name", lambda w: w.name, rank=1),
        Column("namespace", lambda w: w.namespace, rank=5),
        Column("state", _state, rank=0, is_whole=True),
        Column("jobs", lambda w: _counts(w.counts), rank=3),
        Column("done", lambda w: f"{w.progress:.0%}", rank=1, is_whole=True),
        Column("created", lambda w: ago(w.created_at), rank=2, is_whole=True),
        Column("took", _took, rank=4, is_whole=True),
    ]
    with connect(coordinator) as client:
        show(
            lambda: list(client.list_workflows(namespace=namespace, name=name, limit=limit)),
            columns,
            output,
            empty="no such workflows",
            watch=watch,
            every=every,
            note=lambda found: f"the newest {limit}; --limit shows more" if len(found) == limit else "",
        )


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
    if output.is_data:
        print_data(found, output)
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
        if not output.is_data and sys.stdout.isatty():
            from tenure.cli.live import follow

            last = follow(changes)
        else:
            for change in changes:
                last = change.workflow
                if output.is_data:
                    print_record(change, output)
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
    if output.is_data:
        print_data(done, output)
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
