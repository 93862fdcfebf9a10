"""What of a table fits the terminal: texts are shortened first, then columns are left out.

Invariant: what is whole (an id, a number) is shown whole or not at all; columns go from the least to the most
important, and those of rank 0 stay. The decision is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenure.cli.output import line

if TYPE_CHECKING:
    from rich.text import Text

GAP_CHARS = 3
LAST_RANK = 1_000
LEAST_CHARS = 12
"""A text is not shortened to less than that."""


@dataclass(frozen=True, slots=True)
class Head:
    """One column. ``rank`` says how important it is: 0 is never left out, the highest goes first."""

    name: str
    rank: int = 1
    is_whole: bool = False
    """An id, a name, a number: not to be shortened."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Which columns are shown, how wide, and the names of those that are not."""

    shown: tuple[tuple[int, int], ...]
    """Index and width of each."""
    left_out: tuple[int, ...]


def fit(widths: Sequence[int], least: Sequence[int], ranks: Sequence[int], available: int) -> Fit:
    """Return what of a table fits: shorten what may be, then leave out columns, the highest rank first, from the right.

    ``widths`` are those that the columns would like, ``least`` those below which they make no sense. What has rank 0
    is shown even where it does not fit.
    """
    shown = list(range(len(widths)))
    left_out: list[int] = []
    while True:
        gaps = GAP_CHARS * (len(shown) - 1)
        over = sum(widths[index] for index in shown) + gaps - available
        if over <= 0:
            return Fit(tuple((index, widths[index]) for index in shown), tuple(sorted(left_out)))
        slack = sum(widths[index] - least[index] for index in shown)
        droppable = [index for index in shown if ranks[index]]
        if slack >= over or not droppable:
            return Fit(_shortened(widths, least, shown, over), tuple(sorted(left_out)))
        dropped = max(droppable, key=lambda index: (ranks[index], index))
        shown.remove(dropped)
        left_out.append(dropped)


def _shortened(
    widths: Sequence[int], least: Sequence[int], shown: Sequence[int], over: int
) -> tuple[tuple[int, int], ...]:
    """Take from the widest first, one by one."""
    now = {index: widths[index] for index in shown}
    while over > 0:
        shrinkable = [index for index in shown if now[index] > least[index]]
        if not shrinkable:
            break
        now[max(shrinkable, key=lambda index: (now[index], index))] -= 1
        over -= 1
    return tuple(now.items())


def as_text(cell: object) -> Text:
    """Return what stands in a cell: escaped, on one line."""
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text(line("" if cell is None else cell))


def drawn(heads: Sequence[Head], rows: Sequence[Sequence[Text]], available: int | None) -> tuple[Any, list[str]]:
    """Return a table for a width (None: any), and the names of the columns that it has no room for."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    widths = [max([len(head.name), *(max(row[index].cell_len, 1) for row in rows)]) for index, head in enumerate(heads)]
    least = [
        width if head.is_whole else min(width, max(LEAST_CHARS, len(head.name)))
        for width, head in zip(widths, heads, strict=True)
    ]
    room = sum(widths) + GAP_CHARS * len(widths) if available is None else available - 1
    # What says nothing in any row goes first, and unsaid.
    mute = {index for index, head in enumerate(heads) if head.rank and not any(row[index].plain for row in rows)}
    ranks = [LAST_RANK if index in mute else head.rank for index, head in enumerate(heads)]
    fitted = fit(widths, least, ranks, room)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, width in fitted.shown:
        table.add_column(heads[index].name, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*(row[index] for index, _ in fitted.shown))
    return table, [heads[index].name for index in fitted.left_out if index not in mute]
