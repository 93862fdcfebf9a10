"""Firing schedules on a real Postgres: one job per tick whoever asks, and nothing but what the schedule says."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.coordinator.conftest import MakeParts, Parts, leader_of, running, until

from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.schedule import Scheduler, TickWriter, firing_of, jobs_of
from tenure.model.errors import Deposed
from tenure.model.ids import new_id
from tenure.model.schedules import ScheduleSpec, tick_key, ticks_from, validate_schedule
from tenure.model.states import JobState
from tenure.store.postgres.database import Statement
from tenure.store.postgres.schedules import ScheduleMoved

NO_GUARD = Statement("time", {})
SECOND = timedelta(seconds=1)


class Book:
    """Schedules in the database, as the API writes them, and schedulers over them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def scheduler(self, parts: Parts | None = None, guard: Statement = NO_GUARD) -> Scheduler:
        """Return a leader's scheduler."""
        p = parts or self.parts
        return Scheduler(p.db, p.lanes, p.hints, p.kinds, p.canceler, p.clock, guard=guard)

    async def now(self) -> datetime:
        """Read Postgres' clock."""
        now: datetime = (await self.parts.db.fetch("time"))[0].now
        return now

    async def add(self, *, since: timedelta = timedelta(0), **values: Any) -> uuid.UUID:
        """Write a schedule whose first tick is the first one after ``since`` before now."""
        spec = validate_schedule({"name": uuid.uuid4().hex, "interval_s": 3600, "job": {"kind": "k"}, **values})
        next_at = next(ticks_from(spec, await self.now() - since), None)
        id = new_id()
        params = {
            "id": id,
            "namespace": spec.namespace,
            "name": spec.name,
            "spec": spec.model_dump_json(),
            "most": 1_000,
        }
        assert await self.parts.db.fetch("insert_schedule", {**params, "paused": spec.paused, "next_at": next_at})
        return id

    async def row(self, id: uuid.UUID) -> Any:
        """Read a schedule."""
        return (await self.parts.sql("SELECT * FROM tenure.schedule WHERE id = %s", id))[0]

    async def set(self, id: uuid.UUID, next_at: datetime) -> None:
        """Put a schedule's next tick elsewhere, as time would."""
        await self.parts.sql("UPDATE tenure.schedule SET next_at = %s WHERE id = %s", next_at, id)

    async def jobs(self, id: uuid.UUID) -> list[Any]:
        """Read the jobs of a schedule by their ticks."""
        return await self.parts.sql("SELECT * FROM tenure.jobs WHERE schedule_id = %s ORDER BY scheduled_at", id)

    async def due(self, id: uuid.UUID) -> Any:
        """Read a schedule as a leader sees it when it is due."""
        [row] = [
            row for row in await self.parts.db.fetch("due_schedules", {"limit": 100, "broken": []}) if row.id == id
        ]
        return row


@pytest.fixture
def book(alone: Parts) -> Book:
    """A book of schedules, alone in its database."""
    return Book(alone)


async def test_a_tick_becomes_a_job(book: Book) -> None:
    id = await book.add(since=timedelta(hours=1), job={"kind": "report", "payload": '{"a": 1}', "labels": {"x": "y"}})
    tick = (await book.row(id)).next_at
    assert await book.scheduler().round() == 1
    [job] = await book.jobs(id)
    assert (job.kind, job.scheduled_at, job.idempotency_key) == ("report", tick, tick_key(tick))
    row = await book.row(id)
    assert (row.next_at, row.last_tick, row.last_job_id, row.fired) == (tick + timedelta(hours=1), tick, job.id, 1)
    assert await book.scheduler().round() == 0
    assert book.parts.hinted_lanes


async def test_two_leaders_that_saw_the_same_tick_make_one_job(book: Book, make_parts: MakeParts) -> None:
    id = await book.add(since=timedelta(hours=1))
    one, two = firing_of(await book.due(id)), firing_of(await book.due(id))
    assert one is not None and two is not None and one.jobs[0].id != two.jobs[0].id
    p = book.parts
    writer = TickWriter(p.db, p.lanes, p.hints, p.kinds, p.canceler)
    await writer.write([one])
    with pytest.raises(ScheduleMoved):
        await writer.write([two])
    assert [job.id for job in await book.jobs(id)] == [one.jobs[0].id]


async def test_many_leaders_at_once_fire_each_tick_once(book: Book, make_parts: MakeParts) -> None:
    """Every second for half a minute, by four schedulers that know nothing of each other: two belts, no leader."""
    wanted = {"interval_s": 1, "misfire": "all"}
    ids = [await book.add(since=timedelta(seconds=20), **wanted) for _ in range(5)]
    first = {id: (await book.row(id)).next_at for id in ids}
    others = [book.scheduler(await make_parts(book.parts.dsn)) for _ in range(4)]
    async with asyncio.timeout(60):
        for _ in range(20):
            await asyncio.gather(*(scheduler.round() for scheduler in others))
            await asyncio.sleep(0.1)
    for id in ids:
        row, jobs = await book.row(id), await book.jobs(id)
        ticks = [job.scheduled_at for job in jobs]
        assert ticks == [first[id] + n * SECOND for n in range(len(ticks))]
        assert row.next_at == ticks[-1] + SECOND
        assert row.fired == len(ticks) >= 20


async def test_a_batch_is_written_though_one_of_it_moved_meanwhile(book: Book) -> None:
    ids = [await book.add(since=timedelta(hours=1)) for _ in range(3)]
    scheduler = book.scheduler()
    stale = [firing for id in ids if (firing := firing_of(await book.due(id)))]
    await book.parts.sql("UPDATE tenure.schedule SET turn = turn + 1 WHERE id = %s", ids[1])
    await scheduler._write(stale)
    assert [len(await book.jobs(id)) for id in ids] == [1, 0, 1]
    await scheduler.round()
    assert [len(await book.jobs(id)) for id in ids] == [1, 1, 1]


async def test_a_tick_whose_key_is_taken_gets_no_second_job(book: Book) -> None:
    """The second belt: a turn set back by hand, or by a backup that was restored, doubles nothing."""
    id = await book.add(since=timedelta(hours=1))
    tick = (await book.row(id)).next_at
    await book.scheduler().round()
    await book.set(id, tick)
    await book.scheduler().round()
    assert len(await book.jobs(id)) == 1
    assert (await book.row(id)).next_at == tick + timedelta(hours=1)


async def test_a_deposed_leader_fires_nothing(book: Book) -> None:
    id = await book.add(since=timedelta(hours=1))
    guard = Statement("assert_term", {"leader": "nobody", "term": 7})
    with pytest.raises(Deposed):
        await book.scheduler(guard=guard).round()
    assert await book.jobs(id) == []


async def test_a_schedule_that_cannot_be_read_holds_up_no_other(book: Book) -> None:
    broken, gone, sound = [await book.add(since=timedelta(hours=1)) for _ in range(3)]
    await book.parts.sql("""UPDATE tenure.schedule SET spec = '{"name": 1}' WHERE id = %s""", broken)
    lost = (await _spec(book, gone)).model_copy(
        update={"time_zone": "Mars/Olympus", "cron": "@daily", "interval_s": None}
    )
    await book.parts.sql("UPDATE tenure.schedule SET spec = %s WHERE id = %s", lost.model_dump_json(), gone)
    scheduler = book.scheduler()
    await scheduler.round()
    await scheduler.round()
    assert [len(await book.jobs(id)) for id in (broken, gone, sound)] == [0, 0, 1]


async def test_a_paused_one_is_not_due(book: Book) -> None:
    id = await book.add(since=timedelta(hours=1), paused=True)
    assert await book.scheduler().round() == 0
    assert await book.jobs(id) == []


async def test_jitter_lies_in_the_activation(book: Book) -> None:
    id = await book.add(since=timedelta(hours=1), jitter_s=600)
    await book.scheduler().round()
    [job] = await book.jobs(id)
    delay = job.activate_at - job.scheduled_at
    assert timedelta(0) <= delay < timedelta(seconds=600)
    spec = ScheduleSpec.model_validate_json((await book.parts.db.fetch("find_schedule", {
        "namespace": "default", "name": "", "id": id,
    }))[0].spec)  # fmt: skip
    [again] = jobs_of(spec, id, [(job.scheduled_at, "another")])
    assert again.spec.activate_at == job.activate_at


async def _tick(book: Book, id: uuid.UUID) -> None:
    """Let the next tick come now."""
    await book.set(id, next(ticks_from(await _spec(book, id), await book.now() - 2 * SECOND)))
    await book.scheduler().round()


async def _spec(book: Book, id: uuid.UUID) -> ScheduleSpec:
    [row] = await book.parts.db.fetch("find_schedule", {"namespace": "default", "name": "", "id": id})
    return ScheduleSpec.model_validate_json(row.spec)


async def test_skip(book: Book) -> None:
    id = await book.add(interval_s=1, overlap="skip")
    await _tick(book, id)
    assert len(await book.jobs(id)) == 1
    await asyncio.sleep(1.1)
    await _tick(book, id)
    row = await book.row(id)
    assert len(await book.jobs(id)) == 1
    assert row.skipped >= 1 and "had not ended" in row.skip_reason
    await book.parts.canceler.cancel(row.last_job_id, "out of the way")
    await asyncio.sleep(1.1)
    await _tick(book, id)
    assert len(await book.jobs(id)) == 2


async def test_queue(book: Book) -> None:
    id = await book.add(interval_s=1, overlap="queue")
    await _tick(book, id)
    await asyncio.sleep(1.1)
    await _tick(book, id)
    [first] = await book.jobs(id)
    row = await book.row(id)
    assert row.queued_tick is not None
    await book.set(id, await book.now() + timedelta(hours=1))
    assert await book.scheduler().round() == 0
    await book.parts.canceler.cancel(first.id, "out of the way")
    assert await book.scheduler().round() == 1
    assert [job.scheduled_at for job in await book.jobs(id)] == [first.scheduled_at, row.queued_tick]
    assert (await book.row(id)).queued_tick is None


async def test_cancel_previous(book: Book) -> None:
    id = await book.add(interval_s=1, overlap="cancel_previous")
    await _tick(book, id)
    [idle] = await book.jobs(id)
    await asyncio.sleep(1.1)
    await _tick(book, id)
    assert await book.parts.state(idle.id) is JobState.CANCELED
    running_id = (await book.row(id)).last_job_id
    lease = await book.parts.register()
    assert lease
    await book.parts.execute(running_id)
    await asyncio.sleep(1.1)
    await _tick(book, id)
    job = await book.parts.row(running_id)
    assert (job.state, job.cancel_requested) == ("executing", True)
    asked = await book.parts.etcd.list(book.parts.keys.inbox("w1"))
    assert asked.items
    assert len(await book.jobs(id)) == 3


async def test_a_whole_leader_fires(book: Book) -> None:
    id = await book.add(interval_s=1)
    async with running(leader_of(book.parts).run()):
        await until(lambda: _has(book, id, 2))
    ticks = [job.scheduled_at for job in await book.jobs(id)]
    assert ticks == [ticks[0] + n * SECOND for n in range(len(ticks))]


async def _has(book: Book, id: uuid.UUID, count: int) -> bool:
    return len(await book.jobs(id)) >= count


async def test_what_a_job_came_from_goes_with_it_to_history(book: Book) -> None:
    id = await book.add(since=timedelta(hours=1))
    await book.scheduler().round()
    [job] = await book.jobs(id)
    started = await book.parts.execute(job.id)
    await book.parts.finish(job.id, started.fence)
    [ended] = await book.parts.sql("SELECT * FROM tenure.history WHERE id = %s", job.id)
    assert (ended.schedule_id, ended.scheduled_at) == (id, job.scheduled_at)


def _counted() -> list[float]:
    """Return how many ticks fired and how many were left out, as ``/metrics`` says."""
    name = "tenure_schedule_ticks_total"
    return [REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0 for outcome in ("fired", "skipped")]


@pytest.mark.parametrize("on_duplicate", ["refuse", "existing"])
async def test_a_tick_that_meets_its_unique_key_held_is_skipped(book: Book, on_duplicate: str) -> None:
    id = await book.add(interval_s=1, job={"kind": "k", "unique_key": "u", "on_duplicate": on_duplicate})
    before = _counted()
    await _tick(book, id)
    await asyncio.sleep(1.1)
    with capture_logs() as logs:
        await _tick(book, id)
    [job] = await book.jobs(id)
    row = await book.row(id)
    assert row.fired == 1 and row.skipped >= 1
    assert str(job.id) in row.skip_reason
    assert [now - then for now, then in zip(_counted(), before, strict=True)] == [row.fired, row.skipped]
    [told] = [line for line in logs if line["event"] == "ticks_skipped"]
    assert str(job.id) in told["reason"]
    await book.parts.canceler.cancel(job.id, "")
    await asyncio.sleep(1.1)
    await _tick(book, id)
    assert len(await book.jobs(id)) == 2


@pytest.mark.parametrize("on_duplicate", ["refuse", "existing"])
async def test_a_tick_that_makes_no_job_cancels_none_in_its_favour(book: Book, on_duplicate: str) -> None:
    job = {"kind": "k", "unique_key": "u", "on_duplicate": on_duplicate}
    id = await book.add(interval_s=1, overlap="cancel_previous", job=job)
    await _tick(book, id)
    [first] = await book.jobs(id)
    await asyncio.sleep(1.1)
    await _tick(book, id)
    [left] = await book.jobs(id)
    assert (left.id, left.state) == (first.id, JobState.READY)
    assert str(first.id) in (await book.row(id)).skip_reason


async def test_a_tick_replaces_the_job_that_has_its_unique_key(book: Book) -> None:
    id = await book.add(interval_s=1, job={"kind": "k", "unique_key": "u", "on_duplicate": "replace"})
    await _tick(book, id)
    [first] = await book.jobs(id)
    fence = (await book.parts.execute(first.id)).fence
    await asyncio.sleep(1.1)
    await _tick(book, id)
    first, second = await book.jobs(id)
    assert (first.replaced_by, first.cancel_requested, second.state) == (second.id, True, JobState.WAITING)
    await asyncio.sleep(1.1)
    await _tick(book, id)
    assert [job.state for job in await book.jobs(id)] == ["executing", "canceled", "waiting"]
    await book.parts.finish(first.id, fence)
    assert [job.state for job in await book.jobs(id)] == ["completed", "canceled", "ready"]


async def test_a_tick_that_has_its_job_replaces_nothing(book: Book) -> None:
    job = {"kind": "k", "unique_key": "u", "on_duplicate": "replace"}
    id = await book.add(since=timedelta(minutes=90), job=job)
    row = await book.due(id)
    await book.scheduler().round()
    [made] = await book.jobs(id)
    await book.set(id, row.next_at)
    await book.scheduler().round()
    [left] = await book.jobs(id)
    assert (left.id, left.state, left.replaced_by) == (made.id, JobState.READY, None)


async def test_schedules_with_one_unique_key_do_not_hold_up_each_other(book: Book) -> None:
    job = {"kind": "k", "unique_key": "u"}
    ids = [await book.add(since=timedelta(hours=1), job=job) for _ in range(3)]
    other = await book.add(since=timedelta(hours=1))
    await book.scheduler().round()
    await book.scheduler().round()
    assert sum([len(await book.jobs(id)) for id in ids]) == 1
    assert len(await book.jobs(other)) == 1
