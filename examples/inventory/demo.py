"""``make demo``: a whole tenure on this machine takes stock of it, and shows that asking twice is asking once.

    python -m tenure.examples.inventory.demo [--full] [--fresh] [--data DIR]

Starts the stores, two coordinators and three workers, submits one job, follows what becomes of it, prints the report
and where each job ran, submits the same again, stops everything. Exits 0 when all that went as promised.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console

from tenure.cli.embedded.deployment import Deployment
from tenure.client import Client, Job, JobState, TenureError
from tenure.examples.inventory.findings import DiscoverRequest, Discovery, Report
from tenure.examples.inventory.handlers import DISCOVER
from tenure.examples.inventory.pages import Progress, show_places, show_report

QUICK_HASH_MB = 24.0
POLL_S = 0.3
PATIENCE_S = 1_800.0
WORKER_ARGS = ("--import", "tenure.examples.inventory.handlers", "--pool", "inventory", "--capacity", "4")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = _options(arguments)
    console = Console(highlight=False)
    try:
        return _run(options, console)
    except TenureError as exc:
        console.print(f"[red]error:[/red] {exc.message}")
        if exc.hint:
            console.print(f"try: {exc.hint}")
        return exc.exit_code
    except KeyboardInterrupt:
        console.print("interrupted; the next run goes on where this one stopped")
        return 130


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="Take stock of this machine, as jobs.")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--quick", action="store_true", help=f"read at most {QUICK_HASH_MB:g} MB a scan (the default)")
    depth.add_argument("--full", action="store_true", help="read every file that has a checksum")
    parser.add_argument("--fresh", action="store_true", help="ask anew instead of under the key of today")
    parser.add_argument("--data", type=Path, default=Path(".tenure/demo"), help="where it lives (default .tenure/demo)")
    parser.add_argument("--coordinators", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, console: Console) -> int:
    request = DiscoverRequest(hash_mb_per_scan=None if options.full else QUICK_HASH_MB)
    key = _key(request, fresh=options.fresh)
    console.rule("[bold]tenure takes stock of this machine")
    deployment = Deployment(
        options.data.resolve(),
        coordinators=options.coordinators,
        workers=options.workers,
        worker_args=WORKER_ARGS,
        tell=lambda line: console.print(f"  {line}", style="dim"),
    )
    with deployment, Client(deployment.coordinator_addresses) as client:
        discovery = _submit(client, request, key, console)
        if not _follow(client, discovery, console):
            return 1
        _repeat(client, request, key, discovery, console)
    return 0


def _key(request: DiscoverRequest, *, fresh: bool) -> str:
    """Name this request: the same machine on the same day with the same options is the same question."""
    if fresh:
        return f"inventory-{time.time_ns()}"
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    text = f"{machine or socket.gethostname()} {request.model_dump_json()} {sys.prefix}"
    return f"inventory-{date.today()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _submit(client: Client, request: DiscoverRequest, key: str, console: Console) -> Job:
    job = client.submit(DISCOVER, request, route="inventory/discover", idempotency_key=key)
    console.print(f"\n[bold]submitted[/bold] {DISCOVER} {job.id} under the key {key}")
    if job.created:
        return job
    if job.is_terminal and not _succeeded(client, job):
        console.print("an earlier run under this key failed: asking anew")
        return client.submit(DISCOVER, request, route="inventory/discover", idempotency_key=f"{key}-{time.time_ns()}")
    console.print(f"[yellow]asked before[/yellow] at {_clock(job)}: this is the first job, not a second one")
    return job


def _succeeded(client: Client, discovery: Job) -> bool:
    if discovery.state is not JobState.COMPLETED:
        return False
    found = Discovery.model_validate(discovery.result or client.get(discovery.id).result)
    return client.get(found.policy).state not in (JobState.FAILED, JobState.CANCELED)


def _follow(client: Client, discovery: Job, console: Console) -> bool:
    """Show the jobs until the last one has ended, then the report; say whether it completed."""
    deadline = time.monotonic() + PATIENCE_S
    with Progress(console) as progress:
        while True:
            discovery = client.get(discovery.id)
            jobs = list(client.list(parent_id=discovery.id, limit=1_000))
            progress.update(discovery, jobs, client.workers())
            if discovery.is_terminal and all(job.is_terminal for job in jobs):
                break
            if time.monotonic() > deadline:
                console.print(f"not finished after {PATIENCE_S / 60:.0f} minutes")
                return False
            time.sleep(POLL_S)
    if discovery.state is not JobState.COMPLETED:
        return _explain(discovery, console)
    found = Discovery.model_validate(discovery.result)
    policy = client.get(found.policy)
    if policy.state is not JobState.COMPLETED:
        return _explain(policy, console)
    attempts = {job.id: client.attempts(job.id) for job in [discovery, *jobs]}
    show_report(Report.model_validate(policy.result), found, console)
    show_places([discovery, *jobs], attempts, console)
    return True


def _repeat(client: Client, request: DiscoverRequest, key: str, first: Job, console: Console) -> None:
    """Ask the same again: the first answer comes back, and nothing runs twice."""
    began = time.monotonic()
    again = client.submit(DISCOVER, request, route="inventory/discover", idempotency_key=first.idempotency_key or key)
    answer = client.wait(again.id, timeout_s=30)
    console.rule("[bold]the same asked again")
    if again.id != first.id or again.created:
        raise TenureError(f"the key {key} answered with another job: {again.id}, not {first.id}")
    console.print(
        f"the same key answers with job {answer.id}, {answer.state} at {_clock(answer)}, "
        f"in {(time.monotonic() - began) * 1000:.0f} ms; nothing ran again"
    )


def _explain(job: Job, console: Console) -> bool:
    console.print(f"[red]{job.kind} {job.id} {job.state}[/red] {job.reason}", markup=True)
    if job.error:
        console.print(f"{job.error.type}: {job.error.message}\n{job.error.traceback}", markup=False)
    console.print("the workers' logs are in the data folder's log/; --fresh asks anew")
    return False


def _clock(job: Job) -> str:
    at = job.finished_at or job.created_at
    return f"{at.astimezone():%H:%M:%S}" if at else "an unknown time"


if __name__ == "__main__":
    sys.exit(main())
