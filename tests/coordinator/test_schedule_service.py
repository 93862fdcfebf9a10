"""ScheduleService through the client on a real server: what callers get, and what they are told when they may not."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, leader_of, running, until

from tenure.client import AsyncClient, NewJob, NewSchedule, Retry
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.schedule import Scheduler
from tenure.model.errors import BoundExceeded, Conflict, InvalidInput, NotFound, TenureError, WrongState
from tenure.store.postgres.database import Statement
from tenure.v1 import job_pb2, wire
from tenure.v1 import schedule_service_pb2 as pb
from tenure.v1.schedule_service_pb2_grpc import ScheduleServiceStub

TIMEOUT_S = 30.0
PAST = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture
async def server(alone: Parts) -> AsyncIterator[GrpcServer]:
    jobs = alone.job_service()
    workers = WorkerService(alone.db, alone.starter, alone.finisher, alone.submitter)
    cluster = alone.cluster_service()
    schedules = ScheduleService(alone.db, alone.lanes, alone.hints, alone.kinds, alone.canceler, alone.audit)
    made = GrpcServer((jobs, workers, cluster, schedules), listen="127.0.0.1:0", with_reflection=False)
    await made.start()
    async with running(jobs.run()):
        yield made
        await made.stop(0)


@pytest_asyncio.fixture
async def client(server: GrpcServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address) as made:
        yield made


def schedule(name: str = "nightly", **values: Any) -> NewSchedule:
    given = {"cron": None if "interval_s" in values else "30 2 * * *", "job": NewJob(kind="k"), **values}
    return NewSchedule(name=name, **given)


def round_of(parts: Parts) -> Scheduler:
    guard = Statement("time", {})
    return Scheduler(parts.db, parts.lanes, parts.hints, parts.kinds, parts.canceler, parts.clock, guard=guard)


async def refused(call: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refusal:
        await call
    return {violation.field: violation.description for violation in refusal.value.violations}


async def test_a_namespace_has_so_many_schedules_and_no_more(client: AsyncClient, alone: Parts) -> None:
    await client.create_schedule(schedule("first"))
    await alone.sql(
        "INSERT INTO tenure.schedule (id, namespace, name, spec, paused, next_at)"
        " SELECT gen_random_uuid(), namespace, 'copy-' || n, spec, true, next_at"
        " FROM tenure.schedule, generate_series(2, 1000) n"
    )
    with pytest.raises(BoundExceeded, match="namespace 'default' has 1,000 schedules, as many as it may"):
        await client.create_schedule(schedule("one-more"))
    assert (await client.create_schedule(schedule("first"))).name == "first", "a repeated call is answered"
    with pytest.raises(Conflict):
        await client.create_schedule(schedule("first", cron="0 0 1 1 *"))
    await client.create_schedule(schedule("elsewhere", namespace="acme", job=NewJob(kind="k", namespace="acme")))
    await client.delete_schedule("copy-7")
    await client.create_schedule(schedule("one-more"))


async def test_a_schedule_is_read_back_as_it_was_asked_for(client: AsyncClient) -> None:
    job = NewJob(
        kind="report", payload={"a": [1, None]}, route="pool-a/x", priority=5, delay_s=1.5, ttl_s=4.0, timeout_s=9.0,
        max_crashes=2, labels={"k": "v"}, namespace="acme",
        retry=Retry(max_attempts=7, initial_backoff_s=2.0, multiplier=3.0, max_backoff_s=60.0, jitter=0.5,
                    non_retryable=("ValueError",)),
    )  # fmt: skip
    wanted = schedule(
        namespace="acme", job=job, time_zone="Europe/Berlin", gap="skip", fold="both", overlap="queue", misfire="all",
        window_s=90.0, jitter_s=3.5, starts_at=PAST, ends_at=PAST + timedelta(days=9_000),
    )  # fmt: skip
    made = await client.create_schedule(wanted)
    assert made.spec == wanted
    assert made.next_at is not None and made.next_at.astimezone(UTC).minute == 30
    assert await client.get_schedule("nightly", namespace="acme") == made
    assert await client.get_schedule(made.id, namespace="acme") == made


async def test_the_same_once_more_is_the_same_and_another_is_refused(client: AsyncClient) -> None:
    first = await client.create_schedule(schedule())
    assert await client.create_schedule(schedule()) == first
    with pytest.raises(Conflict):
        await client.create_schedule(schedule(cron="@daily"))
    await client.create_schedule(schedule(namespace="other"))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cron": "61 * * * *"}, "schedule.cron"),
        ({"interval_s": 0.1}, "schedule.interval"),
        ({"window_s": -1.0}, "schedule.misfire_window"),
        ({"jitter_s": 1e6}, "schedule.jitter"),
        ({"time_zone": "Mars/Olympus"}, "schedule.time_zone"),
        ({"gap": "leap"}, "schedule.gap"),
        ({"overlap": "never"}, "schedule.overlap"),
        ({"starts_at": datetime(2026, 1, 1)}, "schedule.starts_at"),
        ({"name": "X"}, "schedule.name"),
        ({"name": "0197f2a4-0000-7000-8000-000000000000"}, "schedule.name"),
        ({"job": NewJob(kind="")}, "schedule.job.kind"),
        ({"job": NewJob(kind="k", ttl_s=0.1)}, "schedule.job.ttl"),
        ({"job": NewJob(kind="k", idempotency_key="x")}, "schedule.job.idempotency_key"),
        ({"job": NewJob(kind="k", ref="x")}, "schedule.job.ref"),
        ({"job": NewJob(kind="k", start_by=PAST)}, "schedule.job.start_by"),
        ({"job": NewJob(kind="k", namespace="other")}, "schedule.job.namespace"),
    ],
)
async def test_what_is_wrong_is_named(client: AsyncClient, values: dict[str, Any], field: str) -> None:
    assert field in await refused(client.create_schedule(schedule(**values)))
    assert [one async for one in client.schedules()] == []


async def test_nonsense_on_the_wire_is_refused(server: GrpcServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = ScheduleServiceStub(channel)
        job = job_pb2.JobSpec(kind="k")
        forever = wire.timestamp(PAST)
        assert forever is not None
        forever.seconds = 2**62
        for call, request in [
            (stub.CreateSchedule, pb.CreateScheduleRequest()),
            (stub.CreateSchedule, pb.CreateScheduleRequest(schedule=pb.ScheduleSpec(name="n", cron="@daily"))),
            (stub.CreateSchedule, _create(name="n", cron="@daily", gap=99, job=job)),
            (stub.CreateSchedule, _create(name="n", cron="\x00", job=job)),
            (stub.CreateSchedule, _create(name="n", cron="@daily", time_zone="\x00", job=job)),
            (stub.CreateSchedule, _create(name="n", cron="@daily", starts_at=forever, job=job)),
            (stub.GetSchedule, pb.GetScheduleRequest()),
            (stub.GetSchedule, pb.GetScheduleRequest(schedule="\x00")),
            (stub.GetSchedule, pb.GetScheduleRequest(schedule="n", namespace="\x00")),
            (stub.ListSchedules, pb.ListSchedulesRequest(page_size=-1)),
            (stub.ListSchedules, pb.ListSchedulesRequest(page_size=1_001)),
            (stub.ListSchedules, pb.ListSchedulesRequest(page_token="!")),
            (stub.ListSchedules, pb.ListSchedulesRequest(page_token="WzEsMl0=")),
            (stub.ListSchedules, pb.ListSchedulesRequest(namespace="\x00")),
            (stub.TriggerSchedule, pb.TriggerScheduleRequest(schedule="n", idempotency_key="\x00")),
            (stub.TriggerSchedule, pb.TriggerScheduleRequest(schedule="n", idempotency_key="x" * 201)),
            (stub.BackfillSchedule, pb.BackfillScheduleRequest(schedule="n")),
            (stub.PreviewSchedule, pb.PreviewScheduleRequest(schedule="n", count=1_001)),
            (stub.PreviewSchedule, pb.PreviewScheduleRequest(schedule="n", after=forever)),
            (stub.PreviewSchedule, pb.PreviewScheduleRequest(schedule="n", spec=pb.ScheduleSpec(name="m"))),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(request, timeout=TIMEOUT_S)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (request, refusal.value)


def _create(**spec: Any) -> pb.CreateScheduleRequest:
    return pb.CreateScheduleRequest(schedule=pb.ScheduleSpec(**spec))


async def test_what_is_not_there_is_not_found(client: AsyncClient) -> None:
    for call in (
        client.get_schedule("none"),
        client.update_schedule(schedule("none")),
        client.delete_schedule("none"),
        client.pause_schedule("none"),
        client.resume_schedule("none"),
        client.trigger_schedule("none"),
        client.backfill_schedule("none", PAST, PAST + HOUR),
        client.preview_schedule("none"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_listing_in_pages(client: AsyncClient) -> None:
    names = [f"s{n:02}" for n in range(7)]
    for name in reversed(names):
        await client.create_schedule(schedule(name))
    await client.create_schedule(schedule("a", namespace="other"))
    assert [one.name async for one in client.schedules(namespace="default", page_size=3)] == names
    assert [one.name async for one in client.schedules(page_size=2)] == [*names, "a"]


async def test_one_that_cannot_be_read_hides_no_other(client: AsyncClient, alone: Parts) -> None:
    for name in ("newer", "nightly"):
        await client.create_schedule(schedule(name))
    await alone.sql("UPDATE tenure.schedule SET spec = %s::json WHERE name = 'newer'", '{"from": "a later release"}')
    newer, nightly = [one async for one in client.schedules()]
    assert (newer.name, nightly.name, nightly.spec.cron) == ("newer", "nightly", "30 2 * * *")
    assert "cannot be read" in newer.skip_reason
    for asked in (client.preview_schedule("newer"), client.trigger_schedule("newer"), client.pause_schedule("newer")):
        with pytest.raises(WrongState, match="cannot be read"):
            await asked
    await client.delete_schedule("newer")
    assert [one.name async for one in client.schedules()] == ["nightly"]


async def test_an_update_replaces_what_it_is(client: AsyncClient, alone: Parts) -> None:
    made = await client.create_schedule(schedule(paused=True))
    changed = dataclasses.replace(made.spec, job=NewJob(kind="other"), cron="0 5 * * *", paused=False)
    after = await client.update_schedule(changed, revision=made.revision)
    assert (after.spec.job.kind, after.spec.cron, after.revision) == ("other", "0 5 * * *", made.revision + 1)
    assert after.is_paused  # that is moved by pause and resume alone
    await client.update_schedule(changed, revision=made.revision)  # the answer was lost, and the call is repeated
    with pytest.raises(WrongState):
        await client.update_schedule(dataclasses.replace(changed, jitter_s=1.0), revision=made.revision)
    await client.update_schedule(dataclasses.replace(changed, jitter_s=1.0))


async def test_an_update_that_leaves_the_timing_loses_no_tick_that_is_due(client: AsyncClient, alone: Parts) -> None:
    made = await client.create_schedule(schedule(interval_s=3600))
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 h'")
    due = made.next_at - HOUR if made.next_at else None
    assert (await client.update_schedule(dataclasses.replace(made.spec, jitter_s=1.0))).next_at == due
    moved = await client.update_schedule(dataclasses.replace(made.spec, interval_s=1800))
    assert moved.next_at is not None and moved.next_at > (await alone.db.fetch("time"))[0].now


async def test_updates_and_ticks_do_not_undo_each_other(client: AsyncClient, alone: Parts) -> None:
    made = await client.create_schedule(schedule(interval_s=1, misfire="all"))
    async with running(leader_of(alone).run()):
        for priority in range(15):
            await client.update_schedule(dataclasses.replace(made.spec, job=NewJob(kind="k", priority=priority)))
            await asyncio.sleep(0.2)
    after = await client.get_schedule(made.name)
    assert (after.spec.job.priority, after.revision) == (14, made.revision + 15)
    jobs = await alone.sql("SELECT scheduled_at FROM tenure.jobs ORDER BY scheduled_at")
    assert after.fired == len(jobs) >= 2
    assert [job.scheduled_at for job in jobs] == [jobs[0].scheduled_at + timedelta(seconds=n) for n in range(len(jobs))]


async def test_pause_and_resume(client: AsyncClient, alone: Parts) -> None:
    await client.create_schedule(schedule(interval_s=3600))
    paused = await client.pause_schedule("nightly")
    assert paused.is_paused and paused.next_at is None
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '5 h', queued_tick = NULL")
    assert await round_of(alone).round() == 0
    resumed = await client.resume_schedule("nightly")
    assert not resumed.is_paused
    assert resumed.next_at is not None and resumed.next_at > (await alone.db.fetch("time"))[0].now
    assert (await client.resume_schedule("nightly")).next_at == resumed.next_at


async def test_a_trigger_makes_a_job_now_and_once_for_its_key(client: AsyncClient) -> None:
    await client.create_schedule(schedule(paused=True, overlap="skip", jitter_s=86_400))
    first = await client.trigger_schedule("nightly", idempotency_key="deploy-7")
    again = await client.trigger_schedule("nightly", idempotency_key="deploy-7")
    other = await client.trigger_schedule("nightly")
    assert (first.created, again.created, other.created) == (True, False, True)
    assert first.job_id == again.job_id != other.job_id
    job = await client.get(first.job_id)
    stored = await client.get_schedule("nightly")
    assert job.schedule_id == stored.id
    assert job.scheduled_at and job.activate_at and job.activate_at - job.scheduled_at < timedelta(minutes=2)
    assert (stored.fired, stored.last_job_id) == (2, other.job_id)


@pytest.mark.parametrize("on_duplicate", ["refuse", "existing", "replace"])
async def test_a_trigger_repeated_under_its_key_leaves_its_job_alone(client: AsyncClient, on_duplicate: str) -> None:
    await client.create_schedule(schedule(job=NewJob(kind="k", unique_key="u", on_duplicate=on_duplicate)))
    first = await client.trigger_schedule("nightly", idempotency_key="a")
    again = await client.trigger_schedule("nightly", idempotency_key="a")
    assert (first.created, again.created, again.job_id) == (True, False, first.job_id)
    assert (await client.get(first.job_id)).state == "ready"


async def test_a_triggered_job_counts_for_the_overlap(client: AsyncClient, alone: Parts) -> None:
    await client.create_schedule(schedule(interval_s=3600, overlap="skip"))
    await client.trigger_schedule("nightly")
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 h'")
    await round_of(alone).round()
    stored = await client.get_schedule("nightly")
    assert (stored.fired, stored.skipped) == (1, 1)


async def test_a_backfill_makes_the_jobs_of_its_ticks_once(client: AsyncClient, alone: Parts) -> None:
    await client.create_schedule(schedule(interval_s=3600, paused=True))
    made = await client.backfill_schedule("nightly", PAST, PAST + 3 * HOUR)
    assert [one.tick for one in made] == [PAST, PAST + HOUR, PAST + 2 * HOUR]
    assert all(one.created for one in made)
    wider = await client.backfill_schedule("nightly", PAST - HOUR, PAST + 4 * HOUR)
    assert [one.created for one in wider] == [True, False, False, False, True]
    assert [one.job_id for one in wider[1:4]] == [one.job_id for one in made]
    job = await client.get(made[1].job_id)
    assert job.scheduled_at == PAST + HOUR
    assert await client.backfill_schedule("nightly", PAST + timedelta(seconds=1), PAST + timedelta(seconds=2)) == []


async def test_a_backfill_does_not_move_the_schedule_nor_count_for_its_overlap(
    client: AsyncClient, alone: Parts
) -> None:
    before = await client.create_schedule(schedule(interval_s=3600, overlap="cancel_previous"))
    made = await client.backfill_schedule("nightly", PAST, PAST + 3 * HOUR)
    assert (await client.get_schedule("nightly")).next_at == before.next_at
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 h'")
    await round_of(alone).round()
    assert (await client.get_schedule("nightly")).fired == 4
    assert {(await client.get(one.job_id)).state for one in made} == {"ready"}


async def test_a_trigger_tells_of_the_job_that_it_replaces(client: AsyncClient, alone: Parts) -> None:
    await alone.register()
    job = NewJob(kind="k", unique_key="u", on_duplicate="replace")
    await client.create_schedule(schedule(paused=True, job=job))
    first = await client.trigger_schedule("nightly")
    second = await client.trigger_schedule("nightly")
    assert (await client.get(first.job_id)).replaced_by == second.job_id
    assert await alone.done(uuid.UUID(first.job_id)) is not None
    await alone.execute(uuid.UUID(second.job_id))
    await client.trigger_schedule("nightly")
    assert (await alone.etcd.list(alone.keys.inbox("w1"))).items


async def test_a_trigger_is_refused_where_its_unique_key_is_held(client: AsyncClient) -> None:
    [held] = await client.submit_many([NewJob(kind="k", unique_key="u")])
    await client.create_schedule(schedule(paused=True, job=NewJob(kind="k", unique_key="u")))
    with pytest.raises(Conflict, match=held.id):
        await client.trigger_schedule("nightly", idempotency_key="once")
    stored = await client.get_schedule("nightly")
    assert (stored.fired, stored.skipped) == (0, 0)
    await client.cancel(held.id)
    made = [await client.trigger_schedule("nightly", idempotency_key="once") for _ in range(2)]
    assert [one.created for one in made] == [True, False]
    assert made[0].job_id == made[1].job_id


async def test_a_trigger_that_met_a_job_has_the_same_answer_again(client: AsyncClient) -> None:
    [held] = await client.submit_many([NewJob(kind="k", unique_key="u")])
    job = NewJob(kind="k", unique_key="u", on_duplicate="existing")
    await client.create_schedule(schedule(paused=True, job=job))
    met = await client.trigger_schedule("nightly", idempotency_key="once")
    await client.cancel(held.id)
    again = await client.trigger_schedule("nightly", idempotency_key="once")
    assert [(one.job_id, one.created) for one in (met, again)] == [(held.id, False)] * 2


async def test_a_repeated_backfill_replaces_nothing(client: AsyncClient) -> None:
    job = NewJob(kind="k", unique_key="u", on_duplicate="replace")
    await client.create_schedule(schedule(interval_s=3600, paused=True, job=job))
    [last] = await client.backfill_schedule("nightly", PAST + HOUR, PAST + 2 * HOUR)
    for _ in range(2):
        wider = await client.backfill_schedule("nightly", PAST, PAST + 2 * HOUR)
        assert [(one.job_id, one.created) for one in wider] == [(last.job_id, False)] * 2
    assert (await client.get(last.job_id)).state == "ready"


async def test_a_backfill_makes_what_is_left_where_the_first_tick_has_its_job(
    client: AsyncClient, alone: Parts
) -> None:
    await client.create_schedule(schedule(interval_s=3600, paused=True, job=NewJob(kind="k", unique_key="u")))
    [first] = await client.backfill_schedule("nightly", PAST, PAST + HOUR)
    await client.cancel(first.job_id)
    wider = await client.backfill_schedule("nightly", PAST, PAST + 2 * HOUR)
    assert [one.created for one in wider] == [False, True]
    assert wider[0].job_id == first.job_id
    assert (await client.get(wider[1].job_id)).state == "ready"


async def test_a_backfill_names_the_job_of_each_tick_and_skips_none(client: AsyncClient) -> None:
    await client.create_schedule(schedule(interval_s=3600, paused=True, job=NewJob(kind="k", unique_key="u")))
    [first] = await client.backfill_schedule("nightly", PAST, PAST + HOUR)
    await client.cancel(first.job_id)
    _, second = await client.backfill_schedule("nightly", PAST, PAST + 2 * HOUR)
    made = await client.backfill_schedule("nightly", PAST, PAST + 3 * HOUR)
    assert [one.job_id for one in made] == [first.job_id, second.job_id, second.job_id]
    assert (await client.get_schedule("nightly")).skipped == 0


async def test_a_backfill_is_bounded(client: AsyncClient) -> None:
    await client.create_schedule(schedule(interval_s=1))
    assert "until" in await refused(client.backfill_schedule("nightly", PAST, PAST + HOUR))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert "until" in await refused(client.backfill_schedule("nightly", tomorrow - HOUR, tomorrow))
    assert "until" in await refused(client.backfill_schedule("nightly", PAST, PAST))
    assert "from" in await refused(client.backfill_schedule("nightly", datetime(1960, 1, 1, tzinfo=UTC), PAST))


async def test_preview(client: AsyncClient) -> None:
    made = await client.create_schedule(schedule(time_zone="Europe/Berlin", jitter_s=60))
    ticks = await client.preview_schedule("nightly", count=3, after=datetime(2026, 3, 28, tzinfo=UTC))
    assert [tick.local for tick in ticks] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert all(tick.activate_at and tick.at <= tick.activate_at < tick.at + timedelta(seconds=60) for tick in ticks)
    assert ticks == await client.preview_schedule(made.id, count=3, after=datetime(2026, 3, 28, tzinfo=UTC))
    draft = schedule("draft", cron="0 0 29 2 *", ends_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert [tick.local for tick in await client.preview_schedule(draft)] == ["2028-02-29T00:00:00+00:00"]
    assert "spec.cron" in await refused(client.preview_schedule(schedule("draft", cron="x")))


async def test_a_deleted_one_makes_no_more_jobs(client: AsyncClient, alone: Parts) -> None:
    await client.create_schedule(schedule(interval_s=3600))
    made = await client.trigger_schedule("nightly")
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 h'")
    await client.delete_schedule("nightly")
    assert await round_of(alone).round() == 0
    assert (await client.get(made.job_id)).state == "ready"
    with pytest.raises(TenureError):
        await client.get_schedule("nightly")


async def test_one_that_has_ended_is_kept_and_never_due(client: AsyncClient, alone: Parts) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await client.create_schedule(schedule(interval_s=1, ends_at=soon))
    async with running(leader_of(alone).run()):

        async def ended() -> bool:
            return (await client.get_schedule("nightly")).next_at is None

        await until(ended)
    assert 1 <= (await client.get_schedule("nightly")).fired <= 2
