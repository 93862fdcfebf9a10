"""Generate the figures of docs/PERFORMANCE.md, between its markers, and its plots from the files of ``make bench``.

``generate_performance.py bench-results/A.json bench-results/B.json …`` gathers files into docs/performance/results.json
(of what several of them measured, or that file has already, the newest counts) and draws from that; without files it
draws again. ``--check`` compares instead of writing and exits 1 when something committed is stale. Invariant: no figure
is written by hand.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tenure.bench.bars import bars
from tenure.bench.floors import BEFORE_THE_START
from tenure.bench.latency import ANOTHER
from tenure.bench.scale.capacity import BASE, FACTORS, Costs, Load, ends, needed
from tenure.bench.scale.capacity import PARTS as CORES_OF
from tenure.bench.tables import number

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "PERFORMANCE.md"
FOLDER = ROOT / "docs" / "performance"
GATHERED = FOLDER / "results.json"
BEGIN, END = "<!-- figures: scripts/generate_performance.py -->", "<!-- end of figures -->"
NOTHING = "To be renewed on a machine that does nothing else. None are given here until then.\n"
STATEMENTS = 8
DRAWN_US = 0.5
"""Steps that take less have no bar."""
SCENARIOS = (
    "submit",
    "drain",
    "end-to-end",
    "latency",
    "half-load",
    "failover",
    "takeover",
    "held",
    "backlog",
    "blocked",
    "floors",
    "history",
    "full",
    "full: processes and tables",
    "fleet",
    "fleet: slopes",
    "waiters",
    "workflow",
    "schedules",
    "limits",
    "namespaces",
    "slow",
    "life",
)
"""Shown one by one, after what is told of them together."""
PEER_COLUMNS = (
    ("drain, 1 worker", "jobs_per_s", "drain, 1 worker, /s"),
    ("drain, 1 worker", "of_pgqueuer", "of PgQueuer"),
    ("drain, 1 worker", "cpu_us_per_job", "CPU per job, µs"),
    ("drain, 1 worker", "cpu_of_pgqueuer", "of PgQueuer's"),
    ("drain, 2 workers", "jobs_per_s", "2 workers, /s"),
    ("submit singly", "jobs_per_s", "submit singly, /s"),
    ("submit in bulk", "jobs_per_s", "in bulk, /s"),
    ("end to end, submitted singly", "jobs_per_s", "end to end, singly, /s"),
    ("end to end, submitted in bulk", "jobs_per_s", "in bulk, /s"),
    ("latency", "submit_to_start_p50_ms", "latency p50, ms"),
    ("latency", "submit_to_start_p99_ms", "p99, ms"),
)
CPU_PARTS = {
    "leader": ("coordinator, leads",),
    "other coordinator": ("coordinator, follows",),
    "workers": ("workers",),
    "etcd": ("etcd",),
    "Postgres": ("postgres",),
    "Redis": ("redis",),
    "client": ("client", "submitter"),
}

Report = dict[str, Any]
Cases = Mapping[str, Mapping[str, Any]]


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with ``--check``; return the exit code."""
    files = [pathlib.Path(argument) for argument in arguments if argument != "--check"]
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    committed = _committed()
    gathered = gather([*_reports_of(committed), *reports]) if reports else committed
    made = outputs(gathered, PAGE.read_text(encoding="utf-8"))
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_performance.py")
        return 1 if stale else 0
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _committed() -> Report | None:
    return json.loads(GATHERED.read_text(encoding="utf-8")) if GATHERED.exists() else None


def _reports_of(gathered: Report | None) -> Iterator[Report]:
    """Yield the reports of which one was made."""
    if gathered is None:
        return
    for about in gathered["reports"]:
        results = [
            case for case in gathered["results"] if case["scenario"] in about.get("scenarios", [case["scenario"]])
        ]
        yield {**about, "results": results, "targets": gathered["targets"]}


def gather(reports: Iterable[Report]) -> Report:
    """Return one report of several: each scenario and each target as in the newest that has it."""
    results: dict[str, list[Any]] = {}
    targets: dict[tuple[int, str], Any] = {}
    runs: dict[str, Any] = {}
    for report in sorted(reports, key=lambda each: str(each["at"])):
        about = {name: value for name, value in report.items() if name not in ("results", "targets")}
        scenarios = dict.fromkeys(case["scenario"] for case in report["results"])
        for scenario in scenarios:
            results[scenario] = [case for case in report["results"] if case["scenario"] == scenario]
            runs[scenario] = report["at"]
        targets.update({(each["target"], each["what"]): each for each in report.get("targets", ())})
        runs[f"about {report['at']}"] = about
    used = {at for name, at in runs.items() if not name.startswith("about ")}
    return {
        "reports": [
            {**runs[f"about {at}"], "scenarios": [name for name, ran in runs.items() if ran == at]}
            for at in sorted(used)
        ],
        "targets": [targets[key] for key in sorted(targets, key=lambda key: key[0])],
        "results": [case for cases in results.values() for case in cases],
    }


def outputs(gathered: Report | None, page: str) -> dict[pathlib.Path, str]:
    """Return what each file must hold."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if gathered is None:
        return {PAGE: f"{before}{BEGIN}\n{NOTHING}{END}{after}"}
    cases = {f"{case['scenario']}|{case['case']}": case for case in gathered["results"]}
    plots = dict(_plots(cases))
    parts = [
        *_about(gathered),
        *_targets(gathered["targets"]),
        *_peers(cases),
        *_steps(cases),
        *_trip(cases),
        *_others(cases),
        *_capacity(cases),
    ]
    shown = re.sub(r"\n{3,}", "\n\n", "\n".join(parts))
    return {
        GATHERED: json.dumps(gathered, indent=1, ensure_ascii=False) + "\n",
        **{FOLDER / f"{name}.svg": drawing for name, drawing in plots.items()},
        PAGE: f"{before}{BEGIN}\n{shown}{END}{after}",
    }


def _about(gathered: Report) -> Iterator[str]:
    for report in gathered["reports"]:
        machine, versions, source = report["machine"], report["versions"], report.get("source", {})
        commit = f"{source.get('commit', 'unknown')[:12]}{', with changes' if source.get('changed') else ''}"
        parts = (machine["cpu"], f"{machine['memory_mib'] // 1024} GiB", machine["file_system"])
        yield (
            f"Measured {report['at'][:10]} at commit {commit}: {machine['cores']} cores ({', '.join(parts)}), "
            f"Python {versions['python']}, Postgres {versions['postgres']}, etcd {versions['etcd']}; "
            f"{_runs(report['settings'])}{_of_what(gathered, report)}. "
            "All values: [results.json](performance/results.json).\n"
        )


def _runs(settings: Mapping[str, Any]) -> str:
    """Say how many runs there were; those of some minutes each are fewer."""
    runs, long_runs = settings["runs"], settings.get("long_runs", settings["runs"])
    fewer = "" if long_runs == runs else f" (failover, held claims, history, takeover: {long_runs})"
    return f"{runs} run(s){fewer}"


def _of_what(gathered: Report, report: Report) -> str:
    """Say what the report is of, unless it is the only one."""
    if len(gathered["reports"]) == 1:
        return ""
    return f" of {', '.join(name for name in report['scenarios'] if not name.startswith('costs:'))}"


def _targets(targets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if targets:
        rows = [
            (
                str(each["target"]),
                each["what"],
                f"{each['sign']} {each['needed']:,g}",
                _range(each["measured"], each["min"], each["max"]),
                "yes" if each["met"] else "**no**",
            )
            for each in targets
        ]
        yield f"\n### Targets\n\n{_table(('', 'what', 'needed', 'measured', 'met'), rows)}"


def _peers(cases: Cases) -> Iterator[str]:
    systems = _systems(cases)
    if not systems:
        return
    rows = []
    for system in systems:
        cells = [_figure(cases.get(f"peers|{what}: {system}"), figure) for what, figure, _ in PEER_COLUMNS]
        rows.append((system, *cells))
    yield f"\n### Beside peers\n\n{_table(('', *(title for *_, title in PEER_COLUMNS)), rows)}"
    yield "\n![Jobs drained per second](performance/drain.svg)\n\n![CPU per job of a drain](performance/cpu.svg)\n"


def _systems(cases: Cases) -> list[str]:
    drained = {
        key.rpartition(": ")[2]: case for key, case in cases.items() if key.startswith("peers|drain, 1 worker: ")
    }
    measured = [name for name, case in drained.items() if "jobs_per_s" in case["figures"]]
    return sorted(measured, key=lambda name: -_median(drained[name], "jobs_per_s"))


def _steps(cases: Cases) -> Iterator[str]:
    """Yield where the CPU of a drain goes."""
    if not (steps := _by_step(cases)):
        return
    yield "\n### CPU of a drained job, by step\n"
    for process, values in steps.items():
        rows = [(step, number(value)) for step, value in sorted(values.items(), key=lambda each: -each[1])]
        yield f"\n{_table((f'{process}, µs a job: {number(sum(values.values()))}', ''), rows)}"
    operations = {key.partition("|")[2]: case for key, case in cases.items() if key.startswith("costs: etcd|")}
    if operations:
        rows = [(f"`{name}`", number(_median(case, "per_job"))) for name, case in operations.items()]
        yield f"\n{_table(('etcd, operations a job', ''), rows)}"
    yield "\n![CPU by process and step](performance/steps.svg)\n"


def _trip(cases: Cases) -> Iterator[str]:
    """Yield what one job on an idle system meets, each part asked for nothing else, beside what it takes."""
    measured = cases.get(f"latency|{ANOTHER}")
    parts = {name: cases.get(f"floors|{name}") for name in BEFORE_THE_START}
    if measured is None or None in parts.values():
        return
    rows = []
    sum_ms = 0.0
    for name, case in parts.items():
        assert case is not None
        p50_ms, met = _median(case, "p50_ms"), BEFORE_THE_START[name].split(", ")
        sum_ms += p50_ms * len(met)
        rows.append((name, ", ".join(met), number(p50_ms), str(len(met)), number(p50_ms * len(met))))
    rows.append(("all of these", "", "", "", number(sum_ms)))
    rows.append(("measured, submit to start", "", "", "", number(_median(measured, "submit_to_start_p50_ms"))))
    head = ("by itself", "what for", "p50, ms", "times", "ms")
    yield f"\n### A job's way to its start on an idle system\n\n{_table(head, rows)}"


def _by_step(cases: Cases) -> dict[str, dict[str, float]]:
    """Return microseconds a job by process and step, those of nobody's steps as the process itself."""
    if not (drain := cases.get("costs|untouched drain, 1 worker")):
        return {}
    steps = {
        process: {
            key.partition("|")[2]: _median(case, "us_per_job")
            for key, case in cases.items()
            if key.startswith(f"costs: {process}|")
        }
        for process in ("coordinators", "workers", "Postgres")
    }
    statements = sorted(steps["Postgres"].items(), key=lambda each: -each[1])
    steps["Postgres"] = {f"`{statement[:60]}`": value for statement, value in statements[:STATEMENTS]}
    whole = {name: each["median"] for name, each in drain["cpu_us_per_job"].items()}
    steps["etcd and the client"] = {"etcd": whole["etcd"], "client": whole["client"]}
    return {process: values for process, values in steps.items() if values}


def _others(cases: Cases) -> Iterator[str]:
    for scenario in SCENARIOS:
        shown = [case for key, case in cases.items() if key.startswith(f"{scenario}|")]
        names = list(dict.fromkeys(name for case in shown for kind in ("figures", "samples") for name in case[kind]))
        if shown:
            head = ("", *(name.replace("_", " ") for name in names), "CPU per job, µs")
            rows = [(case["case"], *(_either(case, name) for name in names), _cpu(case)) for case in shown]
            yield f"\n### {scenario}\n\n{_table(head, rows)}"


def _capacity(cases: Cases) -> Iterator[str]:
    """Yield what loads need, by the model."""
    if (costs := Costs.of(cases)) is None:
        return
    sizes = {factor: needed(costs, BASE.times(factor)) for factor in FACTORS}
    head = ("", *(f"{factor:,}×" for factor in FACTORS))
    loads = [BASE.times(factor) for factor in FACTORS]
    rows = [(name.replace("_", " "), *(f"{load._asdict()[name]:,g}" for load in loads)) for name in Load._fields] + [
        (name, *(number(size[name]) for size in sizes.values())) for name in sizes[1]
    ]
    yield f"\n### What a load needs, by the model\n\n{_table(head, rows)}"
    full = [(name, number(value)) for name, value in ends(costs).items()]
    yield f"\n### Where one core is full, by the model\n\n{_table(('', ''), full)}"
    yield "\n![Cores by load](performance/capacity.svg)\n"


def _cpu(case: Mapping[str, Any]) -> str:
    values = case["cpu_us_per_job"].get("all")
    return _range(values["median"], values["min"], values["max"]) if values else ""


def _either(case: Mapping[str, Any], name: str) -> str:
    if sampled := case["samples"].get(name):
        return _range(sampled["p50"], sampled["min"], sampled["max"])
    return _figure(case, name)


def _plots(cases: Cases) -> Iterator[tuple[str, str]]:
    if systems := _systems(cases):
        drained = {name: cases[f"peers|drain, 1 worker: {name}"] for name in systems}
        rates = [(name, {"jobs/s": _median(case, "jobs_per_s")}) for name, case in drained.items()]
        yield "drain", bars("Jobs drained per second, 1 worker", rates)
        cheapest = sorted(drained.items(), key=lambda each: _median(each[1], "cpu_us_per_job"))
        rows = [(name, _parts(case)) for name, case in cheapest]
        own = [sum(parts.values()) for name, parts in rows if name == "tenure"]
        yield "cpu", bars("CPU per drained job, µs, of all processes", rows, cut=2 * own[0] if own else None)
    if (costs := Costs.of(cases)) is not None:
        yield "capacity", bars("Cores by load, by the model", list(_cores(costs)))
    if steps := _by_step(cases):
        rows = [
            (f"{process}: {step}" if process in ("coordinators", "workers") else step.strip("`"), {process: value})
            for process, values in steps.items()
            for step, value in sorted(values.items(), key=lambda each: -each[1])
            if value >= DRAWN_US
        ]
        yield "steps", bars("CPU of a drained job by step, µs", [(label[:34], parts) for label, parts in rows])


def _cores(costs: Costs) -> Iterator[tuple[str, dict[str, float]]]:
    for factor in FACTORS:
        size = needed(costs, BASE.times(factor))
        yield f"{factor:,}×", {part: size[f"{part}, cores"] for part in CORES_OF}


def _parts(case: Mapping[str, Any]) -> dict[str, float]:
    cpu = case["cpu_us_per_job"]
    summed = {name: sum(cpu[group]["median"] for group in groups if group in cpu) for name, groups in CPU_PARTS.items()}
    return {name: value for name, value in summed.items() if value}


def _figure(case: Mapping[str, Any] | None, name: str) -> str:
    if case is None or not (values := case["figures"].get(name)):
        return ""
    return _range(values["median"], values["min"], values["max"])


def _range(middle: float, lowest: float, highest: float) -> str:
    return number(middle) if lowest == highest else f"{number(middle)} ({number(lowest)}–{number(highest)})"


def _median(case: Mapping[str, Any], figure: str) -> float:
    return float(case["figures"][figure]["median"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(re.sub(r'[|]', '∣', cell) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
