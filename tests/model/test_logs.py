"""Lines of logs: whatever a handler writes becomes one line of bounded size that can be kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model import logs
from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.logs import Level, LogLine, StoredLine, bounded, fields_text, level_of

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
MOST = DEFAULT_BOUNDS.log_line_bytes


def kept(*lines: LogLine, first_seq: int = 1) -> list[StoredLine]:
    return list(logs.read(logs.stored(lines, first_seq)))


def test_a_line_is_kept_as_json_that_anybody_can_read() -> None:
    line = LogLine(AT, Level.WARNING, "ü", '{"n":[1, 2.50]}', "shop", "shop:7")
    text = logs.stored([line, line], 8)
    assert [json.loads(one) for one in text.splitlines()] == [
        {
            "seq": seq,
            "at": "2026-01-02T03:04:05.678901Z",
            "level": "warning",
            "message": "ü",
            "logger": "shop",
            "code": "shop:7",
            "fields": {"n": [1, 2.5]},
        }
        for seq in (8, 9)
    ]


@given(st.text(st.characters(exclude_categories=[]), max_size=200), st.text(st.characters(exclude_categories=[])))
def test_any_text_is_one_line_that_can_be_stored(message: str, fields: str) -> None:
    text = logs.stored([LogLine(AT, Level.INFO, message, fields)], 1)
    text.encode()
    assert "\0" not in text
    assert text.count("\n") == 1
    [line] = logs.read(text)
    assert line.seq == 1


@given(st.integers(0, 3 * MOST), st.integers(0, 3 * MOST), st.sampled_from(["a", "ü", "\0", '"', "\ud800", "🚀"]))
def test_a_line_is_cut_to_its_bound_and_says_so(message: int, field: int, of: str) -> None:
    line = LogLine(AT, Level.INFO, of * message, fields_text({"field": of * field}))
    after = bounded(line)
    assert logs.size_of(after.message) + logs.size_of(after.fields) <= MOST
    is_cut = logs.size_of(logs.clean(line.message)) + logs.size_of(line.fields) > MOST
    assert ("[cut: " in after.message + after.fields) == is_cut
    assert isinstance(json.loads(after.fields), dict)
    assert bounded(after) == after, "what a worker has cut is not cut again"


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("text", "text"),
        ("half \ud800", "half ?"),
        (float("inf"), "inf"),
        (1 << 70, 1 << 70),
        ({"a": {1, 2}}, {"a": [1, 2]}),
        ({3: b"x"}, {"3": "b'x'"}),
        (ValueError("no"), "no"),
        (Odd(), "(Odd: cannot be shown, RuntimeError)"),
        (AT, "2026-01-02T03:04:05.678901+00:00"),
    ],
)
def test_what_json_cannot_hold_is_told_as_text(value: Any, told: Any) -> None:
    assert json.loads(fields_text({"field": value})) == {"field": told}


def test_a_value_that_holds_itself_is_told_as_far_as_it_goes() -> None:
    value: list[Any] = []
    value.append(value)
    assert fields_text({"field": value})


def test_values_that_hold_each_other_many_times_are_told_in_part() -> None:
    node: dict[str, Any] = {"name": "a"}
    node["children"] = [node] * 10
    doubled: list[Any] = []
    doubled += [doubled, doubled]
    for value in (node, doubled, {str(n): [n] * 1_000 for n in range(1_000)}):
        text = fields_text({"value": value})
        assert len(text) < 500_000 and "…" in text


@pytest.mark.parametrize("fields", ["[1]", "{", '{"a": "\ud800"', "\0", '{"a":1} {"b":2}', '{"a":NaN}', "[" * 100_000])
def test_fields_that_are_no_object_are_kept_as_text(fields: str) -> None:
    [line] = kept(LogLine(AT, Level.INFO, "m", fields))
    assert isinstance(line.fields, msgspec.Raw)
    assert next(iter(json.loads(bytes(line.fields)))) in ("unreadable", "cut")


def test_fields_over_several_lines_are_one_line() -> None:
    [line] = kept(LogLine(AT, Level.INFO, "m", '{\n "a":\r\n "b\\n"}'))
    assert isinstance(line.fields, msgspec.Raw)
    assert json.loads(bytes(line.fields)) == {"a": "b\n"}


def test_levels_of_logging() -> None:
    assert [level_of(number) for number in (0, 5, 10, 25, 30, 45, 50, 99)] == [
        Level.DEBUG, Level.DEBUG, Level.DEBUG, Level.INFO, Level.WARNING, Level.ERROR, Level.CRITICAL, Level.CRITICAL,
    ]  # fmt: skip


def test_a_line_is_as_grave_as_another() -> None:
    lines = kept(*(LogLine(AT, level, "m") for level in Level))
    assert [line.level for line in lines if logs.is_at_least(line, Level.ERROR)] == ["error", "critical"]
