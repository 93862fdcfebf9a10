"""Which executing attempts have lost their claim, or outlived their timeout: a pure judgement.

Identity, not existence: a row is safe only while *its own* claim (the create revision and the lease that it recorded)
is there. The two together are never given twice, so that a claim once gone never comes back; a judgement can be acted
upon late.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tenure.model.retry import Next, RetryPolicy, after_error, after_loss, after_outcome, within_deadline
from tenure.model.states import JobState, Outcome

DEFAULT_POLICY = RetryPolicy()
BRAKE_WORKERS = 3
"""When the claims of this many workers vanish at once, it is etcd's fault more often than theirs."""

MAX_BRAKE_S = 30.0
"""It holds back everybody's jobs: not for as long as the TTL that somebody chose."""


@dataclass(frozen=True, slots=True)
class Executing:
    """An executing row, as the reaper read it."""

    id: uuid.UUID
    fence: int
    worker: str
    lease: int
    claim_revision: int
    attempt: int
    crashes: int
    max_crashes: int
    cancel_requested: bool
    ttl_s: float
    timed_out: bool
    errors: int = 0
    policy: RetryPolicy = DEFAULT_POLICY
    reason: str = ""
    canceling_s: float = 0.0
    """For how long its worker has been asked to cancel it."""
    past_deadline: bool = False
    """Whether the deadline of the job as a whole has passed; ``timed_out`` follows after a grace."""
    cancel_grace_s: float | None = None
    """The grace that whoever canceled it has chosen."""

    def has_had(self, grace_s: float) -> bool:
        """Say whether it is canceling for longer than its own grace, or else this one."""
        return self.canceling_s > (grace_s if self.cancel_grace_s is None else self.cancel_grace_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rows to write, by what ended them."""

    lost: tuple[Executing, ...]
    timed_out: tuple[Executing, ...]
    unheeded: tuple[Executing, ...] = ()
    """Those whose cancel was not heeded for longer than the grace."""

    @property
    def workers_lost(self) -> int:
        """How many distinct workers lost a claim."""
        return len({row.worker for row in self.lost})


def judge(
    rows: Iterable[Executing], claims: Mapping[str, tuple[int, int]], *, cancel_grace_s: float = math.inf
) -> Verdict:
    """Compare rows with claims that were read *after* them (job id to create revision and lease)."""
    lost: list[Executing] = []
    timed_out: list[Executing] = []
    unheeded: list[Executing] = []
    for row in rows:
        if claims.get(str(row.id)) != (row.claim_revision, row.lease):
            lost.append(row)
        elif row.timed_out:
            timed_out.append(row)
        elif row.cancel_requested and row.has_had(cancel_grace_s):
            unheeded.append(row)
    return Verdict(tuple(lost), tuple(timed_out), tuple(unheeded))


def next_of_lost(row: Executing) -> Next:
    """Decide what becomes of a job whose attempt was lost."""
    then = after_loss(crashes=row.crashes + 1, max_crashes=row.max_crashes, cancel_requested=row.cancel_requested)
    return within_deadline(then, past_deadline=row.past_deadline)


def next_of_taken(row: Executing) -> Next:
    """Decide what becomes of a job whose claim was taken from a living worker, which may trust it for a TTL more."""
    then = after_outcome(
        Outcome.RELEASED, row.policy, errors=row.errors, cancel_requested=row.cancel_requested, delay_s=row.ttl_s
    )
    return within_deadline(then, past_deadline=row.past_deadline)


def next_of_timed_out(row: Executing) -> Next:
    """Decide what becomes of a job whose attempt outlived its timeout, or the job's deadline.

    Not before its TTL has passed: its worker did not end it and may go on for as long as it trusts its claim.
    """
    then = after_error(row.policy, errors=row.errors + 1, error_type="TimedOut", cancel_requested=row.cancel_requested)
    if then.state is JobState.READY:
        then = replace(then, delay_s=max(then.delay_s, row.ttl_s))
    return within_deadline(then, past_deadline=row.past_deadline)


def next_of_unheeded(row: Executing) -> Next:
    """Decide what becomes of a job whose worker was asked to stop it and did not."""
    why = "" if row.reason in ("", "canceled") else f" ({row.reason})"
    return Next(JobState.CANCELED, reason=f"canceled; its worker did not stop in time{why}")


def brake_s(verdict: Verdict, *, workers: int = 0) -> float:
    """Return how long to hold back dispatch: the longest TTL concerned when many workers vanished at once, bounded.

    ``workers``: those that vanished a moment ago, the verdict's included.
    """
    if max(workers, verdict.workers_lost) < BRAKE_WORKERS:
        return 0.0
    return min(MAX_BRAKE_S, max((row.ttl_s for row in verdict.lost), default=0.0))
