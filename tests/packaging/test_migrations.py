"""Migrations that were released are never edited: databases out there have run them. A change is a new revision."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tenure.store.postgres import migrate

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("freeze_migrations", ROOT / "scripts" / "freeze_migrations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _edited(frozen: str, present: dict[str, str]) -> list[str]:
    released = [line.split("  ", 1) for line in frozen.splitlines()]
    return [path for checksum, path in released if present.get(path) != checksum]


def test_no_released_migration_was_edited() -> None:
    script = _script()
    if not script.FROZEN.exists():
        pytest.skip("nothing is frozen yet: scripts/freeze_migrations.py")
    assert _edited(script.FROZEN.read_text(), script.checksums()) == []


def test_an_edit_and_a_removal_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script()
    monkeypatch.setattr(script, "FROZEN", tmp_path / "frozen")
    script.main()
    frozen, present = (tmp_path / "frozen").read_text(), script.checksums()
    assert _edited(frozen, present) == []
    first, second, *_ = present
    assert _edited(frozen, {**present, first: "0" * 64, "a later one": "1"}) == [first]
    assert _edited(frozen, {path: present[path] for path in present if path != second}) == [second]


def test_every_migration_names_the_oldest_code_that_runs_on_it() -> None:
    """And never an older one than the migration before: what was contracted once is gone."""
    modules = {}
    for file in sorted((migrate.SCRIPTS / "versions").glob("[0-9]*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert len(module.revision) == 4 and module.revision.isdigit()  # compared as text
        modules[module.revision] = module.oldest
    assert all(oldest in modules and oldest <= revision for revision, oldest in modules.items())
    assert list(modules.values()) == sorted(modules.values())
