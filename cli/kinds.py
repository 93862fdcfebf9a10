"""``tenure kinds``: what jobs of a kind get where their submitter asked for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, print_data, print_done, print_table, span
from tenure.cli.session import Address, connect
from tenure.model.errors import NotFound
from tenure.model.retry import Backoff

if TYPE_CHECKING:
    from tenure.client import Client, KindSettings

app = typer.Typer(help="What jobs of a kind get where they ask for nothing.", no_args_is_help=True)
Kind = Annotated[str, typer.Argument(metavar="KIND", help="The kind.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="For jobs of this namespace.", show_default="all namespaces")
]


@app.command("set")
def set_(
    kind: Kind,
    namespace: Namespace = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher runs first, -1000 to 1000.")] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", help="How soon a job restarts if its worker dies.")] = None,
    attempt_timeout: Annotated[
        str | None, typer.Option("--attempt-timeout", help="The most that one attempt may take.")
    ] = None,
    start_within: Annotated[
        str | None, typer.Option("--start-within", help="Fail if it has not started so long after it could.")
    ] = None,
    job_timeout: Annotated[
        str | None, typer.Option("--job-timeout", help="The most that all attempts may take together.")
    ] = None,
    max_crashes: Annotated[
        int | None, typer.Option("--max-crashes", help="Lost attempts after which a job fails.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", help="Attempts that may end in an error.")
    ] = None,
    backoff: Annotated[Backoff | None, typer.Option("--backoff", help="How the pauses between attempts grow.")] = None,
    initial_backoff: Annotated[str | None, typer.Option("--initial-backoff", help="The first pause.")] = None,
    multiplier: Annotated[
        float | None, typer.Option("--multiplier", help="By how much an exponential pause grows each time.")
    ] = None,
    max_backoff: Annotated[str | None, typer.Option("--max-backoff", help="The longest pause.")] = None,
    jitter: Annotated[
        float | None, typer.Option("--jitter", help="Share of a pause by which it may vary, 0 to 1.")
    ] = None,
    non_retryable: Annotated[
        list[str] | None, typer.Option("--non-retryable", help="An error type that fails a job at once; repeat it.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="A limit added to the job's own, such as `scan:{namespace}`; repeat it."),
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Set what is given of a kind's settings and keep the rest. They hold for jobs submitted from then on.

    --limit and --non-retryable stand for the whole list. To unset something delete the kind's settings.
    """
    retry = {
        "max_attempts": max_attempts,
        "backoff": backoff,
        "initial_backoff_s": parse.duration_s(initial_backoff, "--initial-backoff"),
        "multiplier": multiplier,
        "max_backoff_s": parse.duration_s(max_backoff, "--max-backoff"),
        "jitter": jitter,
        "non_retryable": non_retryable,
    }
    settings = {
        "priority": priority,
        "ttl_s": parse.duration_s(ttl, "--ttl"),
        "timeout_s": parse.duration_s(attempt_timeout, "--attempt-timeout"),
        "start_within_s": parse.duration_s(start_within, "--start-within"),
        "job_timeout_s": parse.duration_s(job_timeout, "--job-timeout"),
        "max_crashes": max_crashes,
        "limits": limit,
    }
    with connect(coordinator) as client:
        found = client.put_kind(_changed(_known(client, kind, namespace), settings, retry))
    _show([found], output)


def _known(client: Client, kind: str, namespace: str | None) -> KindSettings:
    from tenure.client import KindSettings

    try:
        return client.kind(kind, namespace=namespace)
    except NotFound:
        return KindSettings(kind=kind, namespace=namespace)


def _changed(known: KindSettings, settings: dict[str, Any], retry: dict[str, Any]) -> KindSettings:
    """Return settings with what is given; what is None or empty stays as known."""
    from tenure.client import Retry

    if policy := _given(retry):
        settings = {**settings, "retry": replace(known.retry or Retry(), **policy)}
    return replace(known, **_given(settings))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [])}


@app.command("get")
def get(kind: Kind, namespace: Namespace = None, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Show the settings of a kind as they were put, for a namespace or for all."""
    with connect(coordinator) as client:
        found = client.kind(kind, namespace=namespace)
    if output.is_data:
        print_data(found, output)
        return
    _show([found], output)


@app.command("list")
def list_kinds(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the kinds for which anything was set."""
    with connect(coordinator) as client:
        found = client.kinds()
    _show(found, output)


@app.command("delete")
def delete(kind: Kind, namespace: Namespace = None, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Forget the settings of a kind, for a namespace or those for all."""
    with connect(coordinator) as client:
        deleted = client.delete_kind(kind, namespace=namespace)
    print_done(f"{kind} {'deleted' if deleted else 'was not set'}", output, kind=kind, deleted=deleted)
    if not deleted:
        raise typer.Exit(3)


def _show(kinds: list[KindSettings], output: Format) -> None:
    if output.is_data:
        print_data(kinds, output)
        return
    print_table(
        ("kind", "namespace", "settings"),
        [(one.kind, one.namespace or "(all)", _words(one)) for one in kinds],
        empty="nothing is set: `tenure kinds set KIND --ttl 30s`",
    )


def _words(one: KindSettings) -> str:
    """Say what is set, by the options that set it."""
    given: dict[str, object] = {"priority": one.priority, "max-crashes": one.max_crashes}
    spans = {
        "ttl": one.ttl_s,
        "attempt-timeout": one.timeout_s,
        "start-within": one.start_within_s,
        "job-timeout": one.job_timeout_s,
    }
    if one.retry is not None:
        given |= {"max-attempts": one.retry.max_attempts, "backoff": one.retry.backoff}
        spans |= {"initial-backoff": one.retry.initial_backoff_s, "max-backoff": one.retry.max_backoff_s}
        given |= {"multiplier": one.retry.multiplier, "jitter": one.retry.jitter}
        given["non-retryable"] = ",".join(one.retry.non_retryable) or None
    given |= {name: None if value is None else span(value) for name, value in spans.items()}
    given["limits"] = ",".join(one.limits) or None
    return "  ".join(f"{name} {value}" for name, value in given.items() if value is not None)
