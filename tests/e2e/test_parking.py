"""A parked job through the whole service, with its workers killed."""

from __future__ import annotations

from tests.e2e.conftest import Setting, either_link

from tenure.client import Job, JobState
from tenure.model.states import Outcome

CHILDREN = 20


@either_link
async def test_a_parked_job_outlives_the_workers_of_its_children_and_its_own(stage: Setting) -> None:
    on = await stage(workers=3)
    parent = await on.client.submit("gather", {"children": CHILDREN}, ttl_s=2)

    async def held() -> str | None:
        async for job in on.client.list(parent_id=parent.id, kind="hold-first"):
            return job.id if job.state is JobState.EXECUTING else None
        return None

    child = await on.until(held)

    async def parked() -> Job | None:
        job = await on.client.get(parent.id)
        return job if job.state is JobState.WAITING else None

    waiting = await on.until(parked)  # its children may run before it lies down
    assert (waiting.attempt, waiting.claim) == (1, None)
    on.member(_worker_of(await on.executing(child))).kill()
    resumed = await on.executing(parent.id, attempt=2)
    on.member(_worker_of(resumed)).kill()
    done = await on.client.wait(parent.id, timeout_s=60)
    assert done.state is JobState.COMPLETED
    assert done.result == {"sum": sum(range(CHILDREN + 1)), "checkpoint": {"asked": CHILDREN + 1}}
    assert (done.attempt, done.errors, done.crashes) == (3, 0, 1)
    outcomes = [one.outcome for one in await on.client.attempts(parent.id)]
    assert outcomes == [Outcome.PARKED, Outcome.LOST, Outcome.COMPLETED]
    assert len([job async for job in on.client.list(parent_id=parent.id)]) == CHILDREN + 1


def _worker_of(job: Job) -> str:
    assert job.claim is not None
    return job.claim.worker
