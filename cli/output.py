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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.text import visible

if TYPE_CHECKING:
    from rich.text import Text

    from tenure.cli.fitting import Head


class Format(StrEnum):
    """What to print."""

    TABLE = "table"
    WIDE = "wide"
    """A table with every column, whole."""
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    """What a record is called by other commands: its id or its name, one a line."""

    @property
    def is_data(self) -> bool:
        """Say whether it is for programs."""
        return self not in (Format.TABLE, Format.WIDE)


Output = Annotated[
    Format,
    typer.Option(
        "--output", "-o", help="table or wide (every column) for people; json, yaml, or name (ids alone) for programs."
    ),
]


def to_stderr(text: str) -> None:
    """Print a message for a person."""
    sys.stderr.write(f"{visible(text)}\n")


def to_stdout(text: str) -> None:
    """Print one line that was asked for, at once; control characters are escaped."""
    sys.stdout.write(f"{line(text)}\n")
    sys.stdout.flush()


def line(text: object) -> str:
    """Return text for one table cell: escaped, on one line."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", " ")


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


def print_data(value: Any, output: Format) -> None:
    """Print a record, or a list of them, for a program: as JSON, as YAML, or the names alone, one a line."""
    match output:
        case Format.YAML:
            from tenure.cli.yaml_text import to_yaml

            sys.stdout.write(to_yaml(jsonable(value)))
        case Format.NAME:
            many = value if isinstance(value, list | tuple) else [value]
            sys.stdout.write("".join(f"{line(name_of(one))}\n" for one in many))
        case _:
            print_json(value)
    sys.stdout.flush()


def print_record(value: Any, output: Format) -> None:
    """Print one record of a stream for a program: a line of JSON, a document of YAML, or its name."""
    if output is Format.JSON:
        print_json(value, compact=True)
        return
    if output is Format.YAML:
        sys.stdout.write("---\n")
    print_data(value, output)


def name_of(record: Any) -> str:
    """Return what other commands call a record by.

    Raises:
        InvalidInput: it has neither an id nor a name.
    """
    for field in ("id", "job_id", "schedule", "name", "path", "kind", "what"):
        value = record.get(field) if isinstance(record, Mapping) else getattr(record, field, None)
        if isinstance(value, str) and value:
            return value
    raise InvalidInput(
        [FieldViolation("--output", "what this shows has no name")], hint="-o json shows all that there is"
    )


def print_done(text: str, output: Format, **facts: Any) -> None:
    """Print what a command has done: a sentence, or its facts for a program."""
    if output.is_data:
        print_data(facts, output)
    else:
        to_stdout(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table on stdout, or ``empty`` on stderr when there are no rows. The important columns are on the left."""
    from tenure.cli.fitting import Head, as_text

    heads = [
        Head(name, rank=index if index > 1 else 0, is_whole=name in ("id", "job")) for index, name in enumerate(columns)
    ]
    print_rows(heads, [[as_text(cell) for cell in row] for row in rows], empty=empty)


def print_rows(heads: Sequence[Head], rows: Sequence[Sequence[Text]], *, empty: str, is_wide: bool = False) -> None:
    """Print a table that fits the terminal, saying on stderr what it has no room for; whole if it is to be wide.

    Without a terminal there is no width to fit in: nothing is shortened or folded that a program may read.
    """
    from tenure.cli.fitting import drawn

    if not rows:
        to_stderr(empty)
        return
    console = _console()
    available = console.width if sys.stdout.isatty() and not is_wide else None
    table, left_out = drawn(heads, rows, available)
    if available is None:
        console.width = 3 * len(heads) + sum(column.width or 0 for column in table.columns)
    console.print(table)
    if left_out:
        to_stderr(f"left out, the terminal is too narrow: {', '.join(left_out)}")


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print name and value, one a line, leaving out what is empty."""
    _console().print(fields_grid(fields))


def fields_grid(fields: Iterable[tuple[str, object]]) -> Any:
    """Return what ``print_fields`` prints."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in fields:
        if value not in (None, "", (), []):
            table.add_row(Text(name, style="dim"), value if isinstance(value, Text) else Text(visible(str(value))))
    return table


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
