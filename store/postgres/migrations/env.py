"""Alembic's environment: runs on the connection that ``store.postgres.migrate`` hands in, nothing else."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="schema_version",
    version_table_schema="tenure",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
