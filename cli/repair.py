"""``tenure jobs cancel`` and ``tenure jobs retry``: what is done to one job, or to the many that match a filter.

Invariant: nothing is done to many before a person has seen how many, unless ``--yes`` says that nobody is to be asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli.filters import (
    All,
    CreatedAfter,
    CreatedBefore,
    Kind,
    Labels,
    MaybeJobIds,
    Namespace,
    ParentId,
    Preview,
    Route,
    Selection,
    States,
    WorkflowId,
    Yes,
)
from tenure.cli.output import (
    Format,
    Output,
    ago,
    counted,
    jsonable,
    print_data,
    print_table,
    state_text,
    to_stderr,
    to_stdout,
)
from tenure.cli.progress import Bar
from tenure.cli.session import Address, connect
from tenure.model.errors import FieldViolation, InvalidInput, NotFound

if TYPE_CHECKING:
    from tenure.client import Client, Job


def cancel(
    job_ids: MaybeJobIds = None,
    namespace: Namespace = None,
    kind: Kind = None,
    route: Route = None,
    state: States = None,
    label: Labels = None,
    parent: ParentId = None,
    after: CreatedAfter = None,
    before: CreatedBefore = None,
    workflow: WorkflowId = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the story of the jobs.")] = "",
    every: All = False,
    preview: Preview = False,
    yes: Yes = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Cancel jobs: by id, or all that match and have not ended.

    One that executes is asked to stop, and is shown as executing until it has. What can no longer
    run without a canceled job ends with it.
    """
    selection = Selection(namespace, kind, route, state, label, parent, after, before, workflow)
    _refuse_both(job_ids, selection, every=every, preview=preview)
    with connect(coordinator) as client:
        if job_ids:
            jobs = [client.cancel(job_id, reason) for job_id in job_ids]
            if output.is_data:
                print_data(jobs if len(jobs) > 1 else jobs[0], output)
                return
            for job in jobs:
                note = ", asked to stop" if job.cancel_requested and not job.is_terminal else ""
                to_stdout(f"{job.id} {job.state}{note}")
            return
        wanted = selection.keywords()
        total = None
        if not preview and not yes:
            found = client.cancel_many(**wanted, all=every, preview=True)
            total = found.canceled + found.asked
            confirm(f"cancel {counted(total, 'job')}?", total)
        with Bar("jobs", total) as bar:
            done = client.cancel_many(**wanted, all=every, preview=preview, reason=reason, progress=bar.to)
        matching = _found(client, done.ids) if preview else []
    if output.is_data:
        print_data({**jsonable(done), "jobs": [_brief(job) for job in matching]} if preview else done, output)
        return
    _print_many(matching, done.ids, done.canceled + done.asked, preview=preview)
    would, asked = "would be " if preview else "", counted(done.asked, "executing one")
    to_stderr(f"{counted(done.canceled, 'job')} {would}canceled, {asked} {would}asked to stop")
    if done.dependants:
        to_stderr(f"{done.dependants} ended with them: their dependants and children")


def retry(
    job_ids: MaybeJobIds = None,
    namespace: Namespace = None,
    kind: Kind = None,
    route: Route = None,
    state: States = None,
    label: Labels = None,
    parent: ParentId = None,
    after: CreatedAfter = None,
    before: CreatedBefore = None,
    workflow: WorkflowId = None,
    every: All = False,
    preview: Preview = False,
    yes: Yes = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Make another go at failed jobs: by id, or all that match and were not retried (canceled ones with --state).

    A retry is a new job, a copy of what was asked for with a fresh budget of attempts. A job has one.
    """
    selection = Selection(namespace, kind, route, state, label, parent, after, before, workflow)
    _refuse_both(job_ids, selection, every=every, preview=preview)
    with connect(coordinator) as client:
        if job_ids:
            jobs = [client.retry(job_id) for job_id in job_ids]
            if output.is_data:
                print_data(jobs if len(jobs) > 1 else jobs[0], output)
                return
            for job in jobs:
                to_stdout(f"{job.retry_of} retried as {job.id}{'' if job.created else ' (before)'}, {job.state}")
            return
        wanted = selection.keywords()
        total = None
        if not preview and not yes:
            total = client.retry_many(**wanted, all=every, preview=True).retried
            confirm(f"retry {counted(total, 'job')}?", total)
        with Bar("jobs", total) as bar:
            done = client.retry_many(**wanted, all=every, preview=preview, progress=bar.to)
        matching = _found(client, done.ids) if preview else []
    if output.is_data:
        print_data({**jsonable(done), "jobs": [_brief(job) for job in matching]} if preview else done, output)
        return
    _print_many(matching, done.ids, done.retried, preview=preview)
    to_stderr(f"{counted(done.retried, 'job')} {'would be ' if preview else ''}retried")
    if done.skipped:
        why = "retried meanwhile, dependent on a failed job that is not retried, or their unique key is another job's"
        to_stderr(f"{done.skipped} left alone: {why}")


def _refuse_both(job_ids: list[str] | None, selection: Selection, *, every: bool, preview: bool) -> None:
    if job_ids and preview:
        raise InvalidInput(
            [FieldViolation("--preview", "is for options that select jobs, not for ids")],
            hint="tenure jobs get shows a job",
        )
    if job_ids and (selection.selects or every):
        raise InvalidInput(
            [FieldViolation("ID", "give ids, or options that select jobs, not both")], hint="leave one of them out"
        )
    if not job_ids and not selection.selects and not every:
        raise InvalidInput(
            [FieldViolation("ID", "is missing: give ids of jobs, or options that select them")],
            hint="tenure jobs list shows ids; --kind, --route, … or --all select",
        )


def confirm(question: str, count: int) -> None:
    """Ask before something is done to many.

    Raises:
        InvalidInput: nobody can be asked.
        Abort: the answer is no.
    """
    if count and not sys.stdin.isatty():
        raise InvalidInput(
            [FieldViolation("--yes", f"{question} nobody can be asked here")], hint="--preview, or --yes"
        )
    if count:
        typer.confirm(question, abort=True, err=True)


def _print_many(matching: Sequence[Job], ids: Sequence[str], count: int, *, preview: bool) -> None:
    """Print the first of many: in a preview what they are, else their ids for the next command."""
    if preview:
        columns: dict[str, Callable[[Job], object]] = {
            "id": lambda j: j.id,
            "kind": lambda j: j.kind,
            "route": lambda j: j.route,
            "state": lambda j: state_text(j.state),
            "created": lambda j: ago(j.created_at),
        }
        if any(j.finished_at for j in matching):
            columns |= {"finished": lambda j: ago(j.finished_at), "error": _error}
        print_table(list(columns), [[cell(j) for cell in columns.values()] for j in matching], empty="no such jobs")
    else:
        for id in ids:
            to_stdout(id)
    if count > len(ids):
        to_stderr(f"and {count - len(ids)} more")


def _found(client: Client, ids: Sequence[str]) -> list[Job]:
    """Return the jobs that are still there."""
    jobs = []
    for id in ids:
        with suppress(NotFound):
            jobs.append(client.get(id))
    return jobs


def _brief(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "kind": job.kind,
        "route": job.route,
        "state": job.state,
        "error": _error(job),
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }


def _error(job: Job) -> str:
    return f"{job.error.type}: {job.error.message}" if job.error else job.reason
