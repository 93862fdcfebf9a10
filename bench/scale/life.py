"""Life: what a job takes from its submit to its place in history, in the units by which machines are bought.

CPU of each part, what etcd and Postgres write (etcd: all its writes, by the kernel; Postgres: its WAL), operations of
etcd, and what an ended job keeps on disk with its attempt and all indexes. Jobs are no-ops, submitted in batches; the
payload and the result of a real job come on top, byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from tenure.bench.results import BenchError, Results
from tenure.bench.stage import Stage, say

OPERATIONS = {
    "etcd_puts": "etcd_mvcc_put_total",
    "etcd_deletes": "etcd_mvcc_delete_total",
    "etcd_ranges": "etcd_mvcc_range_total",
    "etcd_proposals": "etcd_server_proposals_applied_total",
}
WRITTEN = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
ON_DISK = """
SELECT sum(pg_total_relation_size(oid))::bigint
FROM pg_class WHERE relnamespace = 'tenure'::regnamespace AND relkind = 'r'
"""


async def life(stage: Stage, results: Results) -> None:
    """Measure."""
    plan = stage.plan
    for run in range(plan.runs):
        say(f"life: {plan.drain_jobs:,} jobs, run {run + 1} of {plan.runs}")
        await stage.clear()
        await stage.add_warm_worker()
        await stage.clear()
        await stage.settle()
        since, before, meter = await stage.now(), await _counted(stage), await stage.meter()
        await stage.submit_bulk(plan.drain_jobs)
        seconds = await stage.all_ended_since(plan.drain_jobs, since)
        usage, after = meter.stop(), await _counted(stage)
        per_job = {name: (after[name] - before[name]) / plan.drain_jobs for name in before}
        results.case("life", f"{plan.drain_jobs:,} jobs").add(
            {"jobs_per_s": plan.drain_jobs / seconds, **per_job, "others_cores": usage.others_cores},
            usage.us_per_job(plan.drain_jobs),
        )
        await stage.remove_workers()


async def _counted(stage: Stage) -> Mapping[str, float]:
    metrics = await stage.etcd_metrics()
    if missing := [name for name in OPERATIONS.values() if name not in metrics]:
        raise BenchError(f"etcd counts no {', '.join(missing)}")
    return {
        "postgres_wal_bytes": float((await stage.rows(WRITTEN))[0][0]),
        "postgres_disk_bytes": float((await stage.rows(ON_DISK))[0][0]),
        "etcd_written_bytes": float(psutil.Process(stage.etcd_pid).io_counters().write_bytes),
        **{name: metrics[metric] for name, metric in OPERATIONS.items()},
    }
