"""The life of data: what is kept of jobs beside their rows, for how long, and what is archived.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

from tenure.store.postgres.migrations.sql_file import run_sql_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
oldest = "0001"
"""Tables and columns were added; code of 0001 and 0002 does not know them (ADR 0002)."""


LOCK_TIMEOUT = """
SELECT set_config('lock_timeout', CAST(setting AS integer) + 500 || 'ms', true)
FROM pg_settings WHERE name = 'deadlock_timeout'
"""
"""Who waits for a lock on history holds up every end of a job; but an autovacuum gives way only to who has waited for
``deadlock_timeout``, a second."""


def upgrade() -> None:
    """Run the files of the revision."""
    op.execute(LOCK_TIMEOUT)
    run_sql_file("0003_restore.sql")
    run_sql_file("0003_objects.sql")
    run_sql_file("0003_logs.sql")
    run_sql_file("0003_retention.sql")
    run_sql_file("0003_archive.sql")
    run_sql_file("0003_signing_key.sql")
    run_sql_file("0003_tracing.sql")
    run_sql_file("0003_retention_last.sql")
