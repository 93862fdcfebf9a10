"""The claim protocol for one job as a state machine: DESIGN.md's steps 3 to 7 and the reaper, with their faults.

Owns: the state, and one function per step of the protocol or fault; each returns every way in which it can go.
Invariant: a state is an immutable tuple, a step is pure, and what a step breaks is part of it (``Step.broken``), so
that a violation is found where it happens. Called by ``explore`` and ``progress``. Deliberately not here: time
(``trust``), several jobs (a job shares nothing with another but leases, which are not reused before a claim on
them is certainly gone), dispatch (an offer is a hint: any worker may be offered a job at any time, late too).

What stands for what
    A message, once sent, can be delivered at any time, any number of times, or never: a start request for as long as
    its claim is there, a report for ever. An answer reaches its worker or not. A pause is a step that is not taken.
    ``given`` and ``told`` are the observer's notes: nobody in the model reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.spec.rules import Bounds, Identity, Judged, Rules

Fence = tuple[int, int]
"""Epoch, number from the sequence."""


class Claim(NamedTuple):
    """A claim in etcd, and in it the start request of its holder."""

    worker: int
    lease: int
    revision: int
    seen: int
    """The attempt number in the offer that it answers."""


class Row(NamedTuple):
    """What Postgres has committed about the job, its epoch and its sequence."""

    state: str = "ready"
    """Ready stands for restarting, too: both can be started, and differ in nothing else here."""
    attempt: int = 0
    fence: Fence | None = None
    claim: Claim | None = None
    ended: tuple[tuple[Fence, str], ...] = ()
    """The attempts that ended, with their outcomes."""
    epoch: int = 1
    sequence: int = 0
    timeline: int = 1
    """The timeline for which the epoch was raised last."""


class Worker(NamedTuple):
    """One worker, as far as this job goes."""

    phase: str = "idle"
    claim: Claim | None = None
    fence: Fence | None = None
    idle_lease: int = 0
    """A lease in its pool, kept alive."""
    used: bool = False


class Report(NamedTuple):
    """A finish request."""

    worker: int
    fence: Fence
    outcome: str


class Leader(NamedTuple):
    """What a reaper has read, and what it has judged."""

    stage: str
    fence: Fence | None = None
    claim: Claim | None = None


class State(NamedTuple):
    """Everything."""

    row: Row
    workers: tuple[Worker, ...]
    leaders: tuple[Leader | None, ...]
    claim: Claim | None = None
    revision: int = 0
    leases: int = 0
    verified: tuple[Claim, ...] = ()
    """Start requests whose claim a coordinator has seen in etcd, before it writes."""
    reports: tuple[Report, ...] = ()
    releases: tuple[Claim, ...] = ()
    """Claims that somebody is about to delete as his own."""
    claims_left: int = 0
    starts_left: int = 0
    before: Row | None = None
    """Postgres before its last commit, if that can be lost."""
    timeline: int = 1
    etcd_losses: int = 0
    etcd_restores: int = 0
    snapshot: tuple[Claim | None, int] | None = None
    postgres_losses: int = 0
    given: tuple[tuple[Fence, Claim], ...] = ()
    """Every fence ever given, in order, with the claim for which it was given."""
    told: tuple[Fence, ...] = ()
    """Completions acknowledged, if they are counted."""


class Step(NamedTuple):
    """One way in which a state goes on."""

    label: str
    state: State
    broken: str | None = None
    """The name of the invariant that this step violates."""


TERMINAL = frozenset({"completed", "canceled"})
NAMES = "ABCD"


def initial(bounds: Bounds) -> State:
    """Return the state after the submit."""
    return State(
        row=Row(),
        workers=(Worker(),) * bounds.workers,
        leaders=(None,) * bounds.leaders,
        claims_left=bounds.claims,
        starts_left=bounds.starts,
        etcd_losses=bounds.etcd_losses,
        etcd_restores=bounds.etcd_restores,
        postgres_losses=bounds.postgres_losses,
    )


def same(rules: Rules, wanted: Claim, found: Claim | None) -> bool:
    """Say whether the rules take the claim found for the one wanted."""
    if found is None:
        return False
    match rules.identity:
        case Identity.FULL:
            return (wanted.lease, wanted.revision) == (found.lease, found.revision)
        case Identity.REVISION:
            return wanted.revision == found.revision
        case Identity.NAME:
            return True


def own(wanted: Claim | None, found: Claim | None) -> bool:
    """Say whether the claim found is the one wanted: the observer's view."""
    return wanted is not None and found is not None and wanted[:3] == found[:3]


def kept(state: State, claim: Claim) -> bool:
    """Say whether some worker renews the claim's lease."""
    return any(
        worker.idle_lease == claim.lease or (worker.claim is not None and worker.claim.lease == claim.lease)
        for worker in state.workers
    )


def commit(state: State, row: Row) -> State:
    """Let Postgres commit a new row."""
    return state._replace(row=row, before=state.row if state.postgres_losses else None)


def with_worker(state: State, index: int, worker: Worker) -> State:
    """Replace one worker."""
    return state._replace(workers=(*state.workers[:index], worker, *state.workers[index + 1 :]))


def with_leader(state: State, index: int, leader: Leader | None) -> State:
    """Replace one leader."""
    return state._replace(leaders=(*state.leaders[:index], leader, *state.leaders[index + 1 :]))


def add[T](things: tuple[T, ...], thing: T) -> tuple[T, ...]:
    return things
