"""What must not grow: growth is told from noise, by medians of quarters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.chaos.bounds import MIN_SAMPLES, beyond, drift, read_samples

COUNT = 4 * MIN_SAMPLES


def _samples(of: Callable[[int], float], name: str = "worker-1.mib") -> list[dict[str, float]]:
    return [{"at_s": float(n), name: of(n)} for n in range(COUNT)]


def test_a_leak_is_told_and_what_stays_is_not() -> None:
    leaking = drift(_samples(lambda n: 50.0 + n))
    assert list(beyond(leaking)) == [
        f"worker-1.mib grew from {50 + 1.5 * MIN_SAMPLES - 0.5:g} to {50 + 3.5 * MIN_SAMPLES - 0.5:g}"
    ]
    assert list(beyond(drift(_samples(lambda n: 50.0)))) == []


def test_what_warms_up_or_has_a_peak_has_not_grown() -> None:
    warm = drift(_samples(lambda n: 50.0 if n < MIN_SAMPLES else 200.0))
    assert warm == {"worker-1.mib": (200.0, 200.0)}
    assert list(beyond(drift(_samples(lambda n: 900.0 if n % 5 == 0 else 50.0)))) == []


def test_figures_that_nobody_judges_are_told() -> None:
    drifted = drift(_samples(float, "waited_p99_ms"))
    assert drifted and list(beyond(drifted)) == []


def test_a_short_run_says_nothing() -> None:
    assert drift(_samples(float)[: MIN_SAMPLES - 1]) == {}


def test_samples_with_holes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    assert read_samples(file) == []
    whole = [{"at_s": float(n), "leases": 3.0} if n % 2 else {"at_s": float(n)} for n in range(COUNT)]
    file.write_text("".join(json.dumps(each) + "\n" for each in whole))
    assert drift(read_samples(file)) == {"leases": (3.0, 3.0)}
