"""``tenure jobs``: look at jobs, wait for them, cancel them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import parse
from tenure.cli.output import (
    Format,
    Output,
    ago,
    print_fields,
    print_json,
    print_table,
    span,
    state_text,
    to_stderr,
    to_stdout,
)
from tenure.cli.session import Address, connect
from tenure.model.states import JobState

if TYPE_CHECKING:
    from tenure.client import Job

app = typer.Typer(help="List, show, wait for, watch and cancel jobs.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")]


@app.command("list")
def list_jobs(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Only of this kind.")] = None,
    route: Annotated[
        str | None, typer.Option("--route", "--pool", help="Only under this route, by whole segments.")
    ] = None,
    state: Annotated[
        list[JobState] | None, typer.Option("--state", "-s", help="Only in this state; repeat it.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="Only with KEY=VALUE; repeat it.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", help="Only children of this job.")] = None,
    after: Annotated[str | None, typer.Option("--created-after", help="Only younger than this ISO 8601 time.")] = None,
    before: Annotated[str | None, typer.Option("--created-before", help="Only older than this time.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List jobs, newest first (without payloads and results)."""
    with connect(coordinator) as client:
        found = list(
            client.list(
                namespace=namespace,
                kind=kind,
                route_prefix=route,
                states=state or (),
                labels=parse.labels(label or ()),
                parent_id=parent,
                created_after=parse.instant(after, "--created-after"),
                created_before=parse.instant(before, "--created-before"),
                limit=limit,
            )
        )
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        ("id", "kind", "route", "state", "attempt", "priority", "created", "took", "worker"),
        [
            (j.id, j.kind, j.route, _state(j), j.attempt, j.priority, ago(j.created_at), _took(j), _worker(j))
            for j in found
        ],
        empty="no such jobs",
    )
    if len(found) == limit:
        to_stderr(f"the newest {limit}; --limit shows more")


@app.command("get")
def get(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Show one job with its payload and result."""
    with connect(coordinator) as client:
        show(client.get(job_id), output)


@app.command("wait")
def wait(
    job_ids: JobIds,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Give up after this long (90s, 5m).")] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Wait until jobs have ended, and show them. Exits 0 if all completed, 1 if one did not, 7 if not in time."""
    with connect(coordinator) as client:
        ended = client.wait_many(job_ids, parse.duration_s(timeout, "--timeout"))
    if output is Format.JSON and len(ended) > 1:
        print_json(ended)
    else:
        for job in ended:
            show(job, output)
    if any(job.state is not JobState.COMPLETED for job in ended):
        raise typer.Exit(1)


@app.command("watch")
def watch(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Follow a job until it has ended: a line for each change (with json: one object a line)."""
    with connect(coordinator) as client:
        for job in client.watch(job_id):
            if output is Format.JSON:
                print_json(job, compact=True)
            else:
                _print_change(job)


@app.command("cancel")
def cancel(
    job_ids: JobIds,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the job's story.")] = "",
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Cancel jobs. One that executes is asked to stop, and is shown as executing until it has."""
    with connect(coordinator) as client:
        jobs = [client.cancel(job_id, reason) for job_id in job_ids]
    if output is Format.JSON:
        print_json(jobs if len(jobs) > 1 else jobs[0])
        return
    for job in jobs:
        note = ", asked to stop" if job.cancel_requested and not job.is_terminal else ""
        typer.echo(f"{job.id} {job.state}{note}")


@app.command("attempts")
def attempts(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the attempts at a job: who tried when, under which fence, and how it ended."""
    with connect(coordinator) as client:
        found = client.attempts(job_id)
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        ("attempt", "fence", "worker", "outcome", "started", "took", "error"),
        [
            (
                a.attempt,
                a.fence,
                a.worker,
                state_text(a.outcome or "executing"),
                ago(a.started_at),
                span((a.finished_at - a.started_at).total_seconds()) if a.finished_at and a.started_at else "",
                f"{a.error.type}: {a.error.message}" if a.error else "",
            )
            for a in found
        ],
        empty="no attempt was started yet",
    )


def show(job: Job, output: Format) -> None:
    """Print one job."""
    if output is Format.JSON:
        print_json(job)
        return
    print_fields(
        (
            ("id", job.id),
            ("state", _state(job)),
            ("reason", job.reason),
            ("kind", job.kind),
            ("namespace", job.namespace),
            ("route", job.route),
            ("priority", job.priority or None),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
            ("attempt", _attempts(job)),
            ("worker", _worker(job)),
            ("fence", job.fence or None),
            (
                "progress",
                f"{job.progress:.0%} {job.progress_message}".strip() if job.progress else job.progress_message,
            ),
            ("created", _when(job.created_at)),
            ("not before", _when(job.activate_at) if job.activate_at and not job.started_at else None),
            ("started", _when(job.started_at)),
            ("finished", _when(job.finished_at)),
            ("took", _took(job)),
            ("key", None if job.idempotency_key.startswith("auto-") else job.idempotency_key),
            ("parent", job.parent_id),
            ("schedule", job.schedule_id),
            ("tick", _when(job.scheduled_at)),
            ("depends on", "\n".join(job.depends_on)),
            ("payload", _json(job.payload)),
            ("result", _json(job.result)),
            ("error", f"{job.error.type}: {job.error.message}" if job.error else None),
        )
    )


def _print_change(job: Job) -> None:
    progress = f"  {job.progress:.0%} {job.progress_message}" if job.progress or job.progress_message else ""
    note = f"  {job.reason}" if job.reason else ""
    worker = f"  on {_worker(job)}" if _worker(job) else ""
    to_stdout(f"{datetime.now():%H:%M:%S}  {_state(job)}  attempt {job.attempt}{worker}{progress}{note}")


def _state(job: Job) -> Any:
    if job.is_pending:
        return state_text("pending")
    return state_text(f"{job.state}{' (stopping)' if job.cancel_requested and not job.is_terminal else ''}")


def _attempts(job: Job) -> str:
    told = [f"{job.errors} failed"] if job.errors else []
    told += [f"{job.crashes} lost"] if job.crashes else []
    return f"{job.attempt} ({', '.join(told)})" if told else str(job.attempt)


def _worker(job: Job) -> str:
    return job.claim.worker if job.claim else ""


def _took(job: Job) -> str:
    if job.started_at and job.finished_at:
        return span((job.finished_at - job.started_at).total_seconds())
    return ""


def _when(at: Any) -> str | None:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago(at)})" if at else None


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)
