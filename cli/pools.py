"""``tenure pools``: what is served, and pauses of pools, kinds and namespaces."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import completing, parse
from tenure.cli.filters import Preview, Yes
from tenure.cli.output import Format, Output, ago, counted, print_data, print_done, print_table, to_stderr
from tenure.cli.repair import confirm
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show
from tenure.model.errors import DeadlineExceeded, FieldViolation, InvalidInput, WrongState

if TYPE_CHECKING:
    from tenure.client import Client, Pool

app = typer.Typer(help="Pools, and pauses of pools, kinds and namespaces.", no_args_is_help=True)
Path = Annotated[
    str | None,
    typer.Argument(
        metavar="POOL", help="A pool, or any route prefix.", show_default=False, autocompletion=completing.pools
    ),
]
Kind = Annotated[str | None, typer.Option("--kind", "-k", help="Instead of a pool: jobs of this kind.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Instead of a pool: jobs of this namespace.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in words: `tenure jobs why` shows it.")]
LOOK_S = 0.5
SETTLE_S = 3.0
"""What was offered or claimed before a pause may still start: none may execute for this long, then."""


@app.command("list")
def list_pools(
    watch: Watch = False, every: Every = EVERY, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """List the pools that are or were served, with what waits and executes below each."""
    columns: list[Column[Pool]] = [
        Column("pool", lambda p: p.path, rank=0, is_whole=True),
        Column("workers", lambda p: p.workers, rank=2, is_whole=True),
        Column("ready", lambda p: p.ready, rank=1, is_whole=True),
        Column("executing", lambda p: p.executing, rank=1, is_whole=True),
        Column("state", lambda p: "paused" if p.paused else "open", rank=0, is_whole=True),
    ]
    with connect(coordinator) as client:
        show(
            client.pools,
            columns,
            output,
            empty="no worker has served a pool yet: start one with `tenure worker`",
            watch=watch,
            every=every,
        )


@app.command("pauses")
def pauses(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List what is paused."""
    with connect(coordinator) as client:
        found = client.pauses()
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("paused", "name", "since", "executing", "reason"),
        [(p.subject, p.name, ago(p.paused_at), p.executing, p.reason) for p in found],
        empty="nothing is paused",
    )


@app.command("pause")
def pause(
    pool: Path = None,
    kind: Kind = None,
    namespace: Namespace = None,
    reason: Reason = "",
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Let nothing of it start any more, but for offers of the last second. What executes goes on."""
    subject = _subject(pool, kind, namespace)
    with connect(coordinator) as client:
        executing = client.pause(**subject, reason=reason)
    text = f"{_name(subject)} is paused; {executing} of its jobs execute and go on"
    print_done(text, output, **subject, paused=True, executing=executing)


@app.command("resume")
def resume(
    pool: Path = None,
    kind: Kind = None,
    namespace: Namespace = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Let it start again."""
    subject = _subject(pool, kind, namespace)
    with connect(coordinator) as client:
        resumed = client.resume(**subject)
    text = f"{_name(subject)} {'is resumed' if resumed else 'was not paused'}"
    print_done(text, output, **subject, resumed=resumed)
    if not resumed:
        raise typer.Exit(3)


@app.command("drain")
def drain(
    pool: Path = None,
    kind: Kind = None,
    namespace: Namespace = None,
    reason: Reason = "drained",
    timeout: Annotated[str | None, typer.Option("--timeout", help="Stop waiting after this long (90s, 5m).")] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Pause it, and wait until none of its jobs has executed for 3 s. Exits 7 if not in time; the pause stays.

    What was offered before the pause may still start within a second or so: that is waited for, too.
    """
    subject = _subject(pool, kind, namespace)
    limit_s = parse.duration_s(timeout, "--timeout")
    with connect(coordinator) as client:
        client.pause(**subject, reason=reason)
        _wait_idle(client, subject, limit_s)
    text = f"{_name(subject)} is drained: none of its jobs has executed for {SETTLE_S:g} s"
    print_done(text, output, **subject, drained=True)


def _wait_idle(client: Client, subject: dict[str, Any], limit_s: float | None) -> None:
    began = time.monotonic()
    idle_since = told = None
    while True:
        left, now = _executing(client, subject), time.monotonic()
        if left:
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now - idle_since >= SETTLE_S:
            return
        if left != told:
            to_stderr(f"{_name(subject)}: {left} still execute")
            told = left
        if limit_s is not None and now - began > limit_s:
            still = "still execute" if left else f"execute, but that for less than {SETTLE_S:g} s"
            raise DeadlineExceeded(
                f"{counted(left, 'job')} of {_name(subject)} {still}",
                hint="it stays paused: drain again, or cancel them",
            )
        time.sleep(LOOK_S)


def _executing(client: Client, subject: dict[str, Any]) -> int:
    for pause in client.pauses():
        if {pause.subject: pause.name} == subject:
            return pause.executing
    raise WrongState(f"{_name(subject)} was resumed meanwhile", hint="drain it again, if it shall be")


@app.command("remove")
def remove(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="POOL", help="A pool, or any route prefix.", show_default=False, autocompletion=completing.pools
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the story of the jobs.")] = "",
    timeout: Annotated[str | None, typer.Option("--timeout", help="Stop waiting after this long (90s, 5m).")] = None,
    preview: Preview = False,
    yes: Yes = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Cancel every job below it and forget it. Its workers must have been stopped before.

    Waits until what still executes has stopped; exits 7 if not in time.
    """
    with connect(coordinator) as client:
        found = client.remove_pool(pool, preview=True)
        if not preview:
            if not yes:
                confirm(
                    f"cancel {counted(found.canceled + found.asked, 'job')} and remove {pool}?",
                    found.canceled + found.asked,
                )
            found = client.remove_pool(pool, reason=reason, timeout_s=parse.duration_s(timeout, "--timeout"))
    if output.is_data:
        print_data(found, output)
        return
    would = "would be " if preview else ""
    typer.echo(f"{pool} {'would be' if preview else 'is'} removed")
    asked = counted(found.asked, "executing one")
    to_stderr(f"{counted(found.canceled, 'job')} {would}canceled, {asked} {would}asked to stop")
    if found.dependants:
        to_stderr(f"{found.dependants} ended with them: their dependants and children")


def _subject(pool: str | None, kind: str | None, namespace: str | None) -> dict[str, Any]:
    given = {name: value for name, value in (("pool", pool), ("kind", kind), ("namespace", namespace)) if value}
    if len(given) != 1:
        raise InvalidInput(
            [FieldViolation("POOL", "give a pool, --kind or --namespace, and only one of them")],
            hint="tenure pools list shows pools",
        )
    return given


def _name(subject: dict[str, Any]) -> str:
    ((word, name),) = subject.items()
    return f"the {word} {name}"
