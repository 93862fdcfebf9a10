"""Lets an Alembic revision be a plain SQL file."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_sql_file(name: str) -> None:
    """Execute a file that stands beside the revisions, in the revision's transaction."""
    text = (Path(__file__).parent / "versions" / name).read_text(encoding="utf-8")
    driver_connection = op.get_bind().connection.driver_connection
    assert driver_connection is not None  # a live bind always has one
    driver_connection.execute(text)  # the raw driver: no parameters, so that % and : stand for themselves
