"""The command line of the benchmark, and the order of what it does.

Results go to stdout (table or JSON) and to a file; what goes on meanwhile to stderr. Ctrl-C and SIGTERM stop every
process that was started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tenure.bench import surroundings, tables
from tenure.bench.backlog import backlog
from tenure.bench.blocked import blocked
from tenure.bench.comparison import peers
from tenure.bench.costs import costs
from tenure.bench.failover import failover
from tenure.bench.floors import floors
from tenure.bench.half_load import half_load
from tenure.bench.held import held
from tenure.bench.history import history
from tenure.bench.latency import latency
from tenure.bench.peers.peer import PEERS
from tenure.bench.plan import COORDINATORS, Plan, quick
from tenure.bench.rates import drain, end_to_end, submit
from tenure.bench.results import BenchError, Results, save
from tenure.bench.scale.fleet import fleet
from tenure.bench.scale.full import full
from tenure.bench.scale.life import life
from tenure.bench.scale.limits import limits, namespaces
from tenure.bench.scale.schedules import schedules
from tenure.bench.scale.slow import slow
from tenure.bench.scale.waiters import waiters
from tenure.bench.scale.workflow import workflow
from tenure.bench.stage import Stage, say
from tenure.bench.takeover import takeover
from tenure.bench.targets import judge
from tenure.model.errors import TenureError


class Format(StrEnum):
    """What to print."""

    TABLE = "table"
    JSON = "json"


class Scenario(StrEnum):
    """What can be measured, in the order in which it is."""

    SUBMIT = "submit"
    DRAIN = "drain"
    BLOCKED = "blocked"
    END_TO_END = "end-to-end"
    LATENCY = "latency"
    HALF_LOAD = "half-load"
    BACKLOG = "backlog"
    HELD = "held"
    FAILOVER = "failover"
    TAKEOVER = "takeover"
    PEERS = "peers"
    FLOORS = "floors"
    COSTS = "costs"
    HISTORY = "history"
    LIFE = "life"
    FULL = "full"
    FLEET = "fleet"
    WAITERS = "waiters"
    WORKFLOW = "workflow"
    SCHEDULES = "schedules"
    LIMITS = "limits"
    NAMESPACES = "namespaces"
    SLOW = "slow"


SCENARIOS: dict[Scenario, Callable[[Stage, Results], Awaitable[None]]] = {
    Scenario.SUBMIT: submit,
    Scenario.DRAIN: drain,
    Scenario.BLOCKED: blocked,
    Scenario.END_TO_END: end_to_end,
    Scenario.LATENCY: latency,
    Scenario.HALF_LOAD: half_load,
    Scenario.BACKLOG: backlog,
    Scenario.HELD: held,
    Scenario.FAILOVER: failover,
    Scenario.TAKEOVER: takeover,
    Scenario.PEERS: peers,
    Scenario.FLOORS: floors,
    Scenario.COSTS: costs,
    Scenario.HISTORY: history,
    Scenario.LIFE: life,
    Scenario.FULL: full,
    Scenario.FLEET: fleet,
    Scenario.WAITERS: waiters,
    Scenario.WORKFLOW: workflow,
    Scenario.SCHEDULES: schedules,
    Scenario.LIMITS: limits,
    Scenario.NAMESPACES: namespaces,
    Scenario.SLOW: slow,
}


WITHIN_PEERS = frozenset((Scenario.SUBMIT, Scenario.DRAIN, Scenario.END_TO_END, Scenario.LATENCY))
"""What tenure does beside its peers, too: it is not measured twice."""
SCALE = frozenset(
    (
        Scenario.LIFE,
        Scenario.FULL,
        Scenario.FLEET,
        Scenario.WAITERS,
        Scenario.WORKFLOW,
        Scenario.SCHEDULES,
        Scenario.LIMITS,
        Scenario.NAMESPACES,
        Scenario.SLOW,
    )
)
"""What is measured when there is much of something (``make bench-scale``)."""
EVERYTHING = frozenset(Scenario) - {Scenario.COSTS, Scenario.HISTORY} - SCALE
"""What is measured unless told otherwise: a profile, and what takes gigabytes or an hour, are for who asks for them."""


def bench(
    scenarios: Annotated[
        list[Scenario] | None,
        typer.Argument(help="What to measure.  [default: all but costs, history and those of scale]"),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each case; the median is what counts.")] = 3,
    long_runs: Annotated[
        int, typer.Option(min=1, help="Runs of failover, takeover, held, history, and of all peers but the yardstick.")
    ] = 1,
    is_quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that everything works.")] = False,
    jobs: Annotated[int | None, typer.Option(min=100, help="Jobs to drain.")] = None,
    history_jobs: Annotated[int | None, typer.Option(min=1_000, help="Jobs that have ended, for history.")] = None,
    kills: Annotated[int | None, typer.Option(min=1, help="Kills per TTL and run.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help=f"What to measure tenure beside: {', '.join(PEERS)}.  [default: all]")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")] = (
        Format.TABLE
    ),
    folder: Annotated[Path, typer.Option("--results", help="Where the file of results goes.")] = Path("bench-results"),
    data: Annotated[Path, typer.Option(help="Where the stores live meanwhile: the disk that is measured.")] = Path(
        ".tenure"
    ),
) -> None:
    """Measure tenure on a Postgres and an etcd of its own, both with fsync on, and print and keep the results."""
    plan = quick(runs) if is_quick else Plan(runs=runs)
    plan = replace(plan, long_runs=long_runs, drain_jobs=jobs or plan.drain_jobs, kills=kills or plan.kills)
    plan = replace(plan, history_jobs=history_jobs or plan.history_jobs)
    if unknown := set(peer or ()) - PEERS.keys():
        raise typer.BadParameter(f"no peer is called {', '.join(sorted(unknown))}")
    plan = replace(plan, peers=tuple(peer or plan.peers))
    asked = frozenset(scenarios or EVERYTHING)
    wanted = [
        scenario for scenario in Scenario if scenario in asked - (WITHIN_PEERS if Scenario.PEERS in asked else set())
    ]
    data.mkdir(parents=True, exist_ok=True)
    results = Results()
    about: dict[str, Any] = {"complete": False, "source": surroundings.commit()}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=data) as place:
            asyncio.run(_measure(Path(place), plan, wanted, results, about))
        about["complete"] = True
    finally:  # what was measured before a failure or Ctrl-C is worth keeping, too
        if results.cases:
            _tell(results, plan, about, folder, output)


def _tell(results: Results, plan: Plan, about: dict[str, Any], folder: Path, output: Format) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    judged = judge(results, plan)
    report = {
        "at": at,
        **about,
        "left_out": results.left_out,
        "targets": [each.to_json() for each in judged],
        "results": results.to_json(),
    }
    path = save(report, folder, results.drawings)
    if output is Format.JSON:
        print(path.read_text(), end="")
    else:
        tables.show(results, judged, {**about, "left_out": results.left_out})
    for what, why in results.left_out.items():
        say(f"left out: {what}: {why}")
    say(f"kept in {path}")


async def _measure(place: Path, plan: Plan, scenarios: list[Scenario], results: Results, about: dict[str, Any]) -> None:
    """Run the scenarios on one stage; write into ``about`` what a reader must know."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    about["machine"] = machine = surroundings.machine(place)
    about["settings"] = {**asdict(plan), "coordinators": COORDINATORS, "postgres_fsync": True, "etcd_fsync": True}
    async with Stage(place, plan) as stage:
        about["versions"] = {**surroundings.versions(), **await stage.versions()}
        about["took_s"] = took_s = dict[str, int]()
        for scenario in scenarios:
            began = time.monotonic()
            await SCENARIOS[scenario](stage, results)
            took_s[scenario] = round(time.monotonic() - began)
        machine["load_average_at_end"] = [round(load, 2) for load in os.getloadavg()]


def run() -> None:
    """Run the command and exit; the entry point."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name="bench")(bench)
    try:
        app()
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except (TenureError, BenchError, TimeoutError) as exc:
        say(f"error: {exc}")
        sys.exit(1)
