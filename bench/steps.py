"""The steps of a job's life, by the functions that take them: the keys of the table of costs.

A sample is a stack of frames, the innermost last. It belongs to the innermost frame that a step names, so that what
psycopg, grpc or json do is charged to the step that asked for it. What no step asked for is the event loop's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

COORDINATOR = (
    ("dispatch: read", r"_read\b.*coordinator/dispatch\.py|candidate_from_row|_poll \(coordinator/dispatch\.py"),
    ("dispatch: offer", r"\.(_offer|_offer_of|_put|_withdraw)\b.*coordinator/dispatch\.py|store/etcd/claims\.py"),
    ("dispatch: choose", r"coordinator/(dispatch|flight|allowance|lanes|pending)\.py|model/dispatch\.py"),
    ("start", r"coordinator/start\.py|WorkerService\.StartAttempts|_started_to_pb|_slots \(coordinator/api/worker"),
    (
        "finish",
        r"coordinator/(finish|dependants|retry)\.py|WorkerService\.FinishAttempts|_report_from_pb|_finished_to_pb",
    ),
    ("announce", r"coordinator/announce\.py"),
    ("follow etcd", r"Picture\._|coordinator/(waiters|census)\.py|claim_gone|store/etcd/(view|watching)\.py"),
    ("sweeps", r"coordinator/(reap|upkeep|overdue|schedule|kinds|backlog|stores|presence|opening)\.py"),
    ("submit and wait", r"coordinator/(submit|group_commit|new_jobs|following)\.py|JobService"),
    ("keepalive", r"store/etcd/(leases|keepalive|http2_stream|election)\.py"),
)
WORKER = (
    ("inbox", r"worker/inbox\.py|DirectLink\.(receive|_answer|_discard)|store/etcd/(view|watching)\.py"),
    ("claim", r"worker/claim\.py|store/etcd/claims\.py"),
    ("keepalive", r"store/etcd/(leases|keepalive|http2_stream)\.py|DirectLink\.(_verify|trusted_until)"),
    ("start", r"DirectLink\._start|_assignment \("),
    ("finish", r"worker/report\.py|DirectLink\.(finish|_forget)|_report_to_pb|Control\.(_ended|_report|_answered)"),
    ("run", r"worker/(attempt|context|handler|control)\.py|worker/execute/|bench/handlers\.py"),
)
REST = "event loop and gRPC"


@dataclass(frozen=True, slots=True)
class Profile:
    """How often a process was seen where."""

    samples: Mapping[tuple[str, ...], int]

    @classmethod
    def parse(cls, raw: Iterable[str]) -> Profile:
        """Read folded stacks: frames joined by ``;``, a space, a count."""
        samples: Counter[tuple[str, ...]] = Counter()
        for line in raw:
            stack, _, count = line.rstrip("\n").rpartition(" ")
            if stack:
                samples[tuple(re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";"))] += int(count)
        return cls(samples)

    def by_step(self, steps: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Return each step's share of all samples, the largest first."""
        compiled = [(step, re.compile(pattern)) for step, pattern in steps]
        counts: Counter[str] = Counter()
        for stack, count in self.samples.items():
            counts[_step(stack, compiled)] += count
        return _shares(counts)

    def by_function(self) -> dict[str, float]:
        """Return each function's own share of all samples, the largest first."""
        counts: Counter[str] = Counter()
        for stack, count in self.samples.items():
            counts[stack[-1]] += count
        return _shares(counts)


def _step(stack: Sequence[str], steps: Sequence[tuple[str, re.Pattern[str]]]) -> str:
    for frame in reversed(stack):
        for step, pattern in steps:
            if pattern.search(frame):
                return step
    return REST


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total() or 1
    return {name: count / total for name, count in counts.most_common()}
