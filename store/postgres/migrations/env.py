"""Alembic's environment: runs on the connection that ``store.postgres.migrate`` hands in, nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script

from tenure.store.postgres import roles
from tenure.store.postgres.migrate import run_text


def finish_step(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """End a revision, in its own transaction."""
    record_oldest(ctx, step)
    renew_grants(ctx)


def record_oldest(ctx: MigrationContext, step: MigrationInfo) -> None:
    """Write down which code still runs on the schema."""
    assert isinstance(step.up_revision, Script) and ctx.connection is not None  # each step runs a file of ours
    ctx.connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS tenure.schema_oldest (revision text PRIMARY KEY, oldest text NOT NULL)"
    )
    ctx.connection.execute(
        sqlalchemy.text(
            "INSERT INTO tenure.schema_oldest VALUES (:revision, :oldest)"
            " ON CONFLICT (revision) DO UPDATE SET oldest = excluded.oldest"
        ),
        {"revision": step.up_revision.revision, "oldest": step.up_revision.module.oldest},
    )


def renew_grants(ctx: MigrationContext) -> None:
    """Renew what the roles of least privilege may do; none where they are not."""
    assert ctx.connection is not None  # each step runs a file of ours
    found = ctx.connection.execute(
        sqlalchemy.text("SELECT count(*) FROM pg_roles WHERE rolname = ANY(:names)"), {"names": list(roles.ROLES)}
    ).scalar()
    if found == len(roles.ROLES):
        run_text(ctx.connection, roles.grants())


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="schema_version",
    version_table_schema="tenure",
    transaction_per_migration=True,
    on_version_apply=finish_step,
)
with context.begin_transaction():
    context.run_migrations()
