"""``tenure coordinator``: run one coordinator in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from tenure.cli.settings import given, parsed


def coordinator(
    grpc: Annotated[
        str | None, typer.Option("--grpc", metavar="HOST:PORT", help="Where to serve gRPC.  [TENURE_GRPC_LISTEN]")
    ] = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="Where to serve HTTP.  [TENURE_HTTP_LISTEN]")
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="DSN",
            help="The database. Everybody on the machine sees it here: better in TENURE_POSTGRES_DSN or …_DSN_FILE.",
        ),
    ] = None,
    etcd: Annotated[
        str | None, typer.Option("--etcd", metavar="URL", help="etcd, comma-separated.  [TENURE_ETCD_ENDPOINTS]")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--etcd-prefix", help="Prefix of every key in etcd.  [TENURE_ETCD_PREFIX]")
    ] = None,
) -> None:
    """Run a coordinator: serves gRPC and HTTP, and leads when elected. Every other setting is in the environment."""
    from tenure.cli.log_filters import secrets_of
    from tenure.cli.logs import configure
    from tenure.coordinator.coordinator import main
    from tenure.coordinator.settings import CoordinatorSettings

    values = given(grpc_listen=grpc, http_listen=http, postgres_dsn=postgres, etcd_endpoints=etcd, etcd_prefix=prefix)
    settings = parsed(CoordinatorSettings, values)
    configure(settings.log_level, settings.log_format, secrets_of(settings))
    raise typer.Exit(main(settings))
