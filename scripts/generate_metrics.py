"""Generate docs/METRICS.md from what the processes register, and deploy/monitoring/alerts.yaml from the chart's alerts.

``--check`` compares instead of writing and exits 1 when a committed file is stale. There is one source of each: names,
types and meanings are in ``coordinator/metrics.py``, ``coordinator/survey.py``, ``coordinator/pool_figures.py``,
``worker/metrics.py`` and ``worker/probes.py``; alerts are in ``deploy/helm/tenure/files/alerts.yaml``.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from tenure.coordinator import metrics, pool_figures, survey
from tenure.worker import metrics as worker_metrics
from tenure.worker.probes import Gauges

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "METRICS.md"
CHART_ALERTS = ROOT / "deploy" / "helm" / "tenure" / "files" / "alerts.yaml"
ALERTS = ROOT / "deploy" / "monitoring" / "alerts.yaml"
JOB = 'job="tenure-coordinator"'
WORKERS = 'job="tenure-worker"'
RUNBOOKS = "docs/RUNBOOKS.md"

HEAD = """# Metrics

<!-- DO NOT EDIT: scripts/generate_metrics.py makes this file from what the processes register. -->

`GET /metrics` of each coordinator (`TENURE_HTTP_LISTEN`) and each worker or runner (`TENURE_WORKER_HTTP_LISTEN`), in
Prometheus' text format, or in OpenMetrics where the scraper asks for it. How to set Prometheus and Grafana up is in
[MONITORING.md](MONITORING.md), what to do about an alert in [RUNBOOKS.md](RUNBOOKS.md).

- Counters count from the start of a process: take `rate()` or `increase()`, and sum over processes.
- Histograms are of seconds, by the batch (but for `tenure_worker_attempt_seconds`): `_count` is the number of batches,
  not of jobs. How many jobs a batch had on average is
  `rate(tenure_attempts_started_total[5m]) / rate(tenure_start_seconds_count[5m])`.
- Labels are bounded. No label holds a job or a namespace; pools are the hundred with the most ready jobs, kinds the
  first hundred that a worker runs.
- What only the leader knows, only the leader shows: take `max` or `sum` over coordinators.
"""


class Named(NamedTuple):
    """A metric as it is documented."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def of(registry: CollectorRegistry) -> list[Named]:
    """Return what a registry holds, by name."""
    found = [one for collector in _collectors(registry) for one in _named(collector)]
    return sorted(found)


def _collectors(registry: CollectorRegistry) -> Iterable[Any]:
    return list(registry._collector_to_names)


def _named(collector: Any) -> Iterator[Named]:
    own = getattr(collector, "_labelnames", ())
    for family in collector.collect():
        labels = own or getattr(family, "_labelnames", ())
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Named(name, family.type, tuple(labels), family.documentation)


def coordinators() -> list[Named]:
    """Return the metrics of a coordinator."""
    assert survey.READY_JOBS and pool_figures.POOL  # they register themselves
    return of(metrics.REGISTRY)


def workers() -> list[Named]:
    """Return the metrics of a worker."""
    return sorted([*of(worker_metrics.REGISTRY), *_named(Gauges())])


def reference() -> str:
    """Return the document."""
    parts = [HEAD, "\n## Coordinators\n\n", *_table(coordinators()), "\n## Workers and runners\n\n", *_table(workers())]
    return "".join(parts)


def _table(rows: Iterable[Named]) -> Iterator[str]:
    yield "| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n"
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        yield f"| `{row.name}` | {row.type} | {labels} | {row.meaning} |\n"


def alerts() -> str:
    """Return the rules for a Prometheus without the chart."""
    head = (
        "# DO NOT EDIT: scripts/generate_metrics.py makes this file from deploy/helm/tenure/files/alerts.yaml.\n"
        "# For a Prometheus that scrapes coordinators as job tenure-coordinator, workers as job tenure-worker.\n"
        "groups:\n  - name: tenure\n    rules:\n"
    )
    text = CHART_ALERTS.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    body = "\n".join(f"      {line}" if line else "" for line in lines)
    return head + body.replace("<job>", JOB).replace("<workers>", WORKERS).replace("<runbooks>", RUNBOOKS) + "\n"


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with ``--check``; return the exit code."""
    stale = False
    for target, text in ((REFERENCE, reference()), (ALERTS, alerts())):
        if "--check" not in arguments:
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            print(f"{target.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_metrics.py")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
