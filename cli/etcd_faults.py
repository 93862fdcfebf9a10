"""Which known faults of etcd a version has: a table, and a pure function over it. Read by ``tenure doctor``.

Only faults that matter to claims, leases and watches, or that lose data; the numbers are etcd's own issues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]
ADVICE = "run etcd 3.5.23, 3.6.5 or later; 3.4 only for a while"
OLDEST: tuple[int, int] = (3, 4)
NEWEST: tuple[int, int] = (3, 6)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``fixed_in`` has one version per release line; a line that is missing never had it."""

    words: str
    issue: str
    fixed_in: dict[tuple[int, int], int]
    is_severe: bool = False


FAULTS = (
    Fault("a member killed under load can miss writes (data inconsistency)", "13766", {(3, 5): 3}, is_severe=True),
    Fault(
        "a single member can lose an acknowledged write when killed", "14370", {(3, 4): 21, (3, 5): 5}, is_severe=True
    ),
    Fault("a crash during defragmentation makes members differ", "14685", {(3, 5): 6}, is_severe=True),
    Fault("a snapshot applied during defragmentation corrupts data", "20653", {(3, 4): 38, (3, 5): 23, (3, 6): 5}),
    Fault("an old leader can revoke live leases and answer KeepAlives", "15247", {(3, 4): 31, (3, 5): 13}),
    Fault("a KeepAlive can succeed on a lease just revoked", "20590", {(3, 4): 38, (3, 5): 23, (3, 6): 5}),
    Fault("a watch can lose events when starved or after compaction", "17529", {(3, 4): 31, (3, 5): 13}),
    Fault("a delete event can be lost around compaction", "19179", {(3, 4): 36, (3, 5): 18}),
    Fault("the revision can go back after a crash in compaction", "17780", {(3, 4): 32, (3, 5): 14}),
)


def parsed(version: str) -> Version | None:
    """Read ``3.5.1``; None if it is not like that."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def faults_of(version: Version) -> list[Fault]:
    """Return the faults that a version has."""
    line = version[:2]
    return [fault for fault in FAULTS if line in fault.fixed_in and version[2] < fault.fixed_in[line]]
