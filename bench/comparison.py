"""The comparison: tenure and its peers doing the same on one machine, by turns, with the rates' ratios to one of them.

In every run each system submits singly and in bulk, drains with one worker and with two, carries jobs from submit to
end, and starts single jobs while idle; tenure by its own scenarios, whose tables are filled as well. Ratios are taken
within a run and their median is what counts, since a machine changes over minutes. CPU is that of all processes that
take part: database, broker, workers, client.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tenure.bench.cpu import Usage
from tenure.bench.latency import ANOTHER, latency
from tenure.bench.peers import ground
from tenure.bench.peers.ground import Ground
from tenure.bench.peers.installing import NotInstalledError
from tenure.bench.peers.peer import PEERS, YARDSTICK, Peer, Place
from tenure.bench.peers.program import PeerError, Program
from tenure.bench.plan import Plan
from tenure.bench.rates import drain, draining, end_to_end, in_batches, singly, submit
from tenure.bench.results import Case, Results, percentile
from tenure.bench.stage import Stage, say
from tenure.cli.embedded.postgres import EmbeddedPostgres

SINGLES, BULK, THROUGH, BULK_THROUGH, LATENCY = (
    "submit singly",
    "submit in bulk",
    "end to end, submitted singly",
    "end to end, submitted in bulk",
    "latency",
)
REST_S = 0.02
"""Between two jobs of an idle system, so that the first has ended."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one system in one run: a rate and what a job costs, or latencies."""

    figures: Mapping[str, float]
    cpu_us_per_job: Mapping[str, float]


Run = dict[str, Measured]


async def peers(stage: Stage, results: Results) -> None:
    """Measure the yardstick and tenure by turns, as often as there are runs, and the other peers between them."""
    installed = await _installed(stage.plan, results)
    names = sorted({*installed, "tenure"}, key=lambda name: (name != YARDSTICK, name != "tenure"))
    for what in _everything(stage.plan):  # so that the table groups what is to be compared
        for name in names:
            results.case("peers", f"{what}: {name}")
    for run in range(stage.plan.runs):
        yardstick: Run = {}
        for name in names:
            if run >= stage.plan.long_runs and name not in (YARDSTICK, "tenure"):
                continue
            say(f"peers: {name}, run {run + 1} of {stage.plan.runs}")
            try:
                measured = await (
                    _tenure(stage, results) if name == "tenure" else _peer(stage, PEERS[name], installed[name])
                )
            except PeerError as exc:
                results.left_out[f"{name}, run {run + 1}"] = str(exc)
                continue
            if name == YARDSTICK:
                yardstick = measured
            _keep(results, name, measured, yardstick)


async def _installed(plan: Plan, results: Results) -> dict[str, Path]:
    """Return the interpreters of the peers that can be had here."""
    installed = {}
    for name in plan.peers:
        say(f"peers: installing {name}")
        try:
            if PEERS[name].place is Place.REDIS:
                ground.redis_program()
            installed[name] = await asyncio.to_thread(PEERS[name].install, name)
        except NotInstalledError as exc:
            results.left_out[name] = str(exc)
    return installed


def _keep(results: Results, name: str, measured: Run, yardstick: Run) -> None:
    for what, each in measured.items():
        figures = dict(each.figures)
        if (beside := yardstick.get(what)) and "jobs_per_s" in figures:
            figures["of_pgqueuer"] = figures["jobs_per_s"] / beside.figures["jobs_per_s"]
        if "all" in each.cpu_us_per_job:
            figures["cpu_us_per_job"] = each.cpu_us_per_job["all"]
            if beside:
                figures["cpu_of_pgqueuer"] = figures["cpu_us_per_job"] / beside.cpu_us_per_job["all"]
        results.case("peers", f"{what}: {name}").add(figures, each.cpu_us_per_job)


async def _tenure(stage: Stage, results: Results) -> Run:
    """Measure tenure by the scenarios that it has for itself, one run of each; they have their own tables, too."""
    plan = stage.plan
    stage.plan = replace(plan, runs=1)
    try:
        for scenario in (submit, drain, end_to_end, latency):
            await scenario(stage, results)
    finally:
        stage.plan = plan
    one_by_one, batches = singly(plan.singles_in_flight[0]), in_batches(plan)
    named = {
        ("submit", one_by_one): SINGLES,
        ("submit", batches): BULK,
        ("end-to-end", one_by_one): THROUGH,
        ("end-to-end", batches): BULK_THROUGH,
        ("latency", ANOTHER): LATENCY,
        **{("drain", draining(plan, workers)): f"drain, {_workers(workers)}" for workers in plan.drain_workers},
    }
    return {what: _last_of(results.case(*key)) for key, what in named.items()}


def _last_of(case: Case) -> Measured:
    wanted = ("jobs_per_s", "others_cores", "submit_to_start_p50_ms", "submit_to_start_p99_ms")
    return Measured(
        {figure: values[-1] for figure, values in case.figures.items() if figure in wanted},
        {group: values[-1] for group, values in case.cpu_us_per_job.items()},
    )


async def _peer(stage: Stage, peer: Peer, interpreter: Path) -> Run:
    """Measure a peer, each time on ground that nothing was done on before."""
    plan, run, in_flight = stage.plan, Run(), stage.plan.singles_in_flight[0]
    async with stage.rest() as (postgres, logs):
        for what, order in (
            (SINGLES, {"do": "singles", "in_flight": in_flight, "seconds": plan.submit_s}),
            (BULK, {"do": "bulk", "batch": plan.batch_jobs, "seconds": plan.submit_s}),
        ):
            async with _laid(peer, interpreter, postgres, logs, in_flight) as laid:
                run[what] = await _submitted(laid, order)
        for workers in plan.drain_workers:
            async with _laid(peer, interpreter, postgres, logs) as laid:
                run[f"drain, {_workers(workers)}"] = await _drained(laid, plan, peer, workers)
        for what, order in (
            (THROUGH, {"do": "singles", "in_flight": in_flight, "jobs": _share(plan.singles, peer)}),
            (BULK_THROUGH, {"do": "bulk", "batch": plan.batch_jobs, "jobs": _share(plan.bulk_jobs, peer)}),
        ):
            async with _laid(peer, interpreter, postgres, logs, in_flight) as laid:
                run[what] = await _carried_through(laid, order)
        async with _laid(peer, interpreter, postgres, logs) as laid:
            run[LATENCY] = await _started(laid, plan)
    return run


def _everything(plan: Plan) -> list[str]:
    drains = [f"drain, {_workers(workers)}" for workers in plan.drain_workers]
    return [*drains, SINGLES, BULK, THROUGH, BULK_THROUGH, LATENCY]


def _share(jobs: int, peer: Peer) -> int:
    return max(1, round(jobs * peer.share))


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


@contextlib.asynccontextmanager
async def _laid(
    peer: Peer, interpreter: Path, postgres: EmbeddedPostgres, logs: Path, in_flight: int = 1
) -> AsyncIterator[Ground]:
    async with ground.laid(peer, interpreter, postgres, logs) as laid:
        await laid.submitter.ask(do="connect", in_flight=in_flight)
        yield laid


async def _submitted(laid: Ground, order: Mapping[str, object]) -> Measured:
    """Submit what nobody works off."""
    meter = laid.meter()
    said = await laid.submitter.ask(**order)
    return _rate(said["jobs"], said["began_ns"], said["ended_ns"], meter.stop())


async def _drained(laid: Ground, plan: Plan, peer: Peer, workers: int) -> Measured:
    """Work off jobs that were there before the workers, from the instant at which they are told to begin."""
    jobs = _share(plan.drain_jobs, peer)
    await laid.submitter.ask(do="bulk", batch=plan.batch_jobs, jobs=jobs)
    programs = await laid.add_workers(workers)
    meter, began_ns = laid.meter(), time.monotonic_ns()
    for program in programs:
        await program.tell(do="work")
    return _rate(jobs, began_ns, await laid.wait_until_empty(), meter.stop())


async def _carried_through(laid: Ground, order: Mapping[str, object]) -> Measured:
    """Submit with one warm worker standing ready, from the first submit to the last end."""
    await _warm(laid)
    meter = laid.meter()
    said = await laid.submitter.ask(**order)
    return _rate(said["jobs"], said["began_ns"], await laid.wait_until_empty(), meter.stop())


async def _started(laid: Ground, plan: Plan) -> Measured:
    """Start one job at a time, from the submit call to the handler's first line."""
    worker = await _warm(laid)
    meter, taken_ms = laid.meter(), []
    for index in range(plan.latency_warmup + plan.latency_samples):
        called = (await laid.submitter.ask(do="stamp"))["called_ns"]
        began = (await worker.answer())["began_ns"]
        if index >= plan.latency_warmup:
            taken_ms.append((began - called) / 1e6)
        await asyncio.sleep(REST_S)
    figures = {f"submit_to_start_p{percent}_ms": percentile(taken_ms, percent) for percent in (50, 99)}
    return Measured({**figures, "others_cores": meter.stop().others_cores}, {})


async def _warm(laid: Ground) -> Program:
    [worker] = await laid.add_workers(1)
    await worker.tell(do="work")
    await laid.submitter.ask(do="stamp")
    await worker.answer()
    await laid.wait_until_empty()
    return worker


def _rate(jobs: int, began_ns: int, ended_ns: int, usage: Usage) -> Measured:
    figures = {"jobs_per_s": jobs / (ended_ns - began_ns) * 1e9, "others_cores": usage.others_cores}
    return Measured(figures, usage.us_per_job(jobs))
