"""The write of a park: its guard alone, without the reads that come before it in the service."""

from __future__ import annotations

import pytest
from tests.postgres.conftest import Table

from tenure.coordinator.park import Park, Parking, write_parkings
from tenure.model.dependencies import Trigger
from tenure.model.states import JobState


@pytest.mark.parametrize("off_by", [-1, 1])
async def test_another_fence_parks_nothing(table: Table, off_by: int) -> None:
    id, child = await table.submit(), await table.submit()
    [started] = await table.start(id)
    parking = Parking(str(id), started.fence + off_by, Park((child,), '"stale"'))
    assert await write_parkings(table.db, [parking]) == []
    [row] = await table.sql("SELECT state, fence, checkpoint, parked_attempt FROM tenure.job WHERE id = %s", id)
    assert (row.state, row.fence, row.checkpoint, row.parked_attempt) == ("executing", started.fence, None, None)
    assert await table.sql("SELECT 1 FROM tenure.dependency WHERE child_id = %s", id) == []


async def test_a_park_that_a_cancel_came_before_parks_nothing(table: Table) -> None:
    id, child = await table.submit(), await table.submit()
    [started] = await table.start(id)
    await table.db.fetch("request_cancel", {"ids": [id], "reason": "r", "grace_s": None})
    assert await write_parkings(table.db, [Parking(str(id), started.fence, Park((child,)))]) == []
    assert await table.state(id) is JobState.EXECUTING


async def test_many_park_at_once_each_by_its_own_trigger(table: Table) -> None:
    done, bad, open_ = await table.submit(), await table.submit(), await table.submit()
    await table.end(done, (await table.start(done))[0].fence)
    await table.end(bad, (await table.start(bad))[0].fence, JobState.FAILED)
    expected = {
        Trigger.ALL_COMPLETED: ("waiting", True),
        Trigger.ALL_FINISHED: ("waiting", False),
        Trigger.ANY_COMPLETED: ("ready", False),
        Trigger.ANY_FINISHED: ("ready", False),
    }
    parkings = {}
    for trigger in Trigger:
        [started] = await table.start(await table.submit())
        parkings[started.id] = Parking(started.id, started.fence, Park((done, bad, open_), trigger=trigger))
    rows = await write_parkings(table.db, list(parkings.values()))
    assert {parkings[row.id].park.trigger: (row.state, row.broken) for row in rows} == expected
