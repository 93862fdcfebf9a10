"""``tenure runner``: run one runner in the foreground, a worker that speaks only HTTPS."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tenure.cli import parse
from tenure.cli.settings import given, parsed
from tenure.model.errors import ConfigurationError


def runner(
    url: Annotated[
        list[str] | None,
        typer.Option("--url", "-u", metavar="URL", help="Address of the coordinators; repeat it.  [TENURE_RUNNER_URL]"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="Who this is; better in TENURE_TOKEN, as it is secret."),
    ] = None,
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
    name: Annotated[
        str | None, typer.Option("--name", help="Its id begins with it.  [default: made of host and pid]")
    ] = None,
    grace: Annotated[
        str | None, typer.Option("--grace", help="On SIGTERM: time for jobs to finish.  [default: 30s]")
    ] = None,
    http_listen: Annotated[
        str | None,
        typer.Option(
            "--http-listen", metavar="HOST:PORT", help="Where to serve probes and metrics.  [TENURE_WORKER_HTTP_LISTEN]"
        ),
    ] = None,
) -> None:
    """Run a runner: a worker that calls coordinators by HTTPS, from anywhere, and needs neither etcd nor Postgres."""
    from tenure.cli.log_filters import secrets_of
    from tenure.cli.logs import configure
    from tenure.worker.settings import WorkerSettings

    values = given(
        runner_url=_tuple(url),
        token=token,
        imports=_tuple(imports),
        pools=_tuple(pools),
        capacity=capacity,
        labels=parse.labels(label) if label else None,
        allow_command=allow_command,
        http_allow=_tuple(http_allow),
        worker_id=name,
        grace_s=parse.duration_s(grace, "--grace"),
        worker_http_listen=http_listen,
    )
    settings = parsed(WorkerSettings, values)
    configure(settings.log_level, settings.log_format, secrets_of(settings))
    if not settings.runner_url:
        raise ConfigurationError(
            "a runner must know where coordinators are", hint="give --url https://…, or set TENURE_RUNNER_URL"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Imported after the settings are known good, and with nothing of gRPC before it: it starts a forkserver first.
    from tenure.worker.main import main

    raise typer.Exit(main(settings))


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None
