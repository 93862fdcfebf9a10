"""``tenure jobs``: look at jobs, wait for them, cancel them, retry them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import artifacts, completing, job_logs, owners, parse, repair, tables
from tenure.cli.filters import (
    CreatedAfter,
    CreatedBefore,
    FinishedAfter,
    FinishedBefore,
    Kind,
    Labels,
    Namespace,
    ParentId,
    Route,
    Selection,
    States,
    WorkflowId,
)
from tenure.cli.output import (
    Format,
    Output,
    ago,
    jsonable,
    print_data,
    print_fields,
    print_record,
    print_table,
    span,
    state_text,
    to_stderr,
    to_stdout,
)
from tenure.cli.progress import Bar
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch
from tenure.cli.why import note_of, note_of_many, telling_why
from tenure.model.dependencies import Trigger
from tenure.model.states import JobState

if TYPE_CHECKING:
    from tenure.client import Attempt, Job

app = typer.Typer(
    help="List, show, explain, wait for, watch, cancel, retry and delete jobs; list attempts; read logs.",
    no_args_is_help=True,
)
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.", autocompletion=completing.jobs)]
JobIds = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of jobs.", autocompletion=completing.jobs)]


class CountBy(StrEnum):
    """What jobs are counted by."""

    DAY = "day"
    NAMESPACE = "namespace"
    KIND = "kind"
    STATE = "state"


@app.command("list")
def list_jobs(
    namespace: Namespace = None,
    kind: Kind = None,
    route: Route = None,
    state: States = None,
    label: Labels = None,
    parent: ParentId = None,
    after: CreatedAfter = None,
    before: CreatedBefore = None,
    workflow: WorkflowId = None,
    finished_after: FinishedAfter = None,
    finished_before: FinishedBefore = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    include_deleted: Annotated[bool, typer.Option("--include-deleted", help="Also those that were deleted.")] = False,
    watch: Watch = False,
    every: Every = EVERY,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List jobs, newest first (without payloads and results)."""
    wanted = Selection(namespace, kind, route, state, label, parent, after, before, workflow).keywords()
    wanted |= {
        "finished_after": parse.instant(finished_after, "--finished-after"),
        "finished_before": parse.instant(finished_before, "--finished-before"),
    }
    with connect(coordinator) as client:

        def note(found: Sequence[Job]) -> str:
            more = [f"the newest {limit}; --limit shows more"] if len(found) == limit else []
            return "\n".join(part for part in (*more, note_of_many(client, found)) if part)

        tables.show(
            lambda: list(client.list(**wanted, limit=limit, include_deleted=include_deleted)),
            _COLUMNS,
            output,
            empty="no such jobs",
            watch=watch,
            every=every,
            note=note,
        )


@app.command("count")
def count(
    namespace: Namespace = None,
    kind: Kind = None,
    state: States = None,
    by: Annotated[
        list[CountBy] | None, typer.Option("--by", help="One number for each day, namespace, kind, state; repeat it.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only from this day (UTC) on, as 2026-11-22.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only before this day.")] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Count jobs that have ended, by whole days of UTC, as of a minute or two ago, with those that were deleted."""
    asked = [str(one) for one in by or ()]
    with connect(coordinator) as client:
        found = client.count(
            namespace=namespace,
            kind=kind,
            states=state or (),
            finished_after=parse.day(since, "--since"),
            finished_before=parse.day(until, "--until"),
            by=asked,
        )
    if output.is_data:
        print_data(found, output)
        return
    columns = [str(one) for one in CountBy if one in asked]
    rows = [[getattr(one, column) for column in columns] + [f"{one.jobs:,}"] for one in found.counts]
    print_table((*columns, "jobs"), rows, empty="no job has ended, or none is counted yet")
    if found.counted_until:
        to_stderr(f"counted until {found.counted_until.astimezone():%Y-%m-%d %H:%M:%S}")


@app.command("get")
def get(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Show one job with its payload, its result, and its story: every attempt, and how it ended."""
    with connect(coordinator) as client:
        job, story = client.get(job_id), client.attempts(job_id)
        note = "" if output.is_data else note_of(client, job)
    if output.is_data:
        print_data({**jsonable(job), "attempts": story}, output)
        return
    show(job, output)
    if story:
        to_stdout("")
        _print_attempts(story)
    if note:
        to_stderr(note)


@app.command("why")
def why(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Say in words why a job does not run: no worker for it, a limit full, paused, waiting on others …"""
    with connect(coordinator) as client:
        found = client.why(job_id)
    if output.is_data:
        print_data(found, output)
        return
    if found.obstacles:
        to_stdout(f"{found.job.id} ({found.job.kind}) is {found.job.state} and does not run:")
        for obstacle in found.obstacles:
            to_stdout(f"  {obstacle.message}")
    else:
        to_stdout(f"{found.job.id} ({found.job.kind}): {found.summary}")


@app.command("wait")
def wait(
    job_ids: JobIds,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Give up after this long (90s, 5m).")] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Wait until jobs have ended, and show them. Exits 0 if all completed, 1 if one did not, 7 if not in time."""
    with connect(coordinator) as client, telling_why(client, job_ids), Bar("jobs", len(job_ids)) as bar:
        ended = client.wait_many(job_ids, parse.duration_s(timeout, "--timeout"), on_ended=lambda _: bar.advance())
    if output.is_data and len(ended) > 1:
        print_data(ended, output)
    else:
        for job in ended:
            show(job, output)
    if any(job.state is not JobState.COMPLETED for job in ended):
        raise typer.Exit(1)


@app.command("watch")
def watch(job_ids: JobIds, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Follow jobs until they have ended: a line for each change (with json: one object a line)."""
    with connect(coordinator) as client, telling_why(client, job_ids):
        for job in client.watch(job_ids[0]) if len(job_ids) == 1 else client.watch_many(job_ids):
            if output.is_data:
                print_record(job, output)
            else:
                _print_change(job, with_id=len(job_ids) > 1)


@app.command("delete")
def delete(job_ids: JobIds, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Hide jobs that have ended from listings; they can still be read by their ids."""
    with connect(coordinator) as client:
        gone = [client.delete(job_id) for job_id in job_ids]
    if output.is_data:
        print_data(gone, output)
        return
    for job in gone:
        to_stdout(f"{job.id} is deleted; tenure jobs list --include-deleted shows it")


@app.command("attempts")
def attempts(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the attempts at a job: who tried when, under which fence, and how it ended."""
    with connect(coordinator) as client:
        found = client.attempts(job_id)
    if output.is_data:
        print_data(found, output)
        return
    _print_attempts(found)


app.command("owners")(owners.owners)
app.command("artifacts")(artifacts.artifacts)
app.command("download")(artifacts.download)
app.command("cancel")(repair.cancel)
app.command("retry")(repair.retry)
app.command("logs")(job_logs.logs)


def show(job: Job, output: Format) -> None:
    """Print one job."""
    if output.is_data:
        print_data(job, output)
        return
    print_fields(
        (
            ("id", job.id),
            ("state", _state(job)),
            ("reason", job.reason),
            ("kind", job.kind),
            ("namespace", job.namespace),
            ("route", job.route),
            ("priority", f"{job.priority} (raised by ageing)" if job.aged else job.priority or None),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
            ("limits", ", ".join(job.limits)),
            ("requires", ", ".join(f"{key}={value}" for key, value in sorted(job.requires.items()))),
            ("attempt", _attempts(job)),
            ("worker", _worker(job)),
            ("fence", job.fence or None),
            (
                "progress",
                f"{job.progress:.0%} {job.progress_message}".strip() if job.progress else job.progress_message,
            ),
            ("created", _when(job.created_at)),
            ("not before", _when(job.activate_at) if job.activate_at and not job.started_at else None),
            ("start by", _when(job.start_by) if not job.attempt else None),
            ("end by", _when(job.deadline) if not job.is_terminal else None),
            ("started", _when(job.started_at)),
            ("finished", _when(job.finished_at)),
            ("took", _took(job)),
            ("key", None if job.idempotency_key.startswith("auto-") else job.idempotency_key),
            ("unique", job.unique_key),
            ("replaced by", job.replaced_by),
            ("deleted", _when(job.deleted_at)),
            ("archived", _when(job.archived_at)),
            ("parent", job.parent_id),
            ("workflow", job.workflow_id),
            ("ref", job.ref),
            ("schedule", job.schedule_id),
            ("tick", _when(job.scheduled_at)),
            ("depends on", "\n".join(job.depends_on)),
            ("trigger", job.trigger if job.trigger is not Trigger.ALL_COMPLETED else None),
            ("retry of", job.retry_of),
            ("retried by", job.retried_by),
            ("payload", _json(job.payload)),
            ("result", artifacts.result_note(job) or _json(job.result)),
            ("error", f"{job.error.type}: {job.error.message}" if job.error else None),
        )
    )


def _print_attempts(found: Sequence[Attempt]) -> None:
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


def _print_change(job: Job, *, with_id: bool) -> None:
    progress = f"  {job.progress:.0%} {job.progress_message}" if job.progress or job.progress_message else ""
    note = f"  {job.reason}" if job.reason else ""
    worker = f"  on {_worker(job)}" if _worker(job) else ""
    whose = f"{job.id}  " if with_id else ""
    to_stdout(f"{datetime.now():%H:%M:%S}  {whose}{_state(job)}  attempt {job.attempt}{worker}{progress}{note}")


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


def _why(job: Job) -> str:
    told = [job.reason, f"{job.error.type}: {job.error.message}" if job.error else ""]
    return "; ".join(part for part in told if part)


def _when(at: Any) -> str | None:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago(at)})" if at else None


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)


_COLUMNS: list[Column[Job]] = [
    Column("id", lambda j: j.id, rank=0, is_whole=True),
    Column("namespace", lambda j: j.namespace, is_wide=True),
    Column("kind", lambda j: j.kind, rank=1),
    Column("route", lambda j: j.route, rank=5),
    Column("state", _state, rank=0, is_whole=True),
    Column("attempt", lambda j: j.attempt, rank=4, is_whole=True),
    Column("priority", lambda j: j.priority, rank=7, is_whole=True),
    Column("created", lambda j: ago(j.created_at), rank=2, is_whole=True),
    Column("took", _took, rank=5, is_whole=True),
    Column("worker", _worker, rank=6),
    Column("fence", lambda j: j.fence or "", is_wide=True),
    Column("labels", lambda j: ",".join(f"{key}={value}" for key, value in sorted(j.labels.items())), is_wide=True),
    Column("why", _why, rank=3),
]
