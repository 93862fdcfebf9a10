"""``tenure cluster``, ``tenure version`` and the entries to ``tenure up`` and ``tenure health``."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from tenure.cli.output import Format, Output, ago, print_data, print_fields, print_record, to_stdout
from tenure.cli.session import Address, connect
from tenure.cli.tables import Column, Watch, show

if TYPE_CHECKING:
    from tenure.client import Cluster, ClusterPicture, Coordinator


def cluster(watch: Watch = False, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Show the coordinators, the leader, and the stores they stand on."""
    columns: list[Column[Coordinator]] = [
        Column("id", lambda c: c.id, rank=0, is_whole=True),
        Column("grpc", lambda c: c.grpc, rank=1),
        Column("http", lambda c: c.http, rank=3),
        Column("version", lambda c: c.version, rank=4),
        Column("started", lambda c: ago(c.started_at), rank=2, is_whole=True),
        Column("", lambda c: "leader" if c.is_leader else "", rank=0, is_whole=True),
    ]
    with connect(coordinator) as client:
        if watch:
            _watch(client.watch_cluster(), output)
            return
        found = client.cluster()
    if output in (Format.JSON, Format.YAML):
        print_data(found, output)
        return
    if not output.is_data:
        print_fields(_facts(found))
    show(lambda: found.coordinators, columns, output, empty="no coordinator is registered in etcd")


def _facts(found: Cluster) -> tuple[tuple[str, object], ...]:
    return (
        ("leader", found.leader or "none now: one is being elected"),
        ("epoch", found.epoch),
        ("version", found.version),
        ("schema", found.schema_version),
        ("postgres", found.postgres_version),
        ("etcd", found.etcd_version),
    )


def _watch(pictures: Iterable[ClusterPicture], output: Format) -> None:
    if not output.is_data and sys.stdout.isatty():
        from tenure.cli.live import follow_cluster

        follow_cluster(pictures)
        return
    for picture in pictures:
        if output.is_data:
            print_record(picture, output)
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
    if output.is_data:
        print_data(found, output)
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
