"""Costs: where each microsecond of a drain goes, by process and by step, with the functions that take most themselves.

The jobs are drained twice as often as there are runs: untouched, for what each process takes a job, and watched by
py-spy, for how that divides. Only threads that hold the interpreter's lock are sampled, since a thread that waits for a
core looks busy on a full machine; what gRPC's own threads take is read from the kernel. Postgres' cost is divided by
the time that its statements spent in the executor (pg_stat_statements), so commits and parsing are charged to them in
proportion; etcd's not at all: its operations per job are counted instead.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tenure.bench.cpu import Usage
from tenure.bench.flame import flame_graph
from tenure.bench.peers.installing import NotInstalledError, python
from tenure.bench.results import BenchError, Results
from tenure.bench.stage import Stage, say
from tenure.bench.steps import COORDINATOR, REST, WORKER, Profile, Steps, gone

COORDINATORS, WORKERS = "coordinators", "workers"
LEADER, FOLLOWER = "coordinator, leads", "coordinator, follows"
GROUPS = {COORDINATORS: (LEADER, FOLLOWER), WORKERS: (WORKERS,)}
"""Both coordinators as one: which of them a worker asks is chance, and may differ from drain to drain."""
STEPS: dict[str, Steps] = {COORDINATORS: COORDINATOR, WORKERS: WORKER}
NATIVE = "threads without Python (gRPC)"
Pids = Mapping[str, int]
SOURCES = Path(__file__).resolve().parents[1]
RATE_HZ = 200
FUNCTIONS = 25
STATEMENTS = 25
COUNTED = (
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_server_proposals_applied_total",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_debugging_mvcc_events_total",
)


async def costs(stage: Stage, results: Results) -> None:
    """Drain untouched, drain watched, and divide."""
    try:
        spy = (await asyncio.to_thread(python, "py-spy")).with_name("py-spy")
    except NotInstalledError as exc:
        results.left_out["costs"] = str(exc)
        return
    if lost := [each for steps in STEPS.values() for each in gone(steps, SOURCES)]:
        results.left_out["steps that bench/steps.py no longer finds"] = "; ".join(lost)
    await stage.count_statements()
    watched: dict[str, Profile] = {}
    for run in range(stage.plan.runs):
        say(f"costs: {stage.plan.drain_jobs:,} jobs untouched, run {run + 1} of {stage.plan.runs}")
        async with _filled(stage) as (last, pids):
            jobs, usage = await _untouched(stage, last, pids, results)
        say(f"costs: {stage.plan.drain_jobs:,} jobs watched, run {run + 1} of {stage.plan.runs}")
        async with _filled(stage) as (last, pids):
            profiles = await _watched(stage, spy, last, pids)
        for process, profile in profiles.items():
            watched[process] = watched.get(process, Profile({})) + profile
        _divide(results, usage.us_per_job(jobs), profiles)
    for process, profile in watched.items():
        results.drawings[process.replace(", ", "-")] = flame_graph(process, profile)


@asynccontextmanager
async def _filled(stage: Stage) -> AsyncIterator[tuple[str, Pids]]:
    """Have jobs and one worker; give the last job and the ids of the processes that are watched."""
    await stage.clear()
    last = await stage.submit_bulk(stage.plan.drain_jobs)
    await stage.add_workers(1, stage.plan.capacity)
    leader, follower = await stage.leader(), await stage.follower()
    yield last, {LEADER: leader.pid, FOLLOWER: follower.pid, WORKERS: stage.workers[0].pid}
    await stage.remove_workers()


async def _untouched(stage: Stage, last: str, pids: Pids, results: Results) -> tuple[int, Usage]:
    """Drain, and keep what the kernel, etcd and Postgres counted meanwhile."""
    await stage.forget_statements()
    native = {process: _native_s(pid) for process, pid in pids.items()}
    counted = await _counted(stage)
    since, meter = await stage.now(), await stage.meter()
    drained = await stage.drained(last, stage.plan.drain_jobs, since)
    usage, jobs = meter.stop(), drained.jobs or 1
    for name, count in (await _counted(stage)).items():
        results.case("costs: etcd", name).add({"per_job": (count - counted[name]) / jobs})
    for name, group in GROUPS.items():
        spent_us = sum(_native_s(pids[process]) - native[process] for process in group) / jobs * 1e6
        results.case(f"costs: {name}", NATIVE).add({"us_per_job": spent_us})
    _divide_postgres(results, await stage.statements(), usage.cpu_s["postgres"] / jobs * 1e6, jobs)
    rate = {"jobs_per_s": drained.jobs / drained.seconds, "others_cores": usage.others_cores}
    results.case("costs", "untouched drain, 1 worker").add(rate, usage.us_per_job(jobs))
    return jobs, usage


async def _watched(stage: Stage, spy: Path, last: str, pids: Pids) -> dict[str, Profile]:
    """Drain while py-spy samples every process; return what it saw."""
    since = await stage.now()
    spies = []
    for process, pid in pids.items():
        raw = stage.folder / f"spy-{pid}.txt"
        options = ["--pid", str(pid), "--rate", str(RATE_HZ), "--gil", "--format", "raw", "--output", str(raw)]
        spies.append((process, raw, await _start(spy, "record", *options, "--duration", "86400")))
    await stage.drained(last, stage.plan.drain_jobs, since)
    profiles = {}
    for process, raw, watching in spies:
        if watching.returncode is None:
            watching.send_signal(signal.SIGINT)  # it writes what it has
        said, _ = await watching.communicate()
        if not raw.exists():
            raise BenchError(f"py-spy wrote nothing about {process}: {said.decode(errors='replace').strip()[-500:]}")
        profiles[process] = Profile.parse(raw.read_text().splitlines())
    return profiles


async def _start(*command: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


def _divide(results: Results, us_per_job: Mapping[str, float], profiles: Mapping[str, Profile]) -> None:
    """Divide what each process took, less its threads without Python, by what was seen."""
    for group, members in GROUPS.items():
        profile = sum((profiles[process] for process in members), Profile({}))
        all_us = sum(us_per_job[process] for process in members)
        native_us = results.case(f"costs: {group}", NATIVE).figures["us_per_job"][-1]
        held_us = max(0.0, all_us - native_us)
        shares = profile.by_step(STEPS[group])
        for step in (*STEPS[group], REST):
            results.case(f"costs: {group}", step).add({"us_per_job": held_us * shares.get(step, 0.0)})
        for function, share in list(profile.by_function().items())[:FUNCTIONS]:
            results.case(f"costs: functions, {group}", function).add({"us_per_job": held_us * share})


def _divide_postgres(results: Results, statements: Sequence[tuple[str, int, float]], cpu_us: float, jobs: int) -> None:
    """Divide what Postgres took by the time in the executor, which is longer than its CPU on a full machine."""
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for statement, times, milliseconds in statements:
        calls[_one_line(statement)] += times
        spent[_one_line(statement)] += round(milliseconds * 1e6)  # whole nanoseconds
    for statement, nanoseconds in spent.most_common(STATEMENTS):
        figures = {"us_per_job": cpu_us * nanoseconds / spent.total(), "jobs_per_call": jobs / calls[statement]}
        results.case("costs: Postgres", statement).add(figures)


async def _counted(stage: Stage) -> dict[str, float]:
    """Return etcd's counters of operations."""
    found = await stage.etcd_metrics()
    return {name: found.get(name, 0.0) for name in COUNTED}


def _native_s(pid: int) -> float:
    """Return the CPU seconds of a process's threads that are not Python's: those that have a name of their own."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    main = Path(f"/proc/{pid}/comm").read_text().strip()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
        if name != main:
            fields = rest.split()
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def _one_line(statement: str) -> str:
    return re.sub(r"\s+", " ", statement).strip()[:100]
