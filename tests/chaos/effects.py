"""What a handler does to the outside under its fence, and its own record of that, apart from tenure's code.

Invariant: the record says what the fenced store decided, at the instant at which it did. Standard library and the
history only, so that a program that tenure runs as a command can use it. Called by ``handlers`` and ``program``.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tests.chaos.fenced_store import FencedStore
from tests.chaos.history import Effect, Event, Recorder

FOLDER = "TENURE_CHAOS_FOLDER"
"""Names the folder of the run; the history is in ``history/`` of it, the fenced store in ``store/``."""
WRITER = "TENURE_CHAOS_WRITER"
"""Names who writes: the worker. Its handlers' processes append to the same file, a line at a time."""
TICK_S = 0.1


class Work:
    """One attempt's effects."""

    def __init__(self, job: str, fence: int) -> None:
        self.job = job
        self.fence = fence

    def begin(self) -> None:
        """Say that the handler has begun."""
        self._write("begin")

    def tick(self) -> None:
        """Do a little work."""
        self._write("tick")

    def end(self) -> str:
        """Do the last of it and return the result, which no other attempt has."""
        result = f"{self.job} under {self.fence}"
        self._write("end", result)
        return result

    def _write(self, step: str, result: str = "") -> None:
        written = _store().write(self.job, self.fence)
        # A zombie goes on although it was refused: what it reports must be refused by tenure, too.
        record(
            Effect(at=written.at, job=self.job, fence=self.fence, step=step, result=result, accepted=written.accepted)
        )


def record(event: Event) -> None:
    """Append an event to the history of this worker."""
    _recorder(os.environ[WRITER]).write(event)


def folder() -> Path:
    """Return the folder of the run."""
    return Path(os.environ[FOLDER])


@functools.cache
def _store() -> FencedStore:
    return FencedStore(folder() / "store")


@functools.cache
def _recorder(writer: str) -> Recorder:
    # Not durable: processes are killed here, the machine is not, and its disk is what etcd waits for.
    return Recorder(folder() / "history" / f"{writer}.jsonl", durable=False)
