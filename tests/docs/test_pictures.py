"""Pictures of the dashboard: each is shown by a page, and none is large."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = sorted((DOCS / "dashboard").glob("*.png"))
MAX_BYTES = 150_000
_SHOWN = re.compile(r"!\[[^\]]+\]\(dashboard/([^)]+)\)")
"""With words for whoever does not see it."""


def test_there_are_pictures() -> None:
    assert PICTURES


@pytest.mark.parametrize("picture", PICTURES, ids=lambda file: file.name)
def test_a_picture_is_shown_by_a_page_and_is_small(picture: Path) -> None:
    shown = {name for page in DOCS.glob("*.md") for name in _SHOWN.findall(page.read_text(encoding="utf-8"))}
    assert picture.name in shown
    assert picture.stat().st_size <= MAX_BYTES
