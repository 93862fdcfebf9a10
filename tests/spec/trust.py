"""The trust window as a state machine with a clock: one worker holds a claim, another waits for it to go.

Owns: KeepAlives that are sent, served, answered late or never; a worker that is stopped; etcd that loses everything.
Invariants: the handler has ended when another worker can hold the claim (``two-run``) and before its own lease can
expire at the server (``outlives-lease``). Time is in ticks and never waits for what must be done at an instant
(stop, kill), but for nothing else. Called by ``explore``. Deliberately not here: Postgres and the fence, which make
harmless what this cannot prevent (a machine that is suspended as a whole).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.spec.rules import Rules

TTL = 5
MARGIN = 2
"""One tick to stop and kill the handler, one for timers that fire late."""
KILL = 1
HORIZON = 13
"""Ticks until the end of the model: more than two TTLs."""


class Request(NamedTuple):
    """A KeepAlive under way; ``answer`` is None before the server has it."""

    sent_at: int
    answer: str | None = None


class Trusted(NamedTuple):
    """Everything, as the worker A, etcd and the worker B have it."""

    now: int = 0
    expires: int | None = TTL
    """When etcd may let A's lease expire; None: it is gone."""
    expired: bool = False
    """It went because its time was over."""
    until: int = TTL - MARGIN
    """How long A trusts its claim."""
    handler: str = "running"
    kill_at: int = 0
    stopped: bool = False
    """A itself is stopped (SIGSTOP), its handler's process is not."""
    stops_left: int = 1
    request: Request | None = None
    late: Request | None = None
    """A KeepAlive that A has given up, in a stream that it still reads (against the rules)."""
    other_holds: bool = False
    frozen_until: int = 0
    losses_left: int = 1


class Tick(NamedTuple):
    """One way in which a state goes on."""

    label: str
    state: Trusted
    broken: str | None = None


class TrustWindow:
    """The trust window under some rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._margin = MARGIN if rules.trust_has_margin else 0

    def initial(self) -> Trusted:
        """Return the state after A's claim, its lease just granted."""
        return Trusted(until=TTL - self._margin)

    def check(self, state: Trusted) -> str | None:
        """Return the name of a violated invariant."""
        if state.handler == "ended":
            return None
        if state.other_holds:
            return "two-run"
        return "outlives-lease" if state.expired else None

    def steps(self, state: Trusted) -> Iterator[Tick]:
        """Return everything that can happen next."""
        at = f"{state.now:2}: "
        for label, after in self._all(state):
            yield Tick(at + label, after)

    def _all(self, state: Trusted) -> Iterator[tuple[str, Trusted]]:
        yield from self._worker(state)
        yield from self._server(state)
        yield from self._ends(state)
        if not self._is_urgent(state) and state.now < HORIZON:
            yield "a tick passes", state._replace(now=state.now + 1)
        if state.stopped:
            yield "A goes on", state._replace(stopped=False)
        elif state.stops_left:
            yield "A is stopped", state._replace(stopped=True, stops_left=state.stops_left - 1)
        if state.expires is None and not state.other_holds and state.now >= state.frozen_until:
            yield "B claims the job", state._replace(other_holds=True)

    # -- A: KeepAlives and what their answers say --

    def _worker(self, state: Trusted) -> Iterator[tuple[str, Trusted]]:
        if state.stopped or state.handler != "running":
            return
        if state.request is None:
            yield "A sends a KeepAlive", state._replace(request=Request(state.now))
        else:
            late = None if self._rules.answers_match_requests else state.request
            yield "A waits no longer for the answer", state._replace(request=None, late=late)
            if state.request.answer is not None:
                yield from self._answered(state._replace(request=None), state.request)
        if state.late is not None and state.late.answer is not None and state.request is not None:
            mistaken = state.late._replace(sent_at=state.request.sent_at)
            yield from self._answered(state._replace(request=None, late=None), mistaken)

    def _answered(self, state: Trusted, request: Request) -> Iterator[tuple[str, Trusted]]:
        if request.answer == "kept":
            since = request.sent_at if self._rules.trust_counts_from_sending else state.now
            until = max(state.until, since + TTL - self._margin)
            yield f"A hears: kept, and trusts until {until}", state._replace(until=until)
        else:
            yield "A hears: gone, and stops its handler", self._stopping(state)

    def _stopping(self, state: Trusted) -> Trusted:
        since = min(state.now, state.until) if self._rules.stop_counts_from_trust else state.now
        return state._replace(handler="stopping", kill_at=since + KILL)

    # -- the handler's end --

    def _is_urgent(self, state: Trusted) -> bool:
        return any(True for _ in self._ends(state))

    def _ends(self, state: Trusted) -> Iterator[tuple[str, Trusted]]:
        over = state.now >= state.until and self._rules.trust_runs_out
        if state.handler == "running" and over and not state.stopped:
            yield "A's trust is over, it stops its handler", self._stopping(state)
        if state.handler == "stopping" and state.now >= state.kill_at and not state.stopped:
            yield "the handler is killed", state._replace(handler="ended")
        if state.stopped and self._rules.watchdog_kills:
            due = state.until + KILL if state.handler == "running" else state.kill_at
            if state.handler != "ended" and state.now >= due:
                yield "the watchdog kills the handler", state._replace(handler="ended")

    # -- etcd --

    def _server(self, state: Trusted) -> Iterator[tuple[str, Trusted]]:
        gone = state.expires is None
        served, label = ("gone", "etcd finds no lease") if gone else ("kept", "etcd renews the lease")
        expires = None if gone else state.now + TTL
        if state.request is not None and state.request.answer is None:
            yield label, state._replace(request=state.request._replace(answer=served), expires=expires)
        if state.late is not None and state.late.answer is None:
            yield f"{label}, as asked before", state._replace(late=state.late._replace(answer=served), expires=expires)
        if state.expires is not None and state.now >= state.expires:
            yield "the lease expires", state._replace(expires=None, expired=True)
        if state.losses_left and not state.other_holds:
            frozen = state.now + TTL if self._rules.claims_wait_after_loss else 0
            lost = state._replace(expires=None, losses_left=state.losses_left - 1, frozen_until=frozen)
            yield "etcd is erased", lost
