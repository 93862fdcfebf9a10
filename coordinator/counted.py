"""Counted: jobs that came, and jobs and attempts that ended, told to both who count: ``tally`` and ``metrics``.

Whoever writes such rows calls this once for a batch, after the commit and by nothing else: so the figures of an
overview and the counters of ``/metrics`` cannot disagree. A batch costs one pass over it, and an addition for each
outcome that is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tenure.coordinator.metrics import JOBS_ENDED, SUBMITTED
from tenure.coordinator.tally import TALLY
from tenure.model.states import TERMINAL
from tenure.store.postgres.database import Row


def submitted(lanes: Sequence[int], by: str) -> None:
    """Count new jobs by the lane of each. ``by``: see ``metrics.SUBMITTED``."""
    if lanes:
        SUBMITTED.add(len(lanes), by)
        TALLY.submitted(Counter(lanes))


def ended(rows: Sequence[Row]) -> None:
    """Count rows with the state that a job is in now, and its lane: where it has not ended, its attempt has."""
    if counted := Counter([(row.state, row.lane) for row in rows]):
        for (state, _), jobs in counted.items():
            if state in TERMINAL:
                JOBS_ENDED.add(jobs, state)
        TALLY.ended(counted)
