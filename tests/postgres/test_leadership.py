"""Terms and epochs as Postgres records them: who may write, and when every earlier fence is outranked."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest
from tests.postgres.conftest import Table

from tenure.model.errors import Deposed
from tenure.model.fence import epoch_of, sequence_of
from tenure.store.postgres.database import Statement


async def _take(table: Table, term: int, *, leader: str = "c1", cluster: str = "7", revision: int = 0) -> Any:
    rows = await table.db.fetch(
        "take_leadership",
        {"leader": leader, "term": term, "etcd_cluster_id": cluster, "etcd_revision": revision or term},
    )
    return rows[0] if rows else None


async def test_terms_only_grow(fresh: Table) -> None:
    assert (await _take(fresh, 10)).epoch == 1
    assert (await _take(fresh, 20, leader="c2")).epoch == 1
    assert await _take(fresh, 15, revision=30) is None
    [row] = await fresh.db.fetch("cluster")
    assert (row.leader, row.leader_term) == ("c2", 20)


@pytest.mark.parametrize(
    "changed", [{"cluster": "8", "term": 3}, {"cluster": "8", "term": 99}, {"term": 12, "revision": 5}]
)
async def test_another_etcd_or_one_set_back_raises_the_epoch_and_freezes_claims(
    fresh: Table, changed: dict[str, Any]
) -> None:
    await _take(fresh, 10, revision=11)
    job = await fresh.submit(ttl_s=40.0)
    [before] = await fresh.start(job)
    row = await _take(fresh, **changed)
    assert (row.epoch, row.etcd_lost, row.postgres_restored) == (2, True, False)
    assert 30 < row.frozen_s <= 40
    [after] = await fresh.start(await fresh.submit())
    assert epoch_of(after.fence) == 2
    assert after.fence > before.fence


async def test_the_same_stores_keep_their_epoch(fresh: Table) -> None:
    for term in (10, 20, 30):
        row = await _take(fresh, term)
        assert (row.epoch, row.etcd_lost, row.postgres_restored, row.frozen_s) == (1, False, False, 0)


async def test_another_timeline_raises_the_epoch_and_until_then_nothing_starts(fresh: Table) -> None:
    await _take(fresh, 10)
    await fresh.sql("UPDATE tenure.cluster SET postgres_timeline = postgres_timeline + 1")
    job = await fresh.submit()
    assert await fresh.start(job) == []
    row = await _take(fresh, 20)
    assert (row.epoch, row.postgres_restored) == (2, True)
    [started] = await fresh.start(job)
    assert epoch_of(started.fence) == 2


@pytest.mark.parametrize("column", ["postgres_identity", "postgres_system_id"])
async def test_a_restored_dump_raises_the_epoch_and_freezes_claims(fresh: Table, column: LiteralString) -> None:
    """In the same server, too, where system and timeline are what they were. A release of before knew no identity."""
    await _take(fresh, 10)
    await fresh.sql(f"UPDATE tenure.cluster SET {column} = 'that of before'")
    job = await fresh.submit(ttl_s=40.0)  # it may have begun after the dump was made
    row = await _take(fresh, 20)
    assert (row.epoch, row.etcd_lost, row.postgres_restored) == (2, False, True)
    assert 30 < row.frozen_s <= 40
    [started] = await fresh.start(job)
    assert epoch_of(started.fence) == 2


async def test_nothing_starts_in_a_restored_dump_before_the_epoch_is_raised(fresh: Table) -> None:
    await _take(fresh, 10)
    await fresh.sql("UPDATE tenure.cluster SET postgres_identity = 'that of before'")
    job = await fresh.submit()
    assert await fresh.start(job) == []
    [row] = await fresh.db.fetch("remember_revision", {"leader": "c1", "term": 10, "etcd_revision": 11})
    assert not row.is_same_postgres
    await _take(fresh, 20)
    assert len(await fresh.start(job)) == 1


async def test_a_dump_that_is_restored_twice_gives_no_fence_twice(fresh: Table) -> None:
    """What the second life of it starts with is what the first one did; but it starts later."""
    await _take(fresh, 10)
    fences = []
    for term in (20, 30):
        await fresh.sql("UPDATE tenure.cluster SET postgres_identity = 'that of before', epoch = 1, leader_term = 10")
        await fresh.sql("SELECT setval('tenure.fence_sequence', 5)")
        await _take(fresh, term)
        for _ in range(3):
            [started] = await fresh.start(await fresh.submit())
            fences.append(started.fence)
        await asyncio.sleep(1.1)  # the clock of Postgres counts seconds
    assert {epoch_of(fence) for fence in fences} == {2}
    assert fences == sorted(set(fences))


async def test_the_sequence_of_fences_only_moves_ahead(fresh: Table) -> None:
    await fresh.sql("SELECT setval('tenure.fence_sequence', 140737488355327 - 10)")
    await fresh.sql("SELECT tenure.advance_fences()")
    [started] = await fresh.start(await fresh.submit())
    assert sequence_of(started.fence) == 140737488355327 - 9


async def test_the_epoch_is_raised_by_hand_and_never_lowered(fresh: Table) -> None:
    await _take(fresh, 10)
    [before] = await fresh.start(await fresh.submit())
    for asked, epoch in ((None, 2), (7, 7), (None, 8)):
        [row] = await fresh.db.fetch("raise_epoch", {"epoch": asked})
        assert row.epoch == epoch
    for asked in (1, 8):
        assert await fresh.db.fetch("raise_epoch", {"epoch": asked}) == []
    [after] = await fresh.start(await fresh.submit())
    assert epoch_of(after.fence) == 8
    assert after.fence > before.fence


async def test_each_timeline_left_behind_raises_the_epoch(fresh: Table) -> None:
    """Restored from the same backup for the second time: what the first time had raised is forgotten."""
    await _take(fresh, 10)
    await fresh.sql("UPDATE tenure.cluster SET postgres_timeline = postgres_timeline - 2")
    assert (await _take(fresh, 20)).epoch == 3


async def test_a_week_that_the_default_partition_holds_is_left_to_it(fresh: Table) -> None:
    """Postgres' clock ran away for a while: partitions of other weeks are made all the same."""
    await fresh.sql(
        "INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, started_at,"
        " finished_at) VALUES (gen_random_uuid(), 1, 1, 'w', 1, 1, 'lost', now(), now() + interval '6 weeks')"
    )
    [[made]] = await fresh.db.fetch("make_partitions", {"weeks": 7})
    assert made == 5  # of three weeks more, two tables each


async def test_only_the_recorded_term_may_write(fresh: Table) -> None:
    await _take(fresh, 10)

    async def write(leader: str, term: int) -> list[list[Any]]:
        return await fresh.db.transaction(
            [Statement("assert_term", {"leader": leader, "term": term}), Statement("make_partitions", {"weeks": 1})]
        )

    await write("c1", 10)
    for leader, term in (("c1", 9), ("c1", 11), ("c2", 10)):
        with pytest.raises(Deposed):
            await write(leader, term)
    await write("c1", 10)  # the connections are as good as before
