"""What jobs hold is shown, and does nothing to the terminal that shows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenure.cli.output import (
    Format,
    print_done,
    print_fields,
    print_json,
    print_spans,
    print_table,
    state_text,
    to_stderr,
)

HOSTILE = [
    "[bold]loud[/bold]", "[link=http://x]y[/link]", "[/]", "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "a\rb", "a\nb\x0b",
    "\x00", "\x7f", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "\u2028", "\ufeff", "\ue000", "%s{0}", "\ud800",
]  # fmt: skip
PRINTS: list[Callable[[str], None]] = [
    lambda text: print_table(("kind", "reason"), [(text, text)], empty="none"),
    lambda text: print_fields([("reason", text), ("state", state_text(text))]),
    lambda text: print_spans([[(text, "failed"), (text, "")]]),
    lambda text: print_done(f"job of {text}", Format.TABLE),
    lambda text: to_stderr(f"progress: {text}"),
    lambda text: print_json({"reason": text, text: 1}),
]


@pytest.mark.parametrize("show", range(len(PRINTS)))
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_as_text(show: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    PRINTS[show](text)
    told = capsys.readouterr()
    said = told.out + told.err
    assert {char for char in said if not char.isprintable()} <= {"\n"}
    if text.isprintable():
        assert text in said


def test_a_cell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a",), [("x\nevil  row",)], empty="none")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("evil")] == []
