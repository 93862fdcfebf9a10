"""The list of mutants fits the code, and the runner tells fates apart. What mutants do is shown by ``make mutants``."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.mutants.mutants import MUTANTS, Edit, Mutant
from tests.mutants.run import TABLE, Fate, judge, run_scenarios
from tests.mutants.tree import ROOT, Tree


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
    assert all(f"`{scenario}`" in rows[0] for scenario in mutant.scenarios), "run: make mutants"


@pytest.mark.parametrize("text", ["", "twice twice"])
def test_an_old_text_that_is_not_there_once_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        Edit("f", "twice", "x").applied_to(text)


@pytest.mark.parametrize(
    ("text", "fate", "line"),
    [
        ("def test_it(): pass", Fate.SURVIVED, ""),
        ("def test_it():\n    assert 1 == 2\n", Fate.CAUGHT, "assert 1 == 2"),
        ("def test_it(): assert 0\ndef test_other(): pass", Fate.SURVIVED, ""),
        ("import nothing_of_that_name\ndef test_it(): assert 0", Fate.BROKEN, ""),
        ("import pytest\n@pytest.fixture\ndef f(): assert 0\ndef test_it(f): assert 0", Fate.BROKEN, ""),
        ("import pytest\ndef test_it(): pytest.skip('no')", Fate.BROKEN, ""),
        ("import time\ndef test_it(): time.sleep(600)", Fate.HUNG, ""),
    ],
    ids=["passes", "fails", "one-passes", "no-import", "no-fixture", "skips", "hangs"],
)
def test_fates_are_told_apart(tmp_path: Path, text: str, fate: Fate, line: str) -> None:
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "scenarios.xml").write_text("<left/>")  # by an earlier run, of the tree that was copied
    judgement = run_scenarios(tmp_path, os.environ, ["test_it.py"], 3.0 if fate is Fate.HUNG else 60.0)
    assert (judgement.fate, judgement.line) == (fate, line), judgement.output


def test_a_mutant_is_caught_and_the_unmutated_code_is_not(tmp_path: Path) -> None:
    """One whole run, of a mutant that pure tests catch."""
    [mutant] = (one for one in MUTANTS if one.name == "poison-never-ends")
    pure = replace(mutant, scenarios=tuple(name for name in mutant.scenarios if name.startswith("tests/model/")))
    unmutated = Tree(tmp_path / "unmutated")
    assert judge(pure, unmutated, tmp_path).fate is Fate.CAUGHT
    same = judge(replace(pure, name="same", edits=()), unmutated, tmp_path)
    assert same.fate is Fate.SURVIVED, same.output
    broken = replace(pure, name="broken", edits=(Edit("model/retry.py", "class Next:", "class Next("),))
    assert judge(broken, unmutated, tmp_path).fate is Fate.BROKEN
