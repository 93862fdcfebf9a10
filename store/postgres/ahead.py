"""Makes indexes ahead of the revision that has them, on tables that are in use: nobody who writes waits for that.

Within a revision's transaction, CREATE INDEX shuts writers out for as long as it takes. CONCURRENTLY it does not, but
waits for every transaction that is open. So it is made before the migration's lock is taken: whoever waits for that
lock has a transaction open, and it would be waited for in turn. The revision makes the index itself where it is not
there, which is so in a new database alone. A table in partitions cannot have one made so: each partition gets its own,
which the revision's index of the whole table then takes in.

Safe when several start at once, by a lock that is tried again and again instead of waited for. Killed anywhere it
leaves an index that is not valid, which the next one drops and makes anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from sqlalchemy.engine import Connection

_LOCK = 0x74656E757266
"""Beside that of the migration."""
TRY_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the schema ``tenure``, the revision that has it, and the table that it is on."""

    revision: str
    name: str
    table: str
    what: str
    """Columns and condition."""


AHEAD = (
    Index("0003", "dependency_settled", "dependency", "(parent_id) WHERE parent_state IS NOT NULL"),
    Index("0003", "history_unsuccessful", "history", "(id) WHERE state IN ('failed', 'canceled')"),
)
_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('tenure.{table}') ORDER BY c.relname
"""
_STATE = """
SELECT to_regclass('tenure.{table}') IS NOT NULL, i.indisvalid
FROM (SELECT 1) AS one LEFT JOIN pg_index i ON i.indexrelid = to_regclass('tenure.{name}')
"""


def make_indexes(connection: Connection, current: str | None) -> None:
    """Make those that a database at this revision is going to need; the connection commits by itself.

    None of a revision that it has: a later one may have dropped it.
    """
    wanted = [one for one in AHEAD if current is not None and current < one.revision]
    missing = [index for one in wanted for index in _by_partition(connection, one) if not _is_there(connection, index)]
    if not missing:
        return
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK})").scalar():
        time.sleep(TRY_EVERY_S)
    for index in missing:  # the lock is the session's, and ends with it
        if not _is_there(connection, index):
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS tenure.{index.name}")
            connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {index.name} ON tenure.{index.table} {index.what}")


def _by_partition(connection: Connection, index: Index) -> list[Index]:
    """Return the index of each partition, or the index itself where the table has none."""
    partitions = connection.exec_driver_sql(_PARTITIONS.format(table=index.table)).scalars()
    return [replace(index, name=f"{one}_{index.name}", table=one) for one in partitions] or [index]


def _is_there(connection: Connection, index: Index) -> bool:
    """Say whether there is nothing to make: a valid index, or no table yet."""
    row = connection.exec_driver_sql(_STATE.format(table=index.table, name=index.name)).one()
    return not row[0] or bool(row[1])
