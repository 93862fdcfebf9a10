"""A million jobs behind the dashboard: every page within 300 ms, by the server's own time."""

from __future__ import annotations

import time

import psycopg
import pytest
from tests.dashboard.conftest import Place, Start

from tenure.client import NewJob

HISTORY, READY = 1_000_000, 200_000
SERVED_S = 0.3
FILL = """
INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                            errors, crashes, finished_at, ttl_s, max_crashes, progress, progress_message,
                            cancel_requested, reason, labels, error)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid,
       'ns-' || n % 20, 'kind-' || n % 50, 'pool-' || n % 30 || '/x',
       CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 100 = 1 THEN 'canceled' ELSE 'completed' END, 0, at, at,
       '{"n": 1}', 1, 0, 0, at + interval '1 s', 10, 3, 1, '', false, '',
       CASE WHEN n % 1000 = 0 THEN '{"rare": "yes"}'::jsonb END,
       CASE WHEN n % 100 = 0 THEN '{"type": "ValueError", "message": "m", "traceback": ""}'::json END
FROM (SELECT n, now() - interval '12 d' * (1 - n / %(history)s.0) AS at
      FROM generate_series(1, %(history)s) AS n) AS g;
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                        max_crashes)
SELECT gen_random_uuid(), 'ns-1', 'nobody', 'unserved', %(lane)s, 'ready', true, n % 7, now() - interval '1 h', 'null',
       10, 3
FROM generate_series(1, %(ready)s) AS n;
"""


@pytest.fixture(scope="module")
def place(start: Start) -> Place:
    return start(asks=False)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_every_page_is_served_soon_with_a_million_jobs(place: Place) -> None:
    async with place.client() as client:
        sample = await client.submit("noop", route="unserved", namespace="ns-1")
        jobs = [NewJob(kind="noop", ref="a", delay_s=3_600)]
        jobs += [NewJob(kind="noop", depends_on=["a"]) for _ in range(2_000)]
        workflow = await client.submit_many(jobs, workflow="large")
        done = await client.submit("noop")
        await client.wait(done.id, timeout_s=60)
    dsn = place.deployment.env["TENURE_POSTGRES_DSN"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT lane FROM tenure.job WHERE id = %s", (sample.id,)).fetchone()
        assert row is not None
        filled = FILL
        for name, value in (("history", HISTORY), ("ready", READY), ("lane", row[0])):
            filled = filled.replace(f"%({name})s", str(value))
        connection.execute(filled.encode())
        connection.execute("VACUUM ANALYZE tenure.job, tenure.history")
    paths = [
        "/ui/",
        "/ui/jobs",
        "/ui/jobs?kind=kind-3&state=failed",
        "/ui/jobs?label=rare%3Dyes",
        "/ui/jobs?kind=no-such-kind",
        "/ui/jobs?namespace=ns-3&route=pool-3",
        f"/ui/jobs/{sample.id}",
        f"/ui/jobs/{done.id}",
        "/ui/letters",
        "/ui/workflows",
        f"/ui/workflows/{workflow.workflow_id}",
        "/ui/schedules",
        "/ui/workers",
        "/ui/limits",
        "/ui/audit",
        "/ui/retention",
    ]
    took: dict[str, float] = {}
    async with place.browser_without_script() as http:
        for path in paths:
            times = []
            for _ in range(3):
                began = time.monotonic()
                answer = await http.get(path)
                times.append(time.monotonic() - began)
                assert answer.status_code == 200, (path, answer.text)
            took[path] = min(times)
    print({path: f"{seconds * 1_000:.0f} ms" for path, seconds in took.items()})
    assert {path: seconds for path, seconds in took.items() if seconds > SERVED_S} == {}
