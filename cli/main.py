"""The root of ``tenure``: its commands, its error reports, its exit codes.

Invariant: an expected error is one line on stderr and its hint, never a traceback, and its exit code is that of
``model.errors``. Imports stay light: each command imports what it needs when it runs, so that ``--help`` is quick
and a worker's forkserver starts before gRPC.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tenure.cli import (
    archive,
    audit,
    claims,
    cluster,
    coordinator,
    db,
    doctor,
    etcd,
    jobs,
    kinds,
    limits,
    namespaces,
    pools,
    retention,
    runner,
    schedules,
    submit,
    tokens,
    top,
    worker,
    workers,
    workflows,
)
from tenure.cli.output import to_stderr
from tenure.model.errors import BoundExceeded, Conflict, InvalidInput, NotFound, TenureError, WrongState
from tenure.model.wording import sentence

EPILOG = """\b
Exit codes:
  0   done; for 'submit --wait' and 'jobs wait': the job completed
  1   failed; for 'submit --wait' and 'jobs wait': the job failed or was canceled
  2   malformed input or usage
  3   not found
  4   conflict with what is there (state, idempotency key)
  5   a bound is reached, try later
  6   a coordinator or a store cannot be reached
  7   not in time
  8   not known here, or not allowed
  78  a setting is missing or unsafe
  130 interrupted
"""


class Root(TyperGroup):
    """The root group; turns errors into reports and exit codes, also where a test runs the app."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a click context (which typer brings, or click itself, by version)."""
        try:
            return super().invoke(ctx)
        except TenureError as exc:
            if ctx.params.get("debug"):
                raise
            report(exc, ctx.invoked_subcommand or "")
            raise typer.Exit(exc.exit_code) from exc
        except typer.BadParameter as exc:
            exc.message = sentence(exc.message)
            raise
        except BrokenPipeError as exc:
            # The reader of our output went away (head, less): nothing left to say, and nobody to say it to.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until exit
            raise typer.Exit(0) from exc


app = typer.Typer(
    name="tenure",
    cls=Root,
    help="A distributed job scheduler: Postgres remembers, etcd decides who, workers do.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("tenure"))
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A distributed job scheduler: Postgres remembers, etcd decides who, workers do."""


app.command(
    "up",
    help="Run everything on this machine: Postgres, etcd, coordinators and workers. Try `tenure up --help`.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(cluster.up)
app.command("coordinator")(coordinator.coordinator)
app.command("worker")(worker.worker)
app.command("runner")(runner.runner)
app.command("submit")(submit.submit)
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedules.app, name="schedules")
app.add_typer(workflows.app, name="workflows")
app.add_typer(pools.app, name="pools")
app.add_typer(kinds.app, name="kinds")
app.add_typer(limits.app, name="limits")
app.add_typer(namespaces.app, name="namespaces")
app.add_typer(retention.app, name="retention")
app.add_typer(archive.app, name="archive")
app.add_typer(audit.app, name="audit")
app.add_typer(workers.app, name="workers")
app.add_typer(claims.app, name="claims")
app.add_typer(tokens.app, name="tokens")
app.command("cluster")(cluster.cluster)
app.command("top")(top.top)
app.add_typer(db.app, name="db")
app.add_typer(etcd.app, name="etcd")
app.command("doctor")(doctor.doctor)
app.command(
    "health",
    help="Ask a process whether it lives, or is ready. Try `tenure health --help`.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(cluster.health)
app.command("version")(cluster.version)


def report(exc: TenureError, command: str = "") -> None:
    """Print an error for a person: a line each problem, and the next step."""
    if isinstance(exc, InvalidInput):
        for violation in exc.violations:
            to_stderr(f"error: {violation.field}: {violation.description}")
    else:
        to_stderr(f"error: {exc.message}")
    to_stderr(f"try: {exc.hint or next_step(exc, command)}")


def next_step(exc: TenureError, command: str) -> str:
    """Return what helps after an error of a command that names no step of its own."""
    match exc:
        case InvalidInput():
            return f"{f'tenure {command}'.strip()} --help says what it takes"
        case NotFound() | WrongState() | Conflict():
            listed = {"jobs": "jobs", "submit": "jobs"}.get(command, command)
            return f"tenure {listed} --help shows how to look at what is there"
        case BoundExceeded():
            return "again later; tenure top shows how full it is"
    return "tenure doctor says what is wrong with the parts"


def run() -> None:
    """Run the command line and exit."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
