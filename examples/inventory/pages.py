"""What the demo shows: a bar while it runs, the report, and where each job ran. Prints only; asks nobody.

Text that comes from the machine's files is shown as text, never as markup or control characters.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tenure.client import Attempt, Job, JobState, Worker
from tenure.examples.inventory.findings import Discovery, Report
from tenure.examples.inventory.handlers import SCAN

LINE_EVERY_S = 3.0
SHOWN_PER_PROBLEM = 5
SHOWN_LICENCES = 12
ROWS = 8


class Progress:
    """The bar of scans, those under way and the workers; plain lines now and then where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, discovery: Job, jobs: Sequence[Job], workers: Sequence[Worker]) -> None:
        """Show how it stands now."""
        scans = [job for job in jobs if job.kind == SCAN]
        done = sum(job.is_terminal for job in scans)
        running = [job for job in [discovery, *jobs] if job.state is JobState.EXECUTING]
        if self._live:
            self._live.update(self._page(done, scans, running, workers))
        elif time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            now = f"{self._told - self._began:4.0f} s"
            self._console.print(f"  {now}  {done} of {len(scans)} scans done, {len(running)} jobs executing")

    def _page(
        self, done: int, scans: Sequence[Job], running: Sequence[Job], workers: Sequence[Worker]
    ) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"{done} of {len(scans)} scans" if scans else "discovering",
            ProgressBar(total=max(1, len(scans)), completed=done, width=50),
            f"{time.monotonic() - self._began:.0f} s",
        )
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("executing", "on", "done", "at"):
            table.add_column(column)
        for job in running[:ROWS]:
            name = job.labels.get("group", job.kind)
            worker = job.claim.worker if job.claim else ""
            table.add_row(_text(name), _text(worker), f"{job.progress:4.0%}", _text(job.progress_message))
        if len(running) > ROWS:
            table.add_row(f"and {len(running) - ROWS} more")
        names = ", ".join(f"{worker.id} ({worker.claims}/{worker.capacity})" for worker in workers)
        return Group(head, table, _text(f"workers: {names}"))


def show_report(report: Report, discovery: Discovery, console: Console) -> None:
    """Print what was found."""
    console.rule("[bold]report")
    table = _table("", "packages", "files", "size", "read and compared", "unreadable")
    for name, one in [*report.by_ecosystem.items(), ("together", report.total)]:
        read = f"{one.hashed_files:,} files, {_size(one.hashed_bytes)}"
        table.add_row(name, f"{one.packages:,}", f"{one.files:,}", _size(one.size_bytes), read, f"{one.unreadable:,}")
    console.print(table)
    licences = list(report.total.licences.items())
    table = _table("licence", "packages", "licence", "packages")
    half = (min(len(licences), SHOWN_LICENCES) + 1) // 2
    for row in range(half):
        left, right = licences[row], licences[row + half] if row + half < len(licences) else ("", "")
        table.add_row(_text(left[0]), str(left[1]), _text(right[0]), str(right[1]))
    console.print(table)
    if not report.total.problems:
        console.print("[green]no findings[/green]: every file is as it was installed, under a known licence\n")
        return
    table = _table("finding", "count", "for example")
    for problem, count in report.total.problems.items():
        # One of each package says more than five of one.
        by_package = {found.package: found for found in reversed(report.total.findings) if found.problem == problem}
        examples = list(reversed(by_package.values()))[:SHOWN_PER_PROBLEM]
        shown = "\n".join(f"{found.package}: {found.path}" if found.path else found.package for found in examples)
        table.add_row(problem, f"{count:,}", _text(shown))
    console.print(table)


def show_places(jobs: Sequence[Job], attempts: Mapping[str, Sequence[Attempt]], console: Console) -> None:
    """Print where each job ran, by its last attempt, and which were tried more than once."""
    console.rule("[bold]where each job ran")
    by_worker: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_worker[attempts[job.id][-1].worker if attempts[job.id] else "nowhere"].append(job)
    table = _table("worker", "jobs", "busy", "which")
    for worker, done in sorted(by_worker.items()):
        busy_s = sum(
            (a.finished_at - a.started_at).total_seconds()
            for job in done
            for a in attempts[job.id]
            if a.worker == worker and a.started_at and a.finished_at
        )
        names = ", ".join(sorted(job.labels.get("group", job.kind) for job in done))
        table.add_row(_text(worker), str(len(done)), f"{busy_s:.1f} s", _text(names))
    console.print(table)
    again = Counter(job.id for job in jobs for _ in attempts[job.id][1:])
    if again:
        console.print(f"{len(again)} jobs took more than one attempt, {again.total()} attempts more in all")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column in ("packages", "files", "size", "count", "jobs", "busy", "unreadable", "read and compared")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _text(text: str) -> Text:
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
