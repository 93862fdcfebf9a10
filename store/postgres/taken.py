"""What it means that a key is there already: Postgres' unique violations, told apart by the index that saw them."""

from __future__ import annotations

from psycopg.errors import UniqueViolation

INDEX = "job_unique"


class KeyTaken(Exception):
    """Some idempotency key (or an id) stands for a job already: ask ``keyed_jobs``. Nothing was written."""


class UniqueTaken(Exception):
    """Some unique key is held by an unfinished job: ask ``holders``. Nothing was written."""


def taken_error(exc: UniqueViolation) -> KeyTaken | UniqueTaken:
    """Return which kind of key was taken."""
    return UniqueTaken(str(exc)) if exc.diag.constraint_name == INDEX else KeyTaken(str(exc))
