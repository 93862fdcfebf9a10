"""docs/CONFIGURATION.md is what the settings classes say, and each variable that it names is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from tenure.coordinator.settings import CoordinatorSettings
from tenure.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "generate_reference.py"
REFERENCE = ROOT / "docs" / "CONFIGURATION.md"
SECTIONS: dict[str, type[BaseSettings]] = {"Coordinator": CoordinatorSettings, "Worker": WorkerSettings}
NOTHING = "?"
"""A text that no number, choice, switch or map is."""


def variables(section: str) -> list[str]:
    _, _, text = REFERENCE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    return re.findall(r"^\| `(TENURE_\w+)`", text.partition("\n## ")[0], re.MULTILINE)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with no setting but the one that is required."""
    for section in SECTIONS:
        for name in variables(section):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENURE_POSTGRES_DSN", "postgresql://user:password@host/name")
    return monkeypatch


def test_the_reference_is_fresh() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("section", SECTIONS)
def test_every_variable_is_read(section: str, bare: pytest.MonkeyPatch) -> None:
    """What is no value of a setting is refused; any other value is found in the settings."""
    settings = SECTIONS[section]
    settings()
    documented = variables(section)
    assert len(documented) == len(settings.model_fields)
    for name in documented:
        with bare.context() as patch:
            patch.setenv(name, NOTHING)
            try:
                read: Any = settings()
            except (ValidationError, SettingsError):
                continue
            values = [v.get_secret_value() if isinstance(v, SecretStr) else v for _, v in read]
            assert any(v in (NOTHING, (NOTHING,), Path(NOTHING)) for v in values), f"{name} is not read"


def test_lists_and_maps_are_written_as_documented(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("TENURE_ETCD_ENDPOINTS", "grpc://a:2379,grpc://b:2379")
    bare.setenv("TENURE_WORKER_LABELS", '{"zone": "a"}')
    bare.setenv("TENURE_WORKER_POOLS", "a,b/c")
    worker = WorkerSettings()
    assert worker.etcd_endpoints == ("grpc://a:2379", "grpc://b:2379")
    assert (worker.labels, worker.pools) == ({"zone": "a"}, ("a", "b/c"))
