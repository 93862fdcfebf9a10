"""Tables of records that fit the terminal, their other forms (``-o``), and how they are followed (``--watch``).

Invariant: an id is shown whole or not at all; a narrow terminal shortens texts first and then leaves out columns, from
the least to the most important, and says which. Without a terminal nothing is shortened: a program may read it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import typer

from tenure.cli.fitting import Head, as_text, drawn
from tenure.cli.output import Format, jsonable, line, name_of, print_data, print_json, print_rows, to_stderr

T = TypeVar("T")
Watch = Annotated[
    bool,
    typer.Option("--watch", "-w", help="Go on: draw it anew on a terminal, else tell what has changed. Ctrl-C ends."),
]
Every = Annotated[str, typer.Option("--every", metavar="DURATION", help="How often --watch looks.")]
EVERY = "2s"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column. ``rank`` says how important it is: 0 is never left out, the highest goes first."""

    name: str
    cell: Callable[[T], object]
    rank: int = 1
    is_wide: bool = False
    """Only with ``-o wide``."""
    is_whole: bool = False
    """An id, a name, a number: not to be shortened."""


def show(
    fetch: Callable[[], Sequence[T]],
    columns: Sequence[Column[T]],
    output: Format,
    *,
    empty: str,
    watch: bool = False,
    every: str = EVERY,
    note: Callable[[Sequence[T]], str] | None = None,
    head: Callable[[], Any] | None = None,
) -> None:
    """Print what ``fetch`` finds, as ``output`` says; with ``watch`` again and again, until Ctrl-C.

    ``note`` is what a person is told below a table; ``head`` is drawn above it by ``--watch`` on a terminal.
    """
    if watch:
        _follow(fetch, columns, output, every, empty, head)
        return
    found = fetch()
    if output.is_data:
        print_data(list(found), output)
        return
    _print(found, columns, output, empty)
    told = note(found) if note else ""
    if told:
        to_stderr(told)


def _print(found: Sequence[T], columns: Sequence[Column[T]], output: Format, empty: str) -> None:
    chosen = [column for column in columns if output is Format.WIDE or not column.is_wide]
    rows = [[as_text(column.cell(one)) for column in chosen] for one in found]
    print_rows(heads(chosen), rows, empty=empty, is_wide=output is Format.WIDE)


def heads(columns: Sequence[Column[Any]]) -> list[Head]:
    """Return what a table is told of its columns."""
    return [Head(column.name, column.rank, column.is_whole) for column in columns]


def _follow(
    fetch: Callable[[], Sequence[T]],
    columns: Sequence[Column[T]],
    output: Format,
    every: str,
    empty: str,
    head: Callable[[], Any] | None,
) -> None:
    from tenure.cli import parse

    every_s = max(parse.duration_s(every, "--every") or 0.0, 0.1)
    if output.is_data or not sys.stdout.isatty():
        _tell_changes(fetch, columns, output, every_s)
    else:
        _draw_again(fetch, columns, output, every_s, empty, head)


def _tell_changes(
    fetch: Callable[[], Sequence[T]], columns: Sequence[Column[T]], output: Format, every_s: float
) -> None:
    """Print each record when it is first seen, whenever it has changed, and (as JSON) when it is gone."""
    before: dict[str, Any] = {}
    while True:
        now = {name_of(one): one for one in fetch()}
        for name, one in now.items():
            if before.get(name) != one:
                _tell(one, columns, output, "changed" if name in before else "found")
        for name in before.keys() - now.keys():
            _tell(before[name], columns, output, "gone")
        before = now
        time.sleep(every_s)


def _tell(one: Any, columns: Sequence[Column[Any]], output: Format, event: str) -> None:
    if output is Format.JSON:
        print_json({"event": event, "object": jsonable(one)}, compact=True)
    elif output is Format.YAML:
        sys.stdout.write("---\n")
        print_data({"event": event, "object": jsonable(one)}, output)
    elif output is Format.NAME:
        sys.stdout.write(f"{line(name_of(one))}\n")
    else:
        chosen = [column for column in columns if output is Format.WIDE or not column.is_wide]
        cells = "  ".join(str(as_text(column.cell(one))) for column in chosen if str(as_text(column.cell(one))))
        sys.stdout.write(f"{event:<8}{cells}\n")
    sys.stdout.flush()


def _draw_again(
    fetch: Callable[[], Sequence[T]],
    columns: Sequence[Column[T]],
    output: Format,
    every_s: float,
    empty: str,
    head: Callable[[], Any] | None,
) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from tenure.model.errors import Unavailable

    console = Console(highlight=False, markup=False)
    chosen = [column for column in columns if output is Format.WIDE or not column.is_wide]
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            parts: list[Any] = [Text(f"{time.strftime('%H:%M:%S')}  every {every_s:g} s, Ctrl-C ends", style="dim")]
            try:
                found = fetch()
                if head is not None:
                    parts.append(head())
                rows = [[as_text(column.cell(one)) for column in chosen] for one in found[: max(console.height - 6, 1)]]
                table, _ = drawn(heads(chosen), rows, console.width)
                parts.append(table if rows else Text(empty))
                if len(rows) < len(found):
                    parts.append(Text(f"… and {len(found) - len(rows)} more", style="dim"))
            except Unavailable as exc:
                parts.append(Text(f"{line(exc.message)}; still trying", style="red"))
            live.update(Group(*parts), refresh=True)
            time.sleep(every_s)
