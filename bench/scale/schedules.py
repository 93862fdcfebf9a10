"""Schedules: how late their jobs are when very many are due each minute, spread over it, and all in the same second.

The schedules are written by SQL after one that the service made, in as many namespaces as they need. A job is late by
what lies between its tick and the instant at which its row was written (``created_at``), by Postgres' clock. They go on
for some minutes, with a worker that runs what they make.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tenure.bench.handlers import NOOP
from tenure.bench.results import BenchError, Results
from tenure.bench.stage import POOL, Stage, say
from tenure.client import NewJob, NewSchedule

OF_NAMESPACE = 1_000
LOOK_S = 1.0
LATEST_S = 180.0
"""After the last tick."""
SPREAD, AT_ONCE = "spread over the minute", "all in the same second"
COPY = """
INSERT INTO tenure.schedule (id, namespace, name, spec, paused, next_at)
SELECT gen_random_uuid(), 'bench-' || n / %(of_namespace)s, 'copy-' || n,
       jsonb_set(spec::jsonb, '{starts_at}', to_jsonb(%(first)s::timestamptz + n * %(step)s::interval))::json, false,
       %(first)s::timestamptz + n * %(step)s::interval
FROM tenure.schedule, generate_series(0, %(count)s - 1) AS n
WHERE name = 'bench-first'
"""
TOLD = """
SELECT count(*), count(*) FILTER (WHERE late_s > 2),
       percentile_disc(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY late_s)
FROM (SELECT extract(epoch FROM created_at - scheduled_at)::float8 AS late_s
      FROM (SELECT created_at, scheduled_at FROM tenure.job WHERE scheduled_at >= %(since)s AND scheduled_at < %(until)s
            UNION ALL
            SELECT created_at, scheduled_at FROM tenure.history
            WHERE scheduled_at >= %(since)s AND scheduled_at < %(until)s) AS made) AS late
"""
FORGET = "DELETE FROM tenure.schedule"


async def schedules(stage: Stage, results: Results) -> None:
    """Measure both."""
    plan = stage.plan
    for name, step_s in ((SPREAD, plan.schedules_every_s / plan.schedules), (AT_ONCE, 0.0)):
        say(f"schedules: {plan.schedules:,}, {name}, {plan.schedules_rounds} rounds")
        await stage.clear()
        await stage.client.create_schedule(
            NewSchedule(
                name="bench-first", job=NewJob(kind=NOOP, route=POOL), interval_s=plan.schedules_every_s, paused=True
            )
        )
        first = (await stage.now()) + timedelta(seconds=plan.schedules_lead_s)
        until = first + timedelta(seconds=plan.schedules_every_s * plan.schedules_rounds)
        values = {
            "count": plan.schedules,
            "of_namespace": OF_NAMESPACE,
            "first": first,
            "step": timedelta(seconds=step_s),
        }
        await stage.rows(COPY, values)
        await stage.rows("VACUUM (ANALYZE) tenure.schedule")
        await stage.add_workers(1, plan.capacity)
        meter = await stage.meter()
        wanted = plan.schedules * plan.schedules_rounds
        await asyncio.sleep((until - await stage.now()).total_seconds())  # looking costs what is measured
        while True:
            [(made, late, told_s)] = await stage.rows(TOLD, {"since": first, "until": until})
            if made >= wanted:
                break
            if (await stage.now()) > until + timedelta(seconds=LATEST_S):
                raise BenchError(f"of {wanted} ticks {made} have made a job")
            await asyncio.sleep(LOOK_S)
        usage = meter.stop()
        await stage.rows(FORGET)
        results.case("schedules", f"{plan.schedules:,} each {plan.schedules_every_s:g} s, {name}").add(
            {
                "ticks": float(made),
                **dict(zip(("late_p50_s", "late_p99_s", "late_max_s"), told_s, strict=True)),
                "late_above_2_s": float(late),
                "others_cores": usage.others_cores,
            },
            usage.us_per_job(made),
        )
        await stage.empty()
        await stage.remove_workers()
