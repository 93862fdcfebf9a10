"""How long attempts run is told by kind, of so many kinds at most."""

from __future__ import annotations

import pytest

from tenure.model.states import Outcome
from tenure.worker import metrics
from tenure.worker.metrics import MOST_KINDS, OTHER, observe_attempt


def _told(name: str, kind: str) -> float | None:
    labels = {"kind": kind, "outcome": "failed"}
    return metrics.REGISTRY.get_sample_value(f"tenure_worker_attempt_seconds_{name}", labels)


def test_attempts_of_further_kinds_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_KINDS", set())
    for _ in range(2):
        for n in range(MOST_KINDS + 5):
            observe_attempt(3.0, f"kind-{n}", Outcome.FAILED)
    assert (_told("count", "kind-0"), _told("sum", "kind-0")) == (2, 6.0)
    assert _told("count", f"kind-{MOST_KINDS - 1}") == 2
    assert _told("count", f"kind-{MOST_KINDS}") is None
    assert (_told("count", OTHER), _told("sum", OTHER)) == (10, 30.0)
