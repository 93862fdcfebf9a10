"""The chart's README is made from its values, and every value is explained there."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
import yaml
from tests.chart.rendering import CHART, ROOT, render_text

SCRIPT = ROOT / "scripts" / "generate_chart_readme.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_chart_readme", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_what_the_script_makes(script: ModuleType) -> None:
    assert (CHART / "README.md").read_text() == script.readme()


def test_no_heading_comes_twice(script: ModuleType) -> None:
    headings = re.findall(r"^## .*$", script.readme(), re.MULTILINE)
    assert len(headings) == len(set(headings))


def test_every_value_is_explained(script: ModuleType) -> None:
    text = (CHART / "values.yaml").read_text()
    told = [path for path, _ in script.meanings(text)]
    assert len(told) == len(set(told))
    for path in script.leaves(yaml.safe_load(text)):
        assert any(path == one or path.startswith(f"{one}.") for one in told), path


def test_a_value_without_a_meaning_is_not_passed_over(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "meanings", lambda text: iter([("image", "what runs")]))
    with pytest.raises(LookupError, match=r"coordinator\.replicas"):
        script.readme()


@pytest.mark.parametrize("guide", ["BACKUP.md", "HELM.md", "TLS.md"])
def test_the_values_in_the_guides_are_accepted(guide: str) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / guide).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        values = yaml.safe_load(block)
        if values.get("coordinator", {}).get("enabled", True):
            values.setdefault("postgres", {"external": {"existingSecret": "a"}})
            values.setdefault("etcd", {"external": {"endpoints": ["grpc://etcd:2379"]}})
        if guide != "TLS.md":
            values.setdefault("security", {"allowInsecure": True})
        assert render_text(values)


def test_the_values_on_the_guides_command_lines_exist() -> None:
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in re.findall(r"--set (?:'?)([\w.]+)=", (ROOT / "docs" / "HELM.md").read_text()):
        at = known
        for key in name.split("."):
            at = at[key]
