"""CPU time by process: user and system, of roots with all their descendants, the ended ones included.

The kernel counts in ticks of 10 ms: intervals are seconds long. What ended without its parent having waited for it
is missed; Postgres and the forkserver wait for their children.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """What an interval took. ``cpu_s`` is by group; ``others_cores`` is what the rest of the machine kept busy."""

    cpu_s: Mapping[str, float]
    others_cores: float

    def us_per_job(self, jobs: float) -> dict[str, float]:
        """Return microseconds of CPU per job by group, and their sum as ``all``."""
        each = {group: seconds / jobs * 1e6 for group, seconds in self.cpu_s.items()}
        return {**each, "all": sum(each.values())}


class Meter:
    """Measures from its construction to ``stop``.

    Args:
        groups: name of a group to the ids of its root processes.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = {"client": (os.getpid(),), **groups}
        self._before = self._read()
        self._machine_before = _machine_s()

    def stop(self) -> Usage:
        """Return what was used since."""
        busy_s, all_s = (after - before for before, after in zip(self._machine_before, _machine_s(), strict=True))
        after = self._read()
        used = {group: after[group] - self._before[group] for group in self._groups}
        cores = psutil.cpu_count() or 1
        return Usage(used, max(0.0, busy_s - sum(used.values())) * cores / all_s if all_s else 0.0)

    def _read(self) -> dict[str, float]:
        return {
            group: sum(_used_s(pid, alone=group == "client") for pid in roots) for group, roots in self._groups.items()
        }


def _used_s(pid: int, *, alone: bool) -> float:
    """Return the CPU seconds of a process; of the whole tree unless ``alone`` (the parts are this one's children)."""
    try:
        root = psutil.Process(pid)
        members = [root] if alone else [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = member.cpu_times()
            total += spent.user + spent.system
            total += 0.0 if alone else spent.children_user + spent.children_system
    return total


def _machine_s() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and that they were there at all, since the start."""
    spent = psutil.cpu_times()
    # The time of guests is part of ``user`` and ``nice`` already.
    total = float(sum(spent)) - float(getattr(spent, "guest", 0.0)) - float(getattr(spent, "guest_nice", 0.0))
    return total - float(spent.idle) - float(getattr(spent, "iowait", 0.0)), total
