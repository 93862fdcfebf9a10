"""How options are read: durations, labels, JSON from an argument, a file or stdin. Raises ``InvalidInput`` only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

from tenure.model.errors import FieldViolation, InvalidInput

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
MAX_INPUT_BYTES = 64 * 1024 * 1024


def duration_s(text: str | None, option: str) -> float | None:
    """Read ``90``, ``90s``, ``1h30m`` or ``500ms`` as seconds."""
    if text is None:
        return None
    try:
        return float(text) if float(text) >= 0 else _refuse(option, text)
    except ValueError:
        pass
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        _refuse(option, text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def labels(pairs: Iterable[str], option: str = "--label") -> dict[str, str]:
    """Read ``key=value`` pairs."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(
                [FieldViolation(option, f"{pair!r} is not KEY=VALUE")], hint=f"for example {option} team=red"
            )
        found[key] = value
    return found


def pair(text: str, option: str) -> tuple[str, str]:
    """Read ``NAME=ROLE``."""
    name, equals, role = text.partition("=")
    if not (name and equals and role):
        raise InvalidInput([FieldViolation(option, f"{text!r} is not NAME=ROLE")])
    return name, role


def day(text: str | None, option: str) -> datetime | None:
    """Read a day as its first instant, by UTC."""
    if text is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as exc:
        raise InvalidInput([FieldViolation(option, f"{text!r} is not a day, such as 2026-11-22")]) from exc


def instant(text: str | None, option: str) -> datetime | None:
    """Read an ISO 8601 time; without a zone it is this machine's."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidInput(
            [FieldViolation(option, f"{text!r} is not a time")], hint="for example 2026-11-21T09:00:00+00:00"
        ) from exc
    return at.astimezone() if at.tzinfo is None else at


def payload(text: str | None) -> Any:
    """Read JSON from the argument, from ``@file``, or from stdin where it is ``-``; None is null."""
    if text is None:
        return None
    source, content = "JSON", text
    if text == "-":
        source, content = "stdin", sys.stdin.read(MAX_INPUT_BYTES)
    elif text.startswith("@"):
        source = text[1:]
        try:
            with open(source, encoding="utf-8") as file:
                content = file.read(MAX_INPUT_BYTES)
        except (OSError, UnicodeDecodeError) as exc:
            reason = getattr(exc, "strerror", None) or "is not UTF-8 text"
            raise InvalidInput([FieldViolation("JSON", f"cannot read {source}: {reason}")]) from exc
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(
            [FieldViolation(source, f"is not JSON: {exc}")], hint="""quote it for the shell: '{"name": "value"}'"""
        ) from exc


def _refuse(option: str, text: str) -> float:
    raise InvalidInput(
        [FieldViolation(option, f"{text!r} is not a duration")], hint="for example 90, 90s, 1h30m, 500ms"
    )
