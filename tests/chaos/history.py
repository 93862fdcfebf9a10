"""The history of a chaos run: what happened, as JSON lines that each writer appends for itself.

Owns: the events, their form on disk, and reading them back. Invariant: a line is written whole or not at all (one
``write`` to a file opened with O_APPEND), so that a writer may be killed at any instant; a torn last line is dropped.
Written by clients, workers' handlers (by themselves, without tenure's code), a watcher of etcd and the nemesis; read
by ``checker``. Deliberately not here: any judgement.

One line is one object: ``{"event": "start", "at": 12.5, …}`` with the fields of the class of that name below. ``at`` is
in seconds of the host's monotonic clock, the same for all processes of a run; times that Postgres gave are named
otherwise and never compared with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at an instant."""

    name: ClassVar[str]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Event):
    """A client's submit: ``ok`` (acknowledged, with the job), ``info`` (no answer: zero or one job), ``fail``."""

    name: ClassVar[str] = "submit"
    key: str
    outcome: str
    job: str = ""
    parents: tuple[str, ...] = ()
    limit: str = ""
    """The limit under which it runs, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited(Event):
    """From here on at most ``most`` jobs that carry this limit may be claimed at a time."""

    name: ClassVar[str] = "limited"
    limit: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Event):
    """A claim was put, as a watcher of etcd saw it.

    ``cluster`` counts the etcds that the run has had, and the gaps in what was seen of one: nothing is judged across.
    """

    name: ClassVar[str] = "claim"
    job: str
    worker: str
    revision: int
    lease: int
    cluster: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaim(Event):
    """A claim was deleted at ``revision``; it had been created at ``created``."""

    name: ClassVar[str] = "unclaim"
    job: str
    created: int
    revision: int
    cluster: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Event):
    """An attempt started. ``started_at`` is Postgres' clock, in seconds."""

    name: ClassVar[str] = "start"
    job: str
    attempt: int
    fence: int
    worker: str
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Event):
    """A worker's report and its answer: ``recorded``, ``repeated``, ``lost``, or ``info`` (no answer)."""

    name: ClassVar[str] = "finish"
    job: str
    fence: int
    outcome: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(Event):
    """A handler's side effect under its fence: ``begin``, ``tick`` or ``end`` (with the result that it then returned).

    ``accepted`` tells whether a resource that compares fences took it.
    """

    name: ClassVar[str] = "effect"
    job: str
    fence: int
    step: str
    result: str = ""
    accepted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline(Event):
    """The instant after which a handler's lease may expire, by the KeepAlive that was answered last."""

    name: ClassVar[str] = "deadline"
    job: str
    fence: int
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Event):
    """The nemesis: ``begin`` and ``end`` of a fault."""

    name: ClassVar[str] = "fault"
    fault: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Event):
    """An ended attempt, from Postgres at the final read."""

    name: ClassVar[str] = "attempt"
    job: str
    attempt: int
    fence: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal(Event):
    """A terminal row, from Postgres at the final read. ``finished_at`` is Postgres' clock, in seconds."""

    name: ClassVar[str] = "terminal"
    job: str
    state: str
    fence: int | None
    finished_at: float
    result: str = ""
    key: str = ""
    """Its submitter's idempotency key, where it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Active(Event):
    """A row that is not terminal at the final read."""

    name: ClassVar[str] = "active"
    job: str
    state: str
    key: str = ""


EVENTS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (Submit, Limited, Claim, Unclaim, Start, Finish, Effect, Deadline, Fault, Attempt, Terminal, Active)
}


class MalformedHistory(ValueError):
    """A line that is no event: the history cannot be judged."""


def to_line(event: Event) -> str:
    """Return an event as one line of JSON."""
    return json.dumps({"event": event.name, **asdict(event)}, separators=(",", ":")) + "\n"


def from_line(line: str) -> Event:
    """Read an event.

    Raises:
        MalformedHistory: not an event, an unknown one, or one with other fields.
    """
    try:
        values: dict[str, Any] = json.loads(line)
        kind = EVENTS[values.pop("event")]
        if "parents" in values:
            values["parents"] = tuple(values["parents"])
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise MalformedHistory(f"{line.strip()[:200]}: {exc}") from exc


class Recorder:
    """Appends events to a file of its own; each is on disk when ``write`` returns."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._durable = durable

    def write(self, event: Event) -> None:
        """Append one event."""
        os.write(self._file, to_line(event).encode())
        if self._durable:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(paths: Iterable[Path]) -> list[Event]:
    """Read the files of all writers, in the order of time.

    Raises:
        MalformedHistory: a line, other than a torn last one, is no event.
    """
    return sorted((event for path in paths for event in _read_one(path)), key=lambda event: event.at)


def _read_one(path: Path) -> Iterator[Event]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return (from_line(line) for line in lines[:-1])  # after the last newline: nothing, or what a killed writer left
