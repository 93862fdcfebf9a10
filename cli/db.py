"""``tenure db``: the schema in Postgres."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, print_fields, print_json, to_stderr, to_stdout
from tenure.model.errors import ConfigurationError, DeadlineExceeded, FieldViolation, InvalidInput, Unavailable
from tenure.model.fence import MAX_EPOCH

if TYPE_CHECKING:
    from tenure.coordinator.tokens import Made
    from tenure.model.credentials import NewCredential
    from tenure.store.postgres.database import Row

app = typer.Typer(
    help="Migrate the schema in Postgres, see how it stands, set up roles, make the first token, replace a key, "
    "raise the epoch.",
    no_args_is_help=True,
)
DSN_VARIABLE = "TENURE_POSTGRES_DSN"
Dsn = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        envvar=DSN_VARIABLE,
        show_envvar=True,
        metavar="DSN",
        help="The database; better in the environment or in TENURE_POSTGRES_DSN_FILE, as it is secret.",
    ),
]
POLL_S = 0.5


@app.command("migrate")
def migrate(postgres: Dsn = None, output: Output = Format.TABLE) -> None:
    """Bring the schema up to date. Safe to run anywhere, at any time, several at once."""
    from tenure.store.postgres.migrate import migrate as apply

    done = asyncio.run(apply(_required(postgres)))
    if output is Format.JSON:
        print_json({"schema": done.current, "applied": done.applied})
    elif not done.is_current:
        typer.echo(f"schema {done.current} is newer than this release's {done.wanted}, which runs on it: nothing to do")
    elif done.applied:
        typer.echo(f"schema {done.current}: applied {', '.join(done.applied)}")
    else:
        typer.echo(f"schema {done.current}: nothing to do")


@app.command("status")
def status(postgres: Dsn = None, output: Output = Format.TABLE) -> None:
    """Show which schema the database has and which one this release wants. Exits 4 if it does not run on it."""
    from tenure.store.postgres.migrate import status as read

    found = asyncio.run(read(_required(postgres)))
    if output is Format.JSON:
        print_json(
            {
                "schema": found.current,
                "wanted": found.wanted,
                "is_current": found.is_current,
                "is_usable": found.is_usable,
            }
        )
    else:
        print_fields((("schema", found.current or "none"), ("wanted", found.wanted)))
    try:
        found.require_usable()
    except ConfigurationError as exc:
        to_stderr(f"{exc.message}\ntry: {exc.hint}")
        raise typer.Exit(4) from exc


@app.command("wait")
def wait(
    postgres: Dsn = None,
    timeout: Annotated[str, typer.Option("--timeout", help="Give up after this long.")] = "5m",
) -> None:
    """Wait until the database can be reached and has a schema on which this release runs (for init containers)."""
    from tenure.store.postgres.migrate import status as read

    dsn, wait_s = _required(postgres), parse.duration_s(timeout, "--timeout") or 0.0
    deadline = time.monotonic() + wait_s
    while True:
        try:
            found = asyncio.run(read(dsn))
            if found.is_usable:
                return
            if found.is_newer:
                found.require_usable()  # no time heals this
            problem = f"schema {found.current or 'none'}, wanted {found.wanted}"
        except Unavailable as exc:
            problem = exc.message
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"not ready after {timeout}: {problem}", hint="tenure db migrate")
        time.sleep(POLL_S)


@app.command("admin-token")
def admin_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who shall have it.")] = "admin",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", help="Such as 1h; at most 3,650d.", show_default="90 days")
    ] = None,
    postgres: Dsn = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token for an admin in the database itself: the first one, or another after all were lost.

    It alone is on stdout, and is shown only now.
    """
    from tenure.cli.logs import configure
    from tenure.model.access import Role
    from tenure.model.credentials import validate_credential

    configure("WARNING", "auto")  # what is logged on the way would else be on stdout, beside the token
    expires_in_s = parse.duration_s(expires_in, "--expires-in")
    wanted = validate_credential(name=name, role=Role.ADMIN, expires_in_s=expires_in_s, expiry_field="--expires-in")
    made = asyncio.run(_made(_required(postgres), wanted))
    if output is Format.JSON:
        print_json({"id": str(made.row.id), "expires_at": made.row.expires_at, "secret": made.secret})
        return
    to_stderr(f"{made.row.id}: {name} may do everything until {made.row.expires_at:%Y-%m-%d %H:%M} UTC")
    to_stdout(made.secret or "")


@app.command("signing-key")
def signing_key(
    replace: Annotated[bool, typer.Option("--replace", help="Make a new key, as the owner of the schema.")] = False,
    keep: Annotated[
        str, typer.Option("--keep", help="How long the key before it is still taken; 0s: attempts under it are lost.")
    ] = "24h",
    postgres: Dsn = None,
    output: Output = Format.TABLE,
) -> None:
    """Show how old the key is that signs the tokens of attempts and runners, or replace it.

    Coordinators notice by themselves. Attempts go on that end within the time that the key before is kept.
    """
    from tenure.store.postgres.signing_key import replace_signing_key

    dsn = _required(postgres)
    if replace:
        asyncio.run(replace_signing_key(dsn, parse.duration_s(keep, "--keep") or 0.0))
    row = asyncio.run(_signing_key(dsn))
    if output is Format.JSON:
        print_json(
            {
                "signs_at": row.signs_at,
                "previous_until": row.previous_until,
                "attempts_before": row.attempts_before,
            }
        )
        return
    print_fields(
        (
            ("signs since", f"{row.signs_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("the one before", f"until {row.previous_until:%Y-%m-%d %H:%M:%S} UTC" if row.previous_until else "gone"),
            ("attempts that began before", str(row.attempts_before)),
        )
    )


async def _signing_key(dsn: str) -> Row:
    from tenure.store.postgres.database import Database, PoolOptions

    async with Database(dsn, PoolOptions(min_size=1, max_size=1), name="tenure-db") as database:
        (row,) = await database.fetch("signing_key_age")
        return row


async def _made(dsn: str, wanted: NewCredential) -> Made:
    from tenure.coordinator import tokens
    from tenure.store.postgres.database import Database, PoolOptions

    async with Database(dsn, PoolOptions(min_size=1, max_size=1), name="tenure-db") as database:
        return await tokens.create(database, wanted, by="tenure db")


@app.command("raise-epoch")
def raise_epoch(
    to: Annotated[
        int | None, typer.Option("--to", min=1, max=MAX_EPOCH, help="To this one.", show_default="the next one")
    ] = None,
    postgres: Dsn = None,
    output: Output = Format.TABLE,
) -> None:
    """Make every fence from now on higher than any before: after Postgres was set back in a way that it cannot know.

    Such as a copy of its files that was put back without recovery. Harmless otherwise: attempts that run go on.
    """
    epoch = asyncio.run(_raised(_required(postgres), to))
    if output is Format.JSON:
        print_json({"epoch": epoch})
    else:
        typer.echo(f"epoch {epoch}: fences from now on are higher than any given before")


async def _raised(dsn: str, to: int | None) -> int:
    from tenure.store.postgres.database import Database, PoolOptions

    async with Database(dsn, PoolOptions(min_size=1, max_size=1), name="tenure-db") as database:
        if rows := await database.fetch("raise_epoch", {"epoch": to}):
            return int(rows[0].epoch)
        (row,) = await database.fetch("cluster")
        raise InvalidInput([FieldViolation("--to", f"must be more than {row.epoch}, the epoch that is")])


@app.command("roles")
def roles(
    postgres: Dsn = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="NAME=ROLE", help="Make an existing user a member of a role; repeat it."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL instead; no database is needed.")] = False,
) -> None:
    """Set up the roles of least privilege, as an administrator: who owns the schema, coordinates, submits, reads.

    Can be repeated, before or after `tenure db migrate`. docs/LEAST_PRIVILEGE.md says what each role may do.
    """
    from tenure.store.postgres.roles import ROLES, apply, script

    users = [parse.pair(text, "--user") for text in user or ()]
    if dry_run:
        typer.echo(script(users), nl=False)
        return
    asyncio.run(apply(_required(postgres), users))
    typer.echo(f"roles {', '.join(ROLES)} are as they should be; tenure_migrator owns the schema")
    for name, role in users:
        typer.echo(f"user {name} is a member of {role}")


def _required(option: str | None) -> str:
    dsn = told_dsn(option)
    if not dsn:
        raise ConfigurationError("TENURE_POSTGRES_DSN is not set", hint="set it, or TENURE_POSTGRES_DSN_FILE")
    return dsn


def told_dsn(option: str | None) -> str | None:
    """Return the database that an option or its variable names, else the file that TENURE_POSTGRES_DSN_FILE names.

    Raises:
        ConfigurationError: both variables are set, or the file cannot be read.
    """
    from tenure.store.secrets import from_environment

    return option if option and option != os.environ.get(DSN_VARIABLE) else from_environment(DSN_VARIABLE)
