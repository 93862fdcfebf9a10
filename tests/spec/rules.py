"""The rules of the claim protocol, each of which can be switched off, and the bounds of an exploration.

``Rules()`` is the protocol. A mutant is the protocol less one rule; ``variants`` names them and says what each breaks.
Used by ``model`` and ``trust``; deliberately without any knowledge of states.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Identity(StrEnum):
    """What makes a claim the very one that was meant."""

    FULL = "lease and create revision"
    REVISION = "create revision"
    NAME = "key name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who may do what. The defaults are the protocol."""

    claim_compares_absence: bool = True
    """The claim transaction compares that the key does not exist."""
    start_compares: Identity = Identity.FULL
    """What a coordinator compares when it looks for a start's claim in etcd."""
    release_compares: Identity = Identity.FULL
    start_is_guarded: bool = True
    """The start's UPDATE itself carries the guard; otherwise it is decided by an earlier read."""
    start_shows_claim: bool = True
    """After an unknown outcome a row is the worker's if it names this very claim; otherwise, if it names the worker."""
    start_compares_timeline: bool = True
    """No start before the epoch was raised for the present timeline of Postgres."""
    epoch_is_raised: bool = True
    """A leader that sees a new timeline raises the epoch."""
    finish_compares_fence: bool = True
    finish_counts_rows: bool = True
    """Zero rows are not a success."""
    repeat_compares_outcome: bool = True
    """A report is a repetition only if what was recorded under its fence is its own outcome."""
    leaving_clears_fence: bool = True
    reap_compares_claim: Identity = Identity.FULL
    """What of an executing row's claim the reaper must find in etcd; the key name alone is mere existence."""
    reap_compares_fence: bool = True
    reap_reads_rows_first: bool = True
    restore_drops_idle_leases: bool = True
    """A worker that sees etcd's revision go back renews no lease from before."""

    # The trust window (``trust``).
    trust_counts_from_sending: bool = True
    trust_has_margin: bool = True
    trust_runs_out: bool = True
    """Without answers the handler is stopped; otherwise only an answer that says "gone" stops it."""
    stop_counts_from_trust: bool = True
    """A handler has until a fixed instant after its trust ended, however late that is noticed."""
    answers_match_requests: bool = True
    watchdog_kills: bool = True
    """A process of its own kills handlers whose worker is stopped."""
    claims_wait_after_loss: bool = True
    """After etcd was lost nobody claims for one TTL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may happen. Progress is checked beyond them."""

    workers: int = 2
    leaders: int = 1
    claims: int = 3
    starts: int = 2
    timeouts: bool = False
    """Attempts may outlive their timeout."""
    cancels: bool = False
    etcd_losses: int = 0
    """Etcd may be erased: no keys, the revision begins anew."""
    etcd_restores: int = 0
    """Etcd may be restored from a snapshot of any earlier instant; idle leases are modelled, too."""
    postgres_losses: int = 0
    """Postgres may lose its last commit, with the sequence, and continue on a new timeline."""
    watch_acknowledgements: bool = False
    """Count completions that were acknowledged to workers: what Postgres lost is told twice."""
