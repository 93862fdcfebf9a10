"""Results as tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tenure.bench.results import Case, Results, percentile
from tenure.bench.targets import Judged


def show(results: Results, judged: Sequence[Judged], surroundings: Mapping[str, Any]) -> None:
    """Print all results on stdout, and the targets last."""
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else 200)
    for name, values in surroundings.items():
        console.print(f"{name}: {_words(values)}")
    for scenario in dict.fromkeys(case.scenario for case in results.cases.values()):
        cases = [case for case in results.cases.values() if case.scenario == scenario]
        _print(console, f"{scenario}: median of the runs (lowest to highest)", cases, [c.figures for c in cases])
        _print(console, f"{scenario}: CPU per job, µs", cases, [case.cpu_us_per_job for case in cases])
        _print_samples(console, scenario, cases)
    if judged:
        console.print(_targets(judged))


def _targets(judged: Sequence[Judged]) -> Table:
    title = "targets: median of the runs, or p99 of the samples (lowest to highest)"
    table = _table(title, ("what", "needed", "measured", "of", "met"), first="target")
    table.columns[1].justify = "left"
    for each in judged:
        target = each.target
        measured = number(each.measured)
        if each.count > 1:
            measured += f" ({number(each.lowest)} to {number(each.highest)})"
        needed = f"{target.sign} {target.needed:,g}"
        table.add_row(str(target.number), target.what, needed, measured, str(each.count), "yes" if each.met else "NO")
    return table


def _print(console: Console, title: str, cases: Sequence[Case], values: Sequence[Mapping[str, list[float]]]) -> None:
    names = list(dict.fromkeys(name for each in values for name in each))
    if not names:
        return
    table = _table(title, names)
    for case, each in zip(cases, values, strict=True):
        table.add_row(case.name, *(_over_runs(each.get(name)) for name in names))
    console.print(table)


def _print_samples(console: Console, scenario: str, cases: Sequence[Case]) -> None:
    sampled = [(case.name, name, values) for case in cases for name, values in case.samples.items()]
    if not sampled:
        return
    table = _table(f"{scenario}: all samples", ("what", "count", "min", "p50", "p99", "max"))
    for case_name, name, values in sampled:
        numbers = (min(values), percentile(values, 50), percentile(values, 99), max(values))
        table.add_row(case_name, name, str(len(values)), *map(number, numbers))
    console.print(table)


def _table(title: str, columns: Iterable[str], first: str = "case") -> Table:
    table = Table(first, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _over_runs(values: list[float] | None) -> str:
    if not values:
        return ""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Write a value with as many digits as were measured."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _words(values: Any) -> str:
    return (
        ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, Mapping) else str(values)
    )
