"""Numbers that a worker counts, served at its ``/metrics`` beside the gauges of ``worker.probes``.

From the start of the process on, and of the control loop alone: by the batch, with one addition each
(``probes.measures``), but for how long attempts ran. docs/METRICS.md is made from what stands here. Nothing here
decides anything.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from tenure.model.states import Outcome
from tenure.probes.measures import Counts, Durations

REGISTRY = CollectorRegistry()

BUILD = Gauge(
    "tenure_build_info", "1, with what runs here: the version of tenure and of Python.", ["version", "python"],
    registry=REGISTRY,
)  # fmt: skip
CLAIM_S = Durations(
    "tenure_worker_claim_seconds",
    "How long a batch of claims took, leases and all. A runner's are a coordinator's: `tenure_claim_seconds`.",
    registry=REGISTRY,
)
CLAIMS = Counts(
    "tenure_worker_claims_made",
    "Claims that were tried, by result: won, or missed (another has it, a slot is taken, or etcd gave no lease). "
    "A runner's are a coordinator's: `tenure_claims_made_total`.",
    ["result"],
    registry=REGISTRY,
)
START_S = Durations(
    "tenure_worker_start_seconds", "How long a coordinator took to start a batch of claims.", registry=REGISTRY
)
STARTED = Counts("tenure_worker_attempts_started", "Attempts that began to run here.", registry=REGISTRY)
REPORT_S = Durations(
    "tenure_worker_report_seconds", "How long a coordinator took to record a batch of ends.", registry=REGISTRY
)
ENDED = Counts(
    "tenure_worker_attempts_ended", "Attempts that ended here and whose report was answered, by outcome.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
OWNERSHIP_LOST = Counts(
    "tenure_worker_ownership_lost",
    "Reports that were refused, because the job was another's by then; their results were dropped.",
    registry=REGISTRY,
)
ATTEMPT_S = Durations(
    "tenure_worker_attempt_seconds",
    "How long an attempt ran here, from when its handler might begin until it had ended, by kind and outcome. The "
    "first hundred kinds that a worker runs; the rest together, as kind `other`.",
    ["kind", "outcome"],
    registry=REGISTRY,
    buckets=(0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 14400.0),
)
KEEPALIVE_S = Durations(
    "tenure_worker_keepalive_seconds",
    "How long a batch of KeepAlives took to be answered, by etcd, or by a coordinator for a runner.",
    registry=REGISTRY,
)
UNANSWERED = Counts(
    "tenure_worker_keepalives_unanswered", "KeepAlives that were not answered in time; each is sent again.",
    registry=REGISTRY,
)  # fmt: skip
LEASES_LOST = Counts(
    "tenure_worker_leases_lost", "Leases that etcd said to be gone while this worker kept them.", registry=REGISTRY
)

BUILD.labels(version("tenure"), platform.python_version()).set(1)
ProcessCollector(registry=REGISTRY)
for _result in ("won", "missed"):
    CLAIMS.named(_result)
for _outcome in Outcome:
    if _outcome is not Outcome.LOST:  # which nobody reports
        ENDED.named(str(_outcome))


MOST_KINDS = 100
OTHER = "other"
"""The label of kinds beyond these."""
_KINDS: set[str] = set()


def observe_attempt(seconds: float, kind: str, outcome: Outcome) -> None:
    """Take note of an attempt that has ended."""
    if kind not in _KINDS:
        if len(_KINDS) < MOST_KINDS:
            _KINDS.add(kind)
        else:
            kind = OTHER
    ATTEMPT_S.observe(seconds, kind, outcome.value)


class Renewals:
    """Told by the keeper of leases how renewing goes (``store.etcd.leases.Observer``)."""

    def renewed(self, took_s: float, missing: int) -> None:
        """See ``Observer``."""
        KEEPALIVE_S.observe(took_s)
        if missing:
            UNANSWERED.add(missing)

    def lost(self) -> None:
        """See ``Observer``."""
        LEASES_LOST.add(1)
