"""Alerts and dashboard speak of metrics that the processes have, and of pages that exist."""

from __future__ import annotations

import json
import re

import yaml
from scripts.generate_metrics import coordinators, workers
from tests.chart.rendering import CHART, EXTERNAL, ROOT, Object, of_kind, over, render

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.trust import margin_s, renew_every_s

WATCHED = over(
    EXTERNAL,
    {
        "monitoring": {
            part: {"enabled": True} for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")
        }
    },
)
METRIC = re.compile(r"\btenure_(?!dev_)\w+")  # labels of pods are tenure_dev_…


def known_metrics() -> set[str]:
    """Return the names of the series that processes have."""
    known = set()
    for metric in (*coordinators(), *workers()):
        ends = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
        known |= {f"{metric.name}{end}" for end in ends}
    return known


def labels_of() -> dict[str, set[str]]:
    """Return the labels that a series has of its own, by its name."""
    return {
        f"{metric.name}{end}": {*metric.labels, "le"} if end else set(metric.labels)
        for metric in (*coordinators(), *workers())
        for end in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
    }


def rules() -> list[Object]:
    (rule,) = of_kind(render(WATCHED), "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    found: list[Object] = group["rules"]
    return found


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules()] + [one["expr"] for p in dashboard["panels"] for one in p["targets"]]
    names = {name for expression in asked for name in METRIC.findall(expression)}
    assert names and names <= known_metrics()


def test_alerts_and_dashboard_ask_for_labels_that_exist() -> None:
    """Labels of the scraped target aside, what is selected or grouped by is a label of that very metric."""
    of_target = {"job", "namespace", "instance", "pod", "tenure_dev_worker"}
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules()] + [one["expr"] for p in dashboard["panels"] for one in p["targets"]]
    own = labels_of()
    seen = 0
    for expression in asked:
        for name, selected in re.findall(r"(tenure_(?!dev_)\w+)\{([^}]*)\}", expression):
            found = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected)) - of_target
            assert found <= own[name], f"{name} has no {found - own[name]}: {expression}"
            seen += len(found)
        metrics = [name for name in METRIC.findall(expression) if name in own]
        for group in re.findall(r"by \(([^)]*)\)", expression):
            wanted = {label.strip() for label in group.split(",") if label.strip()} - of_target
            for name in metrics:
                assert wanted <= own[name], f"{name} has no {wanted - own[name]}: {expression}"
    assert seen


def test_every_panel_says_what_it_shows() -> None:
    panels = json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["title"] and panel["description"] and panel["targets"], panel


def test_plain_alerts_are_those_of_the_chart() -> None:
    plain = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in plain] == [rule["alert"] for rule in rules()]
    assert "<" not in re.sub(r" < ", "", str(plain)), "nothing is left to be filled in"


def test_the_labels_in_alerts_are_those_of_what_is_scraped() -> None:
    objects = render(WATCHED)
    (service,) = [one for one in of_kind(objects, "Service") if "tenure.dev/metrics" in one["metadata"]["labels"]]
    (monitor,) = of_kind(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (pods,) = of_kind(objects, "PodMonitor")
    jobs = {found for rule in rules() for found in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert jobs == {service["metadata"]["name"], f"jobs/{pods['metadata']['name']}"}


def test_one_kind_of_workers_does_not_hide_that_another_is_not_ready() -> None:
    (pods,) = of_kind(render(WATCHED), "PodMonitor")
    (expression,) = [rule["expr"] for rule in rules() if rule["alert"] == "TenureNoWorkerReady"]
    (label,) = pods["spec"]["podTargetLabels"]
    assert f"by ({re.sub('[^a-z]', '_', label)})" in expression


def test_a_worker_without_any_pod_is_not_ready_either_where_one_is_wanted() -> None:
    asleep = {"autoscaling": {"minReplicas": 0, "keda": {"enabled": True}}}
    workers = {"scan": {}, "asleep": asleep, "off": {"replicas": 0}}
    (rule,) = of_kind(render(over(WATCHED, {"workers": workers})), "PrometheusRule")
    (expression,) = [one["expr"] for one in rule["spec"]["groups"][0]["rules"] if one["alert"] == "TenureNoWorkerReady"]
    assert re.findall(r'absent\(tenure_worker_ready\{.*?tenure_dev_worker="(\w+)"', expression) == ["default", "scan"]


def test_nobody_is_missed_where_nothing_asks_workers() -> None:
    values = over(WATCHED, {"monitoring": {"podMonitor": {"enabled": False}}})
    (rule,) = of_kind(render(values), "PrometheusRule")
    assert "absent(tenure_worker" not in str(rule)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    titles = re.findall(r"^## (\w+)$", (ROOT / "docs" / "RUNBOOKS.md").read_text(), re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == titles
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/RUNBOOKS.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_a_worker_whose_renewals_are_answered_sets_off_no_alert() -> None:
    (alert,) = [rule["expr"] for rule in rules() if rule["alert"] == "TenureTrustRunsOut"]
    shortest_s = DEFAULT_BOUNDS.min_ttl_s
    least_s = shortest_s - margin_s(shortest_s) - renew_every_s(shortest_s)
    assert float(alert.rpartition("<")[2]) < least_s


def test_the_dashboard_arrives_as_it_is_kept() -> None:
    (config,) = [one for one in of_kind(render(WATCHED), "ConfigMap") if "dashboard" in one["metadata"]["name"]]
    assert json.loads(config["data"]["tenure.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
