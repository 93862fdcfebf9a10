"""How long jobs are kept after their end: policies, legal holds, and which policy decides. Pure.

A policy names a namespace, a kind and a final state, each of which may be any. The most specific one that covers a job
decides: a namespace weighs more than a kind, a kind more than a state, so that there is never a tie. Without one that
covers it a job is kept for ever. A legal hold is a label: what has it is not removed, whatever the policies say.

Called by the service and the leader's chore; the statements that remove decide by the same rule in SQL
(``expired_page.sql``, ``tenure.remove_history``), from what the tables hold at that instant. A test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.jobs import label_problem
from tenure.model.routes import kind_error, name_error
from tenure.model.states import TERMINAL

ANY = ""
"""In the place of a name: all of them."""
MIN_KEEP_S = 60
"""Whoever waits for a job must have the time to read what became of it."""
MAX_KEEP_S = 100 * 366 * 86_400
MAX_REASON_CHARS = 512
RESTORED_FIRST = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes of S3 from which nothing can be read as it lies."""
_STORAGE_CLASS = re.compile(r"[A-Z][A-Z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Policy:
    """How long jobs of a namespace, a kind and a final state are kept; ``ANY`` in the place of each is all of them."""

    namespace: str = ANY
    kind: str = ANY
    state: str = ANY
    keep_s: int | None = None
    """Since their end. None: for ever."""
    archive: bool = False
    """Written to the archive before they go."""
    archive_keep_s: int | None = None
    """How long files of the archive are kept, since they were made. None: for ever."""
    storage_class: str | None = None
    """Of files of the archive, in S3. None: the bucket's default."""

    @property
    def name(self) -> str:
        """Return what it is called where people read it: ``acme/*/failed``."""
        return "/".join(part or "*" for part in (self.namespace, self.kind, self.state))

    @property
    def weight(self) -> int:
        """Say how specific it is."""
        return 4 * (self.namespace != ANY) + 2 * (self.kind != ANY) + (self.state != ANY)

    def covers(self, namespace: str, kind: str, state: str) -> bool:
        """Say whether it is for such jobs."""
        return self.namespace in (ANY, namespace) and self.kind in (ANY, kind) and self.state in (ANY, state)


def policy_for(policies: Iterable[Policy], namespace: str, kind: str, state: str) -> Policy | None:
    """Return the policy that decides about such jobs, None if no one covers them."""
    return max(
        (one for one in policies if one.covers(namespace, kind, state)), key=lambda one: one.weight, default=None
    )


def shortest_keep_s(policies: Iterable[Policy]) -> int | None:
    """Return after how long the first of what ends now may go; None: nothing ever does."""
    return min((one.keep_s for one in policies if one.keep_s is not None), default=None)


def validate_policy(policy: Policy, *, no_archive: str | None = "no object store", has_classes: bool = False) -> Policy:
    """Return the policy if it is one. ``no_archive``: what is missing for there to be an archive.

    ``has_classes``: the object store has storage classes.

    Raises:
        InvalidInput: with every violation.
    """
    found = names_violations(policy.namespace, policy.kind, policy.state, path="policy.")
    if policy.keep_s is not None and not MIN_KEEP_S <= policy.keep_s <= MAX_KEEP_S:
        found.append(FieldViolation("policy.keep", f"must be {MIN_KEEP_S} s to {MAX_KEEP_S:,} s; without it: for ever"))
    if policy.archive and no_archive:
        found.append(FieldViolation("policy.archive", f"there is no archive: {no_archive}"))
    found += _archive_violations(policy, has_classes)
    if found:
        raise InvalidInput(found)
    return policy


def _archive_violations(policy: Policy, has_classes: bool) -> list[FieldViolation]:
    keep, storage_class = "policy.archive_keep", "policy.storage_class"
    found = []
    if policy.archive_keep_s is not None and not MIN_KEEP_S <= policy.archive_keep_s <= MAX_KEEP_S:
        found.append(FieldViolation(keep, f"must be {MIN_KEEP_S} s to {MAX_KEEP_S:,} s; without it: for ever"))
    if policy.storage_class is not None:
        if not _STORAGE_CLASS.fullmatch(policy.storage_class):
            found.append(FieldViolation(storage_class, "must be a name like STANDARD_IA"))
        elif policy.storage_class in RESTORED_FIRST:
            told = "has to be restored before it is read, and files are read back at once: use a lifecycle rule"
            found.append(FieldViolation(storage_class, told))
        elif not has_classes:
            found.append(FieldViolation(storage_class, "the object store has none: it is not S3"))
    for field, value in ((keep, policy.archive_keep_s), (storage_class, policy.storage_class)):
        if value is not None and not policy.archive:
            found.append(FieldViolation(field, "is for jobs that are archived"))
    return found


def names_violations(namespace: str, kind: str, state: str, *, path: str = "") -> list[FieldViolation]:
    """Say what is wrong with the names of a policy."""
    found = []
    if namespace != ANY and (problem := name_error(namespace)):
        found.append(FieldViolation(f"{path}namespace", problem))
    if kind != ANY and (problem := kind_error(kind)):
        found.append(FieldViolation(f"{path}kind", problem))
    if state != ANY and state not in TERMINAL:
        found.append(FieldViolation(f"{path}state", f"must be one of {', '.join(sorted(TERMINAL))}, or none for any"))
    return found


def validate_hold(key: str, value: str, reason: str = "") -> tuple[str, str]:
    """Return the label of a legal hold if it is one that a job can have.

    Raises:
        InvalidInput: with every violation.
    """
    found = []
    if problem := label_problem("label", {key: value}):
        found.append(FieldViolation("key", problem))
    if len(reason) > MAX_REASON_CHARS or "\x00" in reason:
        found.append(FieldViolation("reason", f"must be at most {MAX_REASON_CHARS} characters without NUL"))
    if found:
        raise InvalidInput(found)
    return key, value


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, in which history is looked through by itself; None: without end on that side."""

    from_at: datetime | None
    until_at: datetime | None


def spans(weeks: Sequence[tuple[datetime | None, datetime | None]], until: datetime) -> list[Span]:
    """Return all time before ``until``, oldest first, cut at the bounds of partitions, and what lies between these.

    Each span lies in one partition, or outside of all of them: what ended then lies in the default one.
    """
    found: list[Span] = []
    reached: datetime | None = None
    for from_at, until_at in sorted(weeks, key=lambda week: (week[0] is not None, week[0])):
        if from_at is not None and (reached is None or from_at > reached):
            found.append(Span(reached, from_at))
        found.append(Span(from_at, until_at))
        if until_at is None:
            return [span for span in found if span.from_at is None or span.from_at < until]
        reached = until_at
    found.append(Span(reached, None))
    return [span for span in found if span.from_at is None or span.from_at < until]
