"""Every bound of the service; each has a named error. 0001_submit_job.sql repeats those of a job, and a test compares.

Units are in the names. Sources: DESIGN.md sections 5 and 6, SECURITY.md decision 6.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may ask for at most."""

    payload_bytes: int = 256 * 1024
    result_bytes: int = 64 * 1024
    """That are kept with the job; what is larger goes to the object store."""
    large_result_bytes: int = 16 * 1024 * 1024
    """Of what a handler returns: held in memory, and however it is escaped it fits into a frame between processes."""
    json_depth: int = 64
    batch_jobs: int = 10_000
    labels: int = 32
    limits: int = 8
    """Limits that one job may carry. Etcd leaves 28 operations to each claim of a batch (``store.etcd.claims``)."""
    kind_limits: int = 4
    """Limits that the settings of a kind may add: they count among those of the job."""
    limit_template_chars: int = 255
    label_value_chars: int = 63
    idempotency_key_chars: int = 255
    workflow_name_chars: int = 255
    min_idempotency_ttl_s: float = 600.0
    """Longer than clients send a request again (``outage_s``, 5 min by default)."""
    max_idempotency_ttl_s: float = 31 * 86_400.0
    delay_s: float = 366 * 86_400.0
    attempts: int = 100
    min_ttl_s: float = 2.0
    max_ttl_s: float = 3_600.0
    timeout_s: float = 30 * 86_400.0
    dependencies: int = 10_000
    error_chars: int = 8_192
    error_type_chars: int = 255
    """Of each type that a retry policy names."""
    checkpoint_bytes: int = 256 * 1024
    progress_message_chars: int = 512
    schedule_ticks: int = 1_000
    """Ticks of one schedule that one round, one backfill or one preview takes."""
    min_interval_s: float = 1.0
    max_interval_s: float = 366 * 86_400.0
    misfire_window_s: float = 31 * 86_400.0
    jitter_s: float = 86_400.0
    log_line_bytes: int = 16 * 1024
    """Of one line of a log with its fields; what is longer is cut, and says so."""
    log_batch_lines: int = 1_000
    log_batch_bytes: int = 256 * 1024
    """Of the lines of one attempt that are written together, as they are sent."""
    log_call_batches: int = 500
    log_call_bytes: int = 1024 * 1024
    log_bytes: int = 64 * 1024 * 1024
    """Of the log of one attempt. Then a line says that it is full, and no more are kept."""


DEFAULT_BOUNDS = Bounds()
MIN_PRIORITY = -1_000
MAX_PRIORITY = 1_000
DEFAULT_TTL_S = 10.0
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_MAX_CRASHES = 3
IDEMPOTENCY_TTL_S = 7 * 86_400.0
