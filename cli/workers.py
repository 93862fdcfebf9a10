"""``tenure workers``: who is there to run jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tenure.cli.output import Format, Output, ago
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show

if TYPE_CHECKING:
    from tenure.client import Worker

app = typer.Typer(help="The workers that are registered now.", no_args_is_help=True)


@app.command("list")
def list_workers(
    watch: Watch = False, every: Every = EVERY, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """List the workers: the pools and kinds they serve, how much they hold and could hold."""
    columns: list[Column[Worker]] = [
        Column("id", lambda w: w.id, rank=0, is_whole=True),
        Column("mode", lambda w: w.mode, rank=6, is_whole=True),
        Column("host", lambda w: w.host, rank=5),
        Column("pools", lambda w: ", ".join(w.pools), rank=1),
        Column("kinds", lambda w: ", ".join(w.kinds), rank=3),
        Column("holds", lambda w: f"{w.claims}/{w.capacity}", rank=1, is_whole=True),
        Column("state", lambda w: "draining" if w.draining else "ready", rank=0, is_whole=True),
        Column("started", lambda w: ago(w.started_at), rank=4, is_whole=True),
        Column("version", lambda w: w.version, rank=7),
        Column("labels", lambda w: ",".join(f"{key}={value}" for key, value in sorted(w.labels.items())), is_wide=True),
    ]
    with connect(coordinator) as client:
        show(
            lambda: sorted(client.workers(), key=lambda worker: worker.id),
            columns,
            output,
            empty="no worker is registered; try: tenure worker --import my.handlers --pool default",
            watch=watch,
            every=every,
        )
