"""The example reads real package databases: made ones with known faults, and this machine's own."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from tenure.examples.inventory import debian_packages, python_packages
from tenure.examples.inventory.findings import (
    MAX_ALIKE,
    MAX_FINDINGS,
    OTHER,
    UNKNOWN_LICENCE,
    Package,
    Problem,
    Summary,
    capped,
    merge,
)
from tenure.examples.inventory.handlers import groups
from tenure.examples.inventory.scanning import examine
from tenure.model.bounds import DEFAULT_BOUNDS


def found(summary: Summary) -> set[tuple[str, str]]:
    return {(finding.problem.name, Path(finding.path).name) for finding in summary.findings}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with a dpkg database of one package in order, one changed, one removed."""
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir(parents=True)
    stanzas = []
    for name, status in (("tidy", "installed"), ("changed", "installed"), ("gone", "deinstall ok config-files")):
        words = "install ok installed" if status == "installed" else status
        stanzas.append(f"Package: {name}\nStatus: {words}\nArchitecture: amd64\nVersion: 1.0\nDescription: x\n more\n")
        for suffix in ("a", "b"):
            content = f"{name} {suffix}".encode()
            (tmp_path / f"usr/bin/{name}-{suffix}").write_bytes(content)
            with open(info / f"{name}.md5sums", "a") as sums:
                sums.write(f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  usr/bin/{name}-{suffix}\n")
        (info / f"{name}.list").write_text(f"/.\n/usr/bin/{name}-a\n/usr/bin/{name}-b\n")
    (tmp_path / "var/lib/dpkg/status").write_text("\n".join(stanzas))
    (tmp_path / "usr/bin/changed-a").write_text("somebody was here")
    (tmp_path / "usr/bin/changed-b").unlink()
    (tmp_path / "usr/bin/tidy-a").chmod(0o666)
    with open(info / "changed.md5sums", "a") as sums:
        sums.write(f"{'0' * 32}  usr/share/man/man1/changed.1.gz\n")
    return tmp_path


def test_debian_packages_and_what_became_of_them(machine: Path) -> None:
    listed = debian_packages.installed(machine)
    assert [package.name for package, _ in listed] == ["changed", "tidy"]
    summary = Summary()
    for package, _ in listed:
        examine(package.name, debian_packages.promises(package, machine), summary, budget_bytes=1e9, tick=lambda: None)
    assert found(summary) == {
        ("CHANGED", "changed-a"),
        ("MISSING", "changed-b"),
        ("WORLD_WRITABLE", "tidy-a"),
    }, "a manual page that a minimal image leaves out is no finding"
    assert (summary.files, summary.hashed_files) == (3, 3)


def test_a_diverted_file_is_looked_for_where_it_went(machine: Path) -> None:
    (machine / "var/lib/dpkg/diversions").write_text("/usr/bin/tidy-a\n/usr/bin/tidy-a.real\nother\n")
    (machine / "usr/bin/tidy-a").rename(machine / "usr/bin/tidy-a.real")
    package = Package(name="tidy", version="1.0", place="tidy")
    paths = {Path(promise.path).name for promise in debian_packages.promises(package, machine)}
    assert paths == {"tidy-a.real", "tidy-b"}


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Format: https://x/copyright-format/1.0/\n\nFiles: *\nLicense: Expat\n\nFiles: b\nLicense: GPL-2+\n", "MIT"),
        ("On Debian systems, see /usr/share/common-licenses/GPL-2.\n", "GPL-2"),
        ("Permission is hereby granted,\n free of charge, to any person", "MIT"),
        ("All rights reserved by nobody in particular.", UNKNOWN_LICENCE),
        (None, UNKNOWN_LICENCE),
    ],
)
def test_debian_licences(tmp_path: Path, text: str | None, licence: str) -> None:
    folder = tmp_path / "usr/share/doc/tidy"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "copyright").write_text(text)
    assert debian_packages.licence(Package(name="tidy", version="1", place="tidy"), tmp_path) == licence


@pytest.fixture
def distribution(tmp_path: Path) -> Package:
    """A Python distribution with one module in order, one changed, one missing."""
    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\nClassifier: License :: OSI Approved :: MIT License\n"
    )
    record = ["thing-1.0.dist-info/METADATA,,", "__pycache__/good.cpython-311.pyc,,"]
    for name in ("good", "changed", "missing"):
        content = f"# {name}\n".encode()
        (tmp_path / f"{name}.py").write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record.append(f"{name}.py,sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join(record) + "\n")
    (tmp_path / "changed.py").write_text("# not any more\n")
    (tmp_path / "missing.py").unlink()
    return Package(name="thing", version="1.0", place=str(info))


def test_python_distributions(distribution: Package, tmp_path: Path) -> None:
    [(package, files)] = python_packages.installed([tmp_path])
    assert (package, files) == (distribution, 6)
    assert python_packages.licence(package) == "MIT License"
    summary = Summary()
    examine("thing", python_packages.promises(package), summary, budget_bytes=1e9, tick=lambda: None)
    assert found(summary) == {("CHANGED", "changed.py"), ("MISSING", "missing.py")}


def test_a_broken_distribution_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "empty-1.0.dist-info").mkdir()
    assert python_packages.installed([tmp_path]) == []


def test_the_budget_reads_small_files_first(distribution: Package, tmp_path: Path) -> None:
    (tmp_path / "changed.py").write_text("#" * 1_000)
    summary = Summary()
    left = examine("thing", python_packages.promises(distribution), summary, budget_bytes=100, tick=lambda: None)
    assert summary.hashed_files == 1
    assert summary.unhashed_bytes >= 1_000
    assert left == 100 - summary.hashed_bytes


def test_this_machine_has_packages() -> None:
    listed = python_packages.installed(python_packages.folders())
    assert "pytest" in {package.name for package, _ in listed}


def test_groups_are_even_and_lose_nothing() -> None:
    packages = [(Package(name=f"p{i}", version="1", place=f"p{i}"), (i * 37) % 101 + 1) for i in range(300)]
    made = groups(packages, 24)
    assert len(made) == 24
    assert Counter(p for group in made for p in group) == Counter(p for p, _ in packages)
    weight = {p.place: files for p, files in packages}
    sizes = [sum(weight[p.place] for p in group) for group in made]
    assert max(sizes) <= 1.3 * min(sizes)
    assert len(groups(packages[:5], 24)) == 2
    assert groups([], 24) == []
    assert groups(packages, 24) == groups(list(reversed(packages)), 24), "a repeated attempt makes the same groups"


def test_a_summary_is_bounded() -> None:
    summary = Summary()
    for package in range(1_000):
        for _ in range(20):
            summary.add(Problem.CHANGED, f"{package:04}" * 100, "\udcff" + "x" * 10_000)
    summary.licences = capped(Counter({f"{i:05}{'l' * 100}": i + 1 for i in range(10_000)}))
    assert len(summary.findings) == MAX_FINDINGS
    assert max(Counter(finding.package for finding in summary.findings).values()) == MAX_ALIKE
    assert summary.problems == {"changed since install": 20_000}
    assert len(summary.model_dump_json()) < DEFAULT_BOUNDS.result_bytes
    total = merge([summary] * 50)
    assert len(total.model_dump_json()) < DEFAULT_BOUNDS.result_bytes
    assert sum(total.licences.values()) == 50 * sum(range(1, 10_001))
    assert OTHER in total.licences
