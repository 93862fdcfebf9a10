"""What must not grow: sampled all through a run, judged at its end.

Sampled are the memory and the file descriptors of every process, etcd's database, keys and leases, the size of the
active table and its dead rows, and how long jobs waited for their start lately. ``drift`` compares the last quarter of
a run with its second one (the first is warming up) by their medians, so that a process that was just killed, or a fault
that was just there, decides nothing. Sits with the runner, whom no fault cuts off. Called by ``run``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import statistics
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from tests.chaos.cluster import PREFIX, Cluster

MIB = 1024 * 1024
CALL_S = 5.0
MIN_SAMPLES = 16
"""Fewer say nothing about growth."""
ROWS = """
SELECT pg_total_relation_size('tenure.job') / 1048576.0,
       (SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = 'tenure' AND relname = 'job'),
       (SELECT count(*) FROM tenure.job)
"""
WAITED = """
SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP
       (ORDER BY extract(epoch FROM started_at - greatest(created_at, activate_at)) * 1000)
FROM tenure.history
WHERE finished_at > now() - make_interval(secs => %(seconds)s) AND attempt = 1 AND state = 'completed'
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a median may grow: by a share of itself, and by as much besides in its own unit."""

    share: float
    slack: float


BOUNDS = {
    "mib": Bound(0.2, 15.0),
    "files": Bound(0.2, 20.0),
    "etcd_mib": Bound(0.5, 20.0),
    "keys": Bound(0.5, 500.0),
    "leases": Bound(0.5, 300.0),
    "job_table_mib": Bound(0.5, 20.0),
    "dead_rows": Bound(1.0, 20_000.0),
    "waited_p50_ms": Bound(0.5, 50.0),
}
"""By the last part of a figure's name. What is not named here is told and not judged."""


class Sampler:
    """Takes samples into a file. ``run`` is the body of a task.

    Args:
        cluster: what runs.
        file: JSON lines, one for each sample: ``at_s`` and figures by name.
        every_s: how often.
    """

    def __init__(self, cluster: Cluster, file: Path, every_s: float) -> None:
        self._cluster = cluster
        self._file = file
        self._every_s = every_s

    async def run(self) -> None:
        """Sample until cancelled."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(self._every_s)
            figures = await asyncio.to_thread(self._of_processes)
            figures |= await asyncio.to_thread(self._of_etcd)
            with contextlib.suppress(psycopg.Error, TimeoutError):  # killed, or recovering: the next one will tell
                async with asyncio.timeout(CALL_S):
                    figures |= await self._of_postgres()
            with self._file.open("a") as file:
                file.write(json.dumps({"at_s": round(time.monotonic() - began, 1), **figures}) + "\n")

    def _of_processes(self) -> dict[str, float]:
        pids = {name: member.pid for name, member in self._cluster.members.items() if member.alive}
        pids |= {one.name: one.child.pid for one in self._cluster.etcds if one.child is not None and one.child.alive}
        found = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                found[f"{name}.mib"] = round(process.memory_info().rss / MIB, 1)
                found[f"{name}.files"] = process.num_fds()
        return found

    def _of_etcd(self) -> dict[str, float]:
        """Ask the first member that answers."""
        for one in self._cluster.etcds:
            with contextlib.suppress(OSError, ValueError):
                status = _ask(one.host, "maintenance/status", {})
                leases = _ask(one.host, "lease/leases", {})
                keys = _ask(one.host, "kv/range", _counting(PREFIX))
                return {
                    "etcd_mib": round(int(status["dbSize"]) / MIB, 1),
                    "etcd_used_mib": round(int(status["dbSizeInUse"]) / MIB, 1),
                    "keys": int(keys.get("count", 0)),
                    "leases": len(leases.get("leases", ())),
                }
        return {}

    async def _of_postgres(self) -> dict[str, float]:
        async with await psycopg.AsyncConnection.connect(self._cluster.postgres.dsn) as connection:
            row = await (await connection.execute(ROWS)).fetchone()
            waited = await (await connection.execute(WAITED, {"seconds": self._every_s})).fetchone()
        assert row is not None and waited is not None
        found = {"job_table_mib": round(float(row[0]), 1), "dead_rows": float(row[1] or 0), "jobs": float(row[2])}
        if waited[0]:
            found |= {"waited_p50_ms": round(float(waited[0][0]), 1), "waited_p99_ms": round(float(waited[0][1]), 1)}
        return found


def read_samples(file: Path) -> list[dict[str, float]]:
    """Return the samples of a run, none where it took none."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def drift(samples: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return the median of each figure in the second quarter of a run and in the last."""
    if len(samples) < MIN_SAMPLES:
        return {}
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    names = {name for sample in samples for name in sample} - {"at_s"}
    found = {}
    for name in sorted(names):
        before = [sample[name] for sample in early if name in sample]
        after = [sample[name] for sample in late if name in sample]
        if before and after:
            found[name] = (statistics.median(before), statistics.median(after))
    return found


def beyond(drifted: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield what has grown by more than it may."""
    for name, (before, after) in drifted.items():
        bound = BOUNDS.get(name.rpartition(".")[2])
        if bound is not None and after > before * (1 + bound.share) + bound.slack:
            yield f"{name} grew from {before:g} to {after:g}"


def _counting(prefix: str) -> dict[str, Any]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    key, range_end = (base64.b64encode(text.encode()).decode() for text in (prefix, end))
    return {"key": key, "range_end": range_end, "count_only": True, "serializable": True}


def _ask(host: str, method: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"http://{host}:2379/v3/{method}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=CALL_S) as answer:
        return json.loads(answer.read())
