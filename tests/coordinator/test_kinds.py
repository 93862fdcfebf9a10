"""Settings of kinds: over gRPC, and as they reach jobs, batches, children and schedules' jobs, on real stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import MakeParts, Parts, running, until
from tests.coordinator.test_schedule_service import PAST, round_of

from tenure.client import AsyncClient, KindSettings, NewJob, NewSchedule, Retry
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.kind_service import KindService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.model.errors import Conflict, InvalidInput, NotFound
from tenure.model.jobs import JobSpec
from tenure.model.submit import Parent, Submitted, keyed_after_parent

FULL = KindSettings(
    kind="scan",
    priority=7,
    ttl_s=20.0,
    timeout_s=60.0,
    start_within_s=30.0,
    job_timeout_s=600.0,
    max_crashes=5,
    retry=Retry(max_attempts=9, backoff="linear"),
    limits=("scan:{namespace}", "{kind}"),
)


@pytest_asyncio.fixture
async def client(alone: Parts) -> AsyncIterator[AsyncClient]:
    jobs = alone.job_service()
    schedules = ScheduleService(alone.db, alone.lanes, alone.hints, alone.kinds, alone.canceler, alone.audit)
    services = (jobs, KindService(alone.db, alone.kinds, alone.audit), schedules)
    server = GrpcServer(services, listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with running(jobs.run(), alone.submitter.run()), AsyncClient(server.address) as made:
        yield made
        await server.stop(0)


async def lane_of(parts: Parts, id: str) -> Any:
    """Read the lane of a job that has not ended."""
    sql = "SELECT l.* FROM tenure.job j JOIN tenure.lane l ON l.id = j.lane WHERE j.id = %s"
    return (await parts.sql(sql, uuid.UUID(id)))[0]


async def test_settings_are_put_read_changed_listed_and_deleted(client: AsyncClient) -> None:
    assert await client.put_kind(FULL) == FULL
    own = KindSettings(kind="scan", namespace="acme", priority=1)
    assert await client.put_kind(own) == own
    assert await client.kind("scan") == FULL
    assert await client.kind("scan", namespace="acme") == own
    less = KindSettings(kind="scan", ttl_s=5.0)
    assert await client.put_kind(less) == less  # what is not given is not set any more
    assert await client.kinds() == [less, own]
    assert [await client.delete_kind("scan", namespace="acme") for _ in range(2)] == [True, False]
    with pytest.raises(NotFound):
        await client.kind("scan", namespace="acme")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "a b"}, "settings.kind"),
        ({"kind": "a\x00"}, "settings.kind"),
        ({"namespace": "Acme"}, "settings.namespace"),
        ({"ttl_s": 1.0}, "settings.ttl"),
        ({"timeout_s": -1.0}, "settings.timeout"),
        ({"priority": 2_000}, "settings.priority"),
        ({"retry": Retry(initial_backoff_s=-1.0)}, "settings.retry.initial_backoff"),
        ({"retry": Retry(max_attempts=0)}, "settings.retry.max_attempts"),
        ({"limits": ("{pool}",)}, "settings.limits.0"),
    ],
)
async def test_bad_settings_are_refused_whole(client: AsyncClient, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await client.put_kind(KindSettings(**{"kind": "k", "limits": ("a",), **values}))
    assert [violation.field for violation in caught.value.violations] == [field]
    assert await client.kinds() == []


async def test_a_job_gets_what_it_did_not_ask_for_and_a_lane_with_the_limits(alone: Parts, client: AsyncClient) -> None:
    await client.put_kind(FULL)
    job = await client.submit("scan", namespace="acme", ttl_s=4.0, limits=["own"])
    assert (job.priority, job.ttl_s, job.timeout_s, job.job_timeout_s, job.max_crashes) == (7, 4.0, 60.0, 600.0, 5)
    assert (job.retry.max_attempts, job.retry.backoff, job.retry.multiplier) == (9, "linear", 2.0)
    assert job.start_by is not None and job.activate_at is not None
    assert job.start_by - job.activate_at == timedelta(seconds=30)
    assert sorted(job.limits) == ["own", "scan", "scan:acme"]
    assert (await lane_of(alone, job.id)).limits == "own,scan,scan:acme"
    lowest = await client.submit("scan", priority=0)
    assert lowest.priority == 0
    batch = await client.submit_many([NewJob(kind="scan"), NewJob(kind="other")])
    assert [(await client.get(one.id)).priority for one in batch] == [7, 0]


async def test_jobs_that_are_there_keep_what_they_have(client: AsyncClient) -> None:
    before = await client.submit("scan")
    await client.put_kind(FULL)
    assert (await client.get(before.id)).ttl_s == 10.0
    set_meanwhile = await client.submit("scan")
    await client.delete_kind("scan")
    assert (await client.get(set_meanwhile.id)).ttl_s == 20.0
    assert (await client.submit("scan")).ttl_s == 10.0


async def test_the_same_request_is_the_same_whatever_is_set_meanwhile(client: AsyncClient) -> None:
    first = await client.submit("scan", idempotency_key="once")
    await client.put_kind(FULL)
    again = await client.submit("scan", idempotency_key="once")
    assert (again.id, again.created, again.ttl_s) == (first.id, False, 10.0)
    with pytest.raises(Conflict):
        await client.submit("scan", ttl_s=20.0, idempotency_key="once")


async def test_what_is_sent_again_with_more_is_known_by_what_was_asked(alone: Parts, client: AsyncClient) -> None:
    await client.put_kind(FULL)
    specs = [JobSpec(kind="scan", idempotency_key=f"key-{number}") for number in range(3)]
    [first] = await alone.submitter.submit_each(specs[:1])
    sent = await alone.submitter.submit_each(specs)
    again = await alone.submitter.submit_batch(specs)
    assert isinstance(first, Submitted) and first.id == again[0].id
    assert [one.created for one in sent if isinstance(one, Submitted)] == [False, True, True]
    assert [one.id for one in sent if isinstance(one, Submitted)] == [one.id for one in again]
    assert [(await alone.row(one.id)).priority for one in again] == [7, 7, 7]


async def test_another_coordinator_heeds_a_change_soon(
    alone: Parts, client: AsyncClient, make_parts: MakeParts
) -> None:
    other = await make_parts(alone.dsn)
    await client.put_kind(FULL)

    async def seen() -> bool:
        return other.kinds.book.settings_of("default", "scan") is not None

    async with running(other.kinds.keep_fresh()):
        await until(seen)
        assert (await other.row(await other.submit(kind="scan"))).ttl_s == 20.0
        await client.delete_kind("scan")

        async def forgotten() -> bool:
            return not await seen()

        await until(forgotten)


async def test_settings_that_nobody_can_read_hold_up_no_other(alone: Parts, client: AsyncClient) -> None:
    await client.put_kind(FULL)
    await alone.sql("""INSERT INTO tenure.kind VALUES ('', 'by-hand', '{"ttl_s": "soon"}')""")
    await alone.kinds.refresh()
    assert (await client.submit("by-hand")).ttl_s == 10.0
    assert (await client.submit("scan")).ttl_s == 20.0


async def test_children_get_them_too_and_a_repeated_attempt_makes_none_twice(alone: Parts, client: AsyncClient) -> None:
    parent = uuid.UUID((await client.submit("parent")).id)
    fence = (await alone.execute(parent)).fence
    specs = keyed_after_parent([JobSpec(kind="scan", ref="a"), JobSpec(kind="scan", ref="b", ttl_s=3.0)])
    first = await alone.submitter.submit_batch(specs[:1], parent=Parent(parent, fence))
    await client.put_kind(FULL)
    made = await alone.submitter.submit_batch(specs, parent=Parent(parent, fence))
    assert [one.created for one in made] == [False, True]
    assert made[0].id == first[0].id
    job = await client.get(str(made[1].id))
    assert (job.ttl_s, job.priority, sorted(job.limits)) == (3.0, 7, ["scan", "scan:default"])


async def test_a_schedules_jobs_get_what_is_set_when_the_tick_comes(alone: Parts, client: AsyncClient) -> None:
    template = NewJob(kind="scan", timeout_s=5.0)
    made = await client.create_schedule(NewSchedule(name="s", job=template, interval_s=3600, starts_at=PAST))
    assert made.spec.job == NewJob(kind="scan", timeout_s=5.0, route="default")
    await client.put_kind(FULL)
    triggered = await client.get((await client.trigger_schedule("s")).job_id)
    assert (triggered.ttl_s, triggered.timeout_s, triggered.priority) == (20.0, 5.0, 7)
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 hour'")
    assert await round_of(alone).round() == 1
    [ticked] = [job async for job in client.list(kind="scan") if job.id != triggered.id]
    assert (ticked.schedule_id, ticked.ttl_s, sorted(ticked.limits)) == (made.id, 20.0, ["scan", "scan:default"])


async def test_a_schedule_that_settings_do_not_fit_is_left_alone_and_holds_up_no_other(
    alone: Parts, client: AsyncClient
) -> None:
    many = NewJob(kind="scan", limits=[f"l{n}" for n in range(7)])
    for name, job in (("many", many), ("fine", NewJob(kind="other"))):
        await client.create_schedule(NewSchedule(name=name, job=job, interval_s=3600))
    await client.put_kind(FULL)
    with pytest.raises(InvalidInput) as caught:
        await client.trigger_schedule("many")
    assert [violation.field for violation in caught.value.violations] == ["schedule.job.limits"]
    with pytest.raises(InvalidInput) as caught:
        await client.submit_many([NewJob(kind="other"), many])
    assert [violation.field for violation in caught.value.violations] == ["jobs[1].limits"]
    await alone.sql("UPDATE tenure.schedule SET next_at = next_at - interval '1 hour'")
    assert await round_of(alone).round() == 2
    assert {job.kind async for job in client.list()} == {"other"}
    await client.delete_kind("scan")
    assert await round_of(alone).round() == 1  # the tick was not lost
    assert {job.kind async for job in client.list()} == {"other", "scan"}


async def test_two_callers_with_the_same_ref_do_not_meet(alone: Parts, client: AsyncClient) -> None:
    """Submits that arrive together share a transaction, not their names."""
    made = await asyncio.gather(*(alone.submitter.submit(JobSpec(kind="k", ref="mine")) for _ in range(20)))
    assert len({one.id for one in made}) == 20
