"""Passes over many jobs: in windows of ids, for some seconds a call, to be gone on with where the last one ended.

Owns the bounds of a pass. Invariant: a pass has an end fixed at its beginning, so that jobs which come into being
meanwhile (retries that fail again, above all) do not make it endless.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from tenure.model.ids import new_id

WINDOW_JOBS = 1_000
"""Rows that one statement looks at, and one transaction changes at most."""
PASS_S = 5.0
"""How long a call goes on before it answers with what is left."""
FIRST_IDS = 20
FIRST_ID = uuid.UUID(int=0)
LAST_ID = uuid.UUID(int=2**128 - 1)
"""Less and greater than every id: from where a pass begins."""


@dataclass(frozen=True, slots=True)
class Span:
    """The ids strictly between two."""

    after: uuid.UUID
    until: uuid.UUID

    @classmethod
    def up_to_now(cls) -> Span:
        """Return the jobs that were made so far."""
        return cls(FIRST_ID, new_id())
