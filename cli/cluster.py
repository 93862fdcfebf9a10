"""``tenure cluster``, ``tenure version`` and the entries to ``tenure up`` and ``tenure health``."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli.output import Format, Output, ago, print_fields, print_json, print_table, to_stdout
from tenure.cli.session import Address, connect

if TYPE_CHECKING:
    from tenure.client import ClusterPicture


def cluster(
    coordinator: Address = None,
    output: Output = Format.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow who is there, coordinators, leader and workers, until Ctrl-C.")
    ] = False,
) -> None:
    """Show the coordinators, the leader, and the stores they stand on."""
    with connect(coordinator) as client:
        if watch:
            _watch(client.watch_cluster(), output)
            return
        found = client.cluster()
    if output is Format.JSON:
        print_json(found)
        return
    print_fields(
        (
            ("leader", found.leader or "none now: one is being elected"),
            ("epoch", found.epoch),
            ("version", found.version),
            ("schema", found.schema_version),
            ("postgres", found.postgres_version),
            ("etcd", found.etcd_version),
        )
    )
    print_table(
        ("id", "grpc", "http", "version", "started", ""),
        [
            (c.id, c.grpc, c.http, c.version, ago(c.started_at), "leader" if c.is_leader else "")
            for c in found.coordinators
        ],
        empty="no coordinator is registered in etcd",
    )


def _watch(pictures: Iterable[ClusterPicture], output: Format) -> None:
    if output is Format.TABLE and sys.stdout.isatty():
        from tenure.cli.live import follow_cluster

        follow_cluster(pictures)
        return
    for picture in pictures:
        if output is Format.JSON:
            print_json(picture, compact=True)
        else:
            claims = sum(worker.claims for worker in picture.workers)
            to_stdout(
                f"{datetime.now():%H:%M:%S}  leader {picture.leader or 'none'}"
                f"  coordinators {len(picture.coordinators)}"
                f"  workers {len(picture.workers) + picture.more_workers}  claims {claims}"
            )


def version(output: Output = Format.TABLE) -> None:
    """Print the versions of tenure and of what it stands on."""
    from importlib.metadata import version as version_of

    found = {name: version_of(name) for name in ("tenure", "grpcio", "protobuf", "psycopg", "pydantic", "etcd3gw")}
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    if output is Format.JSON:
        print_json(found)
    else:
        print_fields(found.items())


def health(ctx: typer.Context) -> None:
    """Ask a process whether it lives, or is ready."""
    from tenure.cli.health import main

    raise typer.Exit(main(ctx.args))


def up(ctx: typer.Context) -> None:
    """Run everything on this machine."""
    # Its options live beside it; imported only when asked for, since it brings the embedded stores.
    from tenure.cli.up import up_command

    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    command.command(name="up", context_settings={"help_option_names": ["-h", "--help"]})(up_command)
    code = typer.main.get_command(command).main(args=list(ctx.args), prog_name="tenure up", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)
