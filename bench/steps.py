"""The steps of a job's life, by the functions that take them: the keys of the table of costs.

A sample is a stack of frames, the innermost last. It belongs to the innermost frame that a step names, so that what
psycopg, grpc or json do is charged to the step that asked for it. What no step asked for is the event loop's.

Steps name places: a file, or functions and classes in it. Of two steps that name a frame the first has it. A place that
is no more would move its costs silently: ``gone`` names it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Steps = Mapping[str, Sequence[str]]
"""By name: ``folder/file.py``, or ``folder/file.py: function Class``."""
COORDINATOR: Steps = {
    "dispatch: read": ("coordinator/reading.py", "coordinator/dispatch.py: _poll"),
    "dispatch: offer": ("coordinator/dispatch.py: _offer _offer_of _put _withdraw", "store/etcd/claims.py"),
    "dispatch: choose": (
        "coordinator/dispatch.py",
        "coordinator/flight.py",
        "coordinator/allowance.py",
        "coordinator/lanes.py",
        "coordinator/pending.py",
        "model/dispatch.py",
    ),
    "start": ("coordinator/start.py", "coordinator/api/worker_service.py: StartAttempts _started_to_pb _slots"),
    "finish": (
        "coordinator/finish.py",
        "coordinator/dependants.py",
        "coordinator/retry.py",
        "coordinator/api/worker_service.py: FinishAttempts _report_from_pb _finished_to_pb",
    ),
    "announce": ("coordinator/announce.py",),
    "follow etcd": (
        "coordinator/leader.py: Picture",
        "coordinator/waiters.py",
        "coordinator/census.py",
        "coordinator/reap.py: claim_gone",
        "store/etcd/view.py",
        "store/etcd/watching.py",
    ),
    "sweeps": (
        "coordinator/reap.py",
        "coordinator/upkeep.py",
        "coordinator/overdue.py",
        "coordinator/schedule.py",
        "coordinator/kinds.py",
        "coordinator/backlog.py",
        "coordinator/stores.py",
        "coordinator/presence.py",
        "coordinator/opening.py",
    ),
    "submit and wait": (
        "coordinator/submit.py",
        "coordinator/group_commit.py",
        "coordinator/new_jobs.py",
        "coordinator/following.py",
        "coordinator/api/job_service.py: JobService",
    ),
    "keepalive": (
        "store/etcd/leases.py",
        "store/etcd/keepalive.py",
        "store/etcd/http2_stream.py",
        "store/etcd/election.py",
    ),
}
WORKER: Steps = {
    "inbox": (
        "worker/inbox.py",
        "worker/direct.py: receive _answer _discard",
        "store/etcd/view.py",
        "store/etcd/watching.py",
    ),
    "claim": ("worker/claim.py", "store/etcd/claims.py"),
    "keepalive": (
        "store/etcd/leases.py",
        "store/etcd/keepalive.py",
        "store/etcd/http2_stream.py",
        "worker/direct.py: verify_forever _verify trusted_until",
    ),
    "start": ("worker/direct.py: _start _assignment",),
    "finish": (
        "worker/report.py",
        "worker/direct.py: finish _forget _report_to_pb",
        "worker/control.py: _ended _report _answered",
    ),
    "run": (
        "worker/attempt.py",
        "worker/context.py",
        "worker/handler.py",
        "worker/control.py",
        "worker/execute/",
        "bench/handlers.py",
    ),
}
REST = "event loop and gRPC"


def gone(steps: Steps, root: Path) -> list[str]:
    """Return what steps name that is not in the sources below ``root``."""
    return [f"{step}: {place}" for step, places in steps.items() for named in places for place in _gone(named, root)]


def _gone(place: str, root: Path) -> Iterator[str]:
    file, _, names = place.partition(":")
    if not (root / file).exists():
        yield file
        return
    text = (root / file).read_text() if names else ""
    yield from (f"{name} in {file}" for name in names.split() if not re.search(rf"\b(?:def|class) {name}\b", text))


@dataclass(frozen=True, slots=True)
class Profile:
    """How often a process was seen where."""

    samples: Mapping[tuple[str, ...], int]

    def __add__(self, other: Profile) -> Profile:
        return Profile(Counter(self.samples) + Counter(other.samples))

    @classmethod
    def parse(cls, raw: Iterable[str]) -> Profile:
        """Read folded stacks: frames joined by ``;``, a space, a count."""
        samples: Counter[tuple[str, ...]] = Counter()
        for line in raw:
            stack, _, count = line.rstrip("\n").rpartition(" ")
            if stack:
                samples[tuple(re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";"))] += int(count)
        return cls(samples)

    def by_step(self, steps: Steps) -> dict[str, float]:
        """Return each step's share of all samples, the largest first."""
        compiled = [(step, _pattern(place)) for step, places in steps.items() for place in places]
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


def _pattern(place: str) -> re.Pattern[str]:
    """Match the frames of a place, which read ``Class.function (folder/file.py)``."""
    file, _, names = place.partition(":")
    named = rf"\b(?:{'|'.join(names.split())})\b.*" if names else ""
    return re.compile(named + rf"[(/]{re.escape(file)}")


def _step(stack: Sequence[str], steps: Sequence[tuple[str, re.Pattern[str]]]) -> str:
    for frame in reversed(stack):
        for step, pattern in steps:
            if pattern.search(frame):
                return step
    return REST


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total() or 1
    return {name: count / total for name, count in counts.most_common()}
