"""Proofs of dispatch at size: nobody starves, priority is strict behind 100,000 jobs, and what cannot run now costs the
others nothing. A whole leader on real stores; backlogs are written by one statement.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import dict_row
from tests.coordinator.conftest import PATIENCE_S, Parts, leader_of, running
from tests.coordinator.test_limits import limit, take

from tenure.coordinator.finish import Report
from tenure.coordinator.lanes import Placement
from tenure.model.states import Outcome
from tenure.store.postgres.database import query

MANY = 100_000
BACKLOG = """
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, limits,
                        payload, ttl_s, max_crashes)
SELECT gen_random_uuid(), %s, %s, %s, %s, 'ready', %s, %s, now() + %s * interval '1 s' + n * interval '1 us', %s,
       'null', 60, 3
FROM generate_series(1, %s) AS n
"""


async def backlog(
    parts: Parts,
    jobs: int,
    *,
    namespace: str = "default",
    kind: str = "k",
    route: str = "default",
    priority: int = 0,
    limits: tuple[str, ...] = (),
    ahead_s: float = -60.0,
) -> int:
    """Write ready jobs by one statement, as submits would; return their lane."""
    [lane] = await parts.lanes.of([Placement(route, namespace, kind, limits, {})])
    due = ahead_s <= 0
    named = list(limits) or None
    await parts.sql(BACKLOG, namespace, kind, route, lane, due, priority, ahead_s, named, jobs)
    return lane


async def run_some(parts: Parts) -> list[Any]:
    """Play the worker for a round: start all that is offered, finish it, and return the attempts in their order."""
    claimed = await take(parts)
    if not claimed:
        await asyncio.sleep(0.01)
        return []
    started = await parts.starter.start("w1", list(claimed.values()))
    await parts.finisher.finish([Report(row.id, row.fence, Outcome.COMPLETED) for row in started])
    return sorted((row._replace(id=uuid.UUID(row.id)) for row in started), key=lambda row: row.fence)


async def run_until(parts: Parts, most: int, wanted: set[uuid.UUID]) -> list[Any]:
    """Work until the wanted jobs have run, or so many as ``most`` have; return the attempts."""
    return [row for found in await rounds_until(parts, most, wanted) for row in found]


async def rounds_until(parts: Parts, most: int, wanted: set[uuid.UUID]) -> list[list[Any]]:
    """As ``run_until``; return the attempts by round."""
    rounds: list[list[Any]] = []
    left = set(wanted)
    async with asyncio.timeout(4 * PATIENCE_S):
        while left and sum(map(len, rounds)) < most:
            rounds.append(await run_some(parts))
            left -= {row.id for row in rounds[-1]}
    return rounds


async def test_a_namespace_with_very_many_jobs_does_not_starve_one_with_ten(alone: Parts) -> None:
    """All of the many are older. Ten jobs take their turns: they are through when the many have had as many."""
    await backlog(alone, 50_000, namespace="many")
    few = {await alone.submit(namespace="few") for _ in range(10)}
    capacity = 4
    await alone.register("w1", capacity=capacity)
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        done = await run_until(alone, 200, few)
    assert few <= {row.id for row in done}
    assert Counter(row.namespace for row in done)["many"] <= len(few) + 2 * capacity


async def test_what_is_urgent_starts_first_though_it_came_last_behind_a_backlog(alone: Parts) -> None:
    await backlog(alone, MANY)
    urgent = {await alone.submit(priority=5) for _ in range(30)}
    most = {await alone.submit(priority=9) for _ in range(30)}
    await alone.register("w1", capacity=20)
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        rounds = await rounds_until(alone, 1_000, urgent | most)
    assert sum(map(len, rounds)) >= 60
    started: set[uuid.UUID] = set()
    for found in rounds:
        now = {row.id for row in found}
        started |= now
        assert most <= started or now <= most
        assert most | urgent <= started or now <= most | urgent


@pytest.mark.parametrize("ages", [False, True])
async def test_ageing_ends_starvation_by_a_higher_priority(alone: Parts, ages: bool) -> None:
    """More urgent jobs than can be run: without ageing the one of a low priority waits for them all."""
    await backlog(alone, 5_000, priority=5, ahead_s=-1.0)
    low = await alone.submit(priority=-5)
    await alone.sql("UPDATE tenure.job SET activate_at = now() - interval '10 min' WHERE id = %s", low)
    if ages:
        await alone.db.fetch(
            "put_namespace",
            {
                "name": "default",
                "weight": None,
                "ageing_s": 300.0,
                "backlog": None,
                "submit_rate": None,
                "submit_burst": None,
            },
        )
    await alone.register("w1", capacity=10)
    async with running(leader_of(alone, offer_timeout_s=60.0).run()):
        done = await run_until(alone, 400, {low})
    assert (low in {row.id for row in done}) is ages
    row = await alone.row(low)
    assert (row.state, row.priority) == ("completed" if ages else "ready", -5)


# -- what cannot run now --

BLOCKED_EACH = 20_000
WAYS = ("no worker", "limit", "pool", "kind", "namespace", "ahead")


async def block(parts: Parts, jobs: int) -> set[int]:
    """Write jobs that cannot run now, so many in each way, all before anything else; return their lanes."""
    await limit(parts, "full", concurrent=0)
    for subject, name in (("pool", "default/paused"), ("kind", "paused-kind"), ("namespace", "paused-ns")):
        await parts.db.fetch("pause", {"subject": subject, "name": name, "reason": ""})
    await parts.lanes.register_pools(["default", "default/paused"])
    return {
        await backlog(parts, jobs, priority=9, route="nobody/here"),
        await backlog(parts, jobs, priority=9, limits=("full",)),
        await backlog(parts, jobs, priority=9, route="default/paused"),
        await backlog(parts, jobs, priority=9, kind="paused-kind"),
        await backlog(parts, jobs, priority=9, namespace="paused-ns"),
        # In the very lane of those that can run.
        await backlog(parts, jobs, priority=9, ahead_s=86_400.0),
    }


@pytest_asyncio.fixture
async def free(alone: Parts) -> AsyncIterator[tuple[Parts, int]]:
    """Two hundred jobs that can run, and their lane."""
    await alone.lanes.register_pools(["default"])
    yield alone, await backlog(alone, 200)


def cost(dsn: str, name: str, params: dict[str, Any]) -> tuple[int, int]:
    """Run a query of the dispatcher; return the rows that scans of jobs gave or threw away, and the pages read."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query(name)}".encode()
        with connection.transaction(force_rollback=True):
            row = connection.execute(explained, params).fetchone()
    assert row is not None
    text = row["QUERY PLAN"]
    plan = (json.loads(text) if isinstance(text, str) else text)[0]["Plan"]

    def rows(node: dict[str, Any]) -> int:
        own = 0
        if node.get("Relation Name") == "job" and "Scan" in node["Node Type"]:
            own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return int(own) + sum(rows(child) for child in node.get("Plans", ()))

    return rows(plan), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


async def test_the_queries_of_dispatch_read_nothing_of_what_cannot_run(free: tuple[Parts, int]) -> None:
    """Rows and pages are counted, not time: the same with 120,000 jobs in front as without."""
    parts, lane = free
    queries: dict[str, dict[str, Any]] = {
        "ready_window": {"lanes": [lane], "wanted": [50], "passed": "{}"},
        "lanes_with_ready": {},
        "activate_due": {"limit": 2_000},
        "next_activation": {},
        "raise_aged": {"limit": 2_000, "per_lane": 1_000, "highest": 1_000},
        "dispatch_rules": {},
    }
    await parts.sql("VACUUM ANALYZE tenure.job")
    before = {name: cost(parts.dsn, name, params) for name, params in queries.items()}
    lanes = await block(parts, BLOCKED_EACH)
    await parts.sql("VACUUM ANALYZE tenure.job")
    after = {name: cost(parts.dsn, name, params) for name, params in queries.items()}
    # A probe for each further lane that has ready jobs, and a tree that has become one or two levels deeper.
    probes = {"lanes_with_ready": len(lanes), "next_activation": 1}
    for name, (rows, pages) in after.items():
        assert rows <= before[name][0] + probes.get(name, 0), name
        assert pages <= before[name][1] + 4 * (1 + probes.get(name, 0)) + 4, name
    assert after["ready_window"][0] == 50


async def test_a_leader_reads_and_offers_what_can_run_alone(
    free: tuple[Parts, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that can run is run, in order, and no row of what cannot was read on the way."""
    parts, lane = free
    await block(parts, BLOCKED_EACH)
    await parts.register("w1", capacity=50, kinds=("k", "paused-kind"))
    read: Counter[int] = Counter()
    fetch = parts.db.fetch

    async def counting(name: str, params: Any = None) -> Any:
        rows = await fetch(name, params)
        if name == "ready_window":
            read.update(row.lane for row in rows)
        return rows

    monkeypatch.setattr(parts.db, "fetch", counting)
    wanted = {row.id for row in await parts.sql("SELECT id FROM tenure.job WHERE lane = %s AND due", lane)}
    async with running(leader_of(parts, offer_timeout_s=60.0).run()):
        done = await run_until(parts, 10_000, wanted)
    assert {row.id for row in done} == wanted
    assert set(read) == {lane}
    left = await parts.sql("SELECT count(*) AS jobs FROM tenure.job WHERE state = 'ready'")
    assert left[0].jobs == len(WAYS) * BLOCKED_EACH
