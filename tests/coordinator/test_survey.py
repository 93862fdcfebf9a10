"""What the leader looks up for ``/metrics``: ready jobs by pool, tables, etcd; bounded, and gone with the term."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.coordinator.conftest import Parts, running, until

from tenure.coordinator import survey
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.survey import MOST_POOLS, OTHERS, Survey, by_pool
from tenure.store.etcd.compact import Compactor


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def survey_of(parts: Parts) -> Survey:
    return Survey(parts.db, parts.etcd, parts.clock, Compactor(parts.etcd, parts.clock))


def rows_of(*pools: tuple[str, int, float]) -> list[Any]:
    return [SimpleNamespace(pool=pool, jobs=jobs, oldest_s=oldest_s) for pool, jobs, oldest_s in pools]


async def test_ready_jobs_are_counted_by_pool_with_the_age_of_the_oldest(alone: Parts) -> None:
    await alone.lanes.register_pools(["gpu", "cpu"])
    old = await alone.submit(route="gpu/a", priority=0)
    await alone.submit(route="gpu/b", priority=9)
    await alone.submit(route="cpu")
    running_now = await alone.submit(route="cpu")
    await alone.execute(running_now)
    await alone.sql("UPDATE tenure.job SET activate_at = now() - interval '1 hour' WHERE id = %s", old)
    look = survey_of(alone)
    await look.count_ready()
    assert (shown("tenure_jobs_ready", pool="gpu"), shown("tenure_jobs_ready", pool="cpu")) == (2, 1)
    assert 3_600 <= (shown("tenure_jobs_ready_oldest_seconds", pool="gpu") or 0) < 3_700
    assert (shown("tenure_jobs_ready_oldest_seconds", pool="cpu") or 0) < 3_000
    await alone.sql("DELETE FROM tenure.job WHERE route = 'cpu'")
    await look.count_ready()
    assert shown("tenure_jobs_ready", pool="cpu") == 0, "not missing: what was there can be seen to be gone"


async def test_no_more_is_counted_than_is_said(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(7):
        await alone.submit(route="p")
    monkeypatch.setattr(survey, "MOST_JOBS", 5)
    await survey_of(alone).count_ready()
    assert shown("tenure_jobs_ready", pool="p") == 5


def test_pools_beyond_a_hundred_are_shown_together() -> None:
    rows = rows_of(*((f"p{n:03}", 1_000 - n, float(n)) for n in range(MOST_POOLS + 20)))
    jobs, oldest = by_pool(rows, {"gone"})
    assert len(jobs) == MOST_POOLS + 1
    assert jobs[OTHERS] == sum(1_000 - n for n in range(MOST_POOLS, MOST_POOLS + 20))
    assert oldest[OTHERS] == MOST_POOLS + 19
    assert "gone" not in jobs, "there is no room for it"
    assert by_pool(rows_of(("a", 1, 2.0)), {"a", "gone"})[0] == {"a": 1, "gone": 0}


async def test_tables_and_etcd_are_told_of_while_it_leads_and_no_longer(alone: Parts) -> None:
    await alone.submit(route="p")

    async def is_shown() -> bool:
        return bool(shown("tenure_etcd_db_size_bytes")) and shown("tenure_postgres_table_rows", table="job") is not None

    async with running(survey_of(alone).look_forever()):
        await until(is_shown)
        assert (shown("tenure_etcd_revision") or 0) >= (shown("tenure_etcd_history_revisions") or 0) > 0
        assert shown("tenure_etcd_alarms") == 0
        assert (shown("tenure_postgres_table_bytes", table="job") or 0) > 0
        assert shown("tenure_postgres_table_dead_rows", table="job") is not None
    await asyncio.sleep(0)
    assert shown("tenure_postgres_table_rows", table="job") is None
    assert shown("tenure_jobs_ready", pool="p") is None
    assert shown("tenure_etcd_db_size_bytes") == 0
