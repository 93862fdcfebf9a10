"""Retention with real processes: leaders that are killed while they remove."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from tests.e2e.conftest import Setting, Stage

EXPIRED, HELD, FRESH = 12_000, 50, 50
FILL = """
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason, labels)
SELECT encode(overlay(uuid_send(gen_random_uuid()) PLACING substring(
                  int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 'hex')::uuid,
       'n' || n %% 5, 'k', 'default', 'completed', 0, at, at, 'null', 1, 0, 0, at, 10, 3, 1, '', false, '', labels
FROM (SELECT n, CASE WHEN n <= %(held)s THEN '{"case": "7"}'::jsonb END AS labels,
             now() - CASE WHEN n > %(old)s THEN interval '1 s' ELSE interval '20 days' + n * interval '1 min' END AS at
      FROM generate_series(1, %(all)s) AS n) AS g
"""
TRIED = """
INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, started_at, finished_at)
SELECT id, 1, 1, 'w', 1, 1, 'completed', finished_at, finished_at FROM tenure.history
"""


async def run(on: Stage, sql: str, params: dict[str, Any] | None = None) -> list[Any]:
    dsn = on.deployment.env["TENURE_POSTGRES_DSN"]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(sql.encode(), params)
        return await cursor.fetchall() if cursor.description is not None else []


async def test_leaders_that_are_killed_while_they_remove_lose_nothing_and_remove_nothing_twice(stage: Setting) -> None:
    on = await stage(coordinators=3, workers=0)
    await on.client.put_hold("case", "7")
    sizes = {"old": EXPIRED + HELD, "held": HELD, "all": EXPIRED + HELD + FRESH}
    await run(on, FILL, sizes)
    await run(on, TRIED)

    async def gone() -> int:
        [[count]] = await run(on, "SELECT count(*) FROM tenure.history")
        return sizes["all"] - int(count)

    async def gone_are(least: int) -> int:
        async with asyncio.timeout(150):  # a leader looks when its term begins, and again and again
            while True:
                if (count := await gone()) >= least:
                    return count
                await asyncio.sleep(0.005)

    await on.client.put_retention(keep_s=86_400)
    seen = 0
    for _ in range(2):
        leader = (await on.client.cluster()).leader
        member = next(one for one in on.deployment.coordinators if one.id == leader)
        await gone_are(min(seen + 1, EXPIRED))
        member.kill()
        seen = await gone()
    await gone_are(EXPIRED)
    held = "SELECT count(*) FILTER (WHERE labels IS NOT NULL), count(*) FROM tenure.history"
    assert await run(on, held) == [(HELD, HELD + FRESH)]
    assert await run(on, "SELECT count(*) FROM tenure.attempt") == [(HELD + FRESH,)]
    told = "SELECT sum((detail->>'jobs')::int)::int FROM tenure.audit WHERE action = 'retention.remove'"
    assert await run(on, told) == [(EXPIRED,)], "each was told of once"
