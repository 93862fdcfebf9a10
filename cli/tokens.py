"""``tenure tokens``: who may call, as what, and until when."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, ago, jsonable, print_data, print_done, print_table, to_stderr, to_stdout
from tenure.cli.session import Address, connect

if TYPE_CHECKING:
    from tenure.client import Token

app = typer.Typer(help="Who may call, as what, and until when.", no_args_is_help=True)
Expires = Annotated[
    str | None, typer.Option("--expires-in", help="Such as 30d; at most 3,650d.", show_default="90 days")
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what shall have it; the log names it so.")],
    role: Annotated[str, typer.Option("--role", "-r", help="admin, operator, submitter, viewer, worker or runner.")],
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace",
            "-n",
            help="For operator, submitter and viewer; of worker and runner: where their children may go. "
            "`*` is every one. Repeat it.",
        ),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", "-p", help="For worker and runner: a route prefix; `*` is every one. Repeat it."),
    ] = None,
    expires_in: Expires = None,
    expires_at: Annotated[str | None, typer.Option("--expires-at", help="The time itself, ISO 8601.")] = None,
    certificate_subject: Annotated[
        str | None,
        typer.Option("--certificate-subject", help="No token: certificates with this name stand for it instead."),
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token. It alone is on stdout, and is shown only now; what it may do is told on stderr."""
    with connect(coordinator) as client:
        made = client.create_token(
            name,
            role,
            namespaces=namespace or (),
            pools=pool or (),
            expires_in_s=parse.duration_s(expires_in, "--expires-in"),
            expires_at=parse.instant(expires_at, "--expires-at"),
            certificate_subject=certificate_subject,
        )
    if output.is_data:
        print_data({**jsonable(made.token), "secret": made.secret}, output)
        return
    to_stderr(f"{made.token.id}: {_words(made.token)}, until {_day(made.token.expires_at)}")
    if made.secret is not None:
        to_stdout(made.secret)


@app.command("list")
def list_tokens(
    all: Annotated[bool, typer.Option("--all", help="Also those that were revoked or have expired.")] = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List the tokens and the subjects of certificates, newest first. Secrets are kept nowhere."""
    with connect(coordinator) as client:
        found = list(client.tokens(all=all))
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("id", "name", "role", "for", "by", "made", "until"),
        [(one.id, one.name, one.role, _scope(one), one.created_by, ago(one.created_at), _until(one)) for one in found],
        empty="there is none: `tenure tokens create NAME --role ROLE`",
    )


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `tenure tokens list` shows it.")],
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Have a token be refused everywhere, within 5 seconds."""
    with connect(coordinator) as client:
        found = client.revoke_token(token)
    if output.is_data:
        print_data(found, output)
        return
    print_done(f"{found.id} ({found.name}) is revoked", output)


def _words(token: Token) -> str:
    by = f", for certificates of {token.certificate_subject}" if token.certificate_subject else ""
    return f"{token.name} may act as {token.role} of {_scope(token)}{by}"


def _scope(token: Token) -> str:
    if token.role not in ("worker", "runner"):
        return ", ".join(token.namespaces)
    pools = ", ".join(token.pools)
    return pools if token.namespaces == ("*",) else f"{pools} (children in {', '.join(token.namespaces)})"


def _day(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC") if at else "ever"


def _until(token: Token) -> str:
    return f"revoked {ago(token.revoked_at)}" if token.revoked_at else _day(token.expires_at)
