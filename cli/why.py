"""Why jobs do not run, said unasked: to who waits for them, or looks at them.

Invariant: what is said here is a note on stderr; a failure to find it out ends no command. ``tenure jobs why`` asks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tenure.cli.output import to_stderr
from tenure.model.errors import TenureError
from tenure.model.routes import covers
from tenure.model.states import JobState

if TYPE_CHECKING:
    from tenure.client import Client, Explanation, Job, Worker

QUIET_S = 3.0
"""Who waits is told nothing for so long: most jobs have ended by then."""
MOST_QUIET_S = 60.0
TOLD_JOBS = 5
JOIN_S = 1.0
_FOR_A_PERSON = {"held", "paused", "limit", "no_worker", "no_pool", "no_kind", "no_labels"}
"""Obstacles that do not go away by waiting alone."""


@contextmanager
def telling_why(client: Client, job_ids: Iterable[str]) -> Iterator[None]:
    """While the body waits for jobs, say once why they do not run, when something has been in their way for a while."""
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(client, list(job_ids), over), name="tenure-why", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join(JOIN_S)


def note_of(client: Client, job: Job) -> str:
    """Return why a job does not run, where somebody has to do something about it; else nothing."""
    if not _waits_for_a_worker(job):
        return ""
    with suppress(TenureError):
        found = [one.message for one in client.why(job.id).obstacles if one.code in _FOR_A_PERSON]
        if found:
            return f"note: it does not run: {found[0]}\ntry: tenure jobs why {job.id}"
    return ""


def note_of_many(client: Client, jobs: Sequence[Job]) -> str:
    """Return how many of the jobs no worker could run; nothing if there are none."""
    ready = [job for job in jobs if _waits_for_a_worker(job)]
    if not ready:
        return ""
    with suppress(TenureError):
        workers = client.workers()
        unserved = [job for job in ready if not any(_serves(worker, job) for worker in workers)]
        if unserved:
            return (
                f"note: no worker serves the route and the kind of {len(unserved)} of these jobs\n"
                f"try: tenure jobs why {unserved[0].id}"
            )
    return ""


def _tell(client: Client, job_ids: list[str], over: threading.Event) -> None:
    quiet_s = QUIET_S
    while not over.wait(quiet_s):
        with suppress(TenureError):
            stuck = _stuck(client, job_ids, over)
            if stuck and not over.is_set():
                for one in stuck:
                    messages = "; ".join(obstacle.message for obstacle in one.obstacles)
                    to_stderr(f"note: {one.job.id} ({one.job.kind}) is {one.job.state} and does not run: {messages}")
                to_stderr("note: still waiting")
                return
        quiet_s = min(quiet_s * 2, MOST_QUIET_S)


def _stuck(client: Client, job_ids: list[str], over: threading.Event) -> list[Explanation]:
    """Look at the first jobs that have not ended; forget those that have."""
    seen: list[Explanation] = []
    for job_id in list(job_ids):
        if over.is_set() or len(seen) == TOLD_JOBS:
            break
        found = client.why(job_id)
        if found.job.is_terminal:
            job_ids.remove(job_id)
        else:
            seen.append(found)
    return [one for one in seen if one.obstacles]


def _waits_for_a_worker(job: Job) -> bool:
    return job.state in (JobState.READY, JobState.RESTARTING) and not job.is_pending


def _serves(worker: Worker, job: Job) -> bool:
    return job.kind in worker.kinds and any(covers(pool, job.route) for pool in worker.pools)
