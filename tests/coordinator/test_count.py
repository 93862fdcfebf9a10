"""Counts of jobs that have ended: they are what a look at all rows would find, and what they cannot tell is refused."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, leader_of, running, until
from tests.coordinator.test_retain import DAY_S, Slow, ended, policy, retainer_of, week_partitions

from tenure.client import AsyncClient, JobState
from tenure.coordinator import count
from tenure.coordinator.api import count_jobs
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.count import HistoryCounter
from tenure.model.errors import BoundExceeded, Deposed, InvalidInput
from tenure.store.postgres.database import Statement

ALL = ("day", "namespace", "kind", "state")
TRULY = """
SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, namespace, kind, state, count(*) AS jobs FROM tenure.history
WHERE finished_at < %s GROUP BY 1, 2, 3, 4
"""


async def counter_of(parts: Parts, term: int = 1) -> HistoryCounter:
    seen = {"etcd_cluster_id": "1", "etcd_revision": 1}
    await parts.db.fetch("take_leadership", {"leader": "c1", "term": term, **seen})
    return HistoryCounter(parts.db, parts.clock, guard=Statement("assert_term", {"leader": "c1", "term": term}))


@pytest_asyncio.fixture
async def client(alone: Parts) -> AsyncIterator[AsyncClient]:
    server = GrpcServer((alone.job_service(),), listen="127.0.0.1:0", with_reflection=False)
    await server.start()
    async with AsyncClient(server.address) as made:
        yield made
        await server.stop(0)


async def some_history(parts: Parts, jobs: int = 60) -> None:
    draw = random.Random(3)
    for _ in range(jobs):
        await ended(
            parts,
            draw.choice([120.0, 3_600.0, DAY_S, 5.5 * DAY_S, 20 * DAY_S, 60 * DAY_S]),
            namespace=draw.choice(["a", "b"]),
            kind=draw.choice(["k", "l"]),
            state=draw.choice(["completed", "failed", "canceled"]),
            deleted=draw.random() < 0.1,
        )


async def told(client: AsyncClient, **wanted: Any) -> dict[tuple[Any, ...], int]:
    answer = await client.count(by=ALL, **wanted)
    return {(one.day, one.namespace, one.kind, str(one.state)): one.jobs for one in answer.counts}


async def truly(parts: Parts, before: datetime | None) -> dict[tuple[Any, ...], int]:
    rows = await parts.sql(TRULY, before or datetime.now(UTC))
    return {(row.day, row.namespace, row.kind, row.state): row.jobs for row in rows}


async def test_counts_are_what_the_rows_are_through_counts_removals_and_new_ends(
    alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "WINDOW_JOBS", 7)
    await week_partitions(alone, (1, 3))
    await some_history(alone)
    assert (await client.count()).counted_until is None and await told(client) == {}
    counter = await counter_of(alone)
    await counter.round()
    assert await told(client) == await truly(alone, None)
    await counter.round()
    assert await told(client) == await truly(alone, None), "counted again, not twice"
    await some_history(alone, 10)
    await ended(alone, 1.0)
    before = (await client.count()).counted_until
    await policy(alone, 2 * DAY_S, state="completed")
    await policy(alone, DAY_S, namespace="a", state="failed")
    assert await (await retainer_of(alone, term=2)).round() > 0
    await (await counter_of(alone, term=3)).round()
    answer = await client.count()
    assert before is not None and answer.counted_until is not None and answer.counted_until > before
    now = await truly(alone, answer.counted_until)
    today = datetime.now(UTC).date()  # nothing ends in a week that is over, but for what this test makes
    present = {key: jobs for key, jobs in now.items() if key[0] >= today - timedelta(days=today.weekday())}
    assert {key: jobs for key, jobs in (await told(client)).items() if key in present} == present


async def test_counts_by_what_is_asked_for_add_up(alone: Parts, client: AsyncClient) -> None:
    await some_history(alone)
    await (await counter_of(alone)).round()
    rows = await truly(alone, None)
    [everything] = (await client.count()).counts
    assert everything.jobs == sum(rows.values()) and everything.day is None and everything.state is None
    by_state = {one.state: one.jobs for one in (await client.count(by="state", namespace="a")).counts}
    assert by_state[JobState.FAILED] == sum(n for key, n in rows.items() if key[1] == "a" and key[3] == "failed")
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=20)
    on_days = await client.count(finished_after=day, finished_before=day + timedelta(days=2), by=["day"])
    wanted = {day.date(), (day + timedelta(days=1)).date()}
    assert on_days.jobs == sum(n for key, n in rows.items() if key[0] in wanted)


async def test_what_is_not_counted_is_refused_by_name(
    alone: Parts, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    for wanted, field in (
        ({"states": ["ready"]}, "filter.states"),
        ({"finished_after": noon}, "finished_after"),
        ({"finished_before": noon}, "finished_before"),
        ({"by": ["route"]}, "by"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await client.count(**wanted)
        assert [violation.field for violation in caught.value.violations] == [field]
    await some_history(alone)
    await (await counter_of(alone)).round()
    monkeypatch.setattr(count_jobs, "MAX_COUNTS", 3)
    with pytest.raises(BoundExceeded):
        await client.count(by=ALL)


async def test_what_somebody_else_has_counted_meanwhile_stands(alone: Parts, client: AsyncClient) -> None:
    await some_history(alone)
    counter, fetch = await counter_of(alone), alone.db.fetch

    async def overtaken(name: str, params: Any = None) -> list[Any]:
        if name == "count_page":
            await alone.sql("UPDATE tenure.history_counted SET until_at = now()")
        return await fetch(name, params)

    counter._database = Slow(alone.db, overtaken)  # type: ignore[assignment]
    await counter.round()
    assert await told(client) == {}
    former = await counter_of(alone)
    await counter_of(alone, term=2)
    with pytest.raises(Deposed):
        await former.round()


async def test_the_leader_counts_by_itself(alone: Parts, client: AsyncClient) -> None:
    await some_history(alone, 5)
    async with running(leader_of(alone).run()):

        async def is_done() -> bool:
            return await told(client) == await truly(alone, None)

        assert await until(is_done)
