"""Numbers served at ``/metrics`` in Prometheus' text format: counters of what should be rare, and gauges.

Each coordinator counts what it did itself, from its start on: sum over coordinators. The names are a contract with
whoever alerts on them. Incremented beside the log line that tells the same with its job; nothing here decides anything.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from tenure.model.states import Outcome

REGISTRY = CollectorRegistry()
"""Of its own, so that nothing is served but what stands here."""

STALE_WRITES = Counter(
    "tenure_stale_writes_refused",
    "Writes about an attempt under an old fence, and starts whose claim or job had moved on; nothing was changed.",
    ["write"],
    registry=REGISTRY,
)
REAPED = Counter(
    "tenure_attempts_reaped",
    "Attempts that the leader ended in their worker's stead: lost (its claim vanished), released (its claim was taken "
    "from a worker that lives), timed_out or canceled (its worker did not heed a cancel in time).",
    ["outcome"],
    registry=REGISTRY,
)
BRAKES = Counter(
    "tenure_brakes",
    "How often dispatch was held back for a TTL, at most 30 s, because the claims of many workers vanished at once.",
    registry=REGISTRY,
)
TICKS = Counter(
    "tenure_schedule_ticks",
    "Ticks of schedules that the leader decided upon: fired (a job was made) or skipped, as the schedule has it.",
    ["outcome"],
    registry=REGISTRY,
)
AUDIT_LOST = Counter(
    "tenure_audit_entries_lost",
    "Entries of the audit log that could not be written; each is in this coordinator's log instead.",
    registry=REGISTRY,
)
AUDIT_LEFT_OUT = Counter(
    "tenure_audit_refusals_left_out",
    "Refused calls that are not in the audit log, because too many were refused in a minute.",
    registry=REGISTRY,
)
READY = Gauge(
    "tenure_coordinator_ready",
    "1 while this store answers this coordinator; etcd counts as answering only with a quorum.",
    ["check"],
    registry=REGISTRY,
)
LEADS = Gauge(
    "tenure_coordinator_leads",
    "1 while this coordinator leads: it dispatches, reaps and fires schedules.",
    registry=REGISTRY,
)

READY.labels("postgres")  # 0 from the start, while it is waited for; etcd is told of once it was asked
for _write in ("start", "finish", "progress", "checkpoint", "children", "artifact", "logs"):
    STALE_WRITES.labels(_write)  # shown as 0 from the start, so that the first one is a rise
for _outcome in (Outcome.LOST, Outcome.RELEASED, Outcome.TIMED_OUT, Outcome.CANCELED):
    REAPED.labels(str(_outcome))
for _ticked in ("fired", "skipped"):
    TICKS.labels(_ticked)
