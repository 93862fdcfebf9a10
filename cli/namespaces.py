"""``tenure namespaces``: what is set per namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, print_data, print_table, span
from tenure.cli.session import Address, connect

if TYPE_CHECKING:
    from tenure.client import Namespace

app = typer.Typer(help="What is set per namespace.", no_args_is_help=True)


@app.command("list")
def list_namespaces(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the namespaces for which anything was set."""
    with connect(coordinator) as client:
        found = client.namespaces()
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("namespace", "weight", "ageing", "backlog", "submits"),
        [(one.name, f"{one.weight:g}", _ageing(one), _backlog(one), _submits(one)) for one in found],
        empty="nothing is set: every namespace has weight 1",
    )


@app.command("update")
def update(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The namespace.")],
    weight: Annotated[
        float | None, typer.Option("--weight", help="Its share against others at equal priority.", show_default="kept")
    ] = None,
    ageing: Annotated[
        str | None,
        typer.Option(
            "--ageing",
            help="A job that has been ready for longer goes with those of the highest priority; 0: none does.",
            show_default="kept",
        ),
    ] = None,
    backlog: Annotated[
        int | None,
        typer.Option("--backlog", help="The most unfinished jobs; 0: any number.", show_default="kept"),
    ] = None,
    submit_rate: Annotated[
        float | None,
        typer.Option("--submit-rate", help="New jobs per second; 0: any number.", show_default="kept"),
    ] = None,
    submit_burst: Annotated[
        int | None,
        typer.Option("--submit-burst", help="The most new jobs at once; 0: what a second brings.", show_default="kept"),
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Set what is given of a namespace's settings."""
    with connect(coordinator) as client:
        found = client.update_namespace(
            name,
            weight=weight,
            ageing_s=parse.duration_s(ageing, "--ageing"),
            backlog=backlog,
            submit_rate=submit_rate,
            submit_burst=submit_burst,
        )
    if output.is_data:
        print_data(found, output)
        return
    settings = f"weight {found.weight:g}, ageing {_ageing(found)}, backlog {_backlog(found)}, submits {_submits(found)}"
    typer.echo(f"{found.name}: {settings}")


def _ageing(namespace: Namespace) -> str:
    return span(namespace.ageing_s) if namespace.ageing_s else "off"


def _backlog(namespace: Namespace) -> str:
    if namespace.backlog is None:
        return "any"
    return f"{namespace.unfinished or 0:,} of {namespace.backlog:,}"


def _submits(namespace: Namespace) -> str:
    if namespace.submit_rate is None:
        return "any"
    burst = f", {namespace.submit_burst:,} at once" if namespace.submit_burst is not None else ""
    return f"{namespace.submit_rate:,g}/s{burst}"
