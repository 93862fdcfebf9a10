"""The record of runs is made from their results: each run once, sums over all, the text around it stays."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.run import Result

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_reliability.py"
SPEC = importlib.util.spec_from_file_location("generate_reliability", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
record = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(record)
FOUND = [{"layer": "chaos", "what": "a fault", "commit": "0123456"}]
PAGE = f"# Title\n{record.BEGIN}\nold\n{record.END}\nafter\n"


def _run(seed: int, **values: Any) -> dict[str, Any]:
    result = Result(seed, "3.4.23", True, jobs=1_000, faults={"kill-worker": 3}, minutes=30.0, claims=1_100)
    result.source = {"commit": "0123456789abcdef", "changed": False}
    return {**asdict(result), **values}


def test_a_run_that_is_given_twice_counts_once_by_its_newest_result() -> None:
    [first, second] = record.gather([_run(1), _run(2), _run(1, jobs=2_000)])
    assert (first["seed"], first["jobs"], second["seed"]) == (1, 2_000, 2)


def test_the_page_sums_up_and_names_what_repeats_each_run() -> None:
    soak = _run(2, minutes=120.0, drift={"leases": [3.0, 4.0]}, violations=["grows: leases"])
    page = record.page([_run(1), soak], FOUND, PAGE)
    assert page.startswith("# Title\n") and page.endswith(f"{record.END}\nafter\n") and "old" not in page
    assert "| runs; hours under faults | 2; 2.5 |" in page
    assert "| jobs | 2,000 |" in page and "| `kill-worker` | 6 |" in page
    assert "| 1 | 30 | 0123456789 | 3.4.23 | 1,000 | 3 | 0 | 0 | 0 | `make chaos MINUTES=30 SEED=1` |" in page
    assert "| 2 | 120 | 0123456789 | 3.4.23 | 1,000 | 3 | 0 | 0 | 1 | `make soak HOURS=2 SEED=2` |" in page
    assert "| leases | 3 | 4 |" in page
    assert "| chaos | a fault | `0123456` |" in page


def test_without_runs_the_page_says_so() -> None:
    assert "No run is recorded yet." in record.page([], FOUND, PAGE)
