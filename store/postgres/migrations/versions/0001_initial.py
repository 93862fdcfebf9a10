"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from tenure.store.postgres.migrations.sql_file import run_sql_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
oldest = "0001"
"""The oldest revision whose code still runs on this schema (ADR 0002)."""


def upgrade() -> None:
    """Run the files of the schema."""
    run_sql_file("0001_initial.sql")
    run_sql_file("0001_submit_job.sql")
