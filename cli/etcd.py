"""How a command opens etcd itself: endpoints and credentials from options and the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.model.errors import ConfigurationError

if TYPE_CHECKING:
    from tenure.store.etcd.port import Etcd

Endpoints = Annotated[
    str | None,
    typer.Option(
        "--etcd",
        envvar="TENURE_ETCD_ENDPOINTS",
        show_envvar=True,
        metavar="URL",
        help="etcd, comma-separated: grpc://HOST:PORT, or http://HOST:PORT for the gateway.",
    ),
]
Prefix = Annotated[
    str, typer.Option("--etcd-prefix", envvar="TENURE_ETCD_PREFIX", show_envvar=True, help="Prefix of every key.")
]
TIMEOUT_S = 5.0


@asynccontextmanager
async def opened(endpoints: str | None) -> AsyncIterator[Etcd]:
    """Yield a connection; user, password and TLS files are read from TENURE_ETCD_USER, _PASSWORD, _CA, _CERT, _KEY.

    Raises:
        ConfigurationError: no endpoint is known, or the files do not go together.
    """
    if not endpoints:
        raise ConfigurationError(
            "TENURE_ETCD_ENDPOINTS is not set", hint="set it, or give --etcd grpc://127.0.0.1:2379"
        )
    from tenure.store.etcd.connect import connect

    etcd = connect(
        [endpoint.strip() for endpoint in endpoints.split(",") if endpoint.strip()],
        ca_file=_file("TENURE_ETCD_CA"),
        cert_file=_file("TENURE_ETCD_CERT"),
        key_file=_file("TENURE_ETCD_KEY"),
        user=os.environ.get("TENURE_ETCD_USER"),
        password=os.environ.get("TENURE_ETCD_PASSWORD"),
        timeout_s=TIMEOUT_S,
    )
    try:
        yield etcd
    finally:
        await etcd.close()


def _file(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
