"""docs/METRICS.md is what processes register, and names keep to Prometheus' conventions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.generate_metrics import Named, coordinators, workers

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("_seconds", "_bytes")
MAX_LABELS = 2
BOUNDED = {
    "call", "check", "chore", "code", "method", "outcome", "over", "pool", "python", "result", "state", "status",
    "table", "version", "write", "by",
}  # fmt: skip
"""Labels whose values are few by what they are; of pools the leader shows a hundred."""
BY_KIND = {"tenure_worker_attempt_seconds"}
"""Kinds are made up by users: only where whoever counts bounds them (tests/worker/test_metrics.py)."""
EVERY = [*coordinators(), *workers()]


def test_the_reference_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_metrics.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("metric", EVERY, ids=lambda one: one.name)
def test_names_types_and_labels_keep_to_the_conventions(metric: Named) -> None:
    assert re.fullmatch(r"(tenure|process)_[a-z_]+", metric.name)
    assert metric.type in ("counter", "gauge", "histogram")
    assert metric.name.endswith("_total") == (metric.type == "counter")
    if metric.type == "histogram":
        assert metric.name.endswith(UNITS)
    assert metric.meaning.endswith(".")
    assert set(metric.labels) - ({"kind"} if metric.name in BY_KIND else set()) <= BOUNDED
    assert len(metric.labels) <= MAX_LABELS


def test_names_are_of_one_process_or_mean_the_same() -> None:
    shared = {one.name for one in coordinators()} & {one.name for one in workers()}
    assert {name for name in shared if not name.startswith("process_")} == {"tenure_build_info"}
