"""The list of mutants fits the code: old texts, scenarios and the table. What they do is shown by ``make mutants``."""

from __future__ import annotations

import re

import pytest
from tests.mutants.mutants import MUTANTS, Edit, Mutant
from tests.mutants.run import TABLE
from tests.mutants.tree import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        before = texts.setdefault(edit.file, (ROOT / edit.file).read_text(encoding="utf-8"))
        texts[edit.file] = edit.applied_to(before)
        assert texts[edit.file] != before
    assert mutant.scenarios
    for scenario in mutant.scenarios:
        path, _, name = scenario.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name.partition('[')[0]}\(", source, re.MULTILINE), (
            f"no such test: {scenario}"
        )


def test_names_are_told_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_table_shows_each_mutant_and_its_expected_fate(mutant: Mutant) -> None:
    fate = "survived" if mutant.control else "caught"
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{mutant.name}` |")]
    assert len(rows) == 1, "run: make mutants"
    assert f"| {mutant.rule} |" in rows[0] and rows[0].endswith(f"| {fate} |"), "run: make mutants"


@pytest.mark.parametrize("text", ["", "twice twice"])
def test_an_old_text_that_is_not_there_once_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        Edit("f", "twice", "x").applied_to(text)
