"""Who may do what: credentials, the key that signs attempt tokens, the audit log, and how fast namespaces submit.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from tenure.store.postgres.migrations.sql_file import run_sql_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
oldest = "0001"
"""Tables and columns were added; code of 0001 does not know them (ADR 0002)."""


def upgrade() -> None:
    """Run the file of the revision."""
    run_sql_file("0002_access.sql")
