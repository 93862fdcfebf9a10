"""``tenure audit``: who did what."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, print_data, print_table, to_stderr
from tenure.cli.session import Address, connect
from tenure.model.errors import InvalidInput

if TYPE_CHECKING:
    from tenure.client import AuditEntry

app = typer.Typer(help="Who did what.", no_args_is_help=True)
MAX_DETAIL_CHARS = 160
"""Of an entry's detail in a table; JSON has it whole."""


@app.callback()
def audit() -> None:
    """Who did what."""


@app.command("list")
def list_entries(
    caller: Annotated[str | None, typer.Option("--caller", help="Only what this one did.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Only actions that begin so: jobs.cancel, or jobs. for all.")
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Only what was done to this: an id, a name, as it is listed.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only from this ISO 8601 time on, or so long ago (2h, 7d).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Only before this ISO 8601 time, or so long ago.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List who did what, newest first: cancels, retries, pauses, limits, schedules and so on, and what was denied."""
    with connect(coordinator) as client:
        found = list(
            client.audit(
                caller=caller,
                action=action,
                namespace=namespace,
                target=target,
                since=_instant(since, "--since"),
                until=_instant(until, "--until"),
                limit=limit,
            )
        )
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("at", "caller", "action", "namespace", "target", "outcome", "detail"),
        [
            (_at(one), f"{one.caller} ({one.role})", one.action, one.namespace or "", one.target, one.outcome,
             _short(one.detail))
            for one in found
        ],
        empty="nothing was done, or nothing that matches",
    )  # fmt: skip
    if len(found) == limit:
        to_stderr(f"the newest {limit}; --limit shows more")


def _instant(text: str | None, option: str) -> datetime | None:
    """Read a time, or how long ago it was."""
    if text is not None:
        with suppress(InvalidInput):
            return datetime.now(UTC) - timedelta(seconds=parse.duration_s(text, option) or 0.0)
    return parse.instant(text, option)


def _at(entry: AuditEntry) -> str:
    return entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if entry.at else ""


def _short(detail: Mapping[str, Any]) -> str:
    text = " ".join(f"{name}={_word(value)}" for name, value in detail.items())
    return text if len(text) <= MAX_DETAIL_CHARS else f"{text[: MAX_DETAIL_CHARS - 1]}…"


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + " ".join(f"{name}={_word(one)}" for name, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return ",".join(_word(one) for one in value)
    return "none" if value is None else str(value)
