"""How the command line prints: tables for people, JSON for programs, messages apart on stderr.

Invariant: stdout carries only what was asked for; text from jobs never reaches a terminal with its control
characters (they could rewrite what the terminal shows). Colors only on a terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """What to print."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]


def to_stderr(text: str) -> None:
    """Print a message for a person."""
    sys.stderr.write(f"{plain(text)}\n")


def to_stdout(text: str) -> None:
    """Print one line that was asked for, at once; control characters are escaped."""
    sys.stdout.write(f"{line(text)}\n")
    sys.stdout.flush()


def plain(text: str) -> str:
    """Return text with its control characters escaped (but for line ends and tabs)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def line(text: object) -> str:
    """Return text for one table cell: escaped, on one line."""
    return plain(str(text)).replace("\n", "\\n").replace("\t", " ")


def jsonable(value: Any) -> Any:
    """Return a record as JSON holds it: times as ISO 8601 in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value


def print_json(value: Any, *, compact: bool = False) -> None:
    """Print a record, or a list of them, as JSON on stdout; ``compact`` is one line (a stream of records)."""
    text = json.dumps(jsonable(value), indent=None if compact else 2, ensure_ascii=True)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_done(text: str, output: Format, **facts: Any) -> None:
    """Print what a command has done: a sentence, or its facts as JSON."""
    if output is Format.JSON:
        print_json(facts)
    else:
        to_stdout(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table on stdout, or ``empty`` on stderr when there are no rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # Ids are to be copied whole.
        table.add_column(column, no_wrap=column in ("id", "job"), overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(line(cell)) for cell in row))
    if not table.row_count:
        to_stderr(empty)
        return
    _console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print name and value, one a line, leaving out what is empty."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in fields:
        if value not in (None, "", (), []):
            table.add_row(Text(name, style="dim"), value if isinstance(value, Text) else Text(plain(str(value))))
    _console().print(table)


def state_text(state: str) -> Any:
    """Return a state in its color."""
    from rich.text import Text

    colors = {"completed": "green", "failed": "red", "executing": "cyan", "restarting": "yellow", "canceled": "magenta"}
    return Text(line(state), style=colors.get(state, ""))


def print_spans(lines: Iterable[Sequence[tuple[str, str]]]) -> None:
    """Print lines made of parts, each with the state whose color it has (or none)."""
    from rich.text import Text

    console = _console()
    for parts in lines:
        styled = (
            Text(line(text), style=state_text(state).style) if state else Text(line(text)) for text, state in parts
        )
        console.print(Text.assemble(*styled), soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 job", "2 jobs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(at: datetime | None) -> str:
    """Return how long ago an instant was, roughly, for a table."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    if seconds < 0:
        return f"in {span(-seconds)}"
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """Return a duration with one or two units."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 100:
        return f"{seconds:.0f}s"
    minutes = int(seconds // 60)
    if minutes < 100:
        return f"{minutes}m{int(seconds % 60):02}s"
    hours = minutes // 60
    return f"{hours}h{minutes % 60:02}m" if hours < 100 else f"{hours // 24}d"


def _console() -> Any:
    from rich.console import Console

    # Without a terminal there is no width to fit in: nothing is folded that a program may read.
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 250)
