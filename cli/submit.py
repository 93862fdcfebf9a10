"""``tenure submit``: one job, and its end if asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from tenure.cli import completing, parse
from tenure.cli.jobs import show
from tenure.cli.output import Format, Output, to_stderr
from tenure.cli.session import Address, connect
from tenure.cli.submit_lines import submit_lines
from tenure.cli.why import telling_why
from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.retry import Backoff
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.states import JobState
from tenure.model.unique import OnDuplicate

FOR_LINES = {"source", "kind", "key", "coordinator", "output"}
"""The parameters that --from reads."""


def submit(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="The name that selects a handler.", show_default=False, autocompletion=completing.kinds
        ),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="The payload: JSON, @FILE, or - for stdin.", show_default="null"),
    ] = None,
    route: Annotated[
        str, typer.Option("--pool", "--route", "-p", help="Where it should run: a pool, or a path below it.")
    ] = DEFAULT_ROUTE,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The organisation it belongs to.")] = (
        DEFAULT_NAMESPACE
    ),
    priority: Annotated[
        int | None, typer.Option("--priority", help="Higher runs first, -1000 to 1000.", show_default="0")
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", help="Not before this long from now (90s, 5m, 1h30m).")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="Not before this ISO 8601 time.")] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", help="How soon it restarts elsewhere if its worker dies.", show_default="10s")
    ] = None,
    attempt_timeout: Annotated[
        str | None, typer.Option("--attempt-timeout", help="The most that one attempt may take.")
    ] = None,
    start_within: Annotated[
        str | None, typer.Option("--start-within", help="Fail if it has not started so long after it could.")
    ] = None,
    start_by: Annotated[str | None, typer.Option("--start-by", help="Fail if it has not started by this time.")] = None,
    job_timeout: Annotated[
        str | None, typer.Option("--job-timeout", help="The most that all attempts may take together.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE; repeat it.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="Name of a limit under which it runs; repeat it.")
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option("--require", help="KEY=VALUE that its worker must have; repeat it.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same again answers with the first job.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", help="Attempts that may end in an error.", show_default="3")
    ] = None,
    backoff: Annotated[
        Backoff | None,
        typer.Option("--backoff", help="How the pauses between attempts grow.", show_default="exponential"),
    ] = None,
    initial_backoff: Annotated[
        str | None, typer.Option("--initial-backoff", help="The first pause.", show_default="1s")
    ] = None,
    max_backoff: Annotated[
        str | None, typer.Option("--max-backoff", help="The longest pause.", show_default="5m")
    ] = None,
    key_ttl: Annotated[
        str | None, typer.Option("--key-ttl", help="How long the idempotency key is remembered.", show_default="7d")
    ] = None,
    unique: Annotated[
        str | None, typer.Option("--unique", help="Unique key: at most one unfinished job of this kind has it.")
    ] = None,
    on_duplicate: Annotated[
        OnDuplicate | None,
        typer.Option("--on-duplicate", help="With --unique: what to do if a job has it.", show_default="refuse"),
    ] = None,
    depends_on: Annotated[
        list[str] | None, typer.Option("--depends-on", help="Id of a job that it waits for; repeat it.")
    ] = None,
    trigger: Annotated[
        Trigger, typer.Option("--trigger", help="What must have become of the jobs that it depends on.")
    ] = Trigger.ALL_COMPLETED,
    upstream_failure: Annotated[
        UpstreamFailure, typer.Option("--upstream-failure", help="How it ends when that can no longer be.")
    ] = UpstreamFailure.CANCEL,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Submit many: a file, or - for stdin, with a job as a JSON object on each line."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end and print it.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="With --wait: stop waiting after this long; the job goes on.")
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Submit one job and print it. With --wait exits 0 if it completed, 1 if not, 7 if not in time.

    With --from FILE submit many: a line is a job's fields (kind, payload, route, delay_s, ...); KIND is for lines
    without one, and --key makes the key of each line KEY:LINE, so that the same file can be sent again. Exits 1 if some
    are refused.
    """
    if source is not None:
        _refuse_what_is_for_one_job(ctx)
        submit_lines(source, kind=kind, key=key, coordinator=coordinator, output=output)
        return
    if kind is None:
        raise InvalidInput([FieldViolation("KIND", "is missing")], hint="tenure submit KIND, or --from FILE")
    if timeout is not None and not wait:
        raise InvalidInput(
            [FieldViolation("--timeout", "is for --wait")], hint="--attempt-timeout bounds the job's attempts"
        )
    value = parse.payload(payload)
    wait_s = parse.duration_s(timeout, "--timeout")
    from tenure.client import Retry

    with connect(coordinator) as client:
        job = client.submit(
            kind,
            value,
            namespace=namespace,
            route=route,
            priority=priority,
            activate_at=parse.instant(at, "--at"),
            delay_s=parse.duration_s(delay, "--delay"),
            retry=Retry(
                max_attempts=max_attempts,
                backoff=backoff,
                initial_backoff_s=parse.duration_s(initial_backoff, "--initial-backoff"),
                max_backoff_s=parse.duration_s(max_backoff, "--max-backoff"),
            ),
            ttl_s=parse.duration_s(ttl, "--ttl"),
            timeout_s=parse.duration_s(attempt_timeout, "--attempt-timeout"),
            start_within_s=parse.duration_s(start_within, "--start-within"),
            start_by=parse.instant(start_by, "--start-by"),
            job_timeout_s=parse.duration_s(job_timeout, "--job-timeout"),
            idempotency_key=key,
            labels=parse.labels(label or ()),
            limits=limit or (),
            requires=parse.labels(require or (), "--require"),
            depends_on=depends_on or (),
            trigger=trigger,
            upstream_failure=upstream_failure,
            unique_key=unique,
            on_duplicate=on_duplicate,
            idempotency_ttl_s=parse.duration_s(key_ttl, "--key-ttl"),
        )
        if job.created is False:
            met = key if key is not None and job.idempotency_key == key else unique
            to_stderr(f"note: the key {met!r} answered with an earlier job")
        if wait:
            with telling_why(client, [job.id]):
                job = replace(client.wait(job.id, wait_s), created=job.created)
    show(job, output)
    if wait and job.state is not JobState.COMPLETED:
        raise typer.Exit(1)


def _refuse_what_is_for_one_job(ctx: typer.Context) -> None:
    """Refuse, by their names, the options and arguments that --from does not read."""
    given = [
        FieldViolation(str(one.metavar or one.opts[0]), "is for one job, not for --from")
        for one in ctx.command.params
        if one.name and one.name not in FOR_LINES and _is_given(ctx, one.name)
    ]
    if given:
        raise InvalidInput(given, hint="a line says it for its job, as a field: route, priority, ttl_s, ...")


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
