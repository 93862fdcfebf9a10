"""Results: figures per run, samples over all runs, their summaries, and the file that keeps them.

Invariant: raw values are kept beside every summary. A figure is summed up as the median of its runs with the lowest
and the highest; samples as lowest, p50, p99 (nearest rank, so a value that did occur) and highest.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BenchError(Exception):
    """What was measured did not do what it must, so that its numbers mean nothing."""


@dataclass(slots=True)
class Case:
    """One thing measured. Units end the names: ``jobs_per_s``, ``start_p50_ms``."""

    scenario: str
    name: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    """One value per run."""
    cpu_us_per_job: dict[str, list[float]] = field(default_factory=dict)
    """By process, one value per run."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Every single measurement of all runs."""

    def add(self, figures: Mapping[str, float], cpu_us_per_job: Mapping[str, float] | None = None) -> None:
        """Add the values of one run."""
        for kept, values in ((self.figures, figures), (self.cpu_us_per_job, cpu_us_per_job or {})):
            for name, value in values.items():
                kept.setdefault(name, []).append(value)

    def sample(self, name: str, values: Sequence[float]) -> None:
        """Add single measurements."""
        self.samples.setdefault(name, []).extend(values)

    def to_json(self) -> dict[str, Any]:
        """Return the case with its summaries."""
        return {
            "scenario": self.scenario,
            "case": self.name,
            "figures": {name: over_runs(values) for name, values in self.figures.items()},
            "cpu_us_per_job": {name: over_runs(values) for name, values in self.cpu_us_per_job.items()},
            "samples": {name: over_samples(values) for name, values in self.samples.items()},
        }


@dataclass(slots=True)
class Results:
    """All cases of one benchmark, in the order in which they were first measured."""

    cases: dict[tuple[str, str], Case] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""
    drawings: dict[str, str] = field(default_factory=dict)
    """SVG by name."""

    def case(self, scenario: str, name: str) -> Case:
        """Return the case, made where missing."""
        return self.cases.setdefault((scenario, name), Case(scenario, name))

    def to_json(self) -> list[dict[str, Any]]:
        """Return all cases with their summaries."""
        return [case.to_json() for case in self.cases.values()]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def over_runs(values: Sequence[float]) -> dict[str, Any]:
    """Sum up one value per run."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
        "runs": [rounded(value) for value in values],
    }


def over_samples(values: Sequence[float]) -> dict[str, Any]:
    """Sum up single measurements."""
    return {
        "count": len(values),
        "min": rounded(min(values)),
        "p50": rounded(percentile(values, 50)),
        "p99": rounded(percentile(values, 99)),
        "max": rounded(max(values)),
        "values": [rounded(value) for value in values],
    }


def save(report: Mapping[str, Any], folder: Path, drawings: Mapping[str, str]) -> Path:
    """Write the report as ``<time>.json``, the drawings as ``<time>-<name>.svg``, and return the first file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report['at'].replace(':', '')}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for name, drawing in drawings.items():
        path.with_name(f"{path.stem}-{name}.svg").write_text(drawing)
    return path


def rounded(value: float) -> float:
    """Return four significant digits below a thousand, a whole number above: no more was measured."""
    return float(f"{value:.4g}") if abs(value) < 1_000 else float(round(value))
