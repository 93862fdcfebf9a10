"""History: how fast it is listed, read, archived and removed when it is long, and what that does to the jobs beside it.

History is made by SQL, in weekly partitions that end before this week, with an attempt for each job: what is drained
for the comparison is alone in the partition of this week, so that counting it reads nothing else. Then it is vacuumed
and analysed. In every run jobs are drained on an empty history, beside a long one, while the leader archives, and
while it removes. The archive is the folder that the deployment has.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg

from tenure.bench.plan import Plan
from tenure.bench.results import BenchError, Results, percentile
from tenure.bench.stage import PATIENCE_S, POLL_S, Stage, say
from tenure.client import RetentionPolicy

RARE = "rare"
NAMESPACES, KINDS = 50, 20
RARE_OF = 100_000
"""One job in so many is of the rare kind."""
FILL_ROWS = 50_000
"""Written at once."""
YOUNGEST = timedelta(days=7)
WEEKS = """
SELECT format('CREATE TABLE IF NOT EXISTS tenure.%%I PARTITION OF tenure.%%I FOR VALUES FROM (%%L) TO (%%L)',
              parent || '_' || to_char(week, 'IYYY_"w"IW'), parent, week, week + interval '7 days')
FROM generate_series(date_trunc('week', %(first)s::timestamptz AT TIME ZONE 'UTC'),
                     date_trunc('week', %(last)s::timestamptz AT TIME ZONE 'UTC'), interval '7 days') AS week,
     unnest(ARRAY['history', 'attempt']) AS parent
"""
FILL = """
WITH made AS (
    SELECT n, %(first)s::timestamptz + n * make_interval(secs => %(step_s)s) AS at,
           CASE WHEN drawn < 2 THEN 'canceled' WHEN drawn < 10 THEN 'failed' ELSE 'completed' END AS state
    FROM generate_series(%(from)s::bigint, %(until)s::bigint - 1) AS n,
         abs(hashint8extended(n, 1) %% 100) AS drawn
), ended AS (
    INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, result,
                                attempt, errors, crashes, fence, worker, started_at, finished_at, ttl_s, max_crashes,
                                labels, progress, progress_message, cancel_requested, reason)
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
                      substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3)
                      FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid,
           'ns-' || abs(hashint8extended(n, 2) %% %(namespaces)s),
           CASE WHEN n %% %(rare_of)s = 7 THEN %(rare)s ELSE 'kind-' || abs(hashint8extended(n, 3) %% %(kinds)s) END,
           'pool-' || n %% 10, state, 0, at, at, json_build_object('n', n, 'url', 'https://example.org/' || n),
           CASE WHEN state = 'completed' THEN json_build_object('pages', n %% 1000, 'of', 'made for the benchmark') END,
           1, 0, 0, n + 1, 'w-' || n %% 100, at + interval '1 s', at + make_interval(secs => 2 + n %% 60), 10, 3,
           CASE WHEN n %% 10 = 0 THEN '{"team": "red"}'::jsonb END, 1, '', false, ''
    FROM made
    RETURNING id, state, fence, worker, started_at, finished_at
)
INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, started_at, finished_at)
SELECT id, 1, fence, worker, fence, fence, state, started_at, finished_at FROM ended
"""
OLDEST_JOBS = 100_000
"""The archive begins with these."""
OLDEST = """
SELECT id::text FROM (SELECT id FROM tenure.history ORDER BY id LIMIT %(of)s) AS oldest ORDER BY random() LIMIT %(jobs)s
"""
OLD = "SELECT count(*) FROM tenure.history WHERE finished_at < now() - interval '2 days'"
STILL_THERE = "SELECT id::text FROM tenure.history WHERE id = ANY (%(ids)s::uuid[])"
EDGES_OF_FILES = "SELECT unnest(ARRAY[first_id, last_id])::text FROM tenure.archive_file WHERE state = 'done'"
"""Surely archived, however short the measurement is."""
FILES = """
SELECT count(*), coalesce(sum(jobs), 0)::bigint, coalesce(sum(size_bytes), 0)::bigint
FROM tenure.archive_file WHERE state = 'done'
"""
SAMPLE = "SELECT id::text FROM tenure.history TABLESAMPLE SYSTEM (%(percent)s) LIMIT %(jobs)s"
ENDED_SINCE = """
SELECT count(*), extract(epoch FROM max(finished_at) - %(since)s)::float8,
       count(*) FILTER (WHERE state <> 'completed')
FROM tenure.history WHERE finished_at > %(since)s
"""
REMOVED = """
SELECT coalesce(sum((detail->>'jobs')::bigint), 0)::bigint FROM tenure.audit
WHERE action = 'retention.remove' AND at > %(since)s
"""


async def history(stage: Stage, results: Results) -> None:
    """Measure rates beside history, and times of what reads and removes it."""
    plan = stage.plan
    for run in range(plan.long_runs):
        say(f"history: none, run {run + 1} of {plan.long_runs}")
        await stage.clear()
        alone = await _drain_rate(stage)
        results.case("history", "drain, none").add({"jobs_per_s": alone, "of_none": 1.0})
        await stage.clear()
        say(f"history: writing {plan.history_jobs:,} jobs")
        seconds = await fill(stage.postgres_dsn, plan)
        name = f"{plan.history_jobs:,} jobs"
        results.case("history", f"made by SQL, {name}").add({"jobs_per_s": plan.history_jobs / seconds})
        say(f"history: beside {name}")
        beside = await _drain_rate(stage)
        results.case("history", f"drain, beside {name}").add({"jobs_per_s": beside, "of_none": _ratio(beside, alone)})
        for what, figures in (await _reads(stage)).items():
            results.case("history", f"{what}, of {name}").add(figures)
        say(f"history: archiving {name}")
        for what, figures in (await _archive(stage, alone)).items():
            results.case("history", f"{what} of {name}").add(figures)
        say(f"history: removing from {name}")
        removed, during = await _removal(stage)
        results.case("history", f"retention, of {name}").add({"jobs_per_s": removed})
        results.case("history", f"drain, while retention removes of {name}").add(
            {"jobs_per_s": during, "of_none": _ratio(during, alone)}
        )
    await stage.clear()


async def fill(dsn: str, plan: Plan) -> float:
    """Write history, oldest first, and return how many seconds that took, without the vacuum after it."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        now = (await _rows(connection, "SELECT now()"))[0][0].astimezone(UTC)
        # From a Monday's first instant on: of a week that has but its last hours the archive would make tiny files.
        last = (now - YOUNGEST - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        first = last - timedelta(days=plan.history_days)
        for (statement,) in await _rows(connection, WEEKS, {"first": first, "last": last}):
            await connection.execute(statement)
        began = time.monotonic()
        step_s = (last - first).total_seconds() / plan.history_jobs
        fixed = {"namespaces": NAMESPACES, "kinds": KINDS, "rare": RARE, "rare_of": RARE_OF}
        for start in range(0, plan.history_jobs, FILL_ROWS):
            until = min(start + FILL_ROWS, plan.history_jobs)
            chunk = {"first": first, "step_s": step_s, "from": start, "until": until, **fixed}
            await connection.execute(FILL, chunk)
            if start and start % (20 * FILL_ROWS) == 0:
                say(f"history: {start:,} of {plan.history_jobs:,}")
        seconds = time.monotonic() - began
        await connection.execute("VACUUM (ANALYZE) tenure.history, tenure.attempt")
        await connection.execute("CHECKPOINT")
    return seconds


async def _drain_rate(stage: Stage) -> float:
    """Return how many jobs a second one worker works off that were there before it: the median of some drains."""
    return statistics.median([await _drained(stage) for _ in range(stage.plan.history_drains)])


async def _drained(stage: Stage) -> float:
    plan = stage.plan
    last = await stage.submit_bulk(plan.drain_jobs)
    await stage.settle()
    await stage.add_workers(1, plan.capacity)
    since = await stage.now()
    await stage.client.wait(last, PATIENCE_S)
    await stage.empty()
    async with _connection(stage) as connection:
        [(jobs, seconds, failed)] = await _rows(connection, ENDED_SINCE, {"since": since})
    await stage.remove_workers()
    if failed:
        raise BenchError(f"{failed} jobs failed")
    return jobs / seconds if jobs else 0.0


async def _reads(stage: Stage) -> dict[str, dict[str, float]]:
    client = stage.client
    found = await read_times(stage)
    began = time.monotonic()
    rare = [job async for job in client.list(kind=RARE)]
    found["list all of a rare kind"] = {"seconds": time.monotonic() - began, "jobs": float(len(rare))}
    began = time.monotonic()
    expired = await client.preview_retention(policy=RetentionPolicy(keep_s=86_400))
    jobs = float(sum(one.jobs for one in expired))
    found["preview of retention"] = {"seconds": time.monotonic() - began, "jobs": jobs}
    return found


async def read_times(stage: Stage) -> dict[str, dict[str, float]]:
    """Measure what reads a page or a job: figures by what it reads."""
    plan, client = stage.plan, stage.client
    async with _connection(stage) as connection:
        percent = 1.0 if plan.history_jobs >= 1_000_000 else 100.0
        params = {"percent": percent, "jobs": plan.latency_samples * 20}
        ids = [id for (id,) in await _rows(connection, SAMPLE, params)]
        now = (await _rows(connection, "SELECT now()"))[0][0]
    draw = random.Random(1)

    def some_id() -> str:
        return str(draw.choice(ids))

    def some_time() -> datetime:
        at: datetime = now - timedelta(days=draw.uniform(15, plan.history_days))
        return at

    async def listed(**filters: Any) -> None:
        async for _ in client.list(limit=50, page_size=50, **filters):
            pass

    async def in_an_hour() -> None:
        at = some_time()
        await listed(finished_after=at, finished_before=at + timedelta(hours=1))

    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "get one at random": lambda: client.get(some_id()),
        "list the newest 50": listed,
        "list 50 of a namespace": lambda: listed(namespace=f"ns-{draw.randrange(NAMESPACES)}"),
        "list 50 failed of a namespace": lambda: listed(
            namespace=f"ns-{draw.randrange(NAMESPACES)}", states=["failed"]
        ),
        "list 50 of a route": lambda: listed(route_prefix=f"pool-{draw.randrange(10)}"),
        "list 50 with a label, of a kind": lambda: listed(labels={"team": "red"}, kind=f"kind-{draw.randrange(KINDS)}"),
        "list 50 that were made before a time": lambda: listed(created_before=some_time()),
        "list 50 that ended within an hour": in_an_hour,
    }
    return {what: await _times(way, plan.latency_samples) for what, way in ways.items()}


async def _times(way: Callable[[], Awaitable[Any]], samples: int) -> dict[str, float]:
    took = []
    for _ in range(samples):
        began = time.monotonic()
        await way()
        took.append((time.monotonic() - began) * 1_000)
    return {"p50_ms": percentile(took, 50), "p99_ms": percentile(took, 99)}


async def _archive(stage: Stage, alone: float) -> dict[str, dict[str, float]]:
    """Let the leader archive what is old for a while, and read some of what it has: figures by case."""
    plan = stage.plan
    async with _connection(stage) as connection:
        params = {"of": min(OLDEST_JOBS, plan.history_jobs), "jobs": plan.latency_samples * 20}
        ids = [id for (id,) in await _rows(connection, OLDEST, params)]
        [before] = await _rows(connection, FILES)
        archived, during = await _going(stage, connection, archive=True)
        left = {id for (id,) in await _rows(connection, STILL_THERE, {"ids": ids})}
        [after] = await _rows(connection, FILES)
        sure = [id for (id,) in await _rows(connection, EDGES_OF_FILES)]
    gone = [id for id in ids if id not in left] or sure
    draw = random.Random(2)
    files, jobs, size = (now - then for now, then in zip(after, before, strict=True))
    return {
        "archive,": {"jobs_per_s": archived, "jobs_of_a_file": jobs / files, "bytes_of_a_job": size / jobs},
        "drain, while the leader archives": {"jobs_per_s": during, "of_none": _ratio(during, alone)},
        "get an archived one at random,": await _times(
            lambda: stage.client.get(draw.choice(gone)), plan.latency_samples
        ),
    }


async def _removal(stage: Stage) -> tuple[float, float]:
    """Let the leader remove all that is old; return its jobs a second, and those that are drained meanwhile."""
    async with _connection(stage) as connection:
        return await _going(stage, connection, archive=False)


async def _going(stage: Stage, connection: psycopg.AsyncConnection[Any], *, archive: bool) -> tuple[float, float]:
    """Let the leader take old jobs out of history; return how many a second go, and how many are drained."""
    plan = stage.plan
    since = await stage.now()
    [(there,)] = await _rows(connection, OLD)
    if not there:
        raise BenchError("nothing of history is left that is old")
    await stage.client.put_retention(keep_s=86_400, archive=archive)
    try:
        before = await _first_removed(connection, since)
        began = time.monotonic()
        during = await _drain_rate(stage)
        # Without jobs beside it, too, so that few jobs to drain do not make it a short measurement.
        while time.monotonic() - began < plan.history_removal_s:
            await asyncio.sleep(POLL_S)
            if await _removed(connection, since) >= there:
                break
        gone, seconds = await _removed(connection, since), time.monotonic() - began
    finally:
        await stage.client.delete_retention()
    return (gone - before) / seconds, during


async def _first_removed(connection: psycopg.AsyncConnection[Any], since: Any) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if removed := await _removed(connection, since):
                return removed
            await asyncio.sleep(POLL_S)


async def _removed(connection: psycopg.AsyncConnection[Any], since: Any) -> int:
    return int((await _rows(connection, REMOVED, {"since": since}))[0][0])


def _ratio(rate: float, alone: float) -> float:
    return rate / alone if alone else 0.0


@contextlib.asynccontextmanager
async def _connection(stage: Stage) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(stage.postgres_dsn, autocommit=True) as connection:
        yield connection


async def _rows(
    connection: psycopg.AsyncConnection[Any], query: LiteralString, values: dict[str, Any] | None = None
) -> list[Any]:
    cursor = await connection.execute(query, values)
    return await cursor.fetchall() if cursor.description else []
