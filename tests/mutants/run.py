"""Applies each mutant to a copy of the tree and runs its scenarios: ``python -m tests.mutants.run [--only NAME]``.

Owns the verdicts and docs/spec/MUTANTS.md. The unmutated tree must pass every scenario first. A mutant is

- ``caught``: every one of its scenarios failed, in the test itself: an assertion, or waiting for what never came;
- ``survived``: at least one scenario passed;
- ``broken``: its code did not import, or a scenario did not come as far as its own text. That proves nothing;
- ``hung``: the time limit was over.

The table's rows are renewed as mutants are judged; with ``--only`` the others' rows stay.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant
from tests.mutants.tree import ROOT, Broken, Tree

TABLE = ROOT / "docs" / "spec" / "MUTANTS.md"
LIMIT_S = 300.0
BASELINE_LIMIT_S = 1_200.0


class Fate(StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    BROKEN = "broken"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A mutant's fate, the line of the test at which its first scenario failed, and what to show if that is wrong."""

    fate: Fate
    line: str = ""
    output: str = ""
    seconds: float = 0.0


def judge(mutant: Mutant, unmutated: Tree, folder: Path) -> Judgement:
    """Run a mutant's scenarios on a mutated copy in ``folder``."""
    began = time.monotonic()
    tree = Tree(folder / mutant.name, unmutated.path)
    tree.apply(mutant.edits)
    try:
        tree.check_imports()
    except Broken as exc:
        return Judgement(Fate.BROKEN, output=str(exc))
    verdict = run_scenarios(tree.path, tree.env, mutant.scenarios, LIMIT_S)
    return Judgement(verdict.fate, verdict.line, verdict.output, time.monotonic() - began)


def run_scenarios(root: Path, env: Mapping[str, str], scenarios: Sequence[str], limit_s: float) -> Judgement:
    """Run tests of the tree at ``root``, and judge what they say."""
    report = root / "scenarios.xml"
    report.unlink(missing_ok=True)  # of the tree that this one is a copy of
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", f"--junitxml={report}", *scenarios]
    # A session of its own: at the limit whatever the tests started is ended with them.
    process = subprocess.Popen(
        command,
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Judgement(Fate.HUNG, output=output)
    if not report.exists():  # pytest itself was ended: by its limit for one test, most often
        return Judgement(Fate.HUNG if "Timeout" in output else Fate.BROKEN, output=output)
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failures = [failure for case in cases if (failure := case.find("failure")) is not None]
    # An error is one of fixtures or of collection; with a failure it comes after it, when the fixtures end.
    errors = [case for case in cases if case.find("error") is not None and case.find("failure") is None]
    if errors or not cases or any(case.find("skipped") is not None for case in cases):
        return Judgement(Fate.BROKEN, output=output)
    if len(failures) < len({(case.get("classname"), case.get("name")) for case in cases}):
        return Judgement(Fate.SURVIVED, output=output)
    return Judgement(Fate.CAUGHT, _failing_line(failures[0].text or ""), output)


def _failing_line(text: str) -> str:
    """Return the line of the test's own text at which it failed."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith(">")]
    return re.sub(r"\s+", " ", lines[0]) if lines else ""


def baseline(scenarios: Iterable[str], tree: Tree) -> Judgement:
    """Run all scenarios on an unmutated copy: they must pass, or their failing says nothing."""
    tree.check_imports()
    return run_scenarios(tree.path, tree.env, sorted(set(scenarios)), BASELINE_LIMIT_S)


def _passed(verdict: Judgement) -> bool:
    return verdict.fate is Fate.SURVIVED and not re.search(r"\d+ (failed|error)", verdict.output)


def table(rows: Mapping[str, str]) -> str:
    """Return the document, from the rows of mutants by their names."""
    return "\n".join(_lines(rows)) + "\n"


def row(mutant: Mutant, judgement: Judgement) -> str:
    """Return a mutant's line in the table."""
    scenarios = "<br>".join(f"`{name}`" for name in mutant.scenarios)
    where = f"<br>at `{judgement.line.replace('|', chr(92) + '|')}`" if judgement.line else ""
    return f"| `{mutant.name}` | {mutant.rule} | {mutant.files} | {scenarios}{where} | {judgement.fate} |"


def known_rows() -> dict[str, str]:
    """Return the rows that the document has, by the names of mutants that there still are."""
    if not TABLE.exists():
        return {}
    found = {line.split("`")[1]: line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"}
    return {mutant.name: found[mutant.name] for mutant in MUTANTS if mutant.name in found}


def _lines(rows: Mapping[str, str]) -> Iterator[str]:
    yield "# Mutants of the code"
    yield ""
    yield "Generated by `make mutants`; do not edit. The mutants of the *protocol* are in [README.md](README.md)."
    yield ""
    yield "Each mutant breaks one rule in a copy of the code. Its scenarios run on real stores and pass on the code as"
    yield "it is. A mutant is caught when each of its scenarios fails in the test's own text: shown is the line at"
    yield "which the first one does. Code that does not import counts as broken, not as caught."
    yield ""
    rules = [mutant.name for mutant in MUTANTS if not mutant.control]
    caught = sum(rows.get(name, "").endswith(f"| {Fate.CAUGHT} |") for name in rules)
    yield f"**{caught} of {len(rules)} caught.** The controls below must survive."
    heading = (
        "| mutant | the rule that it breaks | in | scenarios, and where the first fails | |",
        "| - | - | - | - | - |",
    )
    for title, is_control in (("Rules", False), ("Controls", True)):
        yield ""
        yield f"## {title}"
        yield ""
        if is_control:
            yield "What is only a help, not a rule: with it taken away the scenarios must still pass."
            yield ""
        yield from heading
        yield from (rows[one.name] for one in MUTANTS if one.control is is_control and one.name in rows)


def _as_expected(mutant: Mutant, judgement: Judgement) -> bool:
    return judgement.fate is (Fate.SURVIVED if mutant.control else Fate.CAUGHT)


def main() -> int:
    """Run mutants and print the table; 0 if all met their expected fate."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="only these mutants (any part of the name)")
    parser.add_argument("--jobs", type=int, default=2, help="how many mutants at a time")
    parser.add_argument("--verbose", action="store_true", help="show what the scenarios said of every mutant")
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if not options.only or any(part in one.name for part in options.only)]
    if not chosen:
        parser.error("no such mutant")
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        unmutated = Tree(folder / "unmutated")  # once, so that the checkout may be worked on meanwhile
        passing = baseline((scenario for mutant in chosen for scenario in mutant.scenarios), unmutated)
        if not _passed(passing):
            print(passing.output)
            print("the unmutated code does not pass: nothing can be said of mutants")
            return 2
        print(f"unmutated: {passing.output.strip().splitlines()[-1]}", flush=True)
        judged = []
        rows = known_rows()
        for mutant, judgement in _judge_all(chosen, unmutated, folder, options.jobs, options.verbose):
            judged.append((mutant, judgement))
            rows[mutant.name] = row(mutant, judgement)
            TABLE.write_text(table(rows), encoding="utf-8")
    wrong = [mutant.name for mutant, judgement in judged if not _as_expected(mutant, judgement)]
    print(f"{len(judged) - len(wrong)} of {len(judged)} as expected" + (f"; not: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


def _judge_all(
    chosen: Sequence[Mutant], unmutated: Tree, folder: Path, jobs: int, verbose: bool
) -> Iterator[tuple[Mutant, Judgement]]:
    with ThreadPoolExecutor(jobs) as executor:
        for mutant, judgement in zip(
            chosen, executor.map(lambda one: judge(one, unmutated, folder), chosen), strict=True
        ):
            print(f"{judgement.fate:8} {mutant.name:40} {judgement.seconds:5.1f} s  {judgement.line}", flush=True)
            if verbose or not _as_expected(mutant, judgement):
                print(judgement.output, flush=True)
            yield mutant, judgement


if __name__ == "__main__":
    sys.exit(main())
