"""The audit log: who did what, one entry for each act of somebody who steers.

Jobs that are submitted and attempts that are reported are not in it: they have a history of their own. What is, is said
by ``coordinator.api.acts``, by which handlers are marked. Where a change of settings is one transaction of ours its
entry is written in it (``noted``), else right after the act. Refusals are written too, but no more than so many a
minute, so that a flood of them cannot flood the table. Who is refused elsewhere is noted by ``Audit.denied``.

Invariant: no entry is lost in silence. One that cannot be written is logged whole and counted; the act stands all the
same. What a process was killed in the middle of may be missing. Nothing here changes or deletes an entry: retention
does (``coordinator.upkeep``), by age.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from tenure.coordinator.access import caller
from tenure.coordinator.metrics import AUDIT_LEFT_OUT, AUDIT_LOST
from tenure.model.access import Identity
from tenure.model.clock import Clock
from tenure.model.errors import InvalidInput, PermissionDenied, TenureError
from tenure.model.ids import new_id
from tenure.store.postgres.database import Database, Statement

log = structlog.get_logger(__name__)

OK = "ok"
DENIED = "denied"
INTERRUPTED = "interrupted"
"""The caller went away, or its time was up, before there was an answer: done in part, perhaps."""
NAME_CHARS = 255
TARGET_CHARS = 512
TEXT_CHARS = 512
DETAIL_CHARS = 8_192
REFUSED_PER_CALLER = 30
REFUSED_IN_ALL = 300
"""Refusals that are written in a minute, by each coordinator."""
REFUSED_PERIOD_S = 60.0
MAX_LATE = 1_000
LATE_S = 1.0

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Act:
    """What somebody asked for, and what there is to say of it so far."""

    action: str
    target: str
    namespace: str | None = None
    about: uuid.UUID | None = None
    """The job or the workflow whose namespace it is, where the request names none."""
    detail: dict[str, Any] = field(default_factory=dict)
    who: Identity = field(default_factory=caller)
    is_noted: bool = False
    """Its entry goes with its own transaction."""

    def entry(self, outcome: str) -> dict[str, Any]:
        """Return the row: bounded, and without what Postgres takes for no text."""
        return {
            "id": new_id(),
            "caller": _text(self.who.name, NAME_CHARS),
            "role": self.who.role.value,
            "action": self.action,
            "namespace": _text(self.namespace, NAME_CHARS) if self.namespace else None,
            "about": self.about,
            "target": _text(self.target, TARGET_CHARS),
            "outcome": outcome,
            "detail": _json(self.detail),
        }


class Described(Protocol):
    """What is known of a call that is audited: ``coordinator.api.acts`` has one for each."""

    def asked(self, request: Any) -> Act | None:
        """Return the act that is asked for; None if the call changes nothing (a preview)."""

    def done(self, act: Act, answer: Any) -> None:
        """Add what the answer tells."""


_act: ContextVar[Act | None] = ContextVar("act", default=None)


class Audit:
    """Writes the log. ``run`` is the body of a task that writes what callers did not wait for."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._refused = _PerMinute(clock)
        self._late: deque[dict[str, Any]] = deque()
        self._has_late = asyncio.Event()

    async def note(self, act: Act, outcome: str = OK) -> None:
        """Write what was done. An error is no error of the act: it is logged, with the entry, and counted."""
        entry = act.entry(outcome)
        try:
            await self._write(entry)
        except asyncio.CancelledError:
            self._postpone(entry)  # it may be written or not; the second time does nothing
            raise

    async def refused(self, act: Act, exc: Exception) -> None:
        """Write that somebody was refused, or was not served; unless too many were in this minute."""
        left_out = self._refused.take(act.who.name)
        if left_out is None:
            AUDIT_LEFT_OUT.inc()
            return
        act.detail |= _told(exc) | ({"left_out_before": left_out} if left_out else {})
        await self.note(act, _outcome(exc))

    async def denied(self, call: str, exc: PermissionDenied, act: Act | None = None) -> None:
        """Write that who calls may not make this call, or do this by it, unless that is written already."""
        if not exc.is_noted:
            await self.refused(act or Act("calls.deny", call), exc)

    async def serve(self, how: Described, request: Any, answering: Callable[[], Awaitable[Answer]]) -> Answer:
        """Serve a call, and write what was done, or why it was not."""
        act = how.asked(request)
        if act is None:
            return await answering()
        token = _act.set(act)
        try:
            answer = await answering()
        except asyncio.CancelledError:
            self._interrupted(act)
            raise
        except Exception as exc:  # of any kind: it goes on to whoever answers it
            await self.refused(act, exc)
            if isinstance(exc, PermissionDenied):
                exc.is_noted = True
            raise
        finally:
            _act.reset(token)
        if not act.is_noted:
            how.done(act, answer)
            await self.note(act)
        return answer

    async def run(self) -> None:
        """Write what was postponed, until cancelled."""
        while True:
            await self._has_late.wait()
            self._has_late.clear()
            await self.close()
            await self._clock.sleep(LATE_S)

    async def close(self) -> None:
        """Write what was postponed, at once; when the first cannot be written the others are not tried."""
        while self._late:
            if not await self._write(self._late.popleft()):
                while self._late:
                    _lost(self._late.popleft(), "not tried after another")

    async def _write(self, entry: dict[str, Any]) -> bool:
        try:
            await self._database.fetch("insert_audit", entry)
        except TenureError as exc:
            _lost(entry, exc.message)
            return False
        except Exception as exc:  # a defect must not undo, nor hide, what was done
            _lost(entry, repr(exc))
            return False
        return True

    def _interrupted(self, act: Act) -> None:
        # Bounded like refusals: whoever goes away may have been about to be refused.
        if (left_out := self._refused.take(act.who.name)) is None:
            AUDIT_LEFT_OUT.inc()
            log.warning("audit_left_out", **_loggable(act.entry(INTERRUPTED)))
            return
        act.detail |= {"left_out_before": left_out} if left_out else {}
        self._postpone(act.entry(INTERRUPTED))

    def _postpone(self, entry: dict[str, Any]) -> None:
        if len(self._late) >= MAX_LATE:
            _lost(entry, "too many are waiting")
            return
        self._late.append(entry)
        self._has_late.set()


def noted(query: str, *, after: Mapping[str, Any] | str | None, **params: Any) -> Statement:
    """Return the statement that writes the entry of the act under way, for the transaction that carries the act out.

    It comes first in it: what was there before is read by the statement itself. ``after`` is what is asked for (a
    mapping, or JSON); None: that it be gone.
    """
    act = _act.get()
    if act is None:
        raise RuntimeError(f"{query}: no audited call is being served")
    act.is_noted = True
    asked = after if isinstance(after, str) else _json(after) if after is not None else None
    return Statement(query, {**act.entry(OK), "after": asked, **params})


def tell(**detail: Any) -> None:
    """Add to what the entry of the act under way says."""
    if (act := _act.get()) is not None:
        act.detail |= detail


class _PerMinute:
    """How many refusals of a minute are written: so many for each caller, and for all of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def take(self, name: str) -> int | None:
        """Return how many of this caller were left out before this one, None if this one is, too."""
        now = self._clock.monotonic()
        if now >= self._until:
            self._until = now + REFUSED_PERIOD_S
            self._written.clear()
        if self._written[name] >= REFUSED_PER_CALLER or self._written.total() >= REFUSED_IN_ALL:
            if name in self._left_out or len(self._left_out) < REFUSED_IN_ALL:
                self._left_out[name] += 1
            return None
        self._written[name] += 1
        return self._left_out.pop(name, 0)


def _outcome(exc: Exception) -> str:
    if isinstance(exc, PermissionDenied):
        return DENIED
    return exc.grpc_status if isinstance(exc, TenureError) else "INTERNAL"


def _told(exc: Exception) -> dict[str, Any]:
    """Return what may be said of an error: of malformed input the fields alone, for its texts may quote it."""
    if isinstance(exc, InvalidInput):
        return {"fields": [violation.field[:NAME_CHARS] for violation in exc.violations[:10]]}
    return {"message": exc.message} if isinstance(exc, TenureError) else {}


def _lost(entry: Mapping[str, Any], error: str) -> None:
    AUDIT_LOST.inc()
    log.error("audit_not_written", error=error, **_loggable(entry))


def _loggable(entry: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in entry.items() if value}


def _text(text: str, most: int) -> str:
    text = text.replace("\x00", "\ufffd")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _json(detail: Mapping[str, Any]) -> str:
    bounded = {name: _bounded(value) for name, value in detail.items()}
    text = json.dumps(bounded, ensure_ascii=False)
    return text if len(text) <= DETAIL_CHARS else json.dumps({"too_large": sorted(bounded)[:20]})


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value, TEXT_CHARS)
    if isinstance(value, Mapping):
        return {_text(str(name), NAME_CHARS): _bounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
