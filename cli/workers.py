"""``tenure workers``: who is there to run jobs."""

from __future__ import annotations

import typer

from tenure.cli.output import Format, Output, ago, print_json, print_table
from tenure.cli.session import Address, connect

app = typer.Typer(help="The workers that are registered now.", no_args_is_help=True)


@app.command("list")
def list_workers(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the workers: the pools and kinds they serve, how much they hold and could hold."""
    with connect(coordinator) as client:
        found = sorted(client.workers(), key=lambda worker: worker.id)
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        ("id", "mode", "host", "pools", "kinds", "holds", "state", "started", "version"),
        [
            (
                w.id,
                w.mode,
                w.host,
                ", ".join(w.pools),
                ", ".join(w.kinds),
                f"{w.claims}/{w.capacity}",
                "draining" if w.draining else "ready",
                ago(w.started_at),
                w.version,
            )
            for w in found
        ],
        empty="no worker is registered; try: tenure worker --import my.handlers --pool default",
    )
