"""What became of jobs that a transaction of other purpose was to stop: replaced ones, and those of an earlier tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure.store.postgres.database import Row


@dataclass(frozen=True, slots=True)
class Stopped:
    """Rows of the statements that stopped them; ``coordinator.cancel`` tells whoever must know."""

    reason: str
    canceled: Sequence[Row] = ()
    """Of ``cancel_idle``: nobody executed them."""
    settled: Sequence[Row] = ()
    """Of ``settle_parents``: what depends on those."""
    asked: Sequence[Row] = ()
    """Those that execute: their workers are to be asked."""
