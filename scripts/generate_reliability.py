"""Generate the record of docs/RELIABILITY.md, between its markers, from results of ``make chaos`` and ``make soak``.

``generate_reliability.py DIR/result.json …`` adds runs to docs/reliability/runs.json (one by seed, commit and minutes
is there once) and writes the page from it; without files it writes it again. ``--check`` compares instead of writing
and exits 1 when something committed is stale. Invariant: no figure is written by hand.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"
RUNS = ROOT / "docs" / "reliability" / "runs.json"
FOUND = ROOT / "docs" / "reliability" / "found.json"
"""Faults of the product: by which layer each was found, and the commit that mends it."""
BEGIN, END = "<!-- record: scripts/generate_reliability.py -->", "<!-- end of record -->"
Run = Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with ``--check``; return the exit code."""
    files = [pathlib.Path(argument) for argument in arguments if argument != "--check"]
    known = json.loads(RUNS.read_text(encoding="utf-8")) if RUNS.exists() else []
    runs = gather([*known, *(json.loads(file.read_text(encoding="utf-8")) for file in files)])
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    made = {RUNS: json.dumps(runs, indent=1) + "\n", PAGE: page(runs, found, PAGE.read_text(encoding="utf-8"))}
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_reliability.py")
        return 1 if stale else 0
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def gather(runs: Iterable[Run]) -> list[Run]:
    """Return each run once, in the order in which they came."""
    found: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        found[run["seed"], run["source"].get("commit"), run["minutes"]] = run
    return list(found.values())


def page(runs: Sequence[Run], found: Iterable[Mapping[str, str]], text: str) -> str:
    """Return the page with its record made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    record = "".join((*_record(runs), *_findings(found)))
    return f"{before}{BEGIN}\n{record}{END}{after}"


def _findings(found: Iterable[Mapping[str, str]]) -> Iterator[str]:
    rows = [(one["layer"], one["what"], f"`{one['commit']}`") for one in found]
    yield "\n### What was found, and by which layer\n\n"
    yield _table(("layer", "what", "mended by"), rows)


def _record(runs: Sequence[Run]) -> Iterator[str]:
    if not runs:
        yield "No run is recorded yet.\n"
        return
    yield "\n### All runs together\n\n"
    yield _table(("", ""), _totals(runs))
    yield "\n### Faults by kind\n\n"
    faults: Counter[str] = Counter()
    for run in runs:
        faults.update(run["faults"])
    yield _table(("fault", "times"), ((f"`{name}`", f"{count:,}") for name, count in sorted(faults.items())))
    yield "\n### Each run\n\n"
    yield _table(
        ("seed", "minutes", "commit", "etcd", "jobs", "faults", "lost", "doubled", "violations", "repeat"),
        map(_row, runs),
    )
    drifted = [run for run in runs if run.get("drift")]
    for run in drifted:
        yield f"\n### What did not grow, seed {run['seed']}, {run['minutes']:g} minutes\n\n"
        rows = ((name, f"{a:,g}", f"{b:,g}") for name, (a, b) in run["drift"].items())
        yield _table(("median of", "the second quarter", "the last"), rows)


def _totals(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    hours = sum(run["minutes"] for run in runs) / 60
    yield "runs; hours under faults", f"{len(runs):,}; {hours:.1f}"
    for name, what in (
        ("jobs", "jobs"),
        ("claims", "claims"),
        ("attempts_lost", "attempts lost, and made again"),
        ("stale_writes_refused", "stale writes refused by fences"),
        ("stale_reports_refused", "stale reports refused"),
        ("restarts", "processes started again"),
        ("lost", "jobs lost"),
        ("doubled", "jobs completed twice"),
        ("claims_overlapping", "claims of one job that overlap"),
    ):
        yield what, f"{sum(run[name] for run in runs):,}"
    yield "slowest completion after a fault was healed, s", f"{max(run['slowest_recovery_s'] for run in runs):.1f}"


def _row(run: Run) -> tuple[str, ...]:
    command = f"`make chaos MINUTES={run['minutes']:g} SEED={run['seed']}`"
    if run.get("drift"):
        command = f"`make soak HOURS={run['minutes'] / 60:g} SEED={run['seed']}`"
    return (
        str(run["seed"]),
        f"{run['minutes']:g}",
        str(run["source"].get("commit", "unknown"))[:10] + (", with changes" if run["source"].get("changed") else ""),
        str(run["etcd"]),
        f"{run['jobs']:,}",
        f"{sum(run['faults'].values()):,}",
        str(run["lost"]),
        str(run["doubled"]),
        str(len(run["violations"]) + len(run["not_exercised"])),
        command,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(re.sub(r'[|]', '∣', cell) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
