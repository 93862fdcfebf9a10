"""How it goes, in figures: what is counted in memory, what is read, and what several coordinators make of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from tests.coordinator.conftest import Parts, until

from tenure.coordinator import counted, survey
from tenure.coordinator import overview as overview_module
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.overview import FRESH_S, Overview
from tenure.coordinator.tally import MAX_LANES, NO_LANE, Tally, What
from tenure.model.clock import SystemClock
from tenure.model.errors import Unavailable
from tenure.model.jobs import JobSpec
from tenure.store.etcd.compact import Compactor

BEGAN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class Hand(SystemClock):
    """A clock whose time of day is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.at = BEGAN

    def wall(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


def test_a_minute_and_an_hour_are_counted_by_lane() -> None:
    clock = Hand()
    tally = Tally(clock)
    tally.count_in_lanes(What.SUBMITTED, [7, 7, 8])
    assert tally.last_minute() == {(7, What.SUBMITTED): 2, (8, What.SUBMITTED): 1}
    clock.forward(seconds=59)
    tally.count_in_lanes(What.FAILED, [NO_LANE] * 3)
    assert tally.last_minute()[NO_LANE, What.FAILED] == 3
    clock.forward(seconds=5)
    assert tally.last_minute() == {(NO_LANE, What.FAILED): 3}, "the first ones are older than a minute"
    assert tally.last_hour()[7, What.SUBMITTED] == 2
    assert [dict(one) for one in tally.minutes()[-2:]] == [{What.SUBMITTED: 3, What.FAILED: 3}, {}]
    clock.forward(hours=1)
    assert not tally.last_hour()
    assert len(tally.minutes()) == 60


def test_a_clock_that_was_set_back_loses_nothing() -> None:
    clock = Hand()
    tally = Tally(clock)
    tally.count_in_lanes(What.FAILED, [NO_LANE])
    clock.forward(minutes=-5)
    tally.count_in_lanes(What.FAILED, [NO_LANE])
    assert tally.last_hour()[NO_LANE, What.FAILED] == 2


def test_lanes_beyond_the_bound_are_counted_without_their_lane() -> None:
    tally = Tally(Hand())
    tally.count_in_lanes(What.SUBMITTED, range(1, MAX_LANES + 51))
    counted = tally.last_hour()
    assert len(counted) == MAX_LANES + 1
    assert counted[NO_LANE, What.SUBMITTED] == 50


def _overview(parts: Parts, tally: Tally, others: Mapping[str, str] | None = None) -> Overview:
    return Overview(parts.db, parts.etcd, parts.keys, parts.clock, parts.lanes, lambda: others or {}, tally=tally)


async def _lane(parts: Parts, route: str) -> int:
    [lane] = await parts.lanes.of([JobSpec(kind="k", route=route)])
    return lane


async def test_what_waits_executes_and_has_ended_is_told_by_pool(alone: Parts) -> None:
    await alone.lanes.register_pools(["pool-a", "pool-b"])
    await alone.register("w1", capacity=4, pools=("pool-a",))
    tally = Tally(SystemClock())
    tally.count_in_lanes(What.COMPLETED, [await _lane(alone, "pool-a/x")] * 3)
    before = datetime.now(UTC) - timedelta(minutes=10)
    await alone.submitter.submit_batch(
        [
            *(JobSpec(kind="k", route="pool-a/x", priority=priority) for priority in (0, 5, 5)),
            JobSpec(kind="k", route="pool-b"),
            JobSpec(kind="k", route="pool-b", delay_s=3600),
        ]
    )
    await alone.sql("UPDATE tenure.job SET activate_at = %s WHERE priority = 0 AND due AND route = 'pool-a/x'", before)
    overview = _overview(alone, tally)
    told = await overview.now()
    pools = {pool.pool: pool for pool in told.pools}
    assert (pools["pool-a"].ready, pools["pool-b"].ready, told.ready, told.delayed) == (3, 1, 4, 1)
    assert pools["pool-a"].oldest_ready_at.ToDatetime(UTC) == before, "not the first of the highest priority"
    assert told.oldest_ready_at == pools["pool-a"].oldest_ready_at
    assert (pools["pool-a"].workers, pools["pool-b"].workers, told.workers, told.capacity) == (1, 0, 1, 4)
    assert pools["pool-a"].last_minute.completed == told.last_hour.completed == 3
    assert told.minutes[-1].completed + told.minutes[-2].completed == 3
    assert not told.ready_at_least
    await alone.submitter.submit_batch([JobSpec(kind="k")])
    assert await overview.now() is told, "it is read at most once a second"


async def test_figures_of_all_coordinators_are_added_up_and_who_is_silent_is_named(parts: Parts) -> None:
    here, there = Tally(SystemClock()), Tally(SystemClock())
    here.count_in_lanes(What.COMPLETED, [NO_LANE] * 2)
    there.count_in_lanes(What.COMPLETED, [NO_LANE] * 40)
    there.count_in_lanes(What.LOST, [NO_LANE])
    service = parts.cluster_service(overview=_overview(parts, there))
    server = GrpcServer([service], listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    overview = _overview(parts, here, {"c2": server.address, "c3": "127.0.0.1:1"})
    try:
        told = await overview.now()
        assert (told.last_minute.completed, told.last_minute.lost) == (42, 1)
        assert (told.coordinators, list(told.silent)) == (3, ["c3"])
    finally:
        await overview.close()
        await server.stop(0)


async def test_who_asks_at_once_shares_a_look(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    overview = _overview(parts, Tally(SystemClock()))
    looks = []
    fetch = parts.db.fetch

    async def counted(name: str, *args: object) -> object:
        looks.append(name)
        return await fetch(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(parts.db, "fetch", counted)
    answers = await asyncio.gather(*(overview.now() for _ in range(100)))
    assert len({id(answer) for answer in answers}) == 1
    assert looks.count("overview") == 1


async def test_who_waited_for_a_look_that_failed_is_told_so_and_looks_not_again(
    alone: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview = _overview(alone, Tally(SystemClock()))
    looks = 0

    async def away(name: str, *args: object) -> object:
        nonlocal looks
        looks += name == "overview"
        await asyncio.sleep(0.05)
        raise Unavailable("Postgres is away")

    with monkeypatch.context() as patched:
        patched.setattr(alone.db, "fetch", away)
        answers = await asyncio.gather(*(overview.now() for _ in range(20)), return_exceptions=True)
    assert {str(answer) for answer in answers} == {"Postgres is away"}
    assert looks <= 1
    await asyncio.sleep(FRESH_S)
    assert (await overview.now()).coordinators == 1


async def test_ends_and_submits_reach_the_tally(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(SystemClock())
    monkeypatch.setattr(counted, "TALLY", tally)
    [one] = await parts.submitter.submit_batch([JobSpec(kind="k")])
    await parts.canceler.cancel(uuid.UUID(str(one.id)), "r")

    async def both() -> bool:
        found = tally.last_hour()
        return {what for _, what in found} == {What.SUBMITTED, What.CANCELED}

    await until(both)


async def test_a_long_backlog_is_told_as_the_metrics_tell_it(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both count so many jobs of each lane, and more of one where others have few; and say the same of each pool."""
    await alone.lanes.register_pools(["many", "few"])
    await alone.submitter.submit_batch(
        [*(JobSpec(kind="k", route="many", priority=n % 2) for n in range(9)), JobSpec(kind="k", route="few")]
    )
    monkeypatch.setattr(overview_module, "READY", 8)
    monkeypatch.setattr(survey, "MOST_JOBS", 8)
    look = survey.Survey(alone.db, alone.etcd, alone.clock, Compactor(alone.etcd, alone.clock))
    await look.count_ready()
    told = await _overview(alone, Tally(SystemClock())).now()
    pools = {pool.pool: pool.ready for pool in told.pools}
    assert pools == {"many": 7, "few": 1}
    assert {pool: REGISTRY.get_sample_value("tenure_jobs_ready", {"pool": pool}) for pool in pools} == pools
    assert (told.ready, told.ready_at_least) == (8, True)
