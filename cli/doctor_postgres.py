"""What ``tenure doctor`` asks Postgres beyond whether it answers: settings, latency, what blocks vacuum, connections.

Reads only, but for the commits that are timed: each writes a message into the log that no table sees. A role of least
privilege sees no other roles' sessions: then it is said that this was not looked at.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, LiteralString

from tenure.cli.doctor_clocks import Clock
from tenure.cli.findings import Finding, Level
from tenure.cli.output import span
from tenure.cli.postgres_faults import NEWEST, faults_of, maintained_until
from tenure.store.postgres.database import query

if TYPE_CHECKING:
    import psycopg

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum", "default_transaction_read_only")
"""That are looked at."""
ROUNDS = 5
SLOW_READ_S = 0.02
SLOW_COMMIT_S = 0.05
FAILING_COMMIT_S = 1.0
LONG_TRANSACTION_S = 600.0
FULL = 0.9
DEAD_ROWS = 100_000
OLD_TRANSACTIONS = 1_500_000_000
"""Of two thousand million, at which Postgres stops taking writes."""
KEPT_LOG_BYTES = 10_000_000_000
WHY_LOST = "an acknowledged job can be lost in a crash"
WHY_SWELLS = "vacuum may remove nothing that is younger: the queue's tables grow, and claiming becomes slow"


def examine(connection: psycopg.Connection[Any], today: date | None = None) -> tuple[list[Finding], Clock]:
    """Return what is found in a database, and its clock. The connection is in autocommit mode."""
    findings = [
        *version(connection.info.server_version, today or datetime.now(UTC).date()),
        *settings(connection),
        *latency(connection),
        *transactions(connection),
        *prepared(connection),
        *slots(connection),
        *connections(connection),
        *rows(connection),
    ]
    return findings, clock(connection)


def version(number: int, today: date) -> Iterator[Finding]:
    """Say which known faults a version has, and whether it is maintained."""
    release = f"{number // 10_000}.{number % 10_000}"
    for fault in faults_of(number):
        yield Finding(
            Level.WARN, "postgres", f"version {release} has a known fault: {fault}",
            "install the newest minor release: it needs no dump", check="postgres-version",
        )  # fmt: skip
    until = maintained_until(number)
    if until is not None and today > until:
        yield Finding(
            Level.WARN, "postgres", f"version {release} is maintained no more since {until}",
            "upgrade to a newer major",
            "faults found since then are not mended in it", "postgres-version",
        )  # fmt: skip
    if number // 10_000 > NEWEST:
        yield Finding(
            Level.WARN, "postgres", f"version {release} was not tried, up to {NEWEST} was", check="postgres-version",
            next_step="look for a newer release of tenure",
        )  # fmt: skip


def settings(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which settings endanger jobs."""
    read = dict(
        connection.execute(
            query("doctor_settings"),
            {"names": list(SETTINGS)},
        ).fetchall()
    )
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        if read.get(name) == "off":
            yield Finding(
                Level.WARN, "postgres", f"{name} is off: {WHY_LOST}", f"set {name} = on", WHY_LOST, "postgres-settings"
            )
    if read.get("autovacuum") == "off":
        yield Finding(
            Level.WARN, "postgres", "autovacuum is off", "set autovacuum = on",
            "the queue's tables grow with every job, and claiming becomes slower and slower", "postgres-settings",
        )  # fmt: skip
    if read.get("default_transaction_read_only") == "on":
        yield Finding(
            Level.FAIL, "postgres", "transactions are read-only by default", "set default_transaction_read_only = off",
            "nothing can be submitted or reported", "postgres-settings",
        )  # fmt: skip


def latency(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Measure reads and commits, one at a time."""
    import psycopg

    reads = [_timed(connection, "SELECT 1") for _ in range(ROUNDS)]
    told = f"a read takes {statistics.median(reads) * 1000:.1f} ms"
    commit_s = 0.0
    try:
        commit_s = statistics.median(_timed(connection, query("doctor_commit")) for _ in range(ROUNDS))
        told += f", a commit {commit_s * 1000:.1f} ms"
    except psycopg.Error:
        told += "; commits were not timed (a standby, or not allowed)"
    why = "a job is acknowledged when its commit is on disk: this is the least that every submit and report takes"
    step = "quicker disks for the write-ahead log, and coordinators near the database"
    if commit_s >= FAILING_COMMIT_S:
        yield Finding(Level.FAIL, "postgres", told, step, why, "postgres-latency")
    elif commit_s >= SLOW_COMMIT_S or statistics.median(reads) >= SLOW_READ_S:
        yield Finding(Level.WARN, "postgres", told, step, why, "postgres-latency")
    else:
        yield Finding(Level.OK, "postgres", told, check="postgres-latency")


def _timed(connection: psycopg.Connection[Any], statement: LiteralString) -> float:
    began = time.monotonic()
    connection.execute(statement).fetchall()
    return time.monotonic() - began


def transactions(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which session keeps vacuum from its work."""
    oldest = connection.execute(query("doctor_transaction"), {"long_s": LONG_TRANSACTION_S}).fetchone()
    if oldest:
        pid, application, age_s = oldest
        yield Finding(
            Level.WARN, "postgres",
            f"session {pid} ({application or 'no name'}) has a transaction open for {span(age_s)}",
            f"find out whose it is; SELECT pg_terminate_backend({pid}) ends it", WHY_SWELLS, "postgres-transactions",
        )  # fmt: skip


def prepared(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which transaction was prepared and forgotten: it keeps vacuum from its work, too."""
    oldest = connection.execute(query("doctor_prepared"), {"long_s": LONG_TRANSACTION_S}).fetchone()
    if oldest:
        yield Finding(
            Level.WARN, "postgres", f"transaction {oldest[0]!r} is prepared for {span(oldest[1])}",
            "COMMIT PREPARED or ROLLBACK PREPARED", WHY_SWELLS, "postgres-transactions",
        )  # fmt: skip


def slots(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say which replication slot fills the disk."""
    slot = connection.execute(query("doctor_slot")).fetchone()
    if slot and slot[1] > KEPT_LOG_BYTES:
        yield Finding(
            Level.WARN, "postgres",
            f"the replication slot {slot[0]} is not read and keeps {slot[1] / 1e9:.0f} GB of log",
            f"SELECT pg_drop_replication_slot('{slot[0]}') if nobody needs it", "the disk fills up", "postgres-slots",
        )  # fmt: skip


def connections(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say whether connections run out."""
    used, most = connection.execute(query("doctor_connections")).fetchone() or (0.0, 0.0)
    told = f"{used:.0f} of {most:.0f} connections are in use"
    if used >= FULL * most:
        yield Finding(
            Level.WARN, "postgres", told,
            "raise max_connections, or lower TENURE_POSTGRES_POOL_MAX of the coordinators",
            "a coordinator that gets no connection answers with errors", "postgres-connections",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "postgres", told, check="postgres-connections")


def rows(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Say whether vacuum keeps up."""
    for table, live, dead in connection.execute(query("doctor_dead_rows"), {"dead": DEAD_ROWS}).fetchall():
        yield Finding(
            Level.WARN, "postgres", f"tenure.{table} has {dead:,} dead rows and {live:,} live ones",
            f"VACUUM tenure.{table}; look for what keeps autovacuum from it",
            "every look at the table reads over them", "postgres-vacuum",
        )  # fmt: skip
    found = connection.execute(query("doctor_age")).fetchone()
    if found and found[0] > OLD_TRANSACTIONS:
        yield Finding(
            Level.FAIL, "postgres", f"its oldest rows are {found[0]:,} transactions old",
            "VACUUM FREEZE now; look for what keeps autovacuum from it",
            "at two thousand million Postgres takes no writes any more", "postgres-vacuum",
        )  # fmt: skip


def clock(connection: psycopg.Connection[Any]) -> Clock:
    """Read the database's clock."""
    began, before = time.monotonic(), datetime.now(UTC)
    (theirs,) = connection.execute("SELECT clock_timestamp()").fetchone() or (before,)
    took_s = time.monotonic() - began
    after = datetime.now(UTC)
    return Clock("postgres", theirs.astimezone(UTC), before + (after - before) / 2, took_s)
