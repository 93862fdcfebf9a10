"""Survey: what the leader looks up for ``/metrics`` every ten seconds, since no count of what is done says it.

How many jobs are ready by pool and how old the oldest is, how large the tables with many writes are, how large etcd is
and how far it was compacted. Each look is bounded, whatever the backlog, and takes a small share of the time. Only the
leader shows these numbers, so that a sum over coordinators, or a maximum, is right; its last word goes with its term.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from prometheus_client import Gauge

from tenure.coordinator.metrics import REGISTRY
from tenure.model.clock import Clock
from tenure.model.errors import TenureError
from tenure.store.etcd.compact import Compactor
from tenure.store.etcd.port import Etcd
from tenure.store.postgres.database import Database, Row

log = structlog.get_logger(__name__)

EVERY_S = 10.0
SHARE = 0.02
"""Of the time, at most."""
MOST_JOBS = 100_000
"""That are counted: half of it divided among the lanes, the rest among those that have more."""
MOST_HEADS = 5_000
"""Lanes and priorities that are looked into."""
MOST_POOLS = 100
OTHERS = "(others)"
"""The label of pools beyond these."""
TABLES = (
    "attempt", "artifact", "bucket", "dependency", "idempotency", "job", "lane", "log", "log_head", "schedule",
    "workflow",
)  # fmt: skip

READY_JOBS = Gauge(
    "tenure_jobs_ready",
    "Jobs that are ready to run, by pool, as the leader counts them every ten seconds: 100,000 at most in all, divided "
    "among the lanes. The hundred pools with most; the rest together.",
    ["pool"],
    registry=REGISTRY,
)
OLDEST_READY = Gauge(
    "tenure_jobs_ready_oldest_seconds",
    "How long the oldest ready job of a pool has been ready. Jobs of paused routes, full limits and kinds that nobody "
    "handles count, too.",
    ["pool"],
    registry=REGISTRY,
)
LIVE_ROWS = Gauge(
    "tenure_postgres_table_rows",
    "Rows of a table, as Postgres estimates them; of job: all jobs that have not ended.",
    ["table"],
    registry=REGISTRY,
)
DEAD_ROWS = Gauge(
    "tenure_postgres_table_dead_rows", "Dead rows of a table that vacuum has not removed, as estimated.", ["table"],
    registry=REGISTRY,
)  # fmt: skip
TABLE_BYTES = Gauge("tenure_postgres_table_bytes", "Size of a table with its indexes.", ["table"], registry=REGISTRY)
ETCD_BYTES = Gauge("tenure_etcd_db_size_bytes", "Size of etcd's database, of one member.", registry=REGISTRY)
ETCD_REVISION = Gauge("tenure_etcd_revision", "The newest revision of etcd.", registry=REGISTRY)
ETCD_HISTORY = Gauge(
    "tenure_etcd_history_revisions",
    "Revisions since the last compaction of this leader; before its first one, since the beginning. 0 where it does "
    "not lead.",
    registry=REGISTRY,
)
ALARMS = Gauge("tenure_etcd_alarms", "Alarms that etcd has raised, such as NOSPACE.", registry=REGISTRY)
_BY_LABEL = (READY_JOBS, OLDEST_READY, LIVE_ROWS, DEAD_ROWS, TABLE_BYTES)
_ALONE = (ETCD_BYTES, ETCD_REVISION, ETCD_HISTORY, ALARMS)


class Survey:
    """Looks during one term of leadership. ``look_forever`` is the body of a task."""

    def __init__(self, database: Database, etcd: Etcd, clock: Clock, compactor: Compactor) -> None:
        self._database = database
        self._etcd = etcd
        self._clock = clock
        self._compactor = compactor
        self._pools: set[str] = set()

    async def look_forever(self) -> None:
        """Look until cancelled; then nothing is shown any more."""
        try:
            while True:
                began = self._clock.monotonic()
                for look in (self.count_ready, self.measure_tables, self.look_at_etcd):
                    try:
                        await look()
                    except TenureError as exc:
                        log.info("survey_incomplete", look=look.__name__, error=exc.message)
                    except Exception:  # numbers that are missing must not end the term
                        log.exception("survey_failed", look=look.__name__)
                await self._clock.sleep(max(EVERY_S, (self._clock.monotonic() - began) / SHARE))
        finally:
            for gauge in _BY_LABEL:
                gauge.clear()
            for gauge in _ALONE:
                gauge.set(0)

    async def count_ready(self) -> None:
        """Count ready jobs by pool; a pool that has none any more shows 0."""
        rows = await self._database.fetch("ready_by_pool", {"heads": MOST_HEADS, "most": MOST_JOBS})
        jobs, oldest = by_pool(rows, self._pools)
        self._pools = jobs.keys() - {OTHERS}
        READY_JOBS.clear()  # of pools that are not among the first any more
        OLDEST_READY.clear()
        for pool, count in jobs.items():
            READY_JOBS.labels(pool).set(count)
            OLDEST_READY.labels(pool).set(oldest[pool])

    async def measure_tables(self) -> None:
        """Read the statistics of tables."""
        for row in await self._database.fetch("table_figures", {"tables": list(TABLES)}):
            LIVE_ROWS.labels(row.name).set(row.live_rows)
            DEAD_ROWS.labels(row.name).set(row.dead_rows)
            TABLE_BYTES.labels(row.name).set(row.bytes)

    async def look_at_etcd(self) -> None:
        """Ask etcd how large it is."""
        status = await self._etcd.status()
        ETCD_BYTES.set(status.db_size_bytes)
        ETCD_REVISION.set(status.revision)
        ETCD_HISTORY.set(max(0, status.revision - self._compactor.compacted))
        ALARMS.set(len(status.alarms))


def by_pool(rows: Sequence[Row], before: set[str]) -> tuple[dict[str, int], dict[str, float]]:
    """Return ready jobs and the age of the oldest by pool: of the first, with 0 for those shown before, and the rest.

    At most ``MOST_POOLS`` pools, and ``OTHERS``.
    """
    jobs: dict[str, int] = {}
    oldest: dict[str, float] = {}
    shown = {row.pool for row in rows[:MOST_POOLS]}
    room = MOST_POOLS - len(shown)
    for pool in sorted(before - {row.pool for row in rows})[:room]:
        jobs[pool], oldest[pool] = 0, 0.0
    for row in rows:
        pool = row.pool if row.pool in shown else OTHERS
        jobs[pool] = jobs.get(pool, 0) + row.jobs
        oldest[pool] = max(oldest.get(pool, 0.0), row.oldest_s)
    return jobs, oldest
