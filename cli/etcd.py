"""How a command opens etcd itself: endpoints and credentials from options and the environment; ``tenure etcd``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import parse
from tenure.model.errors import ConfigurationError

if TYPE_CHECKING:
    from tenure.store.etcd.options import EtcdOptions
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


app = typer.Typer(help="Set up etcd for tenure.", no_args_is_help=True)


@asynccontextmanager
async def opened(endpoints: str | None) -> AsyncIterator[Etcd]:
    """Yield a connection, as ``options`` says.

    Raises:
        ConfigurationError: no endpoint is known, or the files do not go together.
    """
    from tenure.store.etcd.connect import connect_with

    etcd = connect_with(options(endpoints))
    try:
        yield etcd
    finally:
        await etcd.close()


def options(endpoints: str | None) -> EtcdOptions:
    """Return how to connect; user, password and TLS files are read from TENURE_ETCD_USER, _PASSWORD (or
    _PASSWORD_FILE), _CA, _CERT, _KEY.

    Raises:
        ConfigurationError: no endpoint is known, or a secret's file cannot be read.
    """
    if not endpoints:
        raise ConfigurationError(
            "TENURE_ETCD_ENDPOINTS is not set", hint="set it, or give --etcd grpc://127.0.0.1:2379"
        )
    from tenure.store.etcd.options import EtcdOptions
    from tenure.store.secrets import from_environment

    return EtcdOptions(
        endpoints=tuple(endpoint.strip() for endpoint in endpoints.split(",") if endpoint.strip()),
        ca_file=_file("TENURE_ETCD_CA"),
        cert_file=_file("TENURE_ETCD_CERT"),
        key_file=_file("TENURE_ETCD_KEY"),
        user=os.environ.get("TENURE_ETCD_USER"),
        password=from_environment("TENURE_ETCD_PASSWORD"),
        timeout_s=TIMEOUT_S,
    )


@app.command("roles")
def roles(
    etcd: Endpoints = None,
    prefix: Prefix = "/tenure/v1/",
    name: Annotated[
        str, typer.Option("--name", help="What the names of the roles begin with; one for each prefix.")
    ] = "tenure",
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="NAME=ROLE", help="Give a user a role; repeat it.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="Make the one user that is named, where missing, with this password."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print commands of etcdctl instead; no etcd is needed.")
    ] = False,
) -> None:
    """Set up the roles of least privilege, as an administrator: coordinator, worker, sre and oncall.

    TENURE_ETCD_USER and TENURE_ETCD_PASSWORD, or a client certificate, say who you are; before authentication is
    enabled anybody may. Can be repeated. docs/LEAST_PRIVILEGE.md says what each role may do.
    """
    from tenure.store.etcd.roles import Membership, commands, roles_of, set_up
    from tenure.v1.secret_file import read_secret

    wanted = roles_of(prefix, name)
    pairs = [parse.pair(text, "--user") for text in user or ()]
    names = [role.name for role in wanted]
    if unknown := sorted({role for _, role in pairs} - set(names)):
        raise ConfigurationError(f"{', '.join(unknown)} is no role of tenure", hint=f"one of {', '.join(names)}")
    if password_file is not None and len({one for one, _ in pairs}) != 1:
        raise ConfigurationError("--password-file is for one --user", hint="call once for each user")
    password = read_secret(password_file, "--password-file") if password_file and not dry_run else None
    memberships = [Membership(one, role, "" if password_file and dry_run else password) for one, role in pairs]
    if dry_run:
        typer.echo("\n".join(commands(wanted, memberships)))
        return
    for line in asyncio.run(set_up(options(etcd), prefix, wanted, memberships)) or ["nothing to do"]:
        typer.echo(line)


def _file(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
