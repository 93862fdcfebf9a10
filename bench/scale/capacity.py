"""The capacity model: what a load needs, summed up from measured costs of a job, a worker, a KeepAlive and a claim.

Pure. A model and not a measurement: straight lines through what was measured, drawn on. Costs of a job are of full
batches; payloads and results add their own bytes. What runs in handlers is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from tenure.model.bounds import DEFAULT_TTL_S
from tenure.model.trust import renew_every_s

PARTS = ("postgres", "etcd", "coordinators", "workers")
DAY_S = 86_400.0
MICRO, KIB, MIB, GIB = 1e6, 1024.0, 1024.0**2, 1024.0**3
Cases = Mapping[str, Mapping[str, Any]]
"""By ``scenario|case``, as in a file of results."""


class Load(NamedTuple):
    """What comes, and what is there."""

    jobs_per_s: float
    workers: float
    claims: float

    def times(self, factor: float) -> Load:
        """Return the load so many times over."""
        return Load(*(value * factor for value in self))


BASE = Load(10, 10, 100)
FACTORS = (1, 10, 100, 1_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured. CPU in microseconds, memory in KiB, by part."""

    job_us: Mapping[str, float]
    leader_job_us: float
    job: Mapping[str, float]
    """Bytes and operations, by the names of ``bench.scale.life``."""
    worker_us: Mapping[str, float]
    """A second."""
    keepalive_us: Mapping[str, float]
    worker_kib: Mapping[str, float]
    claim_kib: Mapping[str, float]

    @classmethod
    def of(cls, cases: Cases) -> Self | None:
        """Take them from results; None where something was not measured."""
        lives = [case for name, case in cases.items() if name.startswith("life|")]
        slopes = [cases.get(f"fleet: slopes|{what}") for what in ("a worker", "a KeepAlive a second", "a claim")]
        if not lives or None in slopes:
            return None
        worker, keepalive, claim = (_medians(case["figures"]) for case in slopes if case is not None)
        cpu = _medians(lives[0]["cpu_us_per_job"])
        leader_us = cpu["coordinator, leads"]
        return cls(
            {**cpu, "coordinators": leader_us + cpu["coordinator, follows"]},
            leader_us,
            _medians(lives[0]["figures"]),
            *({part: max(0.0, slope[f"{part}_us"]) for part in PARTS} for slope in (worker, keepalive)),
            *(_kib(slope) for slope in (worker, claim)),
        )


def _medians(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: value["median"] for name, value in figures.items()}


def _kib(slope: Mapping[str, float]) -> dict[str, float]:
    return {name.removesuffix("_kib"): max(0.0, value) for name, value in slope.items() if name.endswith("_kib")}


def needed(costs: Costs, load: Load) -> dict[str, float]:
    """Return what a load needs, by name with its unit, beside what the parts take without any."""
    keepalives = load.claims / renew_every_s(DEFAULT_TTL_S)
    cores = {
        part: (
            load.jobs_per_s * costs.job_us[part]
            + load.workers * costs.worker_us[part]
            + keepalives * costs.keepalive_us[part]
        )
        / MICRO
        for part in PARTS
    }
    leading = (
        load.jobs_per_s * costs.leader_job_us
        + load.workers * costs.worker_us["coordinators"]
        + keepalives * costs.keepalive_us["coordinators"]
    ) / MICRO
    memory = {
        part: (load.workers * costs.worker_kib.get(part, 0.0) + load.claims * costs.claim_kib.get(part, 0.0)) / KIB
        for part in ("leader", "etcd", "etcd_database")
    }
    return {
        "KeepAlives/s": keepalives,
        "leader, of its one core": leading,
        **{f"{part}, cores": value for part, value in cores.items()},
        "Postgres, WAL MiB/s": load.jobs_per_s * costs.job["postgres_wal_bytes"] / MIB,
        "history, GiB a day": load.jobs_per_s * costs.job["postgres_disk_bytes"] * DAY_S / GIB,
        "etcd, MiB/s written": load.jobs_per_s * costs.job["etcd_written_bytes"] / MIB,
        "etcd, changes of keys/s": load.jobs_per_s * (costs.job["etcd_puts"] + costs.job["etcd_deletes"]),
        "leader, MiB more": memory["leader"],
        "etcd, MiB more": memory["etcd"],
        "etcd's database, MiB more": memory["etcd_database"],
    }


def ends(costs: Costs) -> dict[str, float]:
    """Return where one core is full, by what fills it, when nothing else is on it."""
    return {
        "jobs/s of one leader": MICRO / costs.leader_job_us,
        **{f"jobs/s of one core of {part}": MICRO / costs.job_us[part] for part in PARTS},
        **{
            f"KeepAlives/s of one core of {part}": MICRO / costs.keepalive_us[part]
            for part in PARTS
            if costs.keepalive_us[part]
        },
        **{
            f"idle workers of one core of {part}": MICRO / costs.worker_us[part]
            for part in ("etcd", "coordinators", "postgres")
            if costs.worker_us[part]
        },
    }
