"""What is explored: the protocol in several settings, and each mutant with the invariant that must catch it.

Pure data and one function; used by the tests and by ``table``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.spec.explore import Result, explore
from tests.spec.protocol import ClaimProtocol
from tests.spec.rules import Bounds, Identity, Rules
from tests.spec.trust import TrustWindow

LIMIT = 250_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Rules within bounds; ``expected`` is the invariant that they violate, None for the protocol itself."""

    name: str
    says: str = ""
    rules: Rules = field(default_factory=Rules)
    bounds: Bounds | None = None
    """None: the trust window."""
    expected: str | None = None
    states: int = 0
    """At least so many states must be reached: an exploration that saw little proves little."""


def run(variant: Variant) -> Result[Any]:
    """Explore a variant to the end or to the first violation."""
    if variant.bounds is None:
        window = TrustWindow(variant.rules)
        return explore(window.initial(), window.steps, window.check, limit=LIMIT)
    protocol = ClaimProtocol(variant.rules, variant.bounds)
    return explore(protocol.initial(), protocol.steps, protocol.check, afterwards=protocol.progress, limit=LIMIT)


PROTOCOL = (
    Variant(
        name="three workers",
        says="pauses, kills, vanishing claims, delayed and repeated messages, unknown outcomes",
        bounds=Bounds(workers=3),
        states=50_000,
    ),
    Variant(
        name="two leaders",
        says="as above with two reapers, one of which may wake up late; timeouts and cancels",
        bounds=Bounds(leaders=2, claims=2, timeouts=True, cancels=True),
        states=25_000,
    ),
    Variant(
        name="etcd erased",
        says="no keys, no leases, and revisions that are given a second time",
        bounds=Bounds(etcd_losses=1),
        states=90_000,
    ),
    Variant(
        name="etcd restored",
        says="a snapshot of any instant comes back, with claims that had gone; leases are reused",
        bounds=Bounds(claims=2, etcd_restores=1),
        states=20_000,
    ),
    Variant(
        name="Postgres set back",
        says="the last commit is lost, with the sequence; a new timeline",
        bounds=Bounds(claims=2, postgres_losses=1),
        states=20_000,
    ),
    Variant(name="trust window", says="late and lost answers, a stopped worker, etcd erased, in ticks", states=1_000),
)

MUTANTS = (
    Variant(
        name="claims are put without comparing that there is none",
        rules=Rules(claim_compares_absence=False),
        bounds=Bounds(),
        expected="claims-overlap",
    ),
    Variant(
        name="start re-reads the row and then writes without a guard",
        rules=Rules(start_is_guarded=False),
        bounds=Bounds(),
        expected="attempt-overwritten",
    ),
    Variant(
        name="start looks for a claim with the same revision only",
        says="needs etcd erased",
        rules=Rules(start_compares=Identity.REVISION),
        bounds=Bounds(etcd_losses=1),
        expected="start-own",
    ),
    Variant(
        name="a start of unknown outcome belongs to the worker that the row names",
        rules=Rules(start_shows_claim=False),
        bounds=Bounds(),
        expected="fence-shared",
    ),
    Variant(
        name="the epoch is not raised on a new timeline",
        says="needs Postgres set back",
        rules=Rules(epoch_is_raised=False),
        bounds=Bounds(postgres_losses=1),
        expected="fence-grows",
    ),
    Variant(
        name="attempts start on a new timeline before the epoch is raised",
        says="needs Postgres set back",
        rules=Rules(start_compares_timeline=False),
        bounds=Bounds(postgres_losses=1),
        expected="fence-grows",
    ),
    Variant(
        name="finish compares the state, not the fence",
        rules=Rules(finish_compares_fence=False),
        bounds=Bounds(),
        expected="end-of-another",
    ),
    Variant(
        name="finish takes zero rows for success",
        rules=Rules(finish_counts_rows=False),
        bounds=Bounds(),
        expected="told-the-truth",
    ),
    Variant(
        name="a report repeats whatever was recorded under its fence",
        says="the leader had recorded a timeout",
        rules=Rules(repeat_compares_outcome=False),
        bounds=Bounds(timeouts=True),
        expected="told-the-truth",
    ),
    Variant(
        name="leaving executing keeps the fence",
        rules=Rules(leaving_clears_fence=False),
        bounds=Bounds(),
        expected="fence-cleared",
    ),
    Variant(
        name="release deletes by key name",
        rules=Rules(release_compares=Identity.NAME),
        bounds=Bounds(),
        expected="release-own",
    ),
    Variant(
        name="release compares the revision only",
        says="needs etcd erased",
        rules=Rules(release_compares=Identity.REVISION),
        bounds=Bounds(etcd_losses=1),
        expected="release-own",
    ),
    Variant(
        name="reap asks whether a claim exists, not whose",
        rules=Rules(reap_compares_claim=Identity.NAME),
        bounds=Bounds(),
        expected="take-over",
    ),
    Variant(
        name="reap compares the revision only",
        says="needs etcd erased",
        rules=Rules(reap_compares_claim=Identity.REVISION),
        bounds=Bounds(etcd_losses=1),
        expected="take-over",
    ),
    Variant(
        name="reap writes without comparing the fence",
        rules=Rules(reap_compares_fence=False),
        bounds=Bounds(),
        expected="end-of-another",
    ),
    Variant(
        name="reap lists the claims before it reads the rows",
        rules=Rules(reap_reads_rows_first=False),
        bounds=Bounds(),
        expected="healthy-reaped",
    ),
    Variant(
        name="idle leases are renewed after etcd was restored",
        says="a claim that came back on one never goes",
        rules=Rules(restore_drops_idle_leases=False),
        bounds=Bounds(claims=2, etcd_restores=1),
        expected="progress",
    ),
    Variant(
        name="trust counts from the answer's arrival",
        rules=Rules(trust_counts_from_sending=False),
        expected="outlives-lease",
    ),
    Variant(name="trust has no margin", rules=Rules(trust_has_margin=False), expected="outlives-lease"),
    Variant(
        name="the time to stop counts from when the worker notices",
        says="it had been stopped itself",
        rules=Rules(stop_counts_from_trust=False),
        expected="outlives-lease",
    ),
    Variant(
        name="KeepAlives that fail change nothing",
        rules=Rules(trust_runs_out=False),
        expected="outlives-lease",
    ),
    Variant(
        name="a late answer counts for the KeepAlive sent last",
        rules=Rules(answers_match_requests=False),
        expected="outlives-lease",
    ),
    Variant(
        name="nobody kills the handlers of a stopped worker",
        rules=Rules(watchdog_kills=False),
        expected="outlives-lease",
    ),
    Variant(
        name="jobs are claimed at once after etcd was erased",
        rules=Rules(claims_wait_after_loss=False),
        expected="two-run",
    ),
)

LIMITS = (
    Variant(
        name="a completion that Postgres acknowledged and lost",
        says="nothing but durable commits can prevent it: synchronous replication",
        bounds=Bounds(workers=1, claims=2, postgres_losses=1, watch_acknowledgements=True),
        expected="acknowledged-once",
    ),
)
"""What the protocol cannot promise, shown by the same means."""
