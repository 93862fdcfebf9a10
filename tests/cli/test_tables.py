"""Tables fit the terminal, records have other forms, and changes are told."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from tenure.cli.fitting import Head, drawn, fit
from tenure.cli.output import Format, name_of, print_data, print_table
from tenure.cli.tables import Column, show
from tenure.cli.yaml_text import to_yaml
from tenure.model.errors import InvalidInput

ID = "01a1fc9f-a5d8-7638-b19f-2e74a4179471"


@dataclass(frozen=True)
class Thing:
    id: str
    words: str
    count: int


COLUMNS: list[Column[Thing]] = [
    Column("id", lambda t: t.id, rank=0, is_whole=True),
    Column("words", lambda t: t.words, rank=1),
    Column("count", lambda t: t.count, rank=2, is_whole=True),
    Column("twice", lambda t: 2 * t.count, is_wide=True),
]


def test_what_fits_is_left_alone() -> None:
    assert fit([5, 5], [5, 5], [0, 1], 13).shown == ((0, 5), (1, 5))


def test_texts_are_shortened_before_columns_are_left_out() -> None:
    fitted = fit([36, 40, 5], [36, 12, 5], [0, 1, 2], 60)
    assert fitted.left_out == ()
    assert fitted.shown == ((0, 36), (1, 13), (2, 5))


def test_the_least_important_column_goes_first() -> None:
    assert fit([36, 40, 5], [36, 12, 5], [0, 1, 2], 52).left_out == (2,)
    assert fit([36, 40, 5], [36, 12, 5], [0, 1, 2], 40).left_out == (1, 2)
    assert fit([36], [36], [0], 10).shown == ((0, 36),), "what is important is shown, even where it does not fit"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    st.integers(10, 200),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_fits_or_only_what_must_stay_is_left(columns: Sequence[tuple[int, int, bool]], room: int) -> None:
    widths = [width for width, _, _ in columns]
    least = [width if whole else min(width, 12) for width, _, whole in columns]
    ranks = [rank for _, rank, _ in columns]
    fitted = fit(widths, least, ranks, room)
    shown = [index for index, _ in fitted.shown]
    assert sorted([*shown, *fitted.left_out]) == list(range(len(columns)))
    assert all(least[index] <= width <= widths[index] for index, width in fitted.shown)
    taken = sum(width for _, width in fitted.shown) + 3 * (len(shown) - 1)
    assert taken <= room or all(ranks[index] == 0 for index in shown)
    assert not [index for index in fitted.left_out if ranks[index] == 0]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    heads = [Head("id", 0, True), Head("kind", 1), Head("why", 2)]
    rows = [[Text(ID), Text("a.long.kind.of.job"), Text("because " * 10)]]
    table, left_out = drawn(heads, rows, width)
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    assert ID in out.getvalue()
    assert bool(left_out) == (width < 80)


def test_an_empty_column_goes_first_and_unsaid() -> None:
    heads = [Head("id", 0, True), Head("worker", 1), Head("why", 2)]
    table, left_out = drawn(heads, [[Text(ID), Text(""), Text("because of it")]], 55)
    assert [column.header for column in table.columns] == ["id", "why"]
    assert left_out == []


def test_without_a_terminal_nothing_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "why"), [(ID, "because " * 60)], empty="none")
    assert "because " * 59 in capsys.readouterr().out


def test_forms(capsys: pytest.CaptureFixture[str]) -> None:
    things = [Thing("a", "one two", 1), Thing("b", "", 2)]

    def told(output: Format) -> str:
        show(lambda: things, COLUMNS, output, empty="none")
        return capsys.readouterr().out

    assert json.loads(told(Format.JSON)) == yaml.safe_load(told(Format.YAML)) == [t.__dict__ for t in things]
    assert told(Format.NAME) == "a\nb\n"
    assert "twice" in told(Format.WIDE)
    assert "twice" not in told(Format.TABLE)


def test_what_has_no_name_says_so() -> None:
    with pytest.raises(InvalidInput) as refused:
        print_data({"count": 3}, Format.NAME)
    assert "-o json" in (refused.value.hint or "")
    assert name_of({"job_id": "x"}) == "x"


class Enough(Exception):
    """The test has seen enough."""


def looks(*seen: list[Thing]) -> Any:
    left: Iterator[list[Thing]] = iter(seen)

    def look() -> list[Thing]:
        try:
            return next(left)
        except StopIteration:
            raise Enough from None

    return look


def test_changes_are_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    a, b, changed = Thing("a", "x", 1), Thing("b", "y", 1), Thing("a", "x", 2)
    with pytest.raises(Enough):
        show(looks([a, b], [a, b], [changed]), COLUMNS, Format.JSON, empty="none", watch=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["event"], one["object"]["id"]) for one in told] == [
        ("found", "a"),
        ("found", "b"),
        ("changed", "a"),
        ("gone", "b"),
    ]


def test_a_terminal_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(Enough):
        show(looks([Thing("a", "before", 1)], [Thing("a", "after", 1)]), COLUMNS, Format.TABLE, empty="-", watch=True)
    assert "before" in out.getvalue() and "after" in out.getvalue()


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSONS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_yaml_reads_back_as_it_was(value: Any) -> None:
    text = to_yaml(value)
    assert {char for char in text if not char.isprintable()} <= {"\n"}
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "no", "Yes", "0x1f", "1e3", "12:30:45", "2026-01-01", "~", "- a", "a: b", "#", ID, "---", "a\n---\nb",
        "!!python/x", "&a", "*a", "a #b", "a:", "'", '"', "\\", "{}", "[", "|", "a ", "\ta",
        "\x1b[2J", "\x00", "\x85", "\u2028", "\u202e", "\ufeff",
        "\U000e0001",
    ],
    ids=ascii,
)  # fmt: skip
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    told = to_yaml({"text": text, text: [text]})
    assert yaml.safe_load(told) == {"text": text, text: [text]}
    assert told.replace("\n", "").isprintable()
