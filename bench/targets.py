"""The targets: what is needed, beside what was measured.

A target reads one figure of one case, so only those whose scenarios ran are told. It is met by the median of its runs;
one of samples by their 99th percentile. Ratios to a peer are those of one run, never of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenure.bench import held
from tenure.bench.backlog import backlogs
from tenure.bench.comparison import BULK_THROUGH
from tenure.bench.failover import SLEEP_S, leader_killed, worker_killed
from tenure.bench.half_load import AT_RANDOM
from tenure.bench.latency import ANOTHER
from tenure.bench.plan import Plan
from tenure.bench.rates import STREAM, draining, in_batches, singly
from tenure.bench.results import Case, Results, percentile, rounded
from tenure.bench.takeover import claims_lost

SLACK_S = 1.0
"""Beyond the TTL; and as much for each thousand claims that are lost at once."""


@dataclass(frozen=True, slots=True)
class Target:
    """One of the issue's numbers. ``figure`` names a figure per run, or samples."""

    number: int
    what: str
    needed: float
    scenario: str
    case: str
    figure: str
    at_most: bool = False
    """Else at least; and with ``above`` more than that."""
    above: bool = False

    def met_by(self, value: float) -> bool:
        """Say whether a value is good enough."""
        return value <= self.needed if self.at_most else value > self.needed if self.above else value >= self.needed

    @property
    def sign(self) -> str:
        """How a value must stand to what is needed."""
        return "≤" if self.at_most else ">" if self.above else "≥"


@dataclass(frozen=True, slots=True)
class Judged:
    """A target and what was measured."""

    target: Target
    measured: float
    lowest: float
    highest: float
    count: int
    """Of runs, or of samples."""

    @property
    def met(self) -> bool:
        """Whether it is met."""
        return self.target.met_by(self.measured)

    def to_json(self) -> dict[str, Any]:
        """Return it for a file."""
        target = self.target
        return {
            "target": target.number,
            "what": target.what,
            "sign": target.sign,
            "needed": target.needed,
            "measured": rounded(self.measured),
            "min": rounded(self.lowest),
            "max": rounded(self.highest),
            "count": self.count,
            "met": self.met,
        }


def judge(results: Results, plan: Plan) -> list[Judged]:
    """Return the targets that can be told of, in their order."""
    return [judged for target in targets(plan) if (judged := _judged(target, results))]


def _judged(target: Target, results: Results) -> Judged | None:
    case = results.cases.get((target.scenario, target.case), Case("", ""))
    if values := case.figures.get(target.figure):
        return Judged(target, statistics.median(values), min(values), max(values), len(values))
    if values := case.samples.get(target.figure):
        return Judged(target, percentile(values, 99), min(values), max(values), len(values))
    return None


def targets(plan: Plan) -> Iterator[Target]:
    """Yield all of them, for the sizes of a plan."""
    yield from _throughput(plan)
    yield from _latency()
    yield from _recovery(plan)
    yield from _scale(plan)


def _throughput(plan: Plan) -> Iterator[Target]:
    drain, bulk = "drain, 1 worker: tenure", f"{BULK_THROUGH}: tenure"
    yield Target(1, "drain, 1 worker, of PgQueuer's rate", 1.0, "peers", drain, "of_pgqueuer")
    yield Target(1, "drain, CPU per job, of PgQueuer's", 1.8, "peers", drain, "cpu_of_pgqueuer", at_most=True)
    two = draining(plan, plan.drain_workers[-1])
    if len(plan.drain_workers) > 1:
        yield Target(1, "drain, 2 workers, of 1 worker's rate", 1.0, "drain", two, "of_the_fewest", above=True)
    for apart in (False, True):
        name = singly(plan.submits_in_flight[-1], apart=apart)
        yield Target(2, f"{name}, /s", 3_000, "submit", name, "jobs_per_s")
    for in_flight in plan.batches_in_flight:
        name = in_batches(plan, in_flight)
        yield Target(2, f"{name}, /s", 25_000, "submit", name, "jobs_per_s")
    yield Target(2, f"{STREAM}, /s", 25_000, "submit", STREAM, "jobs_per_s")
    most = plan.singles_in_flight[-1]
    for name in (*map(singly, plan.singles_in_flight), singly(most, apart=True)):
        yield Target(3, f"end to end, {name}, /s", 2_000, "end-to-end", name, "jobs_per_s")
    yield Target(3, "end to end, in bulk, of PgQueuer's rate", 1.0, "peers", bulk, "of_pgqueuer")


def _latency() -> Iterator[Target]:
    for what, needed, figure in (
        ("submit to start, p50, ms", 4.5, "submit_to_start_p50_ms"),
        ("submit to start, p99, ms", 10.0, "submit_to_start_p99_ms"),
        ("submit to answer, p50, ms", 8.0, "submit_to_answer_p50_ms"),
    ):
        yield Target(4, f"idle, {what}", needed, "latency", ANOTHER, figure, at_most=True)
    what = "at half load, submit to start, p99, ms"
    yield Target(4, what, 100.0, "half-load", AT_RANDOM, "submit_to_start_p99_ms", at_most=True)


def _recovery(plan: Plan) -> Iterator[Target]:
    for ttl_s in plan.ttls_s:
        name = worker_killed(ttl_s)
        yield Target(5, f"{name}, p99, s", ttl_s + SLACK_S, "failover", name, "kill_to_restart_s", at_most=True)
    ttl_s, jobs = plan.ttls_s[-1], plan.takeover_jobs
    name, promised_s = claims_lost(plan, plan.takeover_workers[0]), ttl_s + SLACK_S + jobs / 1_000
    yield Target(5, f"{name}, the last, s", promised_s, "takeover", name, "loss_to_last_restart_s", at_most=True)
    name, promised_s = leader_killed(plan), plan.leader_ttl_s + SLACK_S
    yield Target(5, f"{name}, p99, s", promised_s, "failover", name, "kill_to_restart_s", at_most=True)
    what, figure = f"{name}, last end of what was claimed, p99, s", "kill_to_end_of_claimed_s"
    yield Target(5, what, SLEEP_S + SLACK_S, "failover", name, figure, at_most=True)


def _scale(plan: Plan) -> Iterator[Target]:
    name = held.beside(plan)
    yield Target(6, f"{name}, % of a core", 10.0, "held", name, "holder_percent", at_most=True)
    yield Target(6, f"{name}, jobs/s that did pass", 0.95 * plan.passing_jobs_per_s, "held", name, "jobs_per_s")
    yield Target(6, f"{name}, claims lost", 0.0, "held", name, "claims_lost", at_most=True)
    yield Target(6, f"{name}, attempts lost", 0.0, "held", name, "attempts_lost", at_most=True)
    for name, (jobs, _) in backlogs(plan).items():
        if jobs:
            yield Target(7, f"drain, {name}, of none", 0.95, "backlog", f"drain, {name}", "of_none")
            what, figure = f"idle p50, none waiting, of {name}", "none_of_submit_to_start_p50"
            yield Target(7, what, 0.95, "backlog", f"latency, {name}", figure)
