"""How lines of logs are shown: for people, on a terminal that nobody writes to but us."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure.cli.job_logs import as_text
from tenure.client import LogLine

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def line(message: str = "m", *, fields: Mapping[str, Any] | None = None, **more: Any) -> LogLine:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    told: dict[str, Any] = {"logger": "", "code": "", "level": "info", "at": at, **more}
    return LogLine(attempt=2, seq=7, message=message, fields=fields or {}, **told)


def shown(one: LogLine) -> list[str]:
    """Return what is shown, but for the time of day, which is local."""
    first, *more = as_text(one)
    return [first[13:], *more]


def test_a_line_is_one_line() -> None:
    one = line("found", fields={"host": "db 7", "n": 3, "deep": {"a": [1]}}, logger="shop", code="shop:4")
    assert shown(one) == ['#2 INFO     found  host="db 7"  n=3  deep={"a": [1]}  (shop shop:4)']


def test_what_goes_on_is_indented_below() -> None:
    one = line("two\nlines", level="error", fields={"exception": "Traceback:\n  File x\nValueError: no\n", "n": 1})
    assert shown(one) == [
        "#2 ERROR    two  n=1", "    lines", "    Traceback:", "      File x", "    ValueError: no",
    ]  # fmt: skip


def test_a_line_without_a_time_is_shown() -> None:
    assert next(iter(as_text(line(at=None)))).startswith("--:--:--.--- #2 INFO")


@given(ANY, ANY, ANY, ANY, st.dictionaries(ANY, ANY | st.lists(ANY), max_size=3))
def test_no_control_character_of_a_log_reaches_a_terminal(
    message: str, level: str, logger: str, code: str, fields: dict[str, Any]
) -> None:
    for text in as_text(line(message, level=level, logger=logger, code=code, fields=fields)):
        assert all(char.isprintable() or char == "\t" for char in text), repr(text)
