"""The benchmark end to end, at its tiniest: every scenario yields what it promises, and no process stays behind.

Nothing is asserted about the numbers themselves: that they are fast is not for a test to say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tenure.bench.plan import quick
from tenure.bench.results import over_samples, percentile
from tenure.bench.targets import targets

PROCESSES = {"client", "postgres", "etcd", "coordinator, leads", "coordinator, follows", "workers", "all"}
FIGURES = {
    "submit": {"jobs_per_s"},
    "drain": {"jobs_per_s", "repeated_jobs"},
    "blocked": {"jobs_per_s", "of_the_rate_alone"},
    "end-to-end": {"jobs_per_s", "last_end_after_last_ack_s"},
    "latency": {"submit_to_start_p50_ms", "submit_to_answer_p99_ms"},
    "half-load": {"whole_jobs_per_s", "jobs_per_s", "submit_to_start_p99_ms", "called_late_p99_ms"},
    "backlog": set[str](),
    "held": {"holder_percent", "claims_lost", "attempts_lost", "jobs_per_s"},
    "failover": set[str](),
    "takeover": set[str](),
    "floors": set[str](),
    "history": set[str](),
    "life": {"jobs_per_s", "postgres_wal_bytes", "etcd_puts"},
    "full": set[str](),
    "full: processes and tables": set[str](),
    "fleet": set[str](),
    "fleet: slopes": set[str](),
    "waiters": {"end_to_answer_p50_ms", "end_to_answer_p99_ms", "most_at_once", "busy_cores"},
    "workflow": {"submit_us_per_job", "run_us_per_job", "run_of_the_smallest"},
    "schedules": {"ticks", "late_p99_s"},
    "limits": {"jobs_per_s", "of_none"},
    "namespaces": {"jobs_per_s", "of_one", "at_half_fewest"},
    "slow": {"jobs_per_s", "of_near", "held_attempts_lost"},
}
SAMPLES = {
    "latency": {"submit_ack_ms", "submit_to_start_ms", "submit_to_answer_ms"},
    "failover": {"kill_to_restart_s"},
    "takeover": {f"loss_to_{which}_restart_s" for which in ("first", "half", "99_percent", "last")}
    | {"jobs_lost_again"},
}


@pytest.mark.slow
@pytest.mark.timeout(920)
def test_a_quick_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data, kept = tmp_path / "data", tmp_path / "results"
    scenarios = [name for name in FIGURES if ":" not in name]
    command = [sys.executable, "-m", "tenure.bench", *scenarios, "--quick", "--runs", "1", "--output", "json"]
    done = subprocess.run(
        [*command, "--data", str(data), "--results", str(kept)],
        env={name: value for name, value in os.environ.items() if not name.startswith("TENURE_")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [json.loads(file.read_text()) for file in kept.iterdir()] == [report]
    assert report["complete"]
    assert report["settings"]["postgres_fsync"] and report["settings"]["etcd_fsync"]
    assert report["machine"]["cores"] and {"python", "postgres", "etcd", "tenure"} <= report["versions"].keys()

    by_scenario = {name: [each for each in report["results"] if each["scenario"] == name] for name in FIGURES}
    assert sum(map(len, by_scenario.values())) == len(report["results"])
    for scenario, cases in by_scenario.items():
        assert cases, scenario
        for case in cases:
            assert FIGURES[scenario] <= case["figures"].keys()
            samples = SAMPLES.get(scenario, set())
            if case["case"].startswith("leader killed"):
                samples = samples | {"kill_to_end_of_claimed_s"}
            assert samples == case["samples"].keys()
            if scenario in ("submit", "drain", "end-to-end"):
                assert case["cpu_us_per_job"].keys() == PROCESSES
    told = [target.what for target in targets(quick(1)) if target.scenario in FIGURES]
    assert [each["what"] for each in report["targets"]] == told
    assert {each["target"] for each in report["targets"]} == {2, 3, 4, 5, 6, 7}  # the first is a matter of peers
    assert not list(data.iterdir())
    assert not [
        each.pid for each in psutil.process_iter(["cmdline"]) if str(data) in " ".join(each.info["cmdline"] or ())
    ]


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([7.0], 99) == 7.0
    summary = over_samples([3.0, 1.0, 2.0])
    assert (summary["count"], summary["min"], summary["p50"], summary["max"]) == (3, 1.0, 2.0, 3.0)
