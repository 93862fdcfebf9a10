"""What ``tenure doctor`` finds: a level, what was looked at, what was seen, why it matters, and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, and the next step where there is one."""

    level: Level
    what: str
    """The part that was looked at: ``postgres``, ``schema``, the address of a member of etcd."""
    detail: str
    next_step: str = ""
    why: str = ""
    """What it does to jobs."""
    check: str = ""
    """A word for programs, the same from release to release."""
