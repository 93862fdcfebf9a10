"""``tenure jobs logs``: what the attempts of a job wrote to their logs.

Invariant: what handlers wrote reaches a terminal as text alone, its control characters escaped; as JSON it is as it
was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import completing
from tenure.cli.output import Format, print_record
from tenure.cli.session import Address, connect
from tenure.model.text import visible

if TYPE_CHECKING:
    from tenure.client import LogLine


class LogOutput(StrEnum):
    """What to print."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


class LevelName(StrEnum):
    """How grave a line is, in order."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the job.", autocompletion=completing.jobs)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Only of this attempt.")] = None,
    level: Annotated[LevelName | None, typer.Option("--level", help="Only lines as grave as that.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", min=1, help="Begin so many lines before the end.")] = None,
    coordinator: Address = None,
    output: Annotated[
        LogOutput, typer.Option("--output", "-o", help="text for people; json (one object a line) or yaml (documents).")
    ] = LogOutput.TEXT,
) -> None:
    """Show what a job's attempts wrote to their logs; with -f as they write it, until the job has ended."""
    with connect(coordinator) as client:
        for line in client.logs(job_id, follow=follow, attempt=attempt, level=level and level.value, tail=tail):
            if output is not LogOutput.TEXT:
                print_record(line, Format(output.value))
                continue
            for text in as_text(line):
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def as_text(line: LogLine) -> Iterator[str]:
    """Yield a line of a log for people: one of text, and those that go on below it are indented."""
    at = f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] if line.at else "--:--:--.---"
    message, *more = visible(line.message).split("\n")
    blocks = {name: value for name, value in line.fields.items() if isinstance(value, str) and "\n" in value}
    told = [f"{_one(name)}={_value(value)}" for name, value in line.fields.items() if name not in blocks]
    where = " ".join(_one(part) for part in (line.logger, line.code) if part)
    parts = [f"{at} #{line.attempt} {_one(line.level).upper():<8} {message}", *told, *([f"({where})"] if where else [])]
    yield "  ".join(parts)
    for text in (*more, *(one for value in blocks.values() for one in visible(value).rstrip("\n").split("\n"))):
        yield f"    {text}"


def _value(value: object) -> str:
    """Return a field's value on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text) if " " in text and isinstance(value, str) else _one(text)


def _one(text: str) -> str:
    return visible(text).replace("\n", "\\n").replace("\t", " ")
