"""Memory by process: what is resident, of roots with all their descendants."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import psutil

MIB = 1024 * 1024


def resident_mib(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return MiB by group as ``<group>_mib``. Pages that processes share (Postgres' buffers) count for each of them."""
    return {f"{name}_mib": sum(map(_resident, roots)) / MIB for name, roots in groups.items()}


def _resident(root: int) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += int(member.memory_info().rss)
    return total
