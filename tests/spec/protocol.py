"""The steps of ``model`` put together, its state invariants, and progress.

Owns: which steps a state has (``Protocol.steps``), what must hold in every state (``Protocol.check``), and the fair
schedule that must bring every state to its end. Two states that differ only in what nobody can use any more are made
one (``tidy``): that changes no behaviour and keeps the number of states small.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.spec import model
from tests.spec.model import TERMINAL, Claim, State, Step, Worker
from tests.spec.rules import Bounds, Identity, Rules

ROUNDS = 30
"""Rounds of the fair schedule that any state must need at most."""


class ClaimProtocol:
    """The protocol under some rules, within some bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self._rules = rules
        self._bounds = bounds
        self._ends: set[State] = set()
        """States from which the fair schedule is known to come to its end."""

    def initial(self) -> State:
        """Return the state after the submit."""
        return model.initial(self._bounds)

    def steps(self, state: State) -> Iterator[Step]:
        """Return everything that can happen next."""
        for step in self._all(state):
            tidy = self._tidy(step.state)
            if tidy is step.state:
                yield step
            elif tidy != state or step.broken is not None:
                yield Step(step.label, tidy, step.broken)

    def _all(self, state: State) -> Iterator[Step]:
        rules, bounds = self._rules, self._bounds
        for index, worker in enumerate(state.workers):
            if worker.used or all(other.used for other in state.workers[:index]):  # names do not matter
                yield from model.claim(rules, state, index)
            yield from model.give_up(state, index)
            yield from model.end(state, index)
        yield from model.verify(rules, state)
        for shown in sorted(state.verified):
            yield from model.start(rules, state, shown)
        for report in sorted(state.reports):
            yield from model.finish(rules, bounds, state, report)
        for owned in sorted(state.releases):
            yield from model.release(rules, state, owned)
        for index in range(len(state.leaders)):
            yield from model.read(rules, state, index)
            yield from model.judge(rules, bounds, state, index)
            yield from model.reap(rules, state, index)
        yield from model.raise_epoch(rules, state)
        if bounds.cancels:
            yield from model.cancel(state)
        yield from model.vanish(state)
        yield from model.lose_etcd(state)
        yield from model.restore_etcd(state)
        yield from model.notice_restore(rules, state)
        yield from model.lose_postgres(state)

    # -- what must hold in every state --

    def check(self, state: State) -> str | None:
        """Return the name of a violated invariant."""
        row = state.row
        if (row.state == "executing") != (row.fence is not None) or (row.fence is None) != (row.claim is None):
            return "fence-cleared"
        if len({fence for fence, _ in row.ended}) != len(row.ended):
            return "recorded-once"
        if sum(outcome == "completed" for _, outcome in row.ended) > 1:
            return "completed-once"
        if row.state == "executing" and not model.own(row.claim, state.claim) and not self._leader_suffices(state):
            return "take-over"
        return None

    def _leader_suffices(self, state: State) -> bool:
        """Say whether a leader ends an attempt without a claim by one sweep, whatever workers do or do not."""
        state = model.with_leader(state, 0, None)
        state = _last(state, model.read(self._rules, state, 0))
        state = _first(state, model.judge(self._rules, Bounds(), state, 0))
        state = _last(state, model.reap(self._rules, state, 0))
        return state.row.state != "executing"

    # -- that it comes to an end --

    def progress(self, state: State) -> str | None:
        """Return "progress" unless a fair schedule without further faults brings the job to an end."""
        passed: list[State] = []
        now = state._replace(claims_left=99, starts_left=99, postgres_losses=0, etcd_losses=0, before=None)
        for _ in range(ROUNDS):
            if now.row.state in TERMINAL or now in self._ends:
                self._ends.update(passed)
                return None
            passed.append(now)
            now = self._tidy(self._round(now))
        return "progress"

    def _round(self, state: State) -> State:
        """Let everybody take a turn: the last way in which a step can go is the one in which its answer arrives."""
        rules = self._rules
        state = _last(state, model.raise_epoch(rules, state))
        while step := next(model.notice_restore(rules, state), None):
            state = step.state
        for index in range(len(state.workers)):
            state = self._turn(state, index)
        for owned in sorted(state.releases):
            state = _last(state, model.release(rules, state, owned))
        if state.claim is not None and not model.kept(state, state.claim):
            state = _last(state, model.vanish(state))
        for index in range(len(state.leaders)):
            for _ in range(2):  # what was under way, and then a sweep
                state = _last(state, model.read(rules, state, index))
                state = _last(state, model.judge(rules, Bounds(), state, index))
                state = _last(state, model.reap(rules, state, index))
        return state

    def _turn(self, state: State, index: int) -> State:
        rules, worker = self._rules, state.workers[index]
        if worker.phase == "idle":
            return _first(state, model.claim(rules, state, index))
        if worker.phase == "starting" and worker.claim is not None:
            if model.same(rules.start_compares, worker.claim, state.claim):
                state = state._replace(verified=state.verified | {worker.claim})
                return _last(state, model.start(rules, state, worker.claim))
            gone = state._replace(releases=state.releases | {worker.claim})
            return model.with_worker(gone, index, Worker(used=True))
        if worker.phase == "running":
            state = next(model.end(state, index)).state
        sent = [report for report in state.reports if report.worker == index and report.fence == worker.fence]
        return _last(state, model.finish(rules, Bounds(), state, sent[0])) if sent else state

    # -- states that are the same --

    def _tidy(self, state: State) -> State:
        """Forget what cannot be used any more; the very same object if there is nothing to forget."""
        leaders, releases, verified = state.leaders, state.releases, state.verified
        if state.row.state in TERMINAL and not state.postgres_losses:
            verified, leaders = frozenset(), (None,) * len(leaders)
        if len(leaders) > 1:
            leaders = tuple(sorted(leaders, key=_leader_key))
        if releases and self._rules.release_compares is Identity.FULL and not state.etcd_restores:
            releases = frozenset(owned for owned in releases if model.own(owned, state.claim))
        if verified and self._rules.start_is_guarded and not state.postgres_losses:
            verified = frozenset(shown for shown in verified if self._matters(state, shown))
        if (leaders, releases, verified) == (state.leaders, state.releases, state.verified):
            return state
        return state._replace(leaders=leaders, releases=releases, verified=verified)

    def _matters(self, state: State, shown: Claim) -> bool:
        """Say whether a start that was verified can still do or answer anything."""
        return shown.seen >= state.row.attempt or state.workers[shown.worker].claim == shown


def _leader_key(leader: model.Leader | None) -> tuple[str, model.Fence, Claim]:
    if leader is None:
        return ("", (0, 0), Claim(0, 0, 0, 0))
    return (leader.stage, leader.fence or (0, 0), leader.claim or Claim(0, 0, 0, 0))


def _last(state: State, steps: Iterator[Step]) -> State:
    for step in steps:
        state = step.state
    return state


def _first(state: State, steps: Iterator[Step]) -> State:
    return next((step.state for step in steps), state)
