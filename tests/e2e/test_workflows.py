"""Workflows on real processes: canceled while workers run them, watched while a coordinator dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.e2e.conftest import PATIENCE_S, Setting

from tenure.client import NewJob, Retry, WorkflowChange, WorkflowState


async def test_a_workflow_is_canceled_while_workers_run_it(stage: Setting) -> None:
    """Executing members stop, waiting ones never start, and what is no member goes on."""
    on = await stage(coordinators=2, workers=2, args=("--capacity", "10"))
    jobs = [NewJob(kind="hold-on", payload={"seconds": 600}, ref=f"long-{n}") for n in range(10)]
    jobs += [NewJob(kind="trace", depends_on=[f"long-{n}"]) for n in range(10)]
    made = await on.client.submit_many(jobs, workflow="long")
    assert made.workflow_id
    other = await on.client.submit("hold-on", {"seconds": 600})
    for job_id in [*(job.id for job in made[:10]), other.id]:
        await on.executing(job_id)
    done = await on.client.cancel_workflow(made.workflow_id, "enough")
    assert (done.canceled, done.asked) == (10, 10)
    async with asyncio.timeout(PATIENCE_S):
        changes = [change async for change in on.client.watch_workflow(made.workflow_id)]
    assert changes[-1].workflow.state is WorkflowState.CANCELED
    assert [job.reason async for job in on.client.workflow_jobs(made.workflow_id)] == ["enough"] * 20
    assert on.runs() == {}
    assert (await on.client.get(other.id)).state == "executing"


async def test_a_worker_that_does_not_stop_loses_its_jobs_after_the_grace_of_the_cancel(
    stage: Setting, tmp_path: Path
) -> None:
    """The setting of the coordinators is an hour; the cancel's own grace is a second."""
    on = await stage(env={"TENURE_CANCEL_GRACE_S": "3600"})
    made = await on.client.submit_many([NewJob(kind="deaf")], workflow="deaf")
    await on.executing(made[0].id)
    await on.client.cancel_workflow(made.workflow_id or "", grace_s=1.0)
    assert (await on.client.wait(made[0].id, timeout_s=PATIENCE_S)).state == "canceled"
    (tmp_path / "trace.over").touch()


async def test_children_are_members_until_it_is_canceled(stage: Setting) -> None:
    """The parent tries twice and submits each child once; all are counted."""
    on = await stage()
    made = await on.client.submit_many(
        [NewJob(kind="parent", payload={"children": 3}, retry=Retry(initial_backoff_s=0.05))], workflow="family"
    )
    assert made.workflow_id
    parent = await on.client.wait(made[0].id, timeout_s=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        changes = [change async for change in on.client.watch_workflow(made.workflow_id)]
    last = changes[-1].workflow
    assert (last.state, last.submitted, last.jobs) == (WorkflowState.COMPLETED, 1, 5)
    members = {job.id async for job in on.client.workflow_jobs(made.workflow_id)}
    assert members == {parent.id, *parent.result}
    assert "-.->" in await on.client.draw_workflow(made.workflow_id)


async def test_a_watch_goes_on_when_its_coordinator_is_killed(stage: Setting) -> None:
    """SIGKILL in the middle: the client resumes at the other one, and no end is missed."""
    on = await stage(coordinators=2, workers=2, args=("--capacity", "2"))
    jobs = [NewJob(kind="hold-on", payload={"seconds": 0.5}) for _ in range(30)]
    made = await on.client.submit_many(jobs, workflow="watched")
    assert made.workflow_id
    changes: list[WorkflowChange] = []
    half = asyncio.Event()

    async def watch() -> None:
        async for change in on.client.watch_workflow(made.workflow_id or ""):
            changes.append(change)
            if change.workflow.progress > 0.2:
                half.set()

    async with asyncio.timeout(PATIENCE_S):
        watching = asyncio.create_task(watch())
        await half.wait()
        # The client asks the first of its addresses as long as that answers.
        on.deployment.coordinators[0].kill()
        await watching
    assert changes[-1].workflow.state is WorkflowState.COMPLETED
    ended = {job.id for change in changes for job in change.jobs if job.is_terminal}
    assert ended == {job.id for job in made}
