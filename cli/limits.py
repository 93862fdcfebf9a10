"""``tenure limits``: how many jobs that carry a name may run at a time, and how many may start per interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import completing, parse
from tenure.cli.output import Format, Output, print_data, print_done, print_table, span
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show

if TYPE_CHECKING:
    from tenure.client import Limit

app = typer.Typer(help="Limits on jobs that carry a name: at a time, and per interval.", no_args_is_help=True)
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="As jobs carry it; `scan:*` is a family of limits.", autocompletion=completing.limits
    ),
]


@app.command("put")
def put(
    name: Name,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", "-c", help="Jobs that may execute at a time; 0: none starts.")
    ] = None,
    rate: Annotated[int | None, typer.Option("--rate", "-r", help="Starts per interval; 0: none starts.")] = None,
    per: Annotated[str | None, typer.Option("--per", help="The interval of the rate.", show_default="1s")] = None,
    burst: Annotated[
        int | None, typer.Option("--burst", help="The most starts at once after a quiet time.", show_default="the rate")
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Define a limit, or change it. It acts at once on what starts from then on."""
    with connect(coordinator) as client:
        limit = client.put_limit(
            name, concurrent=concurrent, rate=rate, interval_s=parse.duration_s(per, "--per"), burst=burst
        )
    _show([limit], output)


@app.command("list")
def list_limits(
    watch: Watch = False, every: Every = EVERY, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """List the limits with the slots that are held now."""
    with connect(coordinator) as client:
        show(
            client.limits,
            _COLUMNS,
            output,
            empty="no limit is defined: `tenure limits put NAME --concurrent 5`",
            watch=watch,
            every=every,
        )


@app.command("get")
def get(name: Name, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Show one limit; of a family, every name that is in use."""
    with connect(coordinator) as client:
        found = client.limit(name)
    if output.is_data:
        print_data(found, output)
        return
    _show([found], output)
    if found.held:
        print_table(("name", "held"), sorted(found.held.items()), empty="")


@app.command("delete")
def delete(name: Name, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Forget a limit: jobs that carry its name are limited no more."""
    with connect(coordinator) as client:
        deleted = client.delete_limit(name)
    print_done(f"{name} {'deleted' if deleted else 'was not defined'}", output, name=name, deleted=deleted)
    if not deleted:
        raise typer.Exit(3)


def _show(limits: Sequence[Limit], output: Format) -> None:
    show(lambda: limits, _COLUMNS, output, empty="")


def _rate(limit: Limit) -> str:
    return "" if limit.rate is None else f"{limit.rate} per {span(limit.interval_s)}"


_COLUMNS: list[Column[Limit]] = [
    Column("name", lambda limit: limit.name, rank=0, is_whole=True),
    Column("concurrent", lambda limit: "" if limit.concurrent is None else limit.concurrent, rank=1, is_whole=True),
    Column("held", lambda limit: sum(limit.held.values()), rank=0, is_whole=True),
    Column("rate", _rate, rank=1, is_whole=True),
    Column("burst", lambda limit: "" if limit.burst is None else limit.burst, rank=2, is_whole=True),
]
