"""Workflows through the whole service, against an evaluator of their own."""

from __future__ import annotations

import asyncio
import collections
import os
import random

from tests.e2e.conftest import Setting, Stage
from tests.e2e.workflow import Step, expected_ends, random_workflow

from tenure.client import Job, NewJob, Retry

JOBS = 10_000
PATIENCE_S = 300.0
"""Longer than elsewhere: much happens. Only a hang takes as long."""


async def _everything(on: Stage) -> dict[str, Job]:
    return {job.id: job async for job in on.client.list()}


async def test_ten_thousand_jobs_with_random_failures_end_as_their_graph_says(stage: Setting) -> None:
    seed = int(os.environ.get("TENURE_TEST_SEED", random.randrange(1 << 30)))
    print(f"workflow seed {seed}: TENURE_TEST_SEED={seed} repeats it")
    workflow = random_workflow(JOBS, seed)
    ends = expected_ends(workflow)
    assert len(set(ends)) == 3
    on = await stage(workers=2, args=("--capacity", "200"))
    submitted = await on.client.submit_many([_job(index, step) for index, step in enumerate(workflow)])
    ids = [one.id for one in submitted]

    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await on.postgres("SELECT count(*) = 0 FROM tenure.job"):
                break
            await asyncio.sleep(0.2)
    jobs = await _everything(on)
    wrong = {
        index: (jobs[id].state, end, workflow[index])
        for index, (id, end) in enumerate(zip(ids, ends, strict=True))
        if jobs[id].state != end
    }
    assert not wrong, f"seed {seed}: {len(wrong)} wrong, {dict(list(wrong.items())[:5])}"
    place = {id: index for index, id in enumerate(ids)}
    started = 0
    for index, id in enumerate(ids):
        job = jobs[id]
        started += job.attempt
        if job.attempt == 0:  # it never ran: its reason names a parent that broke it
            named = place[job.reason.split()[1].rstrip(",")]
            assert named in workflow[index].parents, job.reason
            assert ends[named] != "completed", job.reason
        else:
            assert job.attempt == 1
    print(f"workflow seed {seed}: {started} started, {collections.Counter(ends)}")


def _job(index: int, step: Step) -> NewJob:
    return NewJob(
        kind="by-plan",
        payload={"fails": step.fails},
        ref=f"step-{index}",
        depends_on=[f"step-{parent}" for parent in step.parents],
        trigger=step.trigger,
        upstream_failure=step.upstream_failure,
        retry=Retry(max_attempts=1),
    )
