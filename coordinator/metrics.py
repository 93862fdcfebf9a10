"""Numbers of a coordinator, served at ``/metrics`` in the formats of Prometheus and OpenMetrics.

Each coordinator counts what it did itself, from its start on: sum over coordinators. What only the leader knows, only
the leader shows (``coordinator.survey``). The names are a contract with whoever alerts on them; docs/METRICS.md is made
from what stands here. Nothing here decides anything.

Labels are bounded: methods, states, outcomes, tables, and the pools with the most ready jobs. The hot path is measured
by the batch: one pass over it and an addition for each outcome (``probes.measures``, ``counted``).
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from tenure.model.errors import PermissionDenied, Unauthenticated
from tenure.model.states import TERMINAL, Outcome
from tenure.probes.measures import Counts, Durations

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
CALLS_REFUSED = Counter(
    "tenure_calls_refused",
    "Calls that were refused for who made them: unauthenticated (nothing was shown, or nothing valid), or "
    "permission_denied; over grpc or http.",
    ["over", "status"],
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

BUILD = Gauge(
    "tenure_build_info", "1, with what runs here: the version of tenure and of Python.", ["version", "python"],
    registry=REGISTRY,
)  # fmt: skip

LOOP_LATE_S = Durations(
    "tenure_event_loop_late_seconds",
    "How late the event loop woke what slept, looked at twice a second: a long time means that something held it up.",
    registry=REGISTRY,
)

# -- the life of a job, by the batch --

SUBMITTED = Counts(
    "tenure_jobs_submitted",
    "Jobs written: by submit (single ones, batches, streams), child (of an attempt), schedule (ticks, triggers, "
    "backfills) or retry (by hand). Those that SQL inserts are not counted.",
    ["by"],
    registry=REGISTRY,
)
SUBMIT_S = Durations(
    "tenure_submit_seconds",
    "How long the transaction of a group of submits, a batch or an attempt's children took.",
    registry=REGISTRY,
)
STARTED = Counts("tenure_attempts_started", "Attempts that started.", registry=REGISTRY)
START_S = Durations(
    "tenure_start_seconds",
    "How long a batch of starts took: its claims read in etcd, its attempts written in Postgres.",
    registry=REGISTRY,
)
ENDED = Counts(
    "tenure_attempts_ended", "Attempts that ended, by outcome; those that were reaped, too.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
JOBS_ENDED = Counts(
    "tenure_jobs_ended",
    "Jobs that ended, by state, those among them that nobody executed: canceled, overdue, or for what they waited for.",
    ["state"],
    registry=REGISTRY,
)
CLAIM_S = Durations(
    "tenure_claim_seconds",
    "How long a batch of claims took that a coordinator made for a runner, leases and all.",
    registry=REGISTRY,
)
CLAIMS = Counts(
    "tenure_claims_made",
    "Claims that were tried for runners, by result: won, or missed (another has it, a slot is taken, or etcd gave no "
    "lease).",
    ["result"],
    registry=REGISTRY,
)
FINISH_S = Durations(
    "tenure_finish_seconds",
    "How long a batch of ends took: written in Postgres, announced in etcd.",
    registry=REGISTRY,
)

# -- calls --

GRPC_CALLS = Counts(
    "tenure_grpc_requests", "gRPC calls that were answered, by method and status.", ["method", "code"],
    registry=REGISTRY,
)  # fmt: skip
GRPC_S = Durations(
    "tenure_grpc_request_seconds",
    "How long a gRPC call with one answer took. Those that wait by design (WaitJob) take as long as they wait.",
    ["method"],
    registry=REGISTRY,
    buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10.0),
)
RUNNER_CALLS = Counts(
    "tenure_runner_requests", "Calls of runners over HTTP, by call and HTTP status.", ["call", "status"],
    registry=REGISTRY,
)  # fmt: skip
RUNNER_S = Durations(
    "tenure_runner_request_seconds",
    "How long a call of a runner took. A claim waits for jobs, up to the poll's time.",
    ["call"],
    registry=REGISTRY,
    buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10.0),
)

# -- logs and files --

LOG_LINES = Counts("tenure_log_lines", "Lines that attempts have logged and that were written.", registry=REGISTRY)
LOG_BYTES = Counts(
    "tenure_log_bytes", "Bytes of the lines that attempts have logged, as they are stored.", registry=REGISTRY
)
LOGS_MOVED = Counts("tenure_logs_moved", "Logs that the leader moved into the object store.", registry=REGISTRY)
FILES_SAVED = Counts(
    "tenure_artifacts_saved", "Files that attempts saved in the object store, large results among them.",
    registry=REGISTRY,
)  # fmt: skip
FILE_BYTES = Counts(
    "tenure_artifact_bytes", "Bytes of the files that attempts saved in the object store.", registry=REGISTRY
)

# -- dispatch, of the leader --

OFFERED = Counts("tenure_jobs_offered", "Jobs that the leader offered to workers.", registry=REGISTRY)
OFFERS_WITHDRAWN = Counts(
    "tenure_offers_withdrawn", "Offers, of one job or many, that a worker did not answer in time.", registry=REGISTRY
)
ROUND_S = Durations(
    "tenure_dispatch_round_seconds", "How long a round of dispatch took that offered something.", registry=REGISTRY
)
INTERRUPTED = Counts(
    "tenure_dispatch_interruptions", "Rounds of dispatch that a store did not let through.", registry=REGISTRY
)
DISPATCH_LAG = Gauge(
    "tenure_dispatch_lag_seconds",
    "How long ago the leader's dispatcher last came through a round, empty ones included; at rest it stays below "
    "TENURE_POLL_S. 0 where this coordinator does not lead.",
    registry=REGISTRY,
)

# -- schedules and chores, of the leader --

TICK_LATE_S = Durations(
    "tenure_schedule_lateness_seconds",
    "How late a schedule was carried out that was due, by Postgres' clock; by the latest of its ticks.",
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0),
)
TICK_OVERDUE = Gauge(
    "tenure_schedule_overdue_seconds", "How long the most urgent schedule has been due for, and is not carried out.",
    registry=REGISTRY,
)  # fmt: skip
CHORES_FAILED = Counts(
    "tenure_chore_failures",
    "Chores of the leader that did not come through, by chore; each is tried again.",
    ["chore"],
    registry=REGISTRY,
)
REMOVED = Counts("tenure_retention_jobs_removed", "Jobs that retention removed.", registry=REGISTRY)
ARCHIVED = Counts("tenure_archive_jobs", "Jobs that were moved into the archive.", registry=REGISTRY)
ARCHIVED_BYTES = Counts("tenure_archive_bytes", "Bytes of the archive's files.", registry=REGISTRY)

BUILD.labels(version("tenure"), platform.python_version()).set(1)
ProcessCollector(registry=REGISTRY)
for _by in ("submit", "child", "schedule", "retry"):
    SUBMITTED.named(_by)
for _result in ("won", "missed"):
    CLAIMS.named(_result)
for _ended in Outcome:
    ENDED.named(str(_ended))
for _state in sorted(TERMINAL):
    JOBS_ENDED.named(str(_state))
for _chore in ("retention", "archive", "archive_expiry", "leftovers", "count"):
    CHORES_FAILED.named(_chore)
READY.labels("postgres")  # 0 from the start, while it is waited for; etcd is told of once it was asked
for _write in ("start", "finish", "progress", "checkpoint", "children", "artifact", "logs"):
    STALE_WRITES.labels(_write)  # shown as 0 from the start, so that the first one is a rise
for _outcome in (Outcome.LOST, Outcome.RELEASED, Outcome.TIMED_OUT, Outcome.CANCELED):
    REAPED.labels(str(_outcome))
for _over in ("grpc", "http"):
    for _status in ("unauthenticated", "permission_denied"):
        CALLS_REFUSED.labels(_over, _status)
for _ticked in ("fired", "skipped"):
    TICKS.labels(_ticked)


def count_refusal(over: str, exc: Exception) -> None:
    """Count a call that is refused, if it is for who made it."""
    if isinstance(exc, (Unauthenticated, PermissionDenied)):
        CALLS_REFUSED.labels(over, exc.grpc_status.lower()).inc()
