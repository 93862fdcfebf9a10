"""A worker that is told twice to stop: its handlers end before their claims do, and nobody takes it for a crash."""

from __future__ import annotations

from tests.e2e.conftest import Setting, Stage, either_link

from tenure.client.records import Job


async def _abort(on: Stage, worker: str) -> None:
    """Send a second SIGTERM once the first is heeded: two at once might be taken for one."""
    on.member(worker).terminate()

    async def draining() -> bool:
        return any(one.id == worker and one.draining for one in await on.client.workers())

    await on.until(draining)
    on.member(worker).terminate()


async def _aborted(on: Stage, kind: str) -> tuple[Job, Job]:
    """Abort the worker of a job; return the job as it executed there and as it executes elsewhere."""
    job = await on.client.submit(kind, {"seconds": 600}, ttl_s=2)
    first = await on.executing(job.id)
    assert first.claim is not None

    async def began() -> bool:
        return bool(on.lines(job.id))

    await on.until(began)
    await _abort(on, first.claim.worker)
    return first, await on.executing(job.id, attempt=2)


@either_link
async def test_a_process_is_killed_before_its_job_runs_elsewhere(stage: Setting) -> None:
    """The handler heeds no SIGTERM: its claim is kept for the five seconds until it is killed, then it is released."""
    on = await stage(workers=2, args=("--grace", "600s"))
    first, second = await _aborted(on, "process-hold-on")
    assert (second.errors, second.crashes) == (0, 0)
    assert [one.outcome for one in await on.client.attempts(first.id)] == ["released", None]

    async def has_begun_again() -> bool:
        return any(line.attempt == 2 for line in on.lines(first.id))

    await on.until(has_begun_again)
    last_of_first = max(line.at for line in on.lines(first.id) if line.attempt == 1)
    first_of_second = min(line.at for line in on.lines(first.id) if line.attempt == 2)
    assert last_of_first < first_of_second


@either_link
async def test_a_thread_that_cannot_be_stopped_ends_with_its_worker_before_its_job_runs_elsewhere(
    stage: Setting,
) -> None:
    """Its end is never reported: the claim is taken back beside a living session, which is no crash."""
    on = await stage(workers=2, args=("--grace", "600s"))
    first, second = await _aborted(on, "deaf")
    assert first.claim is not None
    assert not on.member(first.claim.worker).alive
    assert (second.errors, second.crashes) == (0, 0)
    assert [one.outcome for one in await on.client.attempts(first.id)] == ["released", None]
