"""Start and end under guard and fence: who may, who may not, and what a repetition answers."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.postgres.conftest import Table

from tenure.model.errors import OwnershipLost
from tenure.model.fence import epoch_of, sequence_of
from tenure.model.jobs import JobSpec, PlannedJob
from tenure.model.states import JobState, Outcome
from tenure.store.postgres.submit import write_jobs


async def test_every_start_has_a_higher_fence_and_the_next_attempt(table: Table) -> None:
    id = await table.submit()
    fences = []
    for attempt in (1, 2, 3):
        [row] = await table.start(id)
        assert row.attempt == attempt
        fences.append(row.fence)
        await table.give_back(id, row.fence)
    assert fences == sorted(set(fences))
    assert {epoch_of(fence) for fence in fences} == {1}


async def test_a_new_epoch_outranks_every_fence_before(fresh: Table) -> None:
    one, two = await fresh.submit(), await fresh.submit()
    [before] = await fresh.start(one)
    await fresh.sql("UPDATE tenure.cluster SET epoch = 2")
    await fresh.sql("SELECT setval('tenure.fence_sequence', 1, false)")  # as after a restore
    [after] = await fresh.start(two)
    assert after.fence > before.fence
    assert (epoch_of(after.fence), sequence_of(after.fence)) == (2, 1)


async def test_a_start_needs_the_attempt_that_was_seen(table: Table) -> None:
    id = await table.submit()
    assert await table.start_seen([(id, 1)]) == []
    assert await table.start_seen([(id, 0)])
    assert await table.start_seen([(id, 0)], revision=71) == []
    assert await table.start_seen([(id, 1)], revision=71) == []  # right attempt, but it executes


async def test_of_many_claimants_one_starts(table: Table) -> None:
    id = await table.submit()
    answers = await asyncio.gather(
        *(table.start_seen([(id, 0)], worker=f"w{n}", lease=n, revision=n) for n in range(1, 9))
    )
    started = [row for rows in answers for row in rows]
    assert len(started) == 1
    row = await table.row(id)
    assert (row.state, row.attempt, row.fence) == ("executing", 1, started[0].fence)


async def test_a_start_is_found_again_by_its_very_claim(table: Table) -> None:
    id = await table.submit()
    [started] = await table.start(id, lease=5, revision=50)

    async def found(**claim: object) -> list[object]:
        columns = {"worker": "w1", "ids": [id], "leases": [5], "revisions": [50], **claim}
        return await table.db.fetch("started_by_claim", columns)

    assert await found() == [started]
    assert await found(revisions=[51]) == []
    assert await found(leases=[6]) == []
    assert await found(worker="w2") == []
    await table.give_back(id, started.fence)
    assert await found() == []


async def test_a_start_that_is_found_again_has_only_what_is_left_of_its_timeout(table: Table) -> None:
    """The leader counts from started_at: a worker that counted anew would end later than it."""
    long, short, none = [await table.submit(timeout_s=timeout_s) for timeout_s in (60.0, 2.0, None)]
    for id in (long, short, none):
        await table.start(id, lease=5, revision=50)
    await table.sql("UPDATE tenure.job SET started_at = started_at - interval '5 s' WHERE id = ANY (%s)", [long, short])
    columns = {"worker": "w1", "ids": [long, short, none], "leases": [5] * 3, "revisions": [50] * 3}
    left_s = {row.id: row.timeout_s for row in await table.db.fetch("started_by_claim", columns)}
    assert 0 < left_s[str(long)] <= 55.0
    assert 0 < left_s[str(short)] < 0.1
    assert left_s[str(none)] is None


async def test_a_start_returns_what_the_handler_needs(table: Table) -> None:
    id = await table.submit(payload='{"a": 1}', labels={"x": "y"}, timeout_s=12.0, route="p/q")
    [row] = await table.start(id)
    await table.db.fetch("save_checkpoint", {"id": id, "fence": row.fence, "checkpoint": '{"page": 3}'})
    await table.give_back(id, row.fence)
    [row] = await table.start(id)
    assert (row.payload, row.checkpoint, row.timeout_s, row.labels, row.route, row.namespace, row.kind) == (
        '{"a": 1}',
        '{"page": 3}',
        12.0,
        '{"x": "y"}',
        "p/q",
        "default",
        "k",
    )


@pytest.mark.parametrize("off_by", [-1, 1])
async def test_another_fence_ends_nothing(table: Table, off_by: int) -> None:
    id = await table.in_state(JobState.EXECUTING)
    fence = (await table.row(id)).fence
    assert await table.end(id, fence + off_by) == []
    assert await table.give_back(id, fence + off_by) == []
    assert await table.db.fetch("save_checkpoint", {"id": id, "fence": fence + off_by, "checkpoint": "{}"}) == []
    assert (
        await table.db.fetch(
            "report_progress", {"ids": [id], "fences": [fence + off_by], "fractions": [0.1], "messages": [""]}
        )
        == []
    )
    row = await table.row(id)
    assert (row.state, row.fence, row.progress) == ("executing", fence, 0)
    assert len(await table.db.fetch("attempts_of", {"id": id})) == 1


async def test_a_zombie_changes_nothing_after_another_has_started(table: Table) -> None:
    id = await table.submit()
    [old] = await table.start(id)
    await table.give_back(id, old.fence, JobState.RESTARTING, Outcome.LOST)
    [new] = await table.start(id, worker="w2", revision=80)
    assert await table.end(id, old.fence) == []
    child = PlannedJob(uuid.uuid4(), JobSpec(kind="k"), (), b"", id)
    with pytest.raises(OwnershipLost):
        await write_jobs(table.db, [child], [1], fence=old.fence)
    assert await table.row(child.id) is None
    await write_jobs(table.db, [child], [1], fence=new.fence)
    assert (await table.row(child.id)).parent_id == id


async def test_of_many_ends_one_is_recorded(table: Table) -> None:
    id = await table.in_state(JobState.EXECUTING)
    fence = (await table.row(id)).fence
    answers = await asyncio.gather(
        *(table.end(id, fence, state) for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)),
        *(table.give_back(id, fence, JobState.RESTARTING, Outcome.LOST) for _ in range(3)),
    )
    assert sum(map(len, answers)) == 1
    assert len(await table.sql("SELECT 1 FROM tenure.attempt WHERE job_id = %s", id)) == 1
    assert len(await table.sql("SELECT 1 FROM tenure.jobs WHERE id = %s", id)) == 1


async def test_a_report_repeated_in_one_batch_is_written_once(table: Table) -> None:
    id = await table.in_state(JobState.EXECUTING)
    fence = (await table.row(id)).fence
    twice = {
        "ids": [id, id],
        "fences": [fence, fence],
        "outcomes": ["completed", "failed"],
        "states": ["completed", "failed"],
        "results": ["1", None],
        "errors": [None, "{}"],
        "reasons": ["", ""],
        "error_counts": [0, 1],
        "crash_counts": [0, 0],
    }
    assert len(await table.db.fetch("end_attempts", twice)) == 1
    assert len(await table.sql("SELECT 1 FROM tenure.history WHERE id = %s", id)) == 1
    assert len(await table.sql("SELECT 1 FROM tenure.attempt WHERE job_id = %s", id)) == 1


async def test_recorded_reports_tell_how_an_attempt_ended(table: Table) -> None:
    done, again = await table.in_state(JobState.EXECUTING), await table.in_state(JobState.EXECUTING)
    fence_done, fence_again = (await table.row(done)).fence, (await table.row(again)).fence
    await table.end(done, fence_done)
    await table.give_back(again, fence_again)

    async def recorded(id: uuid.UUID, fence: int) -> list[tuple[str, str, int]]:
        rows = await table.db.fetch("recorded_reports", {"ids": [id], "fences": [fence]})
        return [(row.outcome, row.state, row.lane) for row in rows]

    assert await recorded(done, fence_done) == [("completed", "completed", 0)]
    assert await recorded(again, fence_again) == [("released", "ready", 1)]
    assert await recorded(again, fence_done) == []


async def test_a_delay_is_counted_from_the_end_by_the_clock_of_postgres(table: Table) -> None:
    id = await table.in_state(JobState.EXECUTING)
    await table.give_back(id, (await table.row(id)).fence, delay_s=3600.0)
    [row] = await table.sql(
        "SELECT due, extract(epoch FROM activate_at - now())::float8 AS left_s FROM tenure.job WHERE id = %s", id
    )
    assert row.due is False
    assert 3500 < row.left_s <= 3600


async def test_a_job_whose_time_has_come_is_activated_once(fresh: Table) -> None:
    now, later = await fresh.submit(delay_s=0.001), await fresh.submit(delay_s=3600.0)
    await fresh.sql("UPDATE tenure.job SET activate_at = now() - interval '1 s' WHERE id = %s", now)
    assert len(await fresh.db.fetch("activate_due", {"limit": 10})) == 1
    assert await fresh.db.fetch("activate_due", {"limit": 10}) == []
    due = {row.id: row.due for row in await fresh.sql("SELECT id, due FROM tenure.job")}
    assert due == {now: True, later: False}
    [[left_s]] = await fresh.db.fetch("next_activation")
    assert 3500 < left_s <= 3600


async def test_a_cancel_that_comes_before_the_end_is_not_forgotten_by_a_retry(table: Table) -> None:
    """A retry that was decided before the cancel must not bring the job back: the writer decides again."""
    id = await table.in_state(JobState.EXECUTING)
    fence = (await table.row(id)).fence
    assert await table.db.fetch("request_cancel", {"ids": [id], "reason": "r", "grace_s": None})
    assert await table.give_back(id, fence) == []
    assert await table.state(id) is JobState.EXECUTING
