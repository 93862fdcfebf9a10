"""``tenure submit --from``: a job for each line of a file, sent over one stream, with a bar that says how far it is."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tenure.cli import parse
from tenure.cli.output import Format, print_record, to_stderr, to_stdout
from tenure.cli.progress import Bar
from tenure.cli.session import connect
from tenure.model.errors import FieldViolation, InvalidInput, TenureError

if TYPE_CHECKING:
    from tenure.client import NewJob

_TIMES = ("activate_at", "start_by")


def submit_lines(source: str, *, kind: str | None, key: str | None, coordinator: str | None, output: Format) -> None:
    """Submit a job for each line, and say what came of them. Exits 1 if some were refused."""
    numbers: list[int] = []
    """Of the lines that were sent, in order."""
    bad: deque[tuple[int, InvalidInput]] = deque()
    """Lines that are no jobs and nobody has told of: the source is read in a thread, this one tells."""
    created = known = refused = 0

    def refuse(line: int, error: TenureError) -> None:
        nonlocal refused
        refused += 1
        if output.is_data and output is not Format.NAME:
            print_record({"line": line, "error": error.message}, output)
        else:
            to_stderr(f"line {line}: {error.message}")

    def refuse_bad(before: float) -> None:
        while bad and bad[0][0] < before:
            refuse(*bad.popleft())

    def jobs(file: TextIO) -> Iterator[NewJob]:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                job = job_of_line(text, kind=kind, key=None if key is None else f"{key}:{line}")
            except InvalidInput as exc:
                bad.append((line, exc))
                continue
            numbers.append(line)
            yield job

    with ExitStack() as stack:
        file = sys.stdin if source == "-" else stack.enter_context(_open(source))
        client = stack.enter_context(connect(coordinator))
        bar = stack.enter_context(Bar("jobs"))
        for one in client.submit_stream(jobs(file)):
            bar.advance()
            refuse_bad(numbers[one.number])
            if one.error is not None:
                refuse(numbers[one.number], one.error)
                continue
            created, known = created + one.created, known + (not one.created)
            if output.is_data:
                print_record({"line": numbers[one.number], "id": one.id, "created": one.created}, output)
        refuse_bad(math.inf)
    if not output.is_data:
        to_stdout(f"{created} submitted, {known} known before, {refused} refused")
    if refused:
        raise typer.Exit(1)


def job_of_line(text: str, *, kind: str | None, key: str | None) -> NewJob:
    """Read one line.

    Raises:
        InvalidInput: it is no JSON object, or has fields that no job has.
    """
    from tenure.client import NewJob, Retry

    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput([FieldViolation("line", f"is not JSON: {_where(exc)}")]) from exc
    if not isinstance(values, dict):
        raise InvalidInput([FieldViolation("line", "must be a JSON object")])
    given = {**({"kind": kind} if kind is not None else {}), **({"idempotency_key": key} if key else {}), **values}
    _refuse_unknown(given, NewJob, "")
    if "kind" not in given:
        raise InvalidInput([FieldViolation("kind", "is missing")])
    for name in _TIMES:
        if name in given:
            given[name] = parse.instant(str(given[name]), name)
    retry = given.get("retry")
    if retry is not None:
        if not isinstance(retry, dict):
            raise InvalidInput([FieldViolation("retry", "must be an object")])
        _refuse_unknown(retry, Retry, "retry.")
        given["retry"] = Retry(**retry)
    return NewJob(**given)


def _where(exc: ValueError | RecursionError) -> str:
    return f"{exc.msg} at character {exc.pos + 1}" if isinstance(exc, json.JSONDecodeError) else str(exc)


def _refuse_unknown(given: dict[str, Any], record: Any, path: str) -> None:
    known = {field.name for field in fields(record)}
    what = "a retry policy" if path else "a job"
    if unknown := sorted(given.keys() - known):
        raise InvalidInput([FieldViolation(f"{path}{name}", f"is no field of {what}") for name in unknown])


def _open(path: str) -> TextIO:
    try:
        return open(path, encoding="utf-8")
    except OSError as exc:
        raise InvalidInput([FieldViolation("--from", f"cannot read {path}: {exc.strerror}")]) from exc
