"""What nobody would see is seen by its code."""

from __future__ import annotations

import pytest

from tenure.model.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain — ünï 漢", "plain — ünï 漢"),
        ("a\n\tb", "a\n\tb"),
        ("\x1b[2J\x00\x9b\r", r"\x1b[2J\x00\x9b\r"),
        ("\u202egnp.exe\u2066\u200b\u2028", r"\u202egnp.exe\u2066\u200b\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
    ids=ascii,
)
def test_every_character_is_seen(text: str, shown: str) -> None:
    assert visible(text) == shown
