"""The live pictures of ``tenure workflows watch`` and ``tenure cluster --watch`` on a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tenure.cli.output import line, state_text

if TYPE_CHECKING:
    from tenure.client import ClusterPicture, Job, Workflow, WorkflowChange

BAR_CHARS = 40
SHOWN_WORKERS = 20
LAST_JOBS = 8
"""Jobs that changed last, which are shown below the counts."""


def follow(changes: Iterable[WorkflowChange]) -> Workflow | None:
    """Draw each change over the one before; return the workflow as it was in the end."""
    from rich.live import Live

    last: Workflow | None = None
    recent: deque[Job] = deque(maxlen=LAST_JOBS)
    with Live(auto_refresh=False) as live:
        for change in changes:
            last = change.workflow
            recent.extend(change.jobs)
            live.update(picture(change.workflow, recent), refresh=True)
    return last


def follow_cluster(pictures: Iterable[ClusterPicture]) -> None:
    """Draw each picture of the cluster over the one before."""
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for one in pictures:
            live.update(cluster_picture(one), refresh=True)


def cluster_picture(cluster: ClusterPicture) -> Any:
    """Return what the terminal shows: coordinators, then workers, the busiest first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    coordinators = Table.grid(padding=(0, 2))
    for coordinator in cluster.coordinators:
        role = "leader" if coordinator.is_leader else ""
        coordinators.add_row(*(Text(line(cell)) for cell in (coordinator.id, coordinator.grpc, role)))
    workers = Table.grid(padding=(0, 2))
    busiest = sorted(cluster.workers, key=lambda worker: (-worker.claims, worker.id))
    for worker in busiest[:SHOWN_WORKERS]:
        busy = f"{worker.claims} of {worker.capacity}"
        state = "draining" if worker.draining else ""
        workers.add_row(*(Text(line(cell)) for cell in (worker.id, ", ".join(worker.pools), busy, state)))
    more = len(busiest[SHOWN_WORKERS:]) + cluster.more_workers
    head = f"leader {cluster.leader or 'none now'}, {len(busiest) + cluster.more_workers} workers"
    return Group(Text(line(head)), coordinators, workers, Text(f"and {more} more" if more else ""))


def picture(workflow: Workflow, recent: Iterable[Job]) -> Any:
    """Return what the terminal shows."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    done = round(workflow.progress * BAR_CHARS)
    head = Text.assemble(
        f"{line(workflow.name) or workflow.id}  ",
        state_text(str(workflow.state or "unknown")),
        f"  {'█' * done}{'░' * (BAR_CHARS - done)} {workflow.progress:.0%}",
    )
    counts = Table.grid(padding=(0, 2))
    for state, number in workflow.counts.items():
        counts.add_row(state_text(state), Text(str(number)))
    jobs = Table.grid(padding=(0, 2))
    for job in recent:
        jobs.add_row(
            Text(line(job.ref or f"…{job.id[-8:]}")), Text(job.kind), state_text(job.state), Text(line(job.reason))
        )
    return Group(head, counts, jobs)
