"""Fleet: what many workers and many claims cost while they do nothing but live.

Real worker processes are started in waves; then the first of them hold jobs, in steps. At each step, for some seconds,
the CPU and the memory of every part, the KeepAlives that etcd counted, the round trip of KeepAlives of a lease of the
bench's own, and how soon a job of another pool starts beside it all. From the steps follow slopes, straight lines
through what each part takes: by workers alone, by KeepAlives a second, and by claims.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tenure.bench.handlers import HOLD
from tenure.bench.latency import idle_latency
from tenure.bench.results import Case, Results, percentile
from tenure.bench.scale.memory import MIB, resident_mib
from tenure.bench.stage import STAMPS, Stage, say
from tenure.store.etcd.connect import connect
from tenure.store.etcd.port import Etcd

POOL_OF_FLEET = "bench-fleet"
WAVE = 10
"""Workers that are started together."""
PARTS = ("etcd", "postgres", "coordinators", "workers")
RENEW_EVERY_S = 0.05
RENEWED = "etcd_debugging_lease_renewed_total"
LEASE_TTL_S = 30.0
START_CAPACITY = 32
PER_LINE = 2
"""Points that a straight line needs."""
CPU = {f"{part}_percent": (f"{part}_us", 1e4) for part in PARTS}
"""What a percent of a core is in microseconds a second, by figure."""
MEMORY = {
    "leader_mib": ("leader_kib", 1024.0),
    "etcd_mib": ("etcd_kib", 1024.0),
    "etcd_database_mib": ("etcd_database_kib", 1024.0),
}
OF_A_WORKER = {"worker_mib": ("worker_kib", 1024.0)}
DATABASE_USED = "etcd_mvcc_db_total_size_in_use_in_bytes"


class Step(NamedTuple):
    """What was measured with so many workers, all of which hold so many claims together."""

    workers: int
    claims: int
    figures: Mapping[str, float]


async def fleet(stage: Stage, results: Results) -> None:
    """Grow the fleet, then let it hold more and more."""
    plan = stage.plan
    await stage.clear()
    etcd = connect(stage.etcd_endpoints)
    alone: list[Step] = []
    holding: list[Step] = []
    try:
        await stage.add_workers(1, START_CAPACITY, handlers=STAMPS)
        for size in plan.fleet_workers:
            await _grow(stage, size)
            case = results.case("fleet", f"{size:,} workers, no claim")
            alone.append(Step(size, 0, await _measure(stage, etcd, case)))
        held = 0
        for claims in plan.fleet_claims:
            say(f"fleet: {claims:,} claims")
            await stage.hold_more(claims - held, plan.fleet_ttl_s, POOL_OF_FLEET)
            held = claims
            await stage.begun(HOLD, held)
            before = await stage.claims_of(HOLD)
            case = results.case("fleet", f"{plan.fleet_workers[-1]:,} workers, {claims:,} claims")
            holding.append(Step(plan.fleet_workers[-1], claims, await _measure(stage, etcd, case)))
            lost = before - await stage.claims_of(HOLD)
            case.add({"claims": float(len(before)), "claims_lost": float(len(lost))})
        _tell_slopes(results, alone, holding)
        await stage.client.cancel_many(kind=HOLD, reason="measured")
        await stage.empty()
    finally:
        await etcd.close()
    await stage.remove_workers()


async def _grow(stage: Stage, size: int) -> None:
    there = len(stage.workers) - 1
    capacity = -(-stage.plan.fleet_claims[-1] // stage.plan.fleet_workers[-1])
    while there < size:
        wave = min(WAVE, size - there)
        await stage.add_workers(wave, capacity, pool=POOL_OF_FLEET)
        there += wave
        say(f"fleet: {there:,} of {stage.plan.fleet_workers[-1]:,} workers")


async def _measure(stage: Stage, etcd: Etcd, case: Case) -> dict[str, float]:
    """Return KeepAlives a second, the CPU of each part in percent of a core, and memory; all goes into the case."""
    seconds = stage.plan.fleet_s
    renewals = (await stage.etcd_metrics())[RENEWED]
    meter, began = await stage.meter(), time.monotonic()
    took_ms = await _renew(etcd, seconds)
    passed, usage = time.monotonic() - began, meter.stop()
    renewed = (await stage.etcd_metrics())[RENEWED] - renewals - len(took_ms)
    spent = {
        "etcd": usage.cpu_s["etcd"],
        "postgres": usage.cpu_s["postgres"],
        "coordinators": usage.cpu_s["coordinator, leads"] + usage.cpu_s["coordinator, follows"],
        "workers": usage.cpu_s["workers"],
    }
    figures = {
        "keepalives_per_s": renewed / passed,
        **{f"{part}_percent": cpu_s / passed * 100 for part, cpu_s in spent.items()},
    }
    beside = Case("", "")
    async with stage.client_of(await stage.follower()) as client:
        await idle_latency(client, beside, stage.plan.latency_warmup, stage.plan.latency_samples)
    figures |= resident_mib(
        {
            "leader": [(await stage.leader()).pid],
            "etcd": [stage.etcd_pid],
            "worker": [stage.workers[-1].pid],
        }
    )
    figures["etcd_database_mib"] = (await stage.etcd_metrics()).get(DATABASE_USED, 0.0) / MIB
    case.add(
        {
            **figures,
            "keepalive_p50_ms": percentile(took_ms, 50),
            "keepalive_p99_ms": percentile(took_ms, 99),
            "submit_to_start_p50_ms": beside.figures["submit_to_start_p50_ms"][0],
            "submit_to_start_p99_ms": beside.figures["submit_to_start_p99_ms"][0],
            "others_cores": usage.others_cores,
        }
    )
    return figures


async def _renew(etcd: Etcd, seconds: float) -> list[float]:
    """Keep one lease alive for some seconds; return what each round trip took, in ms."""
    lease = (await etcd.grant(LEASE_TTL_S)).lease
    until, took_ms = time.monotonic() + seconds, []
    try:
        while time.monotonic() < until:
            began = time.monotonic()
            await etcd.renew([lease], timeout_s=LEASE_TTL_S)
            took_ms.append((time.monotonic() - began) * 1_000)
            await asyncio.sleep(RENEW_EVERY_S)
    finally:
        await etcd.revoke(lease)
    return took_ms


def _tell_slopes(results: Results, alone: Sequence[Step], holding: Sequence[Step]) -> None:
    """Sum up the steps as straight lines, where there are enough of them."""
    steps = [*alone[-1:], *holding]
    for name, units, points in (
        ("a worker", CPU | MEMORY, [(step.workers, step.figures) for step in alone]),
        ("a KeepAlive a second", CPU, [(step.figures["keepalives_per_s"], step.figures) for step in steps]),
        ("a claim", MEMORY, [(step.claims, step.figures) for step in steps]),
        ("a claim", OF_A_WORKER, [(step.claims / step.workers, step.figures) for step in steps]),
    ):
        if len({at for at, _ in points}) >= PER_LINE:
            results.case("fleet: slopes", name).add(
                {
                    unit: slope([(at, figures[figure] * factor) for at, figures in points])
                    for figure, (unit, factor) in units.items()
                }
            )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line that fits best (least squares)."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
