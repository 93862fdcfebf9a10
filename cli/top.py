"""``tenure top``: how it goes, live: throughput, what waits and for how long, pools, workers, failures, the leader."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import parse
from tenure.cli.fitting import as_text, drawn
from tenure.cli.output import Format, Output, ago, line, print_record, span
from tenure.cli.session import Address, connect
from tenure.cli.tables import Column, heads
from tenure.model.errors import FieldViolation, InvalidInput, Unavailable

if TYPE_CHECKING:
    from tenure.client import Worker
    from tenure.client.overview import Overview, PoolOverview

EVERY = "2s"
BARS = " ▁▂▃▄▅▆▇█"
OLD_S = 60.0
"""Above that a waiting job is shown in yellow."""


def top(
    every: Annotated[str, typer.Option("--every", metavar="DURATION", help="How often to look.")] = EVERY,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Show live how it goes: throughput, what waits, failures, pools, workers, the leader. Ctrl-C ends.

    With json, or without a terminal, one overview after the other is printed.
    """
    every_s = max(parse.duration_s(every, "--every") or 0.0, 0.5)
    if output is Format.NAME:
        raise InvalidInput([FieldViolation("--output", "an overview has no name")], hint="-o json")
    with connect(coordinator) as client:
        if output.is_data:
            while True:
                print_record(client.overview(), output)
                if once:
                    return
                time.sleep(every_s)
        if once or not sys.stdout.isatty():
            while True:
                _print(client.overview(), client.workers())
                if once:
                    return
                time.sleep(every_s)
        _live(client, every_s)


def _live(client: Any, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    shown: Any = Text("asking …")
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = picture(client.overview(), client.workers(), console.width, console.height)
                live.update(shown, refresh=True)
            except Unavailable as exc:
                live.update(Text(f"{line(exc.message)}; still trying", style="red"), refresh=True)
            time.sleep(every_s)


def _print(overview: Overview, workers: Sequence[Worker]) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, markup=False, width=width).print(picture(overview, workers, width or 120, None))


def picture(overview: Overview, workers: Sequence[Worker], width: int, height: int | None) -> Any:
    """Return what the terminal shows; ``height`` bounds the rows of workers (None: all of them)."""
    from rich.console import Group

    pools = sorted(overview.pools, key=lambda pool: (-pool.ready, -pool.executing, pool.pool))
    room = None if height is None else max(height - 14, 4)
    pools = pools if room is None else pools[: max(room // 2, 2)]
    busiest = sorted(workers, key=lambda worker: (-worker.claims, worker.id))
    busiest = busiest if room is None else busiest[: max(room - len(pools) - 4, 2)]
    return Group(*_summary(overview, width), _table(pools, _POOLS, width), _table(busiest, _WORKERS, width))


def _summary(overview: Overview, width: int) -> list[Any]:
    from rich.text import Text

    minute, hour = overview.last_minute, overview.last_hour
    leader = f"leader {overview.leader}" if overview.leader else "no leader"
    told = [
        Text.assemble(
            (f"{_now(overview.at)}  ", "dim"),
            (line(leader), "" if overview.leader else "red"),
            f", {overview.coordinators} coordinators, {overview.workers} workers",
            f" ({overview.draining_workers} draining)" if overview.draining_workers else "",
            f", {overview.claims} claims of {overview.capacity}",
        ),
        Text.assemble(
            f"ready {_count(overview.ready, overview.ready_at_least)}",
            (f" (oldest {_age(overview.oldest_ready_at)})" if overview.oldest_ready_at else "", _age_style(overview)),
            f"   executing {_count(overview.executing, overview.executing_at_least)}",
            f"   waiting {_count(overview.waiting, overview.waiting_at_least)}",
            f"   delayed {_count(overview.delayed, overview.delayed_at_least)}",
        ),
        Text.assemble(
            f"last minute: submitted {minute.submitted:,}, ended {minute.ended:,} ({minute.ended / 60:.1f}/s), ",
            (f"failed {minute.failed:,}", "red" if minute.failed else ""),
            f", canceled {minute.canceled:,}, returned {minute.returned:,}, ",
            (f"lost {minute.lost:,}", "yellow" if minute.lost else ""),
        ),
        Text(
            f"last hour:   submitted {hour.submitted:,}, ended {hour.ended:,}, failed {hour.failed:,}, "
            f"canceled {hour.canceled:,}, returned {hour.returned:,}, lost {hour.lost:,}"
        ),
        Text(f"ended by minute  {sparkline([one.ended for one in overview.minutes][-max(width - 20, 10) :])}"),
    ]
    if overview.silent:
        told.append(Text(f"without the figures of {line(', '.join(overview.silent))}", style="yellow"))
    return told


def sparkline(values: Sequence[int]) -> str:
    """Return a small picture of a series, the highest value as a full block."""
    most = max(values, default=0)
    return "".join(BARS[-(-value * (len(BARS) - 1) // most)] if most else BARS[0] for value in values)


def _table(found: Sequence[Any], columns: Sequence[Column[Any]], width: int) -> Any:
    rows = [[as_text(column.cell(one)) for column in columns] for one in found]
    return drawn(heads(columns), rows, width)[0]


def _count(number: int, at_least: bool) -> str:
    return f"{number:,}{'+' if at_least else ''}"


def _age(at: datetime | None) -> str:
    return "" if at is None else span(max((datetime.now(UTC) - at).total_seconds(), 0.0))


def _age_style(overview: Overview) -> str:
    at = overview.oldest_ready_at
    return "yellow" if at is not None and (datetime.now(UTC) - at).total_seconds() > OLD_S else ""


def _now(at: datetime | None) -> str:
    return f"{(at or datetime.now(UTC)).astimezone():%H:%M:%S}"


_POOLS: list[Column[PoolOverview]] = [
    Column("pool", lambda p: p.pool, rank=0, is_whole=True),
    Column("ready", lambda p: f"{p.ready:,}", rank=0, is_whole=True),
    Column("oldest", lambda p: _age(p.oldest_ready_at), rank=1, is_whole=True),
    Column("executing", lambda p: f"{p.executing:,}", rank=1, is_whole=True),
    Column("workers", lambda p: p.workers, rank=2, is_whole=True),
    Column("ended/min", lambda p: f"{p.last_minute.ended:,}", rank=2, is_whole=True),
    Column("failed/min", lambda p: f"{p.last_minute.failed:,}", rank=3, is_whole=True),
    Column("failed/h", lambda p: f"{p.last_hour.failed:,}", rank=4, is_whole=True),
    Column("lost/h", lambda p: f"{p.last_hour.lost:,}", rank=5, is_whole=True),
    Column("", lambda p: "paused" if p.paused else "", rank=3, is_whole=True),
]
_WORKERS: list[Column[Worker]] = [
    Column("worker", lambda w: w.id, rank=0, is_whole=True),
    Column("claims", lambda w: f"{w.claims}/{w.capacity}", rank=0, is_whole=True),
    Column("state", lambda w: "draining" if w.draining else "ready", rank=1, is_whole=True),
    Column("pools", lambda w: ", ".join(w.pools), rank=2),
    Column("kinds", lambda w: ", ".join(w.kinds), rank=4),
    Column("host", lambda w: w.host, rank=5),
    Column("started", lambda w: ago(w.started_at), rank=3, is_whole=True),
]
