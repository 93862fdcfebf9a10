"""A chaos run: workload and faults together, then quiet, then judgement.

``python -m tests.chaos.run --minutes 20 --seed 1 --out DIR``. The seed decides what is submitted and which faults are
planned; timing is the machine's. Exits 1 with the violations and the place of the history when a promise was not kept,
or when the run did not exercise what it is for. Called by ``make chaos`` and, in short, by ``test_chaos``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from tests.chaos.bounds import Sampler, beyond, drift, read_samples
from tests.chaos.checker import (
    Expected,
    Violation,
    check,
    longest_silence_s,
    most_at_once,
    overlaps,
    recovery_s,
    slowest_recovery_s,
    vacuity,
    without_paused_trees,
)
from tests.chaos.cluster import PREFIX, Cluster
from tests.chaos.history import Attempt, Effect, Event, Finish, Recorder, Terminal, read
from tests.chaos.nemesis import FAULTS, Nemesis, Step, available, plan
from tests.chaos.network import why_not
from tests.chaos.observer import ClaimWatcher, active, read_postgres, rest
from tests.chaos.workload import LIMIT, LIMIT_JOBS, Workload, client_of

from tenure.bench import surroundings
from tenure.cli.logs import configure
from tenure.store.etcd.keyspace import Keyspace

QUIET_S = 240.0
"""How long everything may take to come to its end after the last fault."""
RATE = 25.0
SAMPLES = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Settings:
    """What run is wanted."""

    folder: Path
    seed: int
    seconds: float
    faults: tuple[str, ...] = ()
    """Which faults; empty: all that this machine can do."""
    rate: float = RATE
    workers: int = 4
    coordinators: int = 2
    sample_s: float = 0.0
    """How often to look at what must not grow (``tests.chaos.bounds``); 0: never."""


@dataclass(slots=True)
class Result:
    """What came of it."""

    seed: int
    etcd: str
    partitions: bool
    violations: list[str] = field(default_factory=list)
    not_exercised: list[str] = field(default_factory=list)
    jobs: int = 0
    submits_without_answer: int = 0
    submits_refused: int = 0
    states: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    lost: int = 0
    doubled: int = 0
    claims: int = 0
    claims_overlapping: int = 0
    claim_gaps: int = 0
    limited_at_once: int = 0
    attempts_lost: int = 0
    handlers_overlapping: int = 0
    handler_overlap_max_s: float = 0.0
    stale_writes_refused: int = 0
    stale_reports_refused: int = 0
    recovery_s: float | None = None
    slowest_recovery_s: float = 0.0
    longest_silence_s: float = 0.0
    quiet_after_s: float = 0.0
    minutes: float = 0.0
    source: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    drift: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of what must not grow: the median in the second quarter of the run and in the last."""


class Told:
    """Where a run says what it is doing: a status line on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last = 0.0
        self._status = console.status("starting") if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def now(self, text: str) -> None:
        """Replace the status."""
        if self._status is not None:
            self._status.update(text)
        elif time.monotonic() - self._last > 15.0:
            self._last = time.monotonic()
            self.console.print(text)

    def end(self) -> None:
        """Remove the status."""
        if self._status is not None:
            self._status.stop()


def run(settings: Settings, console: Console) -> Result:
    """Run, judge, and return the result; the history and the logs stay in the folder."""
    configure("WARNING", "text")
    told = Told(console)
    cluster = Cluster(settings.folder, coordinators=settings.coordinators, workers=settings.workers)
    result = Result(settings.seed, cluster.etcd_version, cluster.network.can_cut)
    result.minutes = round(settings.seconds / 60, 1)
    result.source, result.versions = surroundings.commit(), surroundings.versions()
    try:
        cluster.start()
        asyncio.run(_exercise(settings, cluster, result, told))
    finally:
        told.end()
        cluster.stop()
    _judge(settings, result)
    (settings.folder / "result.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
    return result


async def _exercise(settings: Settings, cluster: Cluster, result: Result, told: Told) -> None:
    """Submit and do harm, then let everything come to its end and read what the stores remember."""
    rng = random.Random(settings.seed)
    recorders = {
        name: Recorder(settings.folder / "history" / f"{name}.jsonl", durable=False)
        for name in ("client", "claims", "nemesis", "postgres")
    }
    etcd, watched = cluster.connect(), cluster.connect()
    watcher = ClaimWatcher(watched, Keyspace(PREFIX), recorders["claims"])
    nemesis = Nemesis(cluster, etcd, recorders["nemesis"], watcher.taken_from)
    steps = plan(rng, settings.faults or available(cluster), settings.seconds)
    stop = asyncio.Event()
    async with client_of(cluster.coordinators) as client, asyncio.TaskGroup() as group:
        workload = Workload(client, recorders["client"], random.Random(settings.seed), settings.rate)
        chores = [
            group.create_task(watcher.run()),
            group.create_task(cluster.supervise()),
            group.create_task(_progress(workload, nemesis, watcher, steps, told)),
        ]
        pace = group.create_task(_pace(cluster, workload))
        if settings.sample_s:
            chores.append(group.create_task(Sampler(cluster, settings.folder / SAMPLES, settings.sample_s).run()))
        await workload.set_limit()
        submitting = group.create_task(workload.run(stop))
        await nemesis.run(steps)
        healed = time.monotonic()
        stop.set()
        pace.cancel()
        workload.note_unfinished(0)
        await submitting
        unrest = await _quiet(cluster, workload, watcher)
        result.violations += [f"quiet: {text}" for text in unrest]
        result.quiet_after_s = time.monotonic() - healed
        result.jobs = await read_postgres(cluster.postgres.dsn, recorders["postgres"])
        for chore in chores:
            chore.cancel()
    result.submits_without_answer = workload.without_answer
    result.submits_refused = len(workload.refused)
    result.violations += [f"submit: refused: {text}" for text in workload.refused]
    result.faults = dict(sorted(nemesis.done.items()))
    result.claims, result.claim_gaps = watcher.claims, watcher.gaps
    result.restarts = cluster.restarts
    await etcd.close()
    await watched.close()


async def _pace(cluster: Cluster, workload: Workload) -> None:
    while True:
        await asyncio.sleep(1.0)
        with contextlib.suppress(psycopg.OperationalError):  # killed, or recovering
            workload.note_unfinished(await active(cluster.postgres.dsn))


async def _quiet(cluster: Cluster, workload: Workload, watcher: ClaimWatcher) -> list[str]:
    """Wait until every submit is answered, every job has ended and every claim is gone; return what did not come."""
    unknown, jobs, claims = -1, -1, -1
    try:
        async with asyncio.timeout(QUIET_S):
            await workload.settle()
            while (unknown, jobs, claims) != (0, 0, 0):
                await asyncio.sleep(0.25)
                unknown, claims = workload.unknown, watcher.standing
                try:
                    jobs = await active(cluster.postgres.dsn)
                except psycopg.OperationalError:
                    jobs = -1  # still recovering
    except TimeoutError:
        left = "\n".join(await rest(cluster.postgres.dsn))
        await asyncio.to_thread((cluster.folder / "rest.txt").write_text, left)
        return [f"after {QUIET_S:g} s: {workload.unknown} calls unanswered, {jobs} jobs active, {claims} claims"]
    return []


async def _progress(
    workload: Workload, nemesis: Nemesis, watcher: ClaimWatcher, steps: Sequence[Step], told: Told
) -> None:
    began = time.monotonic()
    while True:
        now = ", ".join(f"{fault} {victim}" for victim, fault in nemesis.current.items()) or "no fault"
        told.now(
            f"{time.monotonic() - began:4.0f} s  {workload.submitted} jobs submitted, {workload.unknown} unanswered, "
            f"{watcher.standing} claims; {nemesis.done.total()} of {len(steps)} faults; {now}"
        )
        await asyncio.sleep(0.5)


def _judge(settings: Settings, result: Result) -> None:
    history = read(sorted((settings.folder / "history").glob("*.jsonl")))
    violations = check(without_paused_trees(history, "pause-worker-tree"))
    result.violations += [str(violation) for violation in violations]
    result.not_exercised = [str(one) for one in vacuity(history, _expected(settings))]
    result.drift = drift(read_samples(settings.folder / SAMPLES))
    result.violations += [f"grows: {text}" for text in beyond(result.drift)]
    if most_at_once(history, LIMIT) < LIMIT_JOBS:
        result.not_exercised.append(f"limits: never were {LIMIT_JOBS} jobs of {LIMIT} claimed at once")
    _measure(result, history, violations)


def _expected(settings: Settings) -> Expected:
    """What a run that lasts must have seen. The faults that make zombies are among all faults."""
    return Expected(
        completions=int(settings.seconds * settings.rate * 0.2),
        faults=1,
        lost_attempts=1,
        refused_reports=1,
        refused_writes=1,
    )


def _measure(result: Result, history: Sequence[Event], violations: Sequence[Violation]) -> None:
    counts = Counter(violation.check for violation in violations)
    result.lost, result.doubled = counts["lost"], counts["completed-once"]
    result.claims_overlapping = counts["claims"]
    result.states = dict(Counter(row.state for row in history if isinstance(row, Terminal)))
    result.limited_at_once = most_at_once(history, LIMIT)
    result.attempts_lost = sum(isinstance(one, Attempt) and one.outcome == "lost" for one in history)
    result.stale_writes_refused = sum(isinstance(one, Effect) and not one.accepted for one in history)
    result.stale_reports_refused = sum(isinstance(one, Finish) and one.verdict == "lost" for one in history)
    found = overlaps(history)
    result.handlers_overlapping = len(found)
    result.handler_overlap_max_s = round(max((one.seconds for one in found), default=0.0), 3)
    result.recovery_s = recovery_s(history)
    result.slowest_recovery_s = slowest_recovery_s(history)
    result.longest_silence_s = longest_silence_s(history)


def show(result: Result, console: Console) -> None:
    """Print the result as a table."""
    table = Table(title=f"chaos, seed {result.seed}, etcd {result.etcd}", show_header=False)
    recovery = "-" if result.recovery_s is None else f"{result.recovery_s:.2f} s"
    states = ", ".join(f"{count} {state}" for state, count in sorted(result.states.items()))
    for name, value in (
        ("jobs", f"{result.jobs} ({states})"),
        ("submits without an answer at first", result.submits_without_answer),
        ("faults", f"{sum(result.faults.values())}"),
        *((f"  {name}", count) for name, count in result.faults.items()),
        ("processes started again", result.restarts),
        ("lost", result.lost),
        ("doubled", result.doubled),
        ("claims; overlapping", f"{result.claims}; {result.claims_overlapping}"),
        (f"of the limit of {LIMIT_JOBS} at once, at most", result.limited_at_once),
        ("gaps in the record of claims", result.claim_gaps),
        ("attempts lost", result.attempts_lost),
        ("handlers overlapping; longest", f"{result.handlers_overlapping}; {result.handler_overlap_max_s:.2f} s"),
        ("stale writes refused", result.stale_writes_refused),
        ("stale reports refused", result.stale_reports_refused),
        ("first completion after the last heal; after any", f"{recovery}; {result.slowest_recovery_s:.2f} s"),
        ("longest time without a completion", f"{result.longest_silence_s:.1f} s"),
        ("all at rest after", f"{result.quiet_after_s:.1f} s"),
        *((f"  {name}, 2nd quarter; last", f"{a:g}; {b:g}") for name, (a, b) in result.drift.items()),
        ("violations", len(result.violations) + len(result.not_exercised)),
    ):
        table.add_row(name, str(value))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description="Workload and faults, judged by a checker.")
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults [5]")
    parser.add_argument("--hours", type=float, default=0.0, help="instead of minutes")
    parser.add_argument("--seed", type=int, default=None, help="of workload and plan [drawn]")
    parser.add_argument("--out", type=Path, default=None, help="folder for history, logs and data [a new one]")
    parser.add_argument("--faults", default="", help=f"comma-separated [all]: {', '.join(FAULTS)}")
    parser.add_argument("--rate", type=float, default=RATE, help=f"jobs per second [{RATE:g}]")
    parser.add_argument("--sample", type=float, default=0.0, help="seconds between looks at what must not grow [0]")
    given = parser.parse_args(argv)
    minutes = given.hours * 60 or given.minutes
    faults = tuple(name.strip() for name in given.faults.split(",") if name.strip())
    if unknown := [name for name in faults if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}")
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = (given.out or Path(tempfile.mkdtemp(prefix="tenure-chaos-"))).absolute()
    if (folder / "history").exists():
        parser.error(f"{folder} holds a run already")
    console = Console(highlight=False)
    console.print(f"seed {seed}, {minutes:g} minutes, history in {folder}")
    if why_not():
        console.print(f"no partitions on this machine: {why_not()}")
    result = run(Settings(folder, seed, minutes * 60, faults, given.rate, sample_s=given.sample), console)
    show(result, console)
    for text in (*result.violations, *result.not_exercised):
        console.print(text, markup=False, soft_wrap=True)
    if result.violations or result.not_exercised:
        console.print(f"seed {seed}: NOT OK; history and logs in {folder}")
        return 1
    console.print(f"seed {seed}: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
