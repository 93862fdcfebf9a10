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

from tests.spec.rules import Bounds, Identity, Rules

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
    verified: frozenset[Claim] = frozenset()
    """Start requests whose claim a coordinator has seen in etcd, before it writes."""
    reports: frozenset[Report] = frozenset()
    releases: frozenset[Claim] = frozenset()
    """Claims that somebody is about to delete as his own."""
    claims_left: int = 0
    starts_left: int = 0
    before: Row | None = None
    """Postgres before its last commit, if that can be lost."""
    timeline: int = 1
    etcd_losses: int = 0
    etcd_restores: int = 0
    snapshot: tuple[Claim | None, int] | None = None
    restored: bool = False
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


def same(identity: Identity, wanted: Claim | None, found: Claim | None) -> bool:
    """Say whether the claim found counts as the one wanted."""
    if found is None or wanted is None:
        return False
    match identity:
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


# -- step 3: claim --


def claim(rules: Rules, state: State, index: int) -> Iterator[Step]:
    """A worker answers an offer, which may be an old one, by claiming the job."""
    worker = state.workers[index]
    if worker.phase != "idle" or not state.claims_left or state.row.state in TERMINAL:
        return
    if state.claim is not None and rules.claim_compares_absence:
        return
    offered = {state.row.attempt - 1} if state.row.state == "executing" else {state.row.attempt, state.row.attempt - 1}
    lease = worker.idle_lease or state.leases + 1
    for seen in sorted(offered - {-1}, reverse=True):
        made = Claim(index, lease, state.revision + 1, seen)
        after = with_worker(state, index, Worker("starting", made, used=True))._replace(
            claim=made,
            revision=made.revision,
            leases=max(state.leases, lease),
            claims_left=state.claims_left - 1,
        )
        broken = "claims-overlap" if state.claim is not None else None
        yield Step(
            f"{_name(index)} claims the job at revision {made.revision}, offered after attempt {seen}", after, broken
        )


# -- step 4: start --


def verify(rules: Rules, state: State) -> Iterator[Step]:
    """A coordinator takes a start request and sees its claim in etcd."""
    if state.claim is None:
        return
    asking = {worker.claim for worker in state.workers if worker.phase == "starting" and worker.claim is not None}
    for shown in sorted({state.claim} | asking):
        if shown not in state.verified and same(rules.start_compares, shown, state.claim):
            broken = None if own(shown, state.claim) else "start-own"
            if not rules.start_is_guarded and not _may_start(rules, state, shown):
                continue  # the re-read that is all the guard there is
            yield Step(
                f"a coordinator sees {_name(shown.worker)}'s claim in etcd",
                state._replace(verified=state.verified | {shown}),
                broken,
            )


def start(rules: Rules, state: State, shown: Claim) -> Iterator[Step]:
    """A coordinator writes the start of a claim that it has seen, and answers."""
    row = state.row
    state = state._replace(verified=state.verified - {shown})
    if (rules.start_is_guarded and not _may_start(rules, state, shown)) or not state.starts_left:
        yield from _not_started(rules, state, shown)
        return
    fence = (row.epoch, row.sequence + 1)
    started = row._replace(
        state="executing", attempt=row.attempt + 1, fence=fence, claim=shown, sequence=row.sequence + 1
    )
    broken = None
    if row.state != "ready":
        broken = "attempt-overwritten"
    elif any(given >= fence and not own(to, shown) for given, to in state.given):
        broken = "fence-grows"
    after = commit(state, started)._replace(given=(*state.given, (fence, shown)), starts_left=state.starts_left - 1)
    label = f"Postgres starts attempt {started.attempt} for {_name(shown.worker)} with fence {_fence(fence)}"
    yield from _answered(label, after, shown, fence, broken)


def _may_start(rules: Rules, state: State, shown: Claim) -> bool:
    if rules.start_compares_timeline and state.row.timeline != state.timeline:
        return False
    return state.row.state == "ready" and state.row.attempt == shown.seen


def _not_started(rules: Rules, state: State, shown: Claim) -> Iterator[Step]:
    row = state.row
    held = row.claim
    if row.state == "executing" and held is not None and row.fence is not None:
        mine = held[:3] == shown[:3] if rules.start_shows_claim else held.worker == shown.worker
        if mine:
            yield from _answered(f"the row names {_name(shown.worker)}'s claim", state, shown, row.fence, None)
            return
    label = f"Postgres starts nothing for {_name(shown.worker)}"
    yield Step(f"{label}; no answer arrives", state)
    worker = state.workers[shown.worker]
    if worker.phase == "starting" and worker.claim == shown and row.timeline == state.timeline:
        after = with_worker(state, shown.worker, Worker(used=True))
        yield Step(f"{label}, who lets go", after._replace(releases=after.releases | {shown}))


def _answered(label: str, state: State, shown: Claim, fence: Fence, broken: str | None) -> Iterator[Step]:
    yield Step(f"{label}; no answer arrives", state, broken)
    worker = state.workers[shown.worker]
    if worker.phase == "starting" and worker.claim == shown:
        run = with_worker(state, shown.worker, Worker("running", shown, fence, used=True))
        if not any(given == fence and own(shown, to) for given, to in state.given):
            broken = broken or "fence-shared"
        yield Step(f"{label}, who runs", run, broken)


def give_up(state: State, index: int) -> Iterator[Step]:
    """A worker dies, or never learns whether its claim or its start succeeded: nobody renews its lease."""
    if state.workers[index].phase != "idle":
        yield Step(f"{_name(index)} is killed or gives up", with_worker(state, index, Worker(used=True)))


# -- steps 5 to 7: run, finish, announce --


def end(state: State, index: int) -> Iterator[Step]:
    """A handler ends, and the worker sends a report."""
    worker = state.workers[index]
    if worker.phase != "running" or worker.fence is None:
        return
    for outcome in ("completed", "released"):
        sent = with_worker(state, index, worker._replace(phase="reporting"))
        report = Report(index, worker.fence, outcome)
        yield Step(f"{_name(index)} reports {outcome}", sent._replace(reports=sent.reports | {report}))


def finish(rules: Rules, bounds: Bounds, state: State, report: Report) -> Iterator[Step]:
    """A coordinator takes a report, perhaps once more, and answers."""
    row, broken = state.row, None
    recorded = [outcome for fence, outcome in row.ended if fence == report.fence]
    mine = report.outcome in recorded
    label = f"{_name(report.worker)}'s {report.outcome} under {_fence(report.fence)}"
    if row.state == "executing" and (row.fence == report.fence or not rules.finish_compares_fence):
        if row.fence != report.fence or row.fence is None:
            broken = "end-of-another"
        state = commit(state, leave(rules, row, report.fence, report.outcome))
        success, mine, label = True, True, f"{label} is recorded"
    else:
        success = mine if rules.repeat_compares_outcome else bool(recorded) and "lost" not in recorded
        if not rules.finish_counts_rows:
            success = True
        if success != mine:
            broken = "told-the-truth"
        label = f"{label} is called recorded" if success else f"{label} is refused"
    if success:
        state = state._replace(releases=state.releases | {to for fence, to in state.given if fence == report.fence})
    worker = state.workers[report.worker]
    yield Step(f"{label}; no answer arrives", state, broken)
    if worker.phase == "reporting" and worker.fence == report.fence:
        if success and report.outcome == "completed" and bounds.watch_acknowledgements:
            state = state._replace(told=tuple(sorted({*state.told, report.fence})))
            broken = broken or ("acknowledged-once" if len(state.told) > 1 else None)
        yield Step(label, with_worker(state, report.worker, Worker(used=True)), broken)
        if bounds.etcd_restores and worker.claim is not None and own(worker.claim, state.claim) and success:
            idle = Worker(idle_lease=worker.claim.lease, used=True)
            free = state._replace(claim=None, releases=state.releases - {worker.claim})
            yield Step(f"{label}; its claim is deleted, its lease kept", with_worker(free, report.worker, idle), broken)


def leave(rules: Rules, row: Row, fence: Fence, outcome: str) -> Row:
    """Return the row after its attempt ended."""
    state = "completed" if outcome == "completed" else "ready"
    ended = (*row.ended, (fence, outcome))
    if rules.leaving_clears_fence:
        return row._replace(state=state, ended=ended, fence=None, claim=None)
    return row._replace(state=state, ended=ended)


def release(rules: Rules, state: State, owned: Claim) -> Iterator[Step]:
    """A claim is given up by who holds it, or by the coordinator that recorded the attempt's end."""
    state = state._replace(releases=state.releases - {owned})
    if state.claim is not None and same(rules.release_compares, owned, state.claim):
        broken = None if own(owned, state.claim) else "release-own"
        yield Step(f"{_name(owned.worker)}'s claim is released", state._replace(claim=None), broken)
    else:
        yield Step(f"{_name(owned.worker)}'s claim is not there to be released", state)


def cancel(state: State) -> Iterator[Step]:
    """A job that nobody executes is canceled."""
    if state.row.state == "ready":
        yield Step("the job is canceled", commit(state, state.row._replace(state="canceled")))


# -- reap --


def read(rules: Rules, state: State, index: int) -> Iterator[Step]:
    """A leader begins a sweep by reading the rows (or, against the rules, the claims)."""
    if state.leaders[index] is not None:
        return
    if not rules.reap_reads_rows_first:
        yield Step("a leader lists the claims", with_leader(state, index, Leader("listed", claim=state.claim)))
    elif state.row.state == "executing":
        seen = Leader("read", state.row.fence, state.row.claim)
        yield Step("a leader reads the executing row", with_leader(state, index, seen))


def judge(rules: Rules, bounds: Bounds, state: State, index: int) -> Iterator[Step]:
    """A leader compares rows with claims."""
    leader = state.leaders[index]
    if leader is None or leader.stage not in ("read", "listed"):
        return
    if leader.stage == "read":
        fence, wanted, found = leader.fence, leader.claim, state.claim
    elif state.row.state == "executing":
        fence, wanted, found = state.row.fence, state.row.claim, leader.claim
    else:
        yield Step("a leader finds nothing executing", with_leader(state, index, None))
        return
    if not same(rules.reap_compares_claim, wanted, found):
        yield Step(
            f"a leader finds {_fence(fence)} without its claim", with_leader(state, index, Leader("lost", fence))
        )
        return
    yield Step(f"a leader finds {_fence(fence)} alive", with_leader(state, index, None))
    if bounds.timeouts:
        late = with_leader(state, index, Leader("timed_out", fence))
        yield Step(f"a leader finds {_fence(fence)} past its timeout", late)


def reap(rules: Rules, state: State, index: int) -> Iterator[Step]:
    """A leader writes the end of the attempt that it judged, however long ago that was."""
    leader = state.leaders[index]
    if leader is None or leader.fence is None or leader.stage not in ("lost", "timed_out"):
        return
    row, state = state.row, with_leader(state, index, None)
    if row.state != "executing" or row.fence is None or (rules.reap_compares_fence and row.fence != leader.fence):
        yield Step(f"the leader comes too late for {_fence(leader.fence)}", state)
        return
    broken = None
    if leader.stage == "lost" and own(row.claim, state.claim) and not state.restored:
        broken = "healthy-reaped"  # a claim that is gone never comes back, but from a snapshot
    if row.fence != leader.fence:
        broken = "end-of-another"
    after = commit(state, leave(rules, row, row.fence, leader.stage))
    if leader.stage == "timed_out" and row.claim is not None:
        after = after._replace(releases=after.releases | {row.claim})
    yield Step(f"the leader records {_fence(row.fence)} as {leader.stage}", after, broken)


def raise_epoch(rules: Rules, state: State) -> Iterator[Step]:
    """A leader that sees a new timeline raises the epoch."""
    if state.row.timeline != state.timeline:
        epoch = state.row.epoch + rules.epoch_is_raised
        after = commit(state, state.row._replace(epoch=epoch, timeline=state.timeline))
        yield Step(f"a leader sees a new timeline: the epoch is {epoch}", after)


# -- what etcd and Postgres do by themselves --


def vanish(state: State) -> Iterator[Step]:
    """A claim vanishes: its lease expired, rightly or not, or somebody deleted it."""
    if state.claim is not None:
        how = "vanishes" if kept(state, state.claim) else "expires"
        yield Step(f"{_name(state.claim.worker)}'s claim {how}", state._replace(claim=None))


def lose_etcd(state: State) -> Iterator[Step]:
    """Etcd is erased: revisions begin anew. Lease ids are random, and do not come again."""
    if state.etcd_losses and state.revision:
        yield Step("etcd is erased", state._replace(claim=None, revision=0, etcd_losses=state.etcd_losses - 1))


def restore_etcd(state: State) -> Iterator[Step]:
    """A snapshot is taken; later etcd is restored from it, with its claims, leases and revision."""
    if not state.etcd_restores:
        return
    if state.snapshot is None and state.claim is not None:
        yield Step("a snapshot of etcd is taken", state._replace(snapshot=(state.claim, state.revision)))
    elif state.snapshot is not None and state.revision:
        claim, revision = state.snapshot
        after = state._replace(claim=claim, revision=revision, etcd_restores=state.etcd_restores - 1, snapshot=None)
        yield Step("etcd is restored from the snapshot", after._replace(restored=True))


def notice_restore(rules: Rules, state: State) -> Iterator[Step]:
    """A worker sees the revision go back and drops its idle leases."""
    if rules.restore_drops_idle_leases and state.restored:
        for index, worker in enumerate(state.workers):
            if worker.idle_lease:
                after = with_worker(state, index, worker._replace(idle_lease=0))
                yield Step(f"{_name(index)} drops its idle lease", after)


def lose_postgres(state: State) -> Iterator[Step]:
    """Postgres fails over to a standby that lacks the last commit."""
    if state.before is not None and state.postgres_losses:
        left = state.postgres_losses - 1
        after = state._replace(row=state.before, before=None, timeline=state.timeline + 1, postgres_losses=left)
        yield Step("Postgres loses its last commit and changes its timeline", after)


def _name(worker: int) -> str:
    return NAMES[worker]


def _fence(fence: Fence | None) -> str:
    return "no fence" if fence is None else f"{fence[0]}.{fence[1]}"
