"""What ``tenure doctor`` asks a member of etcd beyond whether it answers: how fast, how full, how much history.

Latency is measured by reads and by leases that are granted and revoked (each is a Raft write, as a claim is). The rest
is read from the member's own metrics, which etcd serves on its client port; where they are not, that is said.
"""

from __future__ import annotations

import math
import ssl
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tenure.cli.findings import Finding, Level
from tenure.model.errors import TenureError

if TYPE_CHECKING:
    from tenure.store.etcd.options import EtcdOptions
    from tenure.store.etcd.port import Etcd

ROUNDS = 5
ASK_S = 3.0
SLOW_READ_S = 0.05
SLOW_WRITE_S = 0.1
"""etcd advises 10 ms for its disk and a heartbeat of 100 ms: above that, leaders change under load."""
FAILING_WRITE_S = 0.7
"""A KeepAlive is sent every third of the TTL: with the least TTL of 2 s this leaves no second try."""
SLOW_FSYNC_S = 0.01
FULL = 0.75
NEARLY_FULL = 0.95
FRAGMENTED_BYTES = 256 * 1024 * 1024
LONG_HISTORY = 500_000
"""Revisions. The leader of tenure compacts from 70,000 on, by default."""
FSYNC = "etcd_disk_wal_fsync_duration_seconds"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a member says of itself in its metrics, as far as it does."""

    size_bytes: float | None
    in_use_bytes: float | None
    quota_bytes: float | None
    revision: float | None
    compacted: float | None
    fsync_p99_s: float | None
    """The upper bound of the bucket that holds 99 of 100 fsyncs since the member started; infinite above all."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians of a few calls, seconds."""

    read_s: float
    write_s: float | None
    """None: leases could not be granted."""


async def latency(etcd: Etcd) -> Latency:
    """Measure reads and writes, one at a time."""
    reads: list[float] = []
    writes: list[float] = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        await etcd.get("/tenure-doctor")
        reads.append(time.monotonic() - began)
        try:
            began = time.monotonic()
            lease = (await etcd.grant(2)).lease
            writes.append(time.monotonic() - began)
            await etcd.revoke(lease)
        except TenureError:
            continue  # said elsewhere: it grants no lease
    return Latency(statistics.median(reads), statistics.median(writes) if writes else None)


def judge_latency(endpoint: str, found: Latency) -> list[Finding]:
    """Say whether a member is quick enough for leases."""
    told = f"a read takes {found.read_s * 1000:.1f} ms"
    if found.write_s is not None:
        told += f", a write {found.write_s * 1000:.1f} ms"
    why = "every claim is a write to etcd, and a KeepAlive that comes late costs a job its lease"
    step = "put etcd on disks of its own, near the workers; look at its load and at the network between its members"
    slowest = max(found.read_s, found.write_s or 0.0)
    if slowest >= FAILING_WRITE_S:
        return [Finding(Level.FAIL, endpoint, told, step, why, "etcd-latency")]
    if found.read_s >= SLOW_READ_S or (found.write_s or 0.0) >= SLOW_WRITE_S:
        return [Finding(Level.WARN, endpoint, told, step, why, "etcd-latency")]
    return [Finding(Level.OK, endpoint, told, check="etcd-latency")]


def metrics(endpoint: str, options: EtcdOptions) -> tuple[str, datetime | None, float]:
    """Fetch a member's metrics; return their text, the member's clock, and how long the answer took.

    Blocks. Raises ``httpx.HTTPError`` or ``OSError``.
    """
    import httpx

    scheme, _, rest = endpoint.rpartition("://")
    is_tls = scheme in ("grpcs", "https")
    verify: ssl.SSLContext | bool = True
    if is_tls:
        context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
        if options.cert_file and options.key_file:
            context.load_cert_chain(options.cert_file, options.key_file)
        verify = context
    began = time.monotonic()
    answer = httpx.get(f"http{'s' * is_tls}://{rest}/metrics", timeout=ASK_S, verify=verify, trust_env=False)
    took_s = time.monotonic() - began
    answer.raise_for_status()
    told = answer.headers.get("date")
    return answer.text, parsedate_to_datetime(told).astimezone(UTC) if told else None, took_s


def measured(text: str) -> Measured:
    """Read what matters from a member's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    wanted = {
        "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_server_quota_backend_bytes", "etcd_debugging_mvcc_current_revision",
        "etcd_debugging_mvcc_compact_revision", f"{FSYNC}_bucket",
    }  # fmt: skip
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in wanted]
    values: dict[str, float] = {}
    buckets: list[tuple[float, float]] = []
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == f"{FSYNC}_bucket":
                buckets.append((float(sample.labels["le"]), sample.value))
            else:
                values[sample.name] = sample.value
    return Measured(
        size_bytes=values.get("etcd_mvcc_db_total_size_in_bytes"),
        in_use_bytes=values.get("etcd_mvcc_db_total_size_in_use_in_bytes"),
        quota_bytes=values.get("etcd_server_quota_backend_bytes"),
        revision=values.get("etcd_debugging_mvcc_current_revision"),
        compacted=values.get("etcd_debugging_mvcc_compact_revision"),
        fsync_p99_s=quantile(buckets, 0.99),
    )


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return the upper bound of the bucket in which a share of all is reached; None if nothing was counted."""
    ordered = sorted(buckets)
    if not ordered or not ordered[-1][1]:
        return None
    return next((bound for bound, count in ordered if count >= share * ordered[-1][1]), math.inf)


def judge(endpoint: str, found: Measured) -> list[Finding]:
    """Say what a member's metrics mean."""
    return [*_space(endpoint, found), *_history(endpoint, found), *_fsync(endpoint, found)]


def _space(endpoint: str, found: Measured) -> Iterable[Finding]:
    if found.size_bytes is None or not found.quota_bytes:
        return
    share = found.size_bytes / found.quota_bytes
    told = f"{_mb(found.size_bytes)} of {_mb(found.quota_bytes)} quota used"
    why = "a full etcd refuses every write: nothing can be claimed until an operator has made room"
    step = "etcdctl defrag, member by member; then raise --quota-backend-bytes"
    if share >= FULL:
        level = Level.FAIL if share >= NEARLY_FULL else Level.WARN
        yield Finding(level, endpoint, f"{told} ({share:.0%})", step, why, "etcd-quota")
    else:
        yield Finding(Level.OK, endpoint, told, check="etcd-quota")
    if found.in_use_bytes is not None and found.size_bytes - found.in_use_bytes > max(
        FRAGMENTED_BYTES, found.size_bytes / 2
    ):
        free = _mb(found.size_bytes - found.in_use_bytes)
        yield Finding(
            Level.WARN, endpoint, f"{free} of its file are free, and not given back",
            "etcdctl defrag, member by member",
            "the file counts against the quota, not what is in it", "etcd-fragmentation",
        )  # fmt: skip


def _history(endpoint: str, found: Measured) -> Iterable[Finding]:
    if found.revision is None or found.compacted is None:
        return
    kept = int(found.revision - max(found.compacted, 0))
    told = f"keeps {kept:,} revisions of history"
    if kept > LONG_HISTORY:
        yield Finding(
            Level.WARN, endpoint, told, "is there a leader, and may it compact? docs/LEAST_PRIVILEGE.md, compaction",
            "nobody compacts: etcd grows until its quota is reached", "etcd-compaction",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, endpoint, told, check="etcd-compaction")


def _fsync(endpoint: str, found: Measured) -> Iterable[Finding]:
    if found.fsync_p99_s is None:
        return
    within = "more than its metrics can tell" if math.isinf(found.fsync_p99_s) else f"{found.fsync_p99_s * 1000:g} ms"
    told = f"99 of 100 fsyncs of its log took at most {within}"
    if found.fsync_p99_s > SLOW_FSYNC_S:
        yield Finding(
            Level.WARN, endpoint, told, "give etcd a disk of its own, a quick one: etcd advises 10 ms",
            "a slow disk delays every claim, and makes leaders change under load", "etcd-fsync",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, endpoint, told, check="etcd-fsync")


def judge_members(clusters: Mapping[str, int], versions: Mapping[str, str]) -> list[Finding]:
    """Say whether the endpoints go together: of one cluster, of one version, enough of them."""
    findings = []
    if len(set(clusters.values())) > 1:
        told = ", ".join(f"{endpoint}: {cluster:x}" for endpoint, cluster in clusters.items())
        findings.append(
            Finding(
                Level.FAIL, "etcd", f"the endpoints belong to different clusters ({told})",
                "correct TENURE_ETCD_ENDPOINTS: all of them must be members of one cluster",
                "two workers could claim the same job, each in its own etcd", "etcd-members",
            )
        )  # fmt: skip
    elif len(set(versions.values())) > 1:
        told = ", ".join(f"{endpoint}: {version}" for endpoint, version in versions.items())
        findings.append(
            Finding(
                Level.WARN, "etcd", f"members of different versions ({told})", "finish the upgrade of etcd",
                "the cluster does only what its oldest member can", "etcd-members",
            )
        )  # fmt: skip
    if len(clusters) == 1:
        findings.append(
            Finding(
                Level.WARN, "etcd", "one endpoint only", "run three members, and name all of them",
                "while that member is away nothing can be claimed", "etcd-members",
            )
        )  # fmt: skip
    return findings


def _mb(size: float) -> str:
    return f"{size / 1_000_000:,.1f} MB"
