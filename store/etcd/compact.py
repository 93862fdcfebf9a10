"""When to compact etcd's history: by growth, so that a busy cluster stays under its quota, and by time.

Owns: the decision and its two memories. Called by the leader, one ``step`` now and then; only one may compact, or
histories become shorter than intended. A margin of history is kept, so that watchers that reconnect can resume.
Deliberately not here: defragmentation, which stalls a member and is the operator's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenure.model.clock import Clock
from tenure.store.etcd.port import Etcd

EVERY_REVISIONS = 200_000
EVERY_S = 300.0
KEEP_REVISIONS = 50_000


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """How much history there may be. Margin + growth bound the revisions kept."""

    every_revisions: int = EVERY_REVISIONS
    every_s: float = EVERY_S
    keep_revisions: int = KEEP_REVISIONS

    def target(self, revision: int, compacted: int, elapsed_s: float) -> int | None:
        """Return the revision to compact at; None if it is not time, or nothing would be forgotten."""
        grown = revision - compacted - self.keep_revisions
        if grown <= 0:
            return None
        if grown < self.every_revisions and elapsed_s < self.every_s:
            return None
        return revision - self.keep_revisions


class Compactor:
    """Compacts as its policy says."""

    def __init__(self, etcd: Etcd, clock: Clock, policy: CompactionPolicy | None = None) -> None:
        self._etcd = etcd
        self._clock = clock
        self._policy = policy or CompactionPolicy()
        self._compacted = 0
        self._compacted_at = clock.monotonic()

    @property
    def compacted(self) -> int:
        """The revision of the last compaction here; 0 before the first."""
        return self._compacted

    async def step(self) -> int | None:
        """Look how far history has grown and compact if due; return the revision compacted at.

        Raises:
            Unavailable: etcd did not answer; the next step tries again.
        """
        revision = (await self._etcd.status()).revision
        if revision < self._compacted:  # another store: begin anew
            self._compacted = 0
        target = self._policy.target(revision, self._compacted, self._clock.monotonic() - self._compacted_at)
        if target is None:
            return None
        await self._etcd.compact(target)
        self._compacted, self._compacted_at = target, self._clock.monotonic()
        return target
