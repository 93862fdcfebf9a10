"""``tenure worker``: run one worker in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tenure.cli import parse
from tenure.cli.settings import given, parsed


def worker(
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", "-i", metavar="MODULE", help="Module that declares handlers; repeat it."),
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option("--pool", "-p", metavar="ROUTE", help="Route prefix to serve; repeat it.  [default: default]"),
    ] = None,
    capacity: Annotated[int | None, typer.Option("--capacity", help="Jobs at the same time.  [default: 32]")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE; repeat it.")] = None,
    allow_command: Annotated[
        bool | None,
        typer.Option(
            "--allow-command/--no-allow-command", help="Serve the kind 'command': runs any program of a payload."
        ),
    ] = None,
    http_allow: Annotated[
        list[str] | None,
        typer.Option("--http-allow", help="Host or network that the kind 'http' may reach although not public."),
    ] = None,
    worker_id: Annotated[str | None, typer.Option("--id", help="Its name.  [default: made of host and pid]")] = None,
    grace: Annotated[
        str | None, typer.Option("--grace", help="On SIGTERM: time for jobs to finish.  [default: 30s]")
    ] = None,
    http_listen: Annotated[
        str | None,
        typer.Option(
            "--http-listen", metavar="HOST:PORT", help="Where to serve probes and metrics.  [TENURE_WORKER_HTTP_LISTEN]"
        ),
    ] = None,
    etcd: Annotated[
        str | None, typer.Option("--etcd", metavar="URL", help="etcd, comma-separated.  [TENURE_ETCD_ENDPOINTS]")
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator", "-c", metavar="HOST:PORT", help="Coordinators.  [TENURE_COORDINATOR, else etcd's]"
        ),
    ] = None,
) -> None:
    """Run a worker: claims jobs of its pools through etcd and runs the handlers of its modules."""
    from tenure.cli.log_filters import secrets_of
    from tenure.cli.logs import configure
    from tenure.worker.settings import WorkerSettings

    values = given(
        imports=_tuple(imports),
        pools=_tuple(pools),
        capacity=capacity,
        labels=parse.labels(label) if label else None,
        allow_command=allow_command,
        http_allow=_tuple(http_allow),
        worker_id=worker_id,
        grace_s=parse.duration_s(grace, "--grace"),
        worker_http_listen=http_listen,
        etcd_endpoints=etcd,
        coordinator=coordinator,
    )
    settings = parsed(WorkerSettings, values)
    configure(settings.log_level, settings.log_format, secrets_of(settings))
    # Handlers usually lie in the folder in which the worker is started; an entry point does not look there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Imported after the settings are known good, and with nothing of gRPC before it: it starts a forkserver first.
    from tenure.worker.main import main

    raise typer.Exit(main(settings))


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None
