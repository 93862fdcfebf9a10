"""The schema, as Alembic revisions that each run one plain SQL file."""
