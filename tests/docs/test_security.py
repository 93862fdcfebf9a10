"""docs/SECURITY.md: a table with a test for every threat, and every test that it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "SECURITY.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)
]
NAMED = sorted({(path, name) for row in ROWS for path, name in re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", row[-1])})
LEAST_ROWS = 25
DANGEROUS = {"S102", "S301", "S307", "S501", "S506", "S602", "S605", "S608"}
"""exec, pickle, eval, TLS unchecked, YAML that makes objects, shells, SQL made of strings."""


def test_the_table_has_its_rows_and_each_has_a_control_and_a_test() -> None:
    assert len(ROWS) >= LEAST_ROWS
    for row in ROWS:
        assert len(row) == 4, row
        assert all(row), row
        assert re.search(r"`tests/[\w/.]+\.py::\w+`", row[-1]), row
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.M), f"{path} has no {name}"


def test_no_named_test_is_left_out_on_purpose() -> None:
    for path, name in NAMED:
        text = (ROOT / path).read_text()
        above = text[: text.index(f"def {name}(")].rsplit("\n\n", 1)[-1]
        assert "mark.skip" not in above, f"{path}::{name} is skipped"
        assert "mark.xfail" not in above, f"{path}::{name} is expected to fail"


def test_the_linter_refuses_what_it_should() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert set(lint["select"]) >= DANGEROUS
    assert not DANGEROUS & set(lint["ignore"])
    for paths, ignored in lint["per-file-ignores"].items():
        assert paths.startswith(("tests/", "bench/", "scripts/")) or not DANGEROUS & set(ignored)
