"""The life of a job on real processes: from submit to the answer, retries, children, cancel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from tests.e2e.conftest import Setting, either_link

from tenure.client import NewJob, Retry
from tenure.client.records import Job

JOBS = 20_000
BATCH = 5_000


@pytest.mark.slow
async def test_twenty_thousand_jobs_are_neither_lost_nor_doubled(stage: Setting) -> None:
    """Two coordinators and three workers."""
    on = await stage(coordinators=2, workers=3, args=("--capacity", "200"))
    database = on.deployment.env["TENURE_POSTGRES_DSN"]
    ids: list[str] = []
    for start in range(0, JOBS, BATCH):
        batch = [NewJob(kind="trace", payload={"n": n}) for n in range(start, start + BATCH)]
        ids.extend(job.id for job in await on.client.submit_many(batch))
    assert len(set(ids)) == JOBS

    async def finished() -> bool:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            row = await (await connection.execute("SELECT count(*) FROM tenure.job")).fetchone()
        return row == (0,)

    await on.until(finished)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        rows = await (await connection.execute("SELECT id::text, state, attempt FROM tenure.history")).fetchall()
        attempts = await (
            await connection.execute(
                "SELECT count(*), count(DISTINCT job_id), count(DISTINCT fence) FROM tenure.attempt"
            )
        ).fetchone()
    assert sorted(id for id, _, _ in rows) == sorted(ids)
    assert {(state, attempt) for _, state, attempt in rows} == {("completed", 1)}
    assert attempts == (JOBS, JOBS, JOBS)
    runs = on.runs()
    assert set(runs) == set(ids)
    assert set(runs.values()) == {1}


@either_link
async def test_a_submit_is_answered_when_the_job_is_done(stage: Setting) -> None:
    """Submit, wait, and look at what is remembered."""
    on = await stage()
    job = await on.client.submit("trace", {"a": [1, "ü"]}, labels={"team": "blue"}, priority=3)
    done = await on.client.wait(job.id)
    assert (done.state, done.result, done.attempt, done.labels, done.priority) == (
        "completed",
        {"a": [1, "ü"]},
        1,
        {"team": "blue"},
        3,
    )
    (attempt,) = await on.client.attempts(job.id)
    assert (attempt.outcome, attempt.attempt, attempt.fence) == ("completed", 1, done.fence)
    assert [line.fence for line in on.lines(job.id)] == [done.fence]


@either_link
async def test_a_failing_job_is_tried_again(stage: Setting) -> None:
    """Errors count, and the story is kept."""
    on = await stage()
    job = await on.client.submit("flaky", {"succeeds_at": 3}, retry=Retry(max_attempts=5, initial_backoff_s=0.05))
    done = await on.client.wait(job.id)
    assert (done.state, done.result, done.errors) == ("completed", 3, 2)
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["failed", "failed", "completed"]


@either_link
async def test_children_are_submitted_once_however_often_the_parent_tries(stage: Setting) -> None:
    """The parent fails after submitting; its second attempt finds the same children."""
    on = await stage()
    job = await on.client.submit("parent", {"children": 5}, retry=Retry(initial_backoff_s=0.05))
    done = await on.client.wait(job.id)
    assert done.state == "completed"
    assert len(done.result) == 6
    await on.client.wait_many(done.result)
    children = [child async for child in on.client.list(parent_id=job.id)]
    assert sorted(child.id for child in children) == sorted(done.result)
    assert set(on.runs().values()) == {1}
    after = await on.client.get(done.result[-1])
    others = await asyncio.gather(*(on.client.get(id) for id in done.result[:-1]))
    assert after.started_at is not None
    assert all(child.finished_at is not None and child.finished_at <= after.started_at for child in others)


@either_link
async def test_an_executing_job_is_canceled(stage: Setting) -> None:
    """By asking its worker."""
    on = await stage()
    job = await on.client.submit("hold-on", {"seconds": 600})
    await on.executing(job.id)
    asked = await on.client.cancel(job.id, reason="no longer needed")
    assert asked.cancel_requested or asked.state == "canceled"
    done = await on.client.wait(job.id)
    assert (done.state, done.reason) == ("canceled", "no longer needed")


async def test_watching_a_job_shows_its_states(stage: Setting) -> None:
    """Each change once, the terminal one last."""
    on = await stage()
    job = await on.client.submit("hold-on", {"seconds": 1})
    seen: list[Job] = [change async for change in on.client.watch(job.id)]
    assert [change.state for change in seen] in (["ready", "executing", "completed"], ["executing", "completed"])


async def test_everything_works_over_the_http_gateway(stage: Setting, etcd_server: object) -> None:
    """Coordinators and workers that reach etcd by HTTP only."""
    on = await stage(etcd_endpoints=etcd_server.http_endpoints, coordinators=2, workers=2)  # type: ignore[attr-defined]
    submitted = await on.client.submit_many([NewJob(kind="trace", payload=n) for n in range(200)])
    done = await on.client.wait_many([job.id for job in submitted])
    assert {job.state for job in done} == {"completed"}
    assert set(on.runs().values()) == {1}


@either_link
async def test_a_handler_that_does_not_heed_a_cancel_does_not_keep_its_job_from_ending(
    stage: Setting, tmp_path: Path
) -> None:
    """A thread cannot be killed: the leader takes the claim away, and what the handler brings later is dropped."""
    on = await stage(env={"TENURE_CANCEL_GRACE_S": "1"})
    job = await on.client.submit("deaf")
    await on.executing(job.id)
    asked = await on.client.cancel_many(kind="deaf", reason="no longer needed")
    assert (asked.canceled, asked.asked, asked.ids) == (0, 1, (job.id,))
    ended = await on.client.wait(job.id, timeout_s=60)
    assert (ended.state, ended.reason) == (
        "canceled",
        "canceled; its worker did not stop in time (no longer needed)",
    )
    assert [line.word for line in on.lines(job.id)] == ["began"], "it still runs"
    # Its worker has room for others meanwhile.
    other = await on.client.submit("trace", 1)
    assert (await on.client.wait(other.id, timeout_s=60)).state == "completed"
    (tmp_path / "trace.over").touch()

    async def over() -> bool:
        return [line.word for line in on.lines(job.id)] == ["began", "ended"]

    await on.until(over)
    last = await on.client.submit("trace", 2)  # by the time of its end the late result has been reported
    await on.client.wait(last.id, timeout_s=60)
    assert (await on.client.get(job.id)).state == "canceled"
    assert [one.outcome for one in await on.client.attempts(job.id)] == ["canceled"]


@either_link
async def test_a_job_past_its_deadline_has_failed_whatever_its_attempts_do(stage: Setting) -> None:
    """One whose handler runs on is stopped by its worker; one between two attempts is ended by the leader."""
    on = await stage()
    running = await on.client.submit("hold-on", {"seconds": 600}, job_timeout_s=1.0, retry=Retry(max_attempts=9))
    between = await on.client.submit(
        "flaky", {"succeeds_at": 9}, job_timeout_s=1.0, retry=Retry(max_attempts=9, initial_backoff_s=600.0, jitter=0)
    )
    nobody = await on.client.submit("trace", route="nobody", start_within_s=0.5)
    outcomes = {}
    for job in (running, between, nobody):
        ended = await on.client.wait(job.id, timeout_s=60)
        outcomes[job.id] = [one.outcome for one in await on.client.attempts(job.id)]
        assert ended.state == "failed"
        assert ended.reason == ("did not start in time" if job is nobody else "did not end in time")
    assert outcomes == {running.id: ["timed_out"], between.id: ["failed"], nobody.id: []}
