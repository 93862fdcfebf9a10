"""What a scan says: a summary of bounded size. Invariant: it fits into a job's result, whatever the machine holds.

Payloads and results of the three kinds of job; no I/O.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

MAX_FINDINGS = 100
MAX_ALIKE = 5
"""Findings kept of one problem in one package: the sixth says nothing new."""
MAX_LICENCES = 60
MAX_TEXT_CHARS = 240
OTHER = "(other)"
UNKNOWN_LICENCE = "unknown"


class Ecosystem(StrEnum):
    """Whose packages."""

    PYTHON = "python"
    DEBIAN = "debian"


class Problem(StrEnum):
    """What can be wrong."""

    UNKNOWN_LICENCE = "unknown licence"
    CHANGED = "changed since install"
    MISSING = "missing"
    WORLD_WRITABLE = "world-writable"


class Finding(BaseModel):
    """One thing that somebody should look at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: Problem
    package: str
    path: str = ""


class Package(BaseModel):
    """A package to scan: where its description lies is all that a scan needs to find it again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    place: str
    """The metadata folder (Python), or the name in dpkg's database (``libc6:amd64``)."""


class DiscoverRequest(BaseModel):
    """What to take stock of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash_mb_per_scan: float | None = Field(default=None, gt=0)
    """The most that one scan reads to compare checksums; None: everything."""
    scans_per_ecosystem: int = Field(default=24, ge=1, le=500)
    ecosystems: tuple[Ecosystem, ...] = (Ecosystem.PYTHON, Ecosystem.DEBIAN)


class Discovery(BaseModel):
    """What was found, and the jobs that look into it."""

    packages: dict[str, int]
    scans: list[str]
    policy: str


class ScanRequest(BaseModel):
    """A group of packages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str
    ecosystem: Ecosystem
    packages: tuple[Package, ...]
    hash_mb: float | None = None


class Summary(BaseModel):
    """What one scan saw, or what many did together."""

    packages: int = 0
    files: int = 0
    size_bytes: int = 0
    hashed_files: int = 0
    hashed_bytes: int = 0
    unhashed_bytes: int = 0
    """Left unread: over the budget of the scan, or without a checksum to compare."""
    unreadable: int = 0
    licences: dict[str, int] = Field(default_factory=dict)
    """Packages by licence; the rarest together under ``(other)``."""
    problems: dict[str, int] = Field(default_factory=dict)
    """All of them, counted."""
    findings: list[Finding] = Field(default_factory=list)
    """The first of them."""

    def add(self, problem: Problem, package: str, path: str = "") -> None:
        """Count a finding, and keep it while there is room."""
        self.problems[problem] = self.problems.get(problem, 0) + 1
        package = package[:MAX_TEXT_CHARS]
        alike = sum(found.package == package and found.problem == problem for found in self.findings)
        if len(self.findings) < MAX_FINDINGS and alike < MAX_ALIKE:
            path = path if len(path) <= MAX_TEXT_CHARS else f"…{path[-MAX_TEXT_CHARS:]}"
            self.findings.append(Finding(problem=problem, package=package, path=path.encode(errors="replace").decode()))


class ScanResult(BaseModel):
    """What one scan saw."""

    group: str
    ecosystem: Ecosystem
    seconds: float
    summary: Summary


class Report(BaseModel):
    """What the policy makes of all scans."""

    scans: int
    by_ecosystem: dict[str, Summary]
    total: Summary


def merge(summaries: list[Summary]) -> Summary:
    """Return the sum; of the findings, the same share from each problem as far as there is room."""
    total = Summary()
    licences: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    for one in summaries:
        for name in ("packages", "files", "size_bytes", "hashed_files", "hashed_bytes", "unhashed_bytes", "unreadable"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        licences.update(one.licences)
        problems.update(one.problems)
    total.licences = capped(licences)
    total.problems = dict(problems.most_common())
    share = MAX_FINDINGS // max(1, len(problems))
    kept: Counter[str] = Counter()
    for finding in (finding for one in summaries for finding in one.findings):
        if kept[finding.problem] < share:
            kept[finding.problem] += 1
            total.findings.append(finding)
    return total


def capped(licences: Counter[str]) -> dict[str, int]:
    """Return the most common licences, and the others as one."""
    named: Counter[str] = Counter()
    for name, count in licences.items():
        if name != OTHER:
            named[name[:60]] += count
    top = dict(named.most_common(MAX_LICENCES))
    rest = licences.total() - sum(top.values())
    return {**top, OTHER: rest} if rest else top
