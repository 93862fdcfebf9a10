"""What a person sees while long work goes on: a bar on the terminal's error output, gone when it is done."""

from __future__ import annotations


class Bar:
    """How much of something is done: ``with Bar("jobs", total) as bar: bar.to(10)``. Without a total it only counts."""

    def __init__(self, noun: str, total: int | None = None) -> None:
        self._noun = noun
        self._total = total

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        known = (BarColumn(), TimeRemainingColumn()) if self._total else ()
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            TextColumn(self._noun),
            *known,
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task(self._noun, total=self._total)
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """Count one more."""
        self._progress.advance(self._task)

    def to(self, done: int) -> None:
        """Say how many are done in all."""
        self._progress.update(self._task, completed=done)


class Busy:
    """Something that takes its time and does not say how much is done: ``with Busy("applying migrations"):``."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __enter__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
            disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._progress.start()
        self._progress.add_task(self._words, total=None)

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
