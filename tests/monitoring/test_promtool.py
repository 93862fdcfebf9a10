"""The alerts, by Prometheus' own tool: they are rules, and each sets off when it should and not before.

``promtool`` is looked for on the path; Debian's package ``prometheus`` has it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rendering import ROOT, of_kind, render
from tests.chart.test_monitoring import WATCHED

PROMTOOL = shutil.which("promtool")
PLAIN = ROOT / "deploy" / "monitoring" / "alerts.yaml"
CASES = Path(__file__).parent / "alerts.yaml"
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool: install Debian's prometheus")


def promtool(*arguments: str, cwd: Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_plain_alerts_are_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", str(PLAIN), cwd=ROOT)


@needs_promtool
def test_the_chart_renders_rules(tmp_path: Path) -> None:
    (rule,) = of_kind(render(WATCHED), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", "rules.yaml", cwd=tmp_path)


@needs_promtool
def test_alerts_set_off_when_they_should(tmp_path: Path) -> None:
    shutil.copy(PLAIN, tmp_path / "rules.yaml")
    shutil.copy(CASES, tmp_path / "alerts_test.yaml")
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml", cwd=tmp_path)


def test_every_alert_has_a_case() -> None:
    rules: list[dict[str, Any]] = yaml.safe_load(PLAIN.read_text())["groups"][0]["rules"]
    cases = yaml.safe_load(CASES.read_text())["tests"]
    tried = [(one["alertname"], bool(one.get("exp_alerts"))) for case in cases for one in case["alert_rule_test"]]
    for rule in rules:
        assert (rule["alert"], True) in tried, f"no case in which {rule['alert']} sets off"
        assert (rule["alert"], False) in tried, f"no case in which {rule['alert']} is silent"


def test_the_example_of_a_scrape_has_the_jobs_that_the_alerts_name() -> None:
    text = (ROOT / "docs" / "MONITORING.md").read_text()
    named = set(re.findall(r"job_name: ([\w-]+)", text))
    assert named == set(re.findall(r'job="([\w-]+)"', PLAIN.read_text()))
