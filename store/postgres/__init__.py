"""Postgres remembers: jobs, attempts, history. SQL lives in ``queries/*.sql``, one intent a file."""
