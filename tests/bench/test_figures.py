"""The page of figures is made from files of results: the newest counts, the text around it stays."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tenure.bench.bars import LABELS, VALUES, WIDTH, bars
from tenure.bench.floors import BEFORE_THE_START
from tenure.bench.latency import ANOTHER
from tenure.bench.plan import Plan
from tenure.bench.rates import draining
from tenure.bench.results import Results
from tenure.bench.scale.capacity import Costs, Load, ends, needed
from tenure.bench.targets import judge

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_performance.py"
SPEC = importlib.util.spec_from_file_location("generate_performance", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)
SVG = "{http://www.w3.org/2000/svg}"
CPU = {"client": 1.0, "postgres": 100.0, "etcd": 50.0, "coordinator, leads": 90.0, "workers": 60.0, "all": 301.0}


def _report(at: str, results: Results) -> dict[str, Any]:
    return {
        "at": at,
        "source": {"commit": "0123456789abcdef", "changed": False},
        "machine": {"cores": 2, "cpu": "A CPU", "memory_mib": 4096, "file_system": "ext4"},
        "versions": {"python": "3.11", "postgres": "18", "etcd": "3.5"},
        "settings": {"runs": 1},
        "left_out": {},
        "targets": [each.to_json() for each in judge(results, Plan())],
        "results": results.to_json(),
    }


def _peers(rate: float) -> Results:
    results = Results()
    for name, factor in (("pgqueuer", 1.0), ("tenure", 0.5)):
        drained = {"jobs_per_s": rate * factor, "of_pgqueuer": factor, "cpu_us_per_job": 301.0, "cpu_of_pgqueuer": 1.0}
        results.case("peers", f"drain, 1 worker: {name}").add(drained, CPU)
    return results


def _costs() -> Results:
    results = Results()
    results.case("costs", "untouched drain, 1 worker").add({"jobs_per_s": 9.0}, CPU)
    for process, step in (("coordinators", "finish"), ("workers", "claim"), ("Postgres", "SELECT 1 | 2")):
        results.case(f"costs: {process}", step).add({"us_per_job": 42.0})
    return results


def test_the_newest_of_several_files_counts_and_what_is_around_stays() -> None:
    old, new = (
        _report("2026-01-01T00:00:00+00:00", _peers(1000.0)),
        _report("2026-01-02T00:00:00+00:00", _peers(8000.0)),
    )
    costs = _report("2026-01-01T12:00:00+00:00", _costs())
    gathered = figures.gather([new, costs, old])
    assert [report["at"] for report in gathered["reports"]] == [costs["at"], new["at"]]
    made = figures.outputs(gathered, f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    page = made[figures.PAGE]
    assert page.startswith("before\n") and page.endswith(f"{figures.END}\nafter\n") and "old" not in page
    assert "| 1 | drain, 1 worker, of PgQueuer's rate | ≥ 1 | 0.50 | **no** |" in page
    assert "| tenure | 4,000 | 0.50 | 301 |" in page and "500" not in page
    assert "| `SELECT 1 ∣ 2` | 42.0 |" in page
    drawings = [path for path in made if path.suffix == ".svg"]
    assert {path.stem for path in drawings} == {"drain", "cpu", "steps"}
    assert all(ElementTree.fromstring(made[path]).tag.endswith("svg") for path in drawings)
    assert figures.outputs(gathered, page) == made  # a second time changes nothing


def test_what_a_job_meets_is_summed_up_beside_what_it_takes() -> None:
    results = Results()
    for name in BEFORE_THE_START:
        results.case("floors", name).add({"p50_ms": 1.5})
    results.case("latency", ANOTHER).add({"submit_to_start_p50_ms": 20.0})
    made = figures.outputs(figures.gather([_report("2026-01-01T00:00:00+00:00", results)]), figures.BEGIN + figures.END)
    page = made[figures.PAGE]
    assert "| empty gRPC call | SubmitJob, the hint to the leader, StartAttempts | 1.50 | 3 | 4.50 |" in page
    assert "| all of these |  |  |  | 13.5 |" in page
    assert "| measured, submit to start |  |  |  | 20.0 |" in page


def _capacity() -> Results:
    results = Results()
    cpu = {**CPU, "coordinator, follows": 10.0}
    bytes_of_a_job = {"postgres_wal_bytes": 2_048.0, "postgres_disk_bytes": 1_024.0, "etcd_written_bytes": 512.0}
    results.case("life", "20,000 jobs").add({**bytes_of_a_job, "etcd_puts": 2.0, "etcd_deletes": 1.0}, cpu)
    cpu_of_each = {"postgres_us": 0.0, "etcd_us": 100.0, "coordinators_us": 50.0, "workers_us": -1.0}
    results.case("fleet: slopes", "a worker").add({**cpu_of_each, "leader_kib": 2.0, "etcd_kib": 8.0})
    results.case("fleet: slopes", "a KeepAlive a second").add(cpu_of_each)
    results.case("fleet: slopes", "a claim").add({"leader_kib": 1.0, "etcd_kib": 4.0, "worker_kib": 3.0})
    return results


def test_the_model_adds_up_what_jobs_workers_and_claims_take() -> None:
    cases = {f"{case['scenario']}|{case['case']}": case for case in _capacity().to_json()}
    costs = Costs.of(cases)
    assert costs is not None
    load = needed(costs, Load(1_000, 100, 10_000))
    assert load["KeepAlives/s"] == pytest.approx(3_000)
    assert load["etcd, cores"] == pytest.approx((1_000 * 50 + 100 * 100 + 3_000 * 100) / 1e6)
    assert load["leader, of its one core"] == pytest.approx((1_000 * 90 + 100 * 50 + 3_000 * 50) / 1e6)
    assert load["workers, cores"] == pytest.approx(0.06)  # a slope below nothing is noise
    assert load["leader, MiB more"] == pytest.approx((100 * 2 + 10_000) / 1024)
    assert load["Postgres, WAL MiB/s"] == pytest.approx(1_000 / 512)
    assert ends(costs)["jobs/s of one leader"] == pytest.approx(1e6 / 90)
    assert "idle workers of one core of postgres" not in ends(costs)


def test_the_page_sizes_loads_where_all_was_measured() -> None:
    made = figures.outputs(
        figures.gather([_report("2026-01-01T00:00:00+00:00", _capacity())]), figures.BEGIN + figures.END
    )
    assert "|  | 1× | 10× | 100× | 1,000× |" in made[figures.PAGE]
    assert "| claims | 100 | 1,000 | 10,000 | 100,000 |" in made[figures.PAGE]
    assert figures.FOLDER / "capacity.svg" in made
    assert Costs.of({"life|20,000 jobs": {}}) is None


def test_a_bar_that_would_dwarf_the_others_is_broken_off() -> None:
    drawing = bars("t", [("short", {"a": 50.0}), ("long", {"a": 90.0, "b": 910.0})], cut=100.0)
    widths = [float(box.get("width", 0)) for box in ElementTree.fromstring(drawing).iter(f"{SVG}rect")]
    room = WIDTH - LABELS - VALUES
    assert widths[-3:] == pytest.approx([0.5 * room, 0.9 * room, 0.1 * room]) and "» 1,000" in drawing


def test_without_results_the_page_says_so() -> None:
    [page] = figures.outputs(None, f"{figures.BEGIN}{figures.END}").values()
    assert figures.NOTHING in page


def test_runs_are_told_as_median_lowest_and_highest() -> None:
    results = Results()
    for rate in (1.0, 3.0, 2.0):
        results.case("drain", draining(Plan(), 1)).add({"jobs_per_s": rate})
    page = figures.outputs(figures.gather([_report("2026-01-01", results)]), figures.BEGIN + figures.END)[figures.PAGE]
    assert "2.00 (1.00–3.00)" in page


def test_what_is_committed_is_what_the_script_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(["--check"]) == 0, capsys.readouterr().out
